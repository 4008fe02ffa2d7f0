//! containerd's configuration.

use std::path::Path;

use super::ClusterDir;
use super::image::PROBE_IMAGE;

pub(super) fn args(dir: &ClusterDir) -> Vec<String> {
    vec![format!("--config={}", dir.text("containerd.toml")), "--log-level=info".to_owned()]
}

/// Returns the configuration file. `cni` is the folder with the CNI plugins, `runc` the program.
pub(super) fn config(dir: &ClusterDir, cni: &Path, runc: &Path) -> String {
    let socket = dir.containerd_socket();
    let (socket, cni, runc) = (socket.display(), cni.display(), runc.display());
    let (root, opt, networks) = (dir.text("containerd"), dir.text("opt"), dir.text("cni"));
    format!(
        r#"version = 4
root = '{root}'
state = '/run/containerd'
imports = []

[plugins.'io.containerd.server.v1.grpc']
  address = '{socket}'
[plugins.'io.containerd.server.v1.ttrpc']
  address = '{socket}.ttrpc'
[plugins.'io.containerd.internal.v1.opt']
  path = '{opt}'

# Tells what enforces NetworkPolicies of a pod's address before its containers start.
[plugins.'io.containerd.nri.v1.nri']
  plugin_path = '{opt}/nri/plugins'
  plugin_config_path = '{opt}/nri/conf.d'

[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  # There is no registry: this one is imported when the cluster comes up.
  sandbox = '{PROBE_IMAGE}'

[plugins.'io.containerd.cri.v1.runtime']
  # A root that lacks CAP_SYS_RESOURCE can't lower it.
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '{runc}'
  SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{cni}']
  conf_dir = '{networks}'
"#
    )
}

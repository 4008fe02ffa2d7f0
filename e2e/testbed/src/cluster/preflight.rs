//! Checks of the machine before anything is changed. Each error names what is missing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{ClusterDir, cgroup, command, network_policies};

/// Time limit on a busy machine; no check waits for anything.
const SOON: Duration = Duration::from_secs(30);
/// Debian's folders for programs that only root needs; they aren't on every `PATH`.
const ADMIN_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];
/// Required system programs, each with its Debian package.
const PROGRAMS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("runc", "runc"),
    ("setsid", "util-linux"),
    ("unshare", "util-linux"),
];

/// A script that runs in temporary namespaces. The last line of its output names the feature that was tried
/// last.
const PROBES: &str = r#"
echo "mounts of its own: mount(2)"; mount -n -t tmpfs none /run
echo "overlayfs (kernel: CONFIG_OVERLAY_FS)"; mkdir -p /run/lower /run/upper /run/work /run/merged
mount -n -t overlay -o lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work none /run/merged
echo "a bridge (kernel: CONFIG_BRIDGE)"; ip link add probe type bridge
echo "virtual Ethernet (kernel: CONFIG_VETH)"; ip link add probe0 type veth peer name probe1
echo "bridged packets in netfilter (kernel: br_netfilter; modprobe br_netfilter)"
test -e /proc/sys/net/bridge/bridge-nf-call-iptables
echo "nftables with NAT (kernel: CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ)"
nft 'add table ip probe; add chain ip probe nat { type nat hook postrouting priority 100; }'
nft 'add rule ip probe nat masquerade'
echo "nftables' numgen, which balances Services (kernel: CONFIG_NFT_NUMGEN)"
nft 'add rule ip probe nat numgen random mod 2 0 accept'
echo "forwarding (/proc/sys is writable)"; echo 1 > /proc/sys/net/ipv4/ip_forward
"#;

/// Returns the `PATH` of everything in the cluster: this process's own and [`ADMIN_FOLDERS`].
pub(crate) fn path_variable() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    ADMIN_FOLDERS.iter().fold(own, |path, folder| format!("{path}:{folder}"))
}

/// Returns the path of a program on [`path_variable`].
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path_variable()).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Checks whether this machine can run a cluster. Leaves nothing behind.
///
/// # Errors
/// The first thing that is missing, and how to get it.
pub async fn check(dir: &ClusterDir) -> anyhow::Result<()> {
    if std::env::consts::OS != "linux" {
        bail!("a cluster needs Linux: its nodes are made of namespaces and cgroups");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("a cluster needs root: it makes namespaces, mounts and cgroups (sudo -E make cluster)");
    }
    let folder = dir.folder().to_str().context("the cache folder's path must be UTF-8")?;
    for hidden in ["/run/", "/var/run/"] {
        if folder.starts_with(hidden) {
            bail!(
                "{folder} is below {hidden}, which the cluster hides behind one of its own: set \
                 XDG_CACHE_HOME"
            );
        }
    }
    if let Some((program, package)) = PROGRAMS.into_iter().find(|(program, _)| find(program).is_none()) {
        bail!("{program} is missing: install {package} (xtask/install-tools system does)");
    }
    cgroup::check()?;
    routes_are_free(dir).await?;
    probe().await?;
    network_policies::check().await
}

/// Tries each kernel feature, because /proc and the kernel's configuration don't tell everything.
async fn probe() -> anyhow::Result<()> {
    let mut unshare = tokio::process::Command::new(find("unshare").context("unshare is missing")?);
    unshare.env("PATH", path_variable());
    unshare.args([
        "--fork",
        "--pid",
        "--mount",
        "--net",
        "--uts",
        "--ipc",
        "--mount-proc",
        "--propagation",
        "private",
    ]);
    unshare.args(["sh", "-ec", PROBES]);
    let output = command::output(unshare, "", SOON).await.context("namespaces can't be tried")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    match String::from_utf8_lossy(&output.stdout).lines().last() {
        Some(tried) => bail!("this machine lacks {tried}\nit said: {said}"),
        None => bail!("namespaces can't be made: a container needs --privileged\nit said: {said}"),
    }
}

/// Refuses a network that the machine uses otherwise.
async fn routes_are_free(dir: &ClusterDir) -> anyhow::Result<()> {
    let ip = find("ip").context("ip is missing")?;
    let network = dir.network();
    // Routes inside the network, and routes that contain it, except the default route.
    for relation in ["root", "match"] {
        let routes = command::run(&ip, &["-4", "route", "show", relation, &network], SOON).await?;
        let taken =
            routes.lines().find(|route| !route.starts_with("default") && !route.contains(&dir.host_link()));
        if let Some(route) = taken {
            bail!(
                "{network} is in use on this machine ({}): choose another with {}=1 (to {})",
                route.trim(),
                super::SLOT_VARIABLE,
                super::Slot::COUNT - 1
            );
        }
    }
    Ok(())
}

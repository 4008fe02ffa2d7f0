//! The command line, which can also be given in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use flutecast_nats::Login;
use flutecast_process::VERSION;
use flutecast_process::log::LogFormat;

use crate::clean_up::CleanUp;
use crate::protection::Protection;
use crate::watch::NamespaceScope;

/// Turns Tenants, Devices and PushFormats into JetStream streams and mapping documents.
#[derive(Debug, Parser)]
// The last of repeated flags counts: the chart's `extraArgs` stand behind the chart's own.
#[command(version = VERSION, args_override_self = true)]
pub struct Config {
    /// The folder of manifests (*.yaml, *.yml, also in folders below it); it is watched.
    #[arg(
        long,
        env = "FLUTECAST_MANIFESTS",
        value_name = "DIR",
        required_unless_present = "kubernetes",
        requires = "mapping_out"
    )]
    manifests: Option<PathBuf>,

    /// The folder that the mapping documents are written to; the data plane reads it.
    #[arg(long, env = "FLUTECAST_MAPPING_OUT", value_name = "DIR", requires = "manifests")]
    mapping_out: Option<PathBuf>,

    /// Works on an API server instead of a folder: the one of the kubeconfig (KUBECONFIG, ~/.kube/config), or
    /// the one that the pod runs on.
    #[arg(long, env = "FLUTECAST_KUBERNETES", conflicts_with_all = ["manifests", "mapping_out"])]
    kubernetes: bool,

    /// The namespaces whose objects count, with commas in between; `all`: all of them.
    #[arg(
        long,
        env = "FLUTECAST_NAMESPACE",
        value_name = "NS",
        value_delimiter = ',',
        default_value = "all"
    )]
    namespace: Vec<String>,

    /// The namespace of the mapping, the access Secret and the Lease; left out: the operator's own.
    #[arg(long, env = "FLUTECAST_MAPPING_NAMESPACE", value_name = "NS")]
    mapping_namespace: Option<String>,

    /// The name of this operator among others (default: host name and process).
    #[arg(long, env = "FLUTECAST_IDENTITY", value_name = "NAME")]
    identity: Option<String>,

    /// Who keeps a Tenant or a PushFormat that Devices use from being deleted.
    #[arg(long, env = "FLUTECAST_PROTECTION", value_enum, default_value_t = Protection::Policy)]
    pub(crate) protection: Protection,

    /// Takes the finalizers of `--protection finalizer` off everything, and ends: for when no operator is
    /// going to run any more.
    #[arg(long, requires = "kubernetes")]
    pub(crate) let_go: bool,

    /// Removes what an installation leaves, when no operator works any more, and ends: for when it is
    /// uninstalled. With commas in between.
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        value_delimiter = ',',
        requires = "kubernetes",
        conflicts_with = "let_go"
    )]
    pub(crate) clean_up: Vec<CleanUp>,

    /// The Service of the data plane, in the namespace of the mapping: a Device is Ready when every ready pod
    /// of it serves the Device; left out: when it is in the mapping.
    #[arg(long, env = "FLUTECAST_SERVICE", value_name = "NAME")]
    service: Option<String>,

    /// The name under which the data plane's pods tell what they serve; left out: the namespace of the
    /// mapping.
    #[arg(long, env = "FLUTECAST_RELEASE", value_name = "NAME")]
    release: Option<String>,

    #[command(flatten)]
    pub(crate) nats: Login,

    /// The Secret with the passwords of the bundled NATS, in the namespace of the mapping, by the names of
    /// its users. The operator makes it if it isn't there, and takes its own password from it; the address of
    /// NATS has only the name: nats://operator@host:4222.
    #[arg(
        long,
        env = "FLUTECAST_NATS_PASSWORDS_SECRET",
        value_name = "NAME",
        requires = "kubernetes",
        conflicts_with = "nats_password_file"
    )]
    nats_passwords_secret: Option<String>,

    /// Where /livez, /readyz and /metrics are served; left out: nowhere.
    #[arg(long, env = "FLUTECAST_ADMIN", value_name = "HOST:PORT")]
    pub(crate) admin: Option<SocketAddr>,

    /// How the log (standard error) and the verdicts (standard output) are written.
    #[arg(long, env = "FLUTECAST_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// The backend and its parameters.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    Folder {
        manifests: PathBuf,
        mapping_out: PathBuf,
    },
    Kubernetes {
        scopes: Vec<NamespaceScope>,
        /// `None` for the namespace of the operator.
        mapping_namespace: Option<String>,
        identity: String,
        service: Option<String>,
        /// `None` if it is named as the namespace of the mapping.
        release: Option<String>,
        /// The Secret with the passwords of the bundled NATS.
        passwords_secret: Option<String>,
    },
}

impl Config {
    /// Returns the mode. The parser rules out arguments that are ambiguous.
    pub(crate) fn mode(&self) -> anyhow::Result<Mode> {
        if self.kubernetes {
            let all = self.namespace.iter().any(|namespace| namespace == ALL);
            let named = self.namespace.iter().filter(|namespace| !namespace.is_empty());
            let identity = match &self.identity {
                Some(identity) => identity.clone(),
                None => format!("{}-{}", host_name(), std::process::id()),
            };
            let scopes = if all { vec![None] } else { named.cloned().map(Some).collect::<Vec<_>>() };
            anyhow::ensure!(!scopes.is_empty(), "--namespace names none; leave it out for all");
            return Ok(Mode::Kubernetes {
                scopes,
                mapping_namespace: self.mapping_namespace.clone(),
                identity,
                service: self.service.clone().filter(|name| !name.is_empty()),
                release: self.release.clone().filter(|name| !name.is_empty()),
                passwords_secret: self.nats_passwords_secret.clone().filter(|name| !name.is_empty()),
            });
        }
        match (&self.manifests, &self.mapping_out) {
            (Some(manifests), Some(mapping_out)) => {
                Ok(Mode::Folder { manifests: manifests.clone(), mapping_out: mapping_out.clone() })
            }
            _ => anyhow::bail!("--manifests and --mapping-out, or --kubernetes"),
        }
    }
}

/// The value for all namespaces.
const ALL: &str = "all";

/// Returns the name of this machine, or of the pod.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "operator".to_owned() } else { name.to_owned() }
}

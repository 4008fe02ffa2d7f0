//! The command line, which can also be given in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use flutecast_nats::Login;
use flutecast_process::VERSION;
use flutecast_process::log::LogFormat;

use crate::clean_up::Remains;
use crate::protection;
use crate::watch::NamespaceScope;

/// Turns Tenants, Devices and PushFormats into JetStream streams and mapping documents.
#[derive(Debug, Parser)]
// What is said twice counts as it is said last: the chart's `extraArgs` stand behind the chart's own.
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

    /// By what this operator is told from others that run; left out: host name and process.
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

    /// Where /livez, /readyz and /metrics are served; left out: nowhere.
    #[arg(long, env = "FLUTECAST_ADMIN", value_name = "HOST:PORT")]
    pub(crate) admin: Option<SocketAddr>,

    /// How the log (standard error) and the verdicts (standard output) are written.
    #[arg(long, env = "FLUTECAST_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Where the objects come from, and where the mapping goes.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// From a folder to a folder.
    Folder {
        /// With the manifests.
        manifests: PathBuf,
        /// For the mapping.
        mapping_out: PathBuf,
    },
    /// From an API server to the same.
    Kubernetes {
        /// The namespaces that count.
        places: Vec<NamespaceScope>,
        /// Where the mapping goes; none: where the operator is.
        mapping_namespace: Option<String>,
        /// By what this operator is told from others.
        identity: String,
        /// The data plane's Service.
        service: Option<String>,
        /// Under which name its pods tell what they serve; none: the mapping's namespace.
        release: Option<String>,
    },
}

impl Config {
    /// What is asked for.
    ///
    /// # Errors
    /// When it isn't clear; the parser has seen to that.
    pub(crate) fn mode(&self) -> anyhow::Result<Mode> {
        if self.kubernetes {
            let all = self.namespace.iter().any(|namespace| namespace == ALL);
            let named = self.namespace.iter().filter(|namespace| !namespace.is_empty());
            let identity = match &self.identity {
                Some(identity) => identity.clone(),
                None => format!("{}-{}", host_name(), std::process::id()),
            };
            let places = if all { vec![None] } else { named.cloned().map(Some).collect::<Vec<_>>() };
            anyhow::ensure!(!places.is_empty(), "--namespace names none; leave it out for all");
            return Ok(Mode::Kubernetes {
                places,
                mapping_namespace: self.mapping_namespace.clone(),
                identity,
                service: self.service.clone().filter(|name| !name.is_empty()),
                release: self.release.clone().filter(|name| !name.is_empty()),
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

/// All namespaces.
const ALL: &str = "all";

/// The name of this machine, or of the pod.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "operator".to_owned() } else { name.to_owned() }
}

/// Who keeps what is used from being deleted; docs/decisions/113-in-use.md says what follows from each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protection {
    /// The API server, by an admission policy: deleting is refused, and nothing ever hangs.
    Policy,
    /// The operator, by a finalizer: deleting waits for the last user, and for an operator.
    Finalizer,
}

impl From<Protection> for protection::Protection {
    fn from(protection: Protection) -> Self {
        match protection {
            Protection::Policy => Self::Policy,
            Protection::Finalizer => Self::Finalizer,
        }
    }
}

/// What is removed of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CleanUp {
    /// What `--protection finalizer` holds objects with.
    Finalizers,
    /// All its streams in NATS, with their messages.
    Streams,
    /// What operators wrote: the ConfigMaps of the mapping, the access Secret, the Lease.
    Mapping,
}

impl From<CleanUp> for Remains {
    fn from(what: CleanUp) -> Self {
        match what {
            CleanUp::Finalizers => Self::Finalizers,
            CleanUp::Streams => Self::Streams,
            CleanUp::Mapping => Self::Mapping,
        }
    }
}

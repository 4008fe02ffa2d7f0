//! The configuration, from the command line and the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use flutecast_nats::Login;
use flutecast_process::VERSION;
use flutecast_process::log::LogFormat;

use crate::duration::parse as parse_duration;
use crate::http::PathPrefix;

/// Consumes device messages from NATS and pushes them to subscribed clients over Server-Sent Events.
#[derive(Debug, Clone, Parser)]
// The last value of a repeated flag counts: the chart's `extraArgs` follow the chart's own.
#[command(name = "flutecast-dataplane", version = VERSION, about, args_override_self = true)]
pub struct Config {
    /// The folder that holds the mapping documents.
    #[arg(
        long,
        value_name = "DIR",
        env = "FLUTECAST_MAPPING",
        required_unless_present = "kubernetes",
        conflicts_with = "kubernetes"
    )]
    pub mapping: Option<PathBuf>,

    /// Read the mapping from the Kubernetes API, as the kubeconfig or the pod's service account says.
    #[arg(long)]
    pub kubernetes: bool,

    /// The namespace of the mapping; default: that of the kubeconfig or of the pod.
    #[arg(long, value_name = "NAME", env = "FLUTECAST_NAMESPACE", conflicts_with = "mapping")]
    pub namespace: Option<String>,

    /// The Service of the data plane, whose EndpointSlices list the other pods.
    #[arg(long, value_name = "NAME", env = "FLUTECAST_SERVICE", conflicts_with = "mapping")]
    pub service: Option<String>,

    /// The release under which this pod announces what it serves; default: the namespace, or `local`.
    #[arg(long, value_name = "NAME", env = "FLUTECAST_RELEASE")]
    pub release: Option<String>,

    // How NATS is reached.
    #[command(flatten)]
    pub nats: Login,

    /// The address for clients: event streams, devices and the dashboard.
    #[arg(long, value_name = "HOST:PORT", env = "FLUTECAST_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The address for liveness, readiness and metrics; not for browsers.
    #[arg(long, value_name = "HOST:PORT", env = "FLUTECAST_ADMIN", default_value = "127.0.0.1:8081")]
    pub admin: SocketAddr,

    /// The address for a look at a device's last messages. Only loopback: it shows parts of payloads.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "FLUTECAST_INSPECT_ADDRESS",
        default_value = "127.0.0.1:8082",
        value_parser = loopback
    )]
    pub inspect_address: SocketAddr,

    /// The name of this process in `hello` and to NATS; default: the host's name.
    #[arg(long, value_name = "NAME", env = "FLUTECAST_SERVER_NAME")]
    pub server_name: Option<String>,

    /// Whether `/` serves the dashboard.
    #[arg(
        long,
        env = "FLUTECAST_DASHBOARD",
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub dashboard: bool,

    /// A path under which a gateway leads here, such as `/plant-1`; may be given several times. What is
    /// served at `/` is served below it too.
    #[arg(long, value_name = "PATH", env = "FLUTECAST_PATH_PREFIX", value_delimiter = ',')]
    pub path_prefix: Vec<PathPrefix>,

    /// The most clients served at the same time; others are told to come back.
    #[arg(long, value_name = "NUMBER", env = "FLUTECAST_MAX_CLIENTS", default_value_t = 20_000)]
    pub max_clients: usize,

    /// A `ping` is sent after this time without another event.
    #[arg(
        long,
        value_name = "TIME",
        env = "FLUTECAST_PING",
        default_value = "15s",
        value_parser = parse_duration
    )]
    pub ping: Duration,

    /// A client that reads nothing for this long is closed.
    #[arg(
        long,
        value_name = "TIME",
        env = "FLUTECAST_TAKE_TIMEOUT",
        default_value = "30s",
        value_parser = parse_duration
    )]
    pub take_timeout: Duration,

    /// On SIGTERM: how long clients are served as before, until proxies have learnt that this pod is not
    /// ready; default: 5s with --kubernetes, else 0s.
    #[arg(long, value_name = "TIME", env = "FLUTECAST_DRAIN_DELAY", value_parser = duration_or_zero)]
    pub drain_delay: Option<Duration>,

    /// On SIGTERM, after the delay: over what time clients are sent to other pods; default: 10s with
    /// --kubernetes, else 0s (all at once; they come back within 5 s).
    #[arg(long, value_name = "TIME", env = "FLUTECAST_DRAIN_WINDOW", value_parser = duration_or_zero)]
    pub drain_window: Option<Duration>,

    /// The pod's terminationGracePeriodSeconds: all clients are gone within 80 % of it.
    #[arg(
        long,
        value_name = "TIME",
        env = "FLUTECAST_TERMINATION_GRACE",
        default_value = "30s",
        value_parser = parse_duration
    )]
    pub termination_grace: Duration,

    /// Whether clients are moved to pods that have fewer; needs --service.
    #[arg(long, env = "FLUTECAST_REBALANCE", default_value = "on")]
    pub rebalance: OnOff,

    /// The part of its clients that a pod with a surplus sends away in a second, at least one client.
    #[arg(
        long,
        value_name = "PERCENT",
        env = "FLUTECAST_REBALANCE_RATE",
        default_value = "2%",
        value_parser = percent
    )]
    pub rebalance_rate: f64,

    /// How long a client that was moved stays at least.
    #[arg(
        long,
        value_name = "TIME",
        env = "FLUTECAST_REBALANCE_REST",
        default_value = "2m",
        value_parser = parse_duration
    )]
    pub rebalance_rest: Duration,

    /// The format of log lines.
    #[arg(long, value_name = "FORMAT", env = "FLUTECAST_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// The filter of log lines, in the syntax of `RUST_LOG`.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    On,
    Off,
}

fn duration_or_zero(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s" | "0ms") {
        return Ok(Duration::ZERO);
    }
    parse_duration(text)
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write an address and a port".to_owned())?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err("only loopback is served, as payloads are shown; write 127.0.0.1:8082 or [::1]:8082".to_owned())
}

/// Parses a percentage such as `2%` as a fraction.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let number = number.filter(|number| *number > 0.0 && *number <= 100.0);
    number.map(|number| number / 100.0).ok_or_else(|| "write a part of 100 such as 2% or 0.5%".to_owned())
}

impl Config {
    pub fn server_name(&self) -> String {
        let host =
            || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
        let given = self.server_name.clone().or_else(|| std::env::var("HOSTNAME").ok()).or_else(host);
        given.filter(|name| !name.is_empty()).unwrap_or_else(|| "flutecast-dataplane".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from(["flutecast-dataplane", "--mapping", "m"].iter().chain(arguments))
    }

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }

    #[test]
    fn mapping_has_exactly_one_source() {
        let parse = |arguments: &[&str]| {
            Config::try_parse_from(["flutecast-dataplane"].iter().chain(arguments))
                .map_err(|error| error.to_string())
        };
        let config = parse(&["--kubernetes", "--namespace", "plant", "--service", "dp"]).unwrap();
        assert_eq!((config.mapping, config.kubernetes), (None, true));
        assert!(parse(&[]).unwrap_err().contains("--mapping"));
        assert!(parse(&["--mapping", "m", "--kubernetes"]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&["--mapping", "m", "--service", "dp"]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&["--service", "dp"]).unwrap_err().contains("--mapping"));
    }

    #[test]
    fn last_value_of_a_flag_counts() {
        let config = parse(&["--dashboard=true", "--ping=15s", "--ping=5s", "--dashboard=false"]).unwrap();
        assert_eq!((config.ping, config.dashboard), (Duration::from_secs(5), false));
    }

    #[test]
    fn path_prefixes_add_up() {
        let config = parse(&["--path-prefix=/a", "--path-prefix=/b/", "--path-prefix=/c,/d"]).unwrap();
        let expected: Vec<PathPrefix> = ["/a", "/b", "/c", "/d"].map(|path| path.parse().unwrap()).into();
        assert_eq!(config.path_prefix, expected);
        assert!(parse(&["--path-prefix=/"]).unwrap_err().to_string().contains("such as /plant-1"));
    }

    #[test]
    fn arguments_are_parsed() {
        let config =
            parse(&["--dashboard=false", "--ping", "500ms", "--drain-delay", "0s", "--log-format", "json"])
                .unwrap();
        assert!(!config.dashboard);
        assert_eq!((config.ping, config.drain_delay), (Duration::from_millis(500), Some(Duration::ZERO)));
        assert_eq!(config.log_format, LogFormat::Json);
        assert!(parse(&[]).unwrap().dashboard);
        assert!(parse(&["--dashboard"]).unwrap().dashboard);
        assert!(parse(&["--ping", "0s"]).is_err(), "a ping without a pause would never end");
        assert_eq!(config.rebalance_rate, 0.02);
        let config = parse(&["--rebalance", "off", "--rebalance-rate", "0.5%"]).unwrap();
        assert_eq!((config.rebalance, config.rebalance_rate), (OnOff::Off, 0.005));
        for wrong in ["2", "0%", "101%", "NaN%", "%"] {
            assert!(parse(&["--rebalance-rate", wrong]).is_err(), "{wrong}");
        }
        assert_eq!(parse(&[]).unwrap().inspect_address.to_string(), "127.0.0.1:8082");
        for own in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8082"] {
            assert!(parse(&["--inspect-address", own]).is_ok(), "{own}");
        }
        for wrong in ["0.0.0.0:8082", "[::]:8082", "10.0.0.1:8082", "[::ffff:127.0.0.1]:1", "localhost", ""] {
            assert!(parse(&["--inspect-address", wrong]).is_err(), "{wrong}");
        }
        let refused = parse(&["--inspect-address", "0.0.0.0:8082"]).unwrap_err().to_string();
        assert!(refused.contains("only loopback"), "{refused}");
        assert!(parse(&["--ping", "soon"]).unwrap_err().to_string().contains("write 500ms, 2s or 1m"));
    }
}

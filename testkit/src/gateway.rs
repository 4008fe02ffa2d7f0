//! Runs gateways with the shipped example configurations, and a stand-in for kube-proxy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::{Process, ProcessOptions, free_ports, in_repository, wait_until};

/// The time limit of a start, sized for a busy machine.
const START: Duration = Duration::from_secs(20);

/// A running nginx or HAProxy. Dropping it kills the process.
#[derive(Debug)]
pub struct Gateway {
    pub process: Process,
    /// Base URL for HTTP/1.1, `http://127.0.0.1:<port>`.
    pub url: String,
    /// Address for HTTP/2 without TLS.
    pub http2: SocketAddr,
    /// Base URL for TLS with a self-signed certificate, `https://127.0.0.1:<port>`.
    pub tls_url: String,
    folder: tempfile::TempDir,
}

/// A data-plane process as a gateway addresses it.
#[derive(Debug, Clone, Copy)]
pub struct GatewayPod {
    /// Address for client connections.
    pub clients: SocketAddr,
    /// Address of the admin port, which serves `/readyz`.
    pub admin: SocketAddr,
}

impl Gateway {
    /// Starts nginx with `manifests/gateways/nginx.conf` in front of a Service. Addresses, ports and file
    /// paths in the configuration are replaced. Each pair in `edits` replaces further text, which the file
    /// must contain.
    ///
    /// # Errors
    /// Returns an error if nginx is not installed, rejects its configuration or does not listen in time, or
    /// if the configuration lacks the text of an edit.
    pub async fn nginx(service: SocketAddr, edits: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("flutecast-nginx-").tempdir()?;
        let [port, http2, tls] = free_ports()?;
        let (certificate, key) = certificate(folder.path())?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("\n    {kind}_temp_path {};", at(kind)))
            .concat();
        let mut edits = edits.to_vec();
        let own = [
            ("http {", format!("http {{{temporary}")),
            ("flutecast.flutecast.svc.cluster.local:80", service.to_string()),
            ("listen 8080;", format!("listen 127.0.0.1:{port};\n        listen 127.0.0.1:{http2} http2;")),
            ("listen 8443 ssl http2;", format!("listen 127.0.0.1:{tls} ssl http2;")),
            ("/etc/nginx/tls/tls.crt", certificate.display().to_string()),
            ("/etc/nginx/tls/tls.key", key.display().to_string()),
            ("access_log /dev/stdout", format!("access_log {}", at("access.log"))),
            ("error_log stderr", format!("error_log {}", at("error.log"))),
        ];
        edits.extend(own.iter().map(|(from, to)| (*from, to.as_str())));
        let file = write_config("nginx.conf", folder.path(), &edits)?;
        let globals = format!("daemon off; pid {};", at("nginx.pid"));
        let arguments = [
            "-p".to_owned(),
            folder.path().display().to_string(),
            "-c".to_owned(),
            file,
            "-g".to_owned(),
            globals,
        ];
        Self::start("nginx", &arguments, [port, http2, tls], folder).await
    }

    /// Starts HAProxy with `manifests/gateways/haproxy.cfg` in front of `pods`, and applies `edits` as
    /// [`Self::nginx`] does. HAProxy's health checks exclude pods that are not running.
    ///
    /// # Errors
    /// Returns the same errors as [`Self::nginx`].
    pub async fn haproxy(pods: &[GatewayPod], edits: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("flutecast-haproxy-").tempdir()?;
        let [port, http2, tls] = free_ports()?;
        let (certificate, key) = certificate(folder.path())?;
        let pem = folder.path().join("tls.pem");
        std::fs::write(
            &pem,
            format!("{}{}", std::fs::read_to_string(certificate)?, std::fs::read_to_string(key)?),
        )?;
        let servers: String = (0..)
            .zip(pods)
            .map(|(n, GatewayPod { clients, admin })| {
                format!("server pod{n} {clients} check port {}\n    ", admin.port())
            })
            .collect();
        let mut edits = edits.to_vec();
        let own = [
            ("bind :8080", format!("bind 127.0.0.1:{port}\n    bind 127.0.0.1:{http2} proto h2")),
            // A test machine may have a lower limit of open files.
            ("maxconn 40000", "maxconn 4000".to_owned()),
            ("bind :8443", format!("bind 127.0.0.1:{tls}")),
            ("/etc/haproxy/tls.pem", pem.display().to_string()),
            (
                "server-template pod 10 _http._tcp.flutecast-pods.flutecast.svc.cluster.local resolvers \
                 kubernetes init-addr none",
                servers,
            ),
        ];
        edits.extend(own.iter().map(|(from, to)| (*from, to.as_str())));
        let file = write_config("haproxy.cfg", folder.path(), &edits)?;
        Self::start("haproxy", &["-db".to_owned(), "-f".to_owned(), file], [port, http2, tls], folder).await
    }

    async fn start(
        program: &str,
        arguments: &[String],
        [port, http2, tls]: [u16; 3],
        folder: tempfile::TempDir,
    ) -> anyhow::Result<Self> {
        // Debian installs both programs in a folder that is only on root's PATH.
        let path = Path::new("/usr/sbin").join(program);
        let path = if path.is_file() { path } else { PathBuf::from(program) };
        // The process gets its own group, so that its workers are killed with it.
        let options = ProcessOptions { own_group: true, ..ProcessOptions::default() };
        let process = Process::spawn_with(path, arguments, options)
            .with_context(|| format!("install {program}, or run make tools"))?;
        let mut gateway = Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            http2: SocketAddr::from(([127, 0, 0, 1], http2)),
            tls_url: format!("https://127.0.0.1:{tls}"),
            folder,
        };
        wait_until(program, START, async || {
            if let Ok(Some(status)) = gateway.process.exit_status() {
                return Err(format!(
                    "it ended with {status}:\n{}\n{}",
                    gateway.process.tail(),
                    gateway.log()
                ));
            }
            TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        Ok(gateway)
    }

    /// Returns the process output, the access log and the error log.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        format!("{}\n{}{}", self.process.output().join("\n"), read("access.log"), read("error.log"))
    }
}

/// Writes a shipped example with `edits` applied, and returns the path of the file.
fn write_config(name: &str, folder: &Path, edits: &[(&str, &str)]) -> anyhow::Result<String> {
    let source = in_repository("manifests/gateways").join(name);
    let mut text = std::fs::read_to_string(&source).with_context(|| source.display().to_string())?;
    for (from, to) in edits {
        ensure!(text.contains(from), "{name} does not contain {from:?}");
        text = text.replace(from, to);
    }
    let file = folder.join(name);
    std::fs::write(&file, text)?;
    Ok(file.display().to_string())
}

/// Writes a self-signed certificate and its key, and returns their paths.
fn certificate(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&certificate, cert.pem())?;
    std::fs::write(&key, signing_key.serialize_pem())?;
    Ok((certificate, key))
}

/// A TCP proxy in place of kube-proxy: each new connection goes to a random ready pod, and open connections
/// stay with their pod. Dropping it stops the proxy and closes all connections.
#[derive(Debug)]
pub struct ServiceProxy {
    pub address: SocketAddr,
    ready: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl ServiceProxy {
    /// Listens on 127.0.0.1, with no ready pods at first.
    ///
    /// # Errors
    /// Returns an error if no address can be bound.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let ready = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let task = tokio::spawn(serve(listener, Arc::clone(&ready)));
        Ok(Self { address, ready, task })
    }

    /// Sets the pods that receive new connections.
    pub fn set_ready(&self, pods: Vec<SocketAddr>) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = pods;
    }
}

impl Drop for ServiceProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, ready: Arc<Mutex<Vec<SocketAddr>>>) {
    // Dropping the set when this task ends closes every connection.
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let pods = ready.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Without a ready pod the connection is closed at once; a cluster would refuse it.
        let Some(&pod) = (!pods.is_empty()).then(|| &pods[rand::random_range(0..pods.len())]) else {
            continue;
        };
        connections.spawn(async move {
            let Ok(mut pod) = TcpStream::connect(pod).await else { return };
            // When one side fails, both sockets are dropped and so closed.
            let _ = (client.set_nodelay(true), pod.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut pod).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

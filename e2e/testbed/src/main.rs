//! Brings up a real Kubernetes cluster on this machine, and takes it down without leaving traces.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flutecast_testbed::cluster::{self, Cluster, ClusterDir, Component, Node, Request, Slot};
use flutecast_testbed::gitops::{Argocd, Flux};
use flutecast_testbed::release;

/// A real Kubernetes cluster for tests, on this machine, without containers around it.
///
/// FLUTECAST_CLUSTER_SLOT=1 (to 15) selects another cluster, so that several can be up.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks whether this machine can run a cluster, and names what is missing
    Check,
    /// Brings the cluster up, builds its programs first, and prints KUBECONFIG
    Up {
        /// Runs Argo CD on it too (application controller, repo server, ApplicationSet controller, redis)
        #[arg(long)]
        argocd: bool,
        /// Runs Flux on it too (source-controller, kustomize-controller, helm-controller)
        #[arg(long)]
        flux: bool,
    },
    /// Installs a release of the chart on the cluster, with the images of `make images`
    Factory,
    /// Ends the cluster and removes everything that belonged to it
    Down,
    /// Shows the cluster's components
    Status,
    /// Starts a component that was stopped or killed
    Start { component: Component },
    /// Stops a component gracefully; it stays down
    Stop { component: Component },
    /// Kills a component; it stays down
    Kill { component: Component },
    /// Runs a program in the node's namespaces
    Exec { program: String, args: Vec<String> },
    /// Runs as the node's first process; internal
    #[command(hide = true)]
    Supervise { folder: PathBuf },
}

fn main() -> ExitCode {
    match try_main(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The message is for users, so it has no backtrace.
            let _ = writeln!(std::io::stderr(), "flutecast-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main(Options { command }: Options) -> anyhow::Result<()> {
    if let Command::Supervise { folder } = command {
        return cluster::supervise(&folder);
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(command))
}

async fn run(command: Command) -> anyhow::Result<()> {
    let dir = ClusterDir::of(Slot::from_environment()?)?;
    let mut out = std::io::stdout();
    let node = || {
        Node::running(&dir)
            .ok_or_else(|| anyhow::anyhow!("no cluster is up: flutecast-cluster up (or make cluster)"))
    };
    match command {
        Command::Check => cluster::check(&dir).await?,
        Command::Up { argocd, flux } => {
            cluster::bring_up(&dir, &mut std::io::stderr()).await?;
            if argocd {
                Argocd::start(&Cluster::shared().await?).await?.keep();
            }
            if flux {
                Flux::start(&Cluster::shared().await?).await?.keep();
            }
            writeln!(out, "export KUBECONFIG={}", dir.kubeconfig().display())?;
        }
        Command::Factory => {
            let cluster = Cluster::shared().await?;
            release::install_factory(&cluster, &mut out).await?;
        }
        Command::Down => {
            let said =
                if cluster::take_down(&dir).await? { "the cluster is gone" } else { "no cluster was up" };
            writeln!(out, "{said}")?;
        }
        Command::Status => {
            for status in node()?.ask(Request::Status)? {
                let pid = status.pid.map_or_else(|| "down".to_owned(), |pid| format!("pid {pid}"));
                let end = status.last_end.map_or_else(String::new, |end| format!(", ended last by {end}"));
                writeln!(out, "{:24} {pid}, {} restarts{end}", status.component, status.restarts)?;
            }
            writeln!(out, "export KUBECONFIG={}", dir.kubeconfig().display())?;
        }
        Command::Start { component } => drop(node()?.ask(Request::Start(component))?),
        Command::Stop { component } => drop(node()?.ask(Request::Stop(component))?),
        Command::Kill { component } => drop(node()?.ask(Request::Kill(component))?),
        Command::Exec { program, args } => {
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            write!(out, "{}", node()?.exec(&program, &args).await?)?;
        }
        Command::Supervise { .. } => {}
    }
    Ok(())
}

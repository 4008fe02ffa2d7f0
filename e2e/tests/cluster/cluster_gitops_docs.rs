//! docs/gitops.md: its commands, as they stand there, on a cluster with Argo CD and then on one with Flux.

use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::gitops::{Argocd, Flux, GitRepository};
use flutecast_testbed::release::Images;
use flutecast_testkit::{copy_folder, in_repository};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::gitops::make_bare;

const PAGE: &str = include_str!("../../../docs/gitops.md");
/// A block behind this line is only for Flux.
const FLUX: &str = "<!-- Flux -->\n";
/// The factories that come and go by Argo CD, the last three by one ApplicationSet.
const FACTORIES: [&str; 4] = ["plant-1", "plant-a", "plant-b", "plant-c"];
/// The name of the repository.
const NAME: &str = "plant";
/// Time limit for all commands of one of the two ways.
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// Returns the commands of the page, in their order: those for both ways, and of the others those for one.
fn commands(flux: bool) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut rest = PAGE;
    while let Some((before, block)) = rest.split_once("```sh\n") {
        let (commands, after) = block.split_once("```").unwrap();
        let other = if flux { commands.contains("argocd") } else { before.ends_with(FLUX) };
        if !other {
            found.push(commands);
        }
        rest = after;
    }
    found
}

/// Runs commands one after the other in one shell, which ends with the first that fails.
async fn run(cluster: &Cluster, git: &GitRepository, commands: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["charts", "manifests"] {
        copy_folder(&in_repository(name), &folder.path().join(name)).unwrap();
    }
    let programs = cluster.program().parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-e", "-u", "-x", "-o", "pipefail", "-c", &commands.join("\n")]).current_dir(folder.path());
    shell.env("PATH", path).env("KUBECONFIG", cluster.kubeconfig()).env("REPO", git.url());
    for role in ["AUTHOR", "COMMITTER"] {
        shell
            .env(format!("GIT_{role}_NAME"), "Flutecast")
            .env(format!("GIT_{role}_EMAIL"), "tests@flutecast.io");
    }
    // The tests' git server is for reading; what is pushed goes to its folder.
    shell.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_COUNT", "1");
    let bare = cluster.dir().unwrap().path(&format!("git/{NAME}.git"));
    shell.env("GIT_CONFIG_KEY_0", format!("url.{}.pushInsteadOf", bare.display()));
    shell.env("GIT_CONFIG_VALUE_0", git.url()).kill_on_drop(true);
    let begin = Instant::now();
    let output = timeout(TEN_MINUTES, shell.output()).await.unwrap().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    eprintln!("{said}the commands took {:.1?}", begin.elapsed());
}

#[tokio::test]
async fn the_pages_commands_lead_to_a_factory_by_argo_cd() {
    let cluster = Cluster::shared().await.unwrap();
    make_bare(&cluster).await;
    Images::of_workspace().unwrap().load_as_shipped(&cluster).await.unwrap();
    let _argocd = Argocd::start(&cluster).await.unwrap();
    let git = GitRepository::serve(&cluster, NAME).await.unwrap();
    run(&cluster, &git, &commands(false)).await;
    for factory in FACTORIES {
        let left = cluster.kubectl(&["-n", factory, "get", "pods,ft,fd,fpf", "-o", "name"]).await.unwrap();
        assert!(left.is_empty(), "{left}");
        // What the values keep.
        for kept in ["persistentvolumeclaim/data-flutecast-nats-0", "secret/flutecast-nats-passwords"] {
            cluster.kubectl(&["-n", factory, "get", kept]).await.unwrap();
        }
    }
    make_bare(&cluster).await;
}

#[tokio::test]
async fn the_pages_commands_lead_to_a_factory_by_flux() {
    let cluster = Cluster::shared().await.unwrap();
    make_bare(&cluster).await;
    Images::of_workspace().unwrap().load_as_shipped(&cluster).await.unwrap();
    let _flux = Flux::start(&cluster).await.unwrap();
    let git = GitRepository::serve(&cluster, NAME).await.unwrap();
    run(&cluster, &git, &commands(true)).await;
    let delete = ["delete", "kustomization", "plant-1", "--namespace", "flux-system", "--timeout=120s"];
    cluster.kubectl_with(&delete, "", TEN_MINUTES).await.unwrap();
    make_bare(&cluster).await;
}

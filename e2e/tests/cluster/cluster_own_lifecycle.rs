//! A second cluster beside the shared one is brought up, and leaves nothing behind when it is taken down.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use flutecast_testbed::cluster::{ClusterDir, Node, Request, SLOT_VARIABLE, Slot, bring_up, take_down};
use flutecast_testkit::program;

/// The last slot, which people hardly choose for their own clusters.
const SLOT: u8 = Slot::COUNT - 1;

/// Kernel settings that the kubelet changes or that a cluster needs to be changed.
const SYSCTLS: [&str; 3] = ["vm.overcommit_memory", "kernel.panic", "fs.inotify.max_user_instances"];
/// Default folders of Kubernetes and containerd, which the testbed has to redirect.
const FOLDERS: [&str; 8] = [
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
    "/usr/libexec/kubernetes",
    "/opt/containerd",
    "/run/netns",
    "/run/containerd",
];

/// Returns one line for each resource of this machine that a cluster may create. Those of other clusters are
/// left out, because they may change while the test runs.
fn traces() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut add = |what: &str, text: String| {
        for line in text.lines().map(str::trim) {
            if !other_clusters(line) {
                lines.insert(format!("{what}: {line}"));
            }
        }
    };
    add("mount", std::fs::read_to_string("/proc/self/mounts").unwrap());
    add("nftables", output("nft", &["list", "ruleset"]));
    add("route", output("ip", &["route"]));
    add("link", output("ls", &["/sys/class/net"]));
    add("namespace", output("ip", &["netns"]));
    add("cgroup", output("find", &["/sys/fs/cgroup", "-name", "flutecast*"]));
    add("sysctl", output("sysctl", &SYSCTLS));
    let processes = output("ps", &["-e", "-o", "args"]);
    for line in processes.lines().filter(|line| line.contains("clusters/")) {
        add("process", line.to_owned());
    }
    for folder in FOLDERS {
        add("folder", format!("{folder} {}", Path::new(folder).exists()));
    }
    lines
}

fn other_clusters(line: &str) -> bool {
    (0..SLOT).any(|slot| {
        let names = [
            format!("flutecast{slot}"),
            format!("cluster-{slot}"),
            format!("clusters/{slot}"),
            format!("10.{}", 180 + slot),
        ];
        // Slot 1 must not match the 1 of slot 15.
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_digit());
        names
            .iter()
            .any(|name| line.match_indices(name.as_str()).any(|(at, _)| ends(&line[at + name.len()..])))
    })
}

fn output(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Takes the cluster down when dropped, so that it also goes when the test panics.
struct TakeDownOnDrop;

impl Drop for TakeDownOnDrop {
    fn drop(&mut self) {
        let mut down = Command::new(program("flutecast-cluster").unwrap());
        let status = down.arg("down").env(SLOT_VARIABLE, SLOT.to_string()).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn cluster_leaves_nothing_behind_when_taken_down() {
    let place = ClusterDir::of(Slot::new(SLOT).unwrap()).unwrap();
    take_down(&place).await.unwrap();
    let before = traces();
    let _take_down = TakeDownOnDrop;

    bring_up(&place, &mut std::io::stderr()).await.unwrap();
    let node = Node::running(&place).unwrap();
    let grown = traces();
    for what in ["link: flutecast15", "route: 10.195.0.0/16", "process: ", "cgroup: "] {
        let new = grown.difference(&before).any(|line| line.starts_with(what));
        assert!(
            new,
            "{what} is missing in the new lines: {:#?}",
            grown.difference(&before).collect::<Vec<_>>()
        );
    }
    // Bringing up a running cluster changes nothing.
    let first = node.ask(Request::Status).unwrap();
    bring_up(&place, &mut std::io::stderr()).await.unwrap();
    assert_eq!(Node::running(&place).unwrap().ask(Request::Status).unwrap(), first);

    // The end of the node's first process ends all its processes; files and cgroups are removed afterwards.
    assert!(take_down(&place).await.unwrap());
    let after = traces();
    assert_eq!(after, before, "left behind: {:#?}", after.difference(&before).collect::<Vec<_>>());
    assert!(!place.folder().exists());
    assert!(!take_down(&place).await.unwrap(), "there was a cluster to take down the second time");
}

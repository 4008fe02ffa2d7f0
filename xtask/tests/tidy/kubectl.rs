//! Commands that users are given name our kinds so that no other operator's kind can be meant.
//!
//! Capsule and MinIO have kinds `tenants` too, KubeEdge has `devices`, and kubectl takes one of them without
//! asking.

use crate::source::{PRODUCT, root, text, tracked_files};

/// Names of our kinds that other groups may have.
const AMBIGUOUS: [&str; 6] = ["tenant", "tenants", "device", "devices", "pushformat", "pushformats"];

/// Commands whose arguments name kinds.
const VERBS: [&str; 11] =
    ["annotate", "can-i", "create", "delete", "describe", "edit", "explain", "get", "label", "patch", "wait"];

/// Returns whether users read the commands in a file.
fn is_for_users(file: &str) -> bool {
    let source = PRODUCT.iter().any(|folder| file.starts_with(folder)) && file.ends_with(".rs");
    let charts = file.starts_with("charts/") && file.contains("/templates/");
    file.ends_with(".md") || charts || source || file.starts_with("manifests/")
}

/// Returns the commands in a text that name a kind without its group.
fn ambiguous(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Lines that go on in the next one, of a shell and of Rust's strings.
    let text = text.replace("\\\n", " ");
    for line in text.lines() {
        for command in line.split("kubectl ").skip(1) {
            let end = command.find(['`', '|', ';', '#']).unwrap_or(command.len());
            let mut words = command[..end].split_whitespace().skip_while(|word| !VERBS.contains(word));
            // A resource follows its verb, flags and their values apart.
            let names = |word: &str| word.split([',', '/', '=']).any(|name| AMBIGUOUS.contains(&name));
            if words.by_ref().skip(1).any(names) {
                found.push(format!("kubectl {}", command[..end].trim()));
            }
        }
    }
    found
}

#[test]
fn ambiguous_commands_are_found() {
    for bad in [
        "kubectl get tenants",
        "$ kubectl -n plant-1 wait --for=condition=Ready --all tenants,devices,pushformats",
        "Run `kubectl describe device/oven` then",
        "kubectl create role x --verb=create --resource=devices",
        "kubectl get \\\n  pushformats",
    ] {
        assert_eq!(ambiguous(bad).len(), 1, "{bad}");
    }
    for good in [
        "kubectl get ft,fd,fpf",
        "kubectl get tenants.flutecast.io acme",
        "`kubectl get fd` shows the devices",
        "kubectl get secret x --output jsonpath='{.data.devices}'",
        "kubectl delete validatingadmissionpolicybinding flutecast-in-use-tenants",
        "kubectl apply -f tenants.yaml",
    ] {
        assert_eq!(ambiguous(good), Vec::<String>::new());
    }
}

#[test]
fn commands_for_users_name_kinds_with_their_group_or_short() {
    let mut found = Vec::new();
    for file in tracked_files().into_iter().filter(|file| is_for_users(file)) {
        let text = text(&file).unwrap_or_else(|| panic!("{file} is not text"));
        found.extend(ambiguous(&text).into_iter().map(|command| format!("{file}: {command}")));
    }
    assert!(root().join("charts/flutecast/templates/NOTES.txt").is_file());
    assert!(found.is_empty(), "write ft, fd, fpf or tenants.flutecast.io: {found:#?}");
}

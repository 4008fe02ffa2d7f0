//! The RBAC manifests, collected from the rights that the modules declare.

use flutecast_kube::{Grant, Right, manifest};

use crate::api_server::MANAGER;
use crate::backend::cluster::status::writer;
use crate::backend::cluster::{events, mapping};
use crate::{clean_up, enrollment, lease, nats_passwords, protection, rollout, watch};

const NAMESPACE: &str = "flutecast-system";

/// In the namespaces of the Tenants.
pub const AMONG_TENANTS: &[&[Right]] = &[watch::RIGHTS, writer::RIGHTS, enrollment::RIGHTS, events::RIGHTS];
/// In the operator's own namespace.
pub const AT_HOME: &[&[Right]] = &[mapping::RIGHTS, lease::RIGHTS, rollout::RIGHTS];
/// Additionally with `--protection finalizer`.
pub const WITH_FINALIZERS: &[&[Right]] = &[protection::RIGHTS];
/// Additionally with `--nats-passwords-secret`, in the operator's own namespace.
pub const WITH_NATS_PASSWORDS: &[&[Right]] = &[nats_passwords::RIGHTS];
/// With `--clean-up`.
pub const AT_THE_END: &[&[Right]] = &[clean_up::RIGHTS];

/// Returns the manifests with their paths in the repository.
#[must_use]
pub fn manifests() -> Vec<(&'static str, String)> {
    let account = (MANAGER, NAMESPACE);
    let among_tenants = Grant {
        name: MANAGER,
        namespace: None,
        account,
        about: "In the namespaces of the tenants: reads the three kinds, writes their status, tells of them.",
        about_binding: "An operator that looks after some namespaces only (--namespace a,b) has a \
                        RoleBinding in each of them instead.",
        rights: AMONG_TENANTS,
    };
    let at_home = Grant {
        namespace: Some(NAMESPACE),
        about: "In its own namespace: the mapping, the access document, the Lease; and which data-plane pods \
                are ready.",
        about_binding: "",
        rights: AT_HOME,
        ..among_tenants
    };
    let with_finalizers = Grant {
        name: "flutecast-operator-finalizers",
        about: "",
        about_binding: "",
        rights: WITH_FINALIZERS,
        ..among_tenants
    };
    let with_nats_passwords = Grant {
        name: "flutecast-operator-nats-passwords",
        rights: WITH_NATS_PASSWORDS,
        namespace: Some(NAMESPACE),
        ..with_finalizers
    };
    let at_the_end = Grant {
        name: "flutecast-clean-up",
        namespace: Some(NAMESPACE),
        account: ("flutecast-clean-up", NAMESPACE),
        about: "",
        about_binding: "",
        rights: AT_THE_END,
    };
    let head_of_the_end = "\
        For `flutecast-operator --kubernetes --clean-up …`, which removes what an installation leaves when \
        it is uninstalled, here of one whose tenants are in the operator's own namespace. docs/upgrade.md \
        says when. Written by `make rbac`.";
    let head = "\
        What the operator may do: no more than it does. The tests of the operator run under exactly these \
        rules. Everything that the operator writes itself is in its own namespace (here flutecast-system) or \
        in a status, but for Devices that enroll themselves. Written by `make rbac` from the modules that \
        make the calls.";
    let head_of_finalizers = "\
        Only for an operator with --protection finalizer, which holds what is in use by a finalizer: these \
        rights beside those of rbac.yaml. docs/decisions/113-in-use.md says what follows from this way. \
        Written by `make rbac`.";
    let head_of_nats_passwords = "\
        Only for an operator with --nats-passwords-secret flutecast-nats-passwords, which makes the \
        passwords of the chart's bundled NATS: these rights beside those of rbac.yaml. \
        docs/decisions/131-passwords-of-the-bundled-nats.md. Written by `make rbac`.";
    vec![
        ("manifests/operator/rbac.yaml", manifest(head, Some(account), &[among_tenants, at_home])),
        ("manifests/operator/finalizers.yaml", manifest(head_of_finalizers, None, &[with_finalizers])),
        (
            "manifests/operator/nats-passwords.yaml",
            manifest(head_of_nats_passwords, None, &[with_nats_passwords]),
        ),
        (
            "manifests/operator/clean-up.yaml",
            manifest(head_of_the_end, Some(at_the_end.account), &[at_the_end]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_manifests_are_current() {
        for (path, text) in manifests() {
            let at = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
            let committed = std::fs::read_to_string(&at).unwrap_or_default();
            assert!(committed == text, "{path} is not what the code says; run: make rbac charts");
        }
    }
}

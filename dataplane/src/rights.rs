//! The rights of a pod at the API server, collected from the modules that make the calls, and their manifest.

use flutecast_kube::{Grant, Right};

use crate::kubernetes::MANIFEST;
use crate::{catalog, peers};

/// The namespace that the manifest is written for.
const NAMESPACE: &str = "flutecast";
const NAME: &str = "flutecast-dataplane";

pub const RIGHTS: &[&[Right]] = &[catalog::RIGHTS, peers::RIGHTS];

/// Returns the manifest and its path in the repository.
pub fn manifest() -> (&'static str, String) {
    let grant = Grant {
        name: NAME,
        namespace: Some(NAMESPACE),
        account: (NAME, NAMESPACE),
        about: "",
        about_binding: "",
        rights: RIGHTS,
    };
    let head = "The rights of a data-plane pod: it reads the mapping, the one Secret with the access rules, \
                and its peers, and writes nothing. The tests run under exactly these rules \
                (dataplane/tests/pods/api_server). Written by `make rbac` from the modules that make the \
                calls.";
    (MANIFEST, flutecast_kube::manifest(head, Some((NAME, NAMESPACE)), &[grant]))
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_manifest_is_current() {
        let (path, text) = super::manifest();
        let at = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let committed = std::fs::read_to_string(&at).unwrap_or_default();
        assert!(committed == text, "{path} is not what the code says; run: make rbac charts");
    }
}

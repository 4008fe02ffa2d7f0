//! Errors of the Kubernetes API in words, for a person who has to mend their cause.
//!
//! An answer that can't be parsed is never quoted: it may be a Secret.

use std::error::Error;

use kube::core::Status;
use kube::runtime::watcher;

/// Replaces an answer that can't be parsed.
const UNREADABLE: &str = "the Kubernetes API's answer makes no sense";

/// Returns an error in one line: of an answer of the API server only its message and code.
#[must_use]
pub fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(answer) => format!("{} ({})", answer.message, answer.code),
        kube::Error::SerdeError(_) => UNREADABLE.to_owned(),
        error => error.to_string(),
    }
}

/// Returns whether the API server refuses a request. Otherwise it has a problem of its own, which passes.
#[must_use]
pub fn is_refusal(answer: &Status) -> bool {
    answer.code < 500 && answer.code != 429
}

/// Returns the status with which the API server answered a watch, if it did.
pub(crate) fn status_of(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// The watched kind, in words.
#[derive(Debug)]
pub(crate) struct WatchedKind {
    pub(crate) kind: String,
    /// The plural name, as roles call it.
    pub(crate) resource: String,
    /// The manifest with the role that allows the watch.
    pub(crate) manifest: &'static str,
}

impl WatchedKind {
    /// Returns what is wrong with a watch and, if a right is missing, which one.
    pub(crate) fn describe(&self, error: &watcher::Error) -> String {
        let Self { resource, .. } = self;
        if let Some(status) = status_of(error) {
            return self.describe_status(status);
        }
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => match error {
                kube::Error::SerdeError(_) => format!("{resource} can't be read: {UNREADABLE}"),
                kube::Error::Service(error) => self.describe_absence(error.as_ref()),
                other => self.describe_absence(other),
            },
            error => format!("{resource} can't be watched: {error}"),
        }
    }

    fn describe_status(&self, status: &Status) -> String {
        let Self { kind, resource, manifest } = self;
        let message = &status.message;
        match status.code {
            401 => format!(
                "the Kubernetes API doesn't know this pod's credentials ({message}); \
                 its service account token must be mounted"
            ),
            403 => format!(
                "a right is missing: {message}; the pod's role needs list and watch on {resource} \
                 ({manifest})"
            ),
            // A list of a kind that exists is found, however empty.
            404 => format!("the API server knows no {kind}: install the kinds (chart flutecast-crds)"),
            code => format!("{resource} can't be watched: the Kubernetes API answers {code}: {message}"),
        }
    }

    fn describe_absence(&self, error: &(dyn Error + 'static)) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        format!("{} can't be watched, the Kubernetes API does not answer: {text}", self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(resource: &str, error: &watcher::Error) -> String {
        let (kind, resource) = ("Tenant".to_owned(), resource.to_owned());
        WatchedKind { kind, resource, manifest: "manifests/x.yaml" }.describe(error)
    }

    fn status(code: u16, message: &str) -> watcher::Error {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_missing_right_is_named() {
        let text = describe("configmaps", &status(403, "configmaps is forbidden: User \"x\" cannot list"));
        assert!(text.contains("User \"x\" cannot list"), "{text}");
        assert!(text.contains("list and watch on configmaps (manifests/x.yaml)"), "{text}");
    }

    #[test]
    fn missing_kinds_are_named() {
        let expected = "the API server knows no Tenant: install the kinds (chart flutecast-crds)";
        assert_eq!(describe("tenants", &status(404, "404 page not found")), expected);
        let text = describe("tenants", &status(500, "etcd is away"));
        assert!(text.ends_with("answers 500: etcd is away"), "{text}");
    }

    #[test]
    fn an_answer_that_cannot_be_parsed_is_not_quoted() {
        let bad = || kube::Error::SerdeError(serde_json::from_str::<u8>("\"s3cr3t\"").unwrap_err());
        assert!(bad().to_string().contains("s3cr3t"));
        for text in [describe("secrets", &watcher::Error::WatchFailed(bad())), brief(&bad())] {
            assert!(text.contains(UNREADABLE) && !text.contains("s3cr3t"), "{text}");
        }
    }

    #[test]
    fn a_server_that_is_away_is_described_with_the_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = watcher::Error::WatchFailed(kube::Error::ReadEvents(refused));
        let text = describe("secrets", &error);
        assert!(text.contains("does not answer") && text.ends_with("connection refused"), "{text}");
    }
}

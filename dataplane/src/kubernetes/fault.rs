//! What went wrong between us and the API, in words for the person who has to put it right.

use std::error::Error;

use kube::core::Status;
use kube::runtime::watcher;

/// Says what is wrong with a watch of `resource` and, if a right is missing, which one.
pub(super) fn describe(resource: &str, error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of_client(resource, error),
        watcher::Error::WatchError(status) => of_status(resource, status),
        watcher::Error::NoResourceVersion => {
            format!("{resource} can't be watched: the answer has no resourceVersion")
        }
    }
}

fn of_client(resource: &str, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => of_status(resource, status),
        // Such an error quotes what it could not read, and that may be a Secret.
        kube::Error::SerdeError(_) => {
            format!("{resource} can't be read: the Kubernetes API's answer makes no sense")
        }
        kube::Error::Service(error) => away(resource, error.as_ref()),
        other => away(resource, other),
    }
}

fn of_status(resource: &str, status: &Status) -> String {
    let message = &status.message;
    match status.code {
        401 => format!(
            "the Kubernetes API doesn't know this pod's credentials ({message}); its service account token must be mounted"
        ),
        403 => format!(
            "a right is missing: {message}; the pod's role needs list and watch on {resource} (manifests/dataplane/rbac.yaml)"
        ),
        code => format!("{resource} can't be watched: the Kubernetes API answers {code}: {message}"),
    }
}

fn away(resource: &str, error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    format!("{resource} can't be watched, the Kubernetes API does not answer: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str) -> watcher::Error {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_missing_right_is_named() {
        let text = describe("configmaps", &status(403, "configmaps is forbidden: User \"x\" cannot list"));
        assert!(text.contains("User \"x\" cannot list"), "{text}");
        assert!(text.contains("list and watch on configmaps"), "{text}");
    }

    #[test]
    fn what_could_not_be_read_is_not_quoted() {
        let bad = serde_json::from_str::<u8>("\"s3cr3t\"").unwrap_err();
        assert!(bad.to_string().contains("s3cr3t"));
        let text = describe("secrets", &watcher::Error::WatchFailed(kube::Error::SerdeError(bad)));
        assert!(!text.contains("s3cr3t"), "{text}");
    }

    #[test]
    fn a_server_that_is_away_is_told_with_the_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = watcher::Error::WatchFailed(kube::Error::ReadEvents(refused));
        let text = describe("secrets", &error);
        assert!(text.contains("does not answer") && text.ends_with("connection refused"), "{text}");
    }
}

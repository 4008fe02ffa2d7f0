//! Metrics of enrollment.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::reply::{Reason, Reply};
use crate::metrics::{closed_set, with_all_labels};

closed_set! {
    pub(crate) enum RequestResult {
        /// With the topics of a Device that existed.
        Answered,
        /// With the topics of a Device that was created.
        Created,
        Invalid,
        Unknown,
        NotAllowed,
        NameTaken,
        NotReady,
        Pending,
        QuotaExceeded,
        RateLimited,
        Unavailable,
        /// Without a reply.
        Dropped,
    }
}

impl From<&Reply> for RequestResult {
    fn from(reply: &Reply) -> Self {
        match reply {
            Ok(_) => Self::Answered,
            Err(refusal) => refusal.reason.into(),
        }
    }
}

impl From<Reason> for RequestResult {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::InvalidRequest | Reason::InvalidCode => Self::Invalid,
            Reason::UnknownDevice => Self::Unknown,
            Reason::CodeNotAllowed => Self::NotAllowed,
            Reason::NameTaken => Self::NameTaken,
            Reason::NotReady => Self::NotReady,
            Reason::Pending => Self::Pending,
            Reason::QuotaExceeded => Self::QuotaExceeded,
            Reason::RateLimited => Self::RateLimited,
            Reason::Unavailable => Self::Unavailable,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    result: RequestResult,
}

#[derive(Debug, Default)]
pub(crate) struct EnrollmentMetrics {
    requests: Family<RequestLabels, Counter>,
}

impl EnrollmentMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "enrolment_requests",
            "Requests of devices for their topics, by what became of them",
            with_all_labels(&self.requests, |result| RequestLabels { result }),
        );
    }

    pub(crate) fn count_request(&self, result: RequestResult) {
        self.requests.get_or_create(&RequestLabels { result }).inc();
    }
}

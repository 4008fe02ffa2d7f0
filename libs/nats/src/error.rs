//! Why a request to NATS has no good answer.

/// Why a request to JetStream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The stream doesn't exist, or no server answers for it.
    #[error("the stream isn't there")]
    NoStream,
    /// The broker could not be asked, gave no answer in time, or can't work at the moment. The same request
    /// may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// The broker refuses, in its own words.
    #[error("{description} (error {code})")]
    Refused {
        /// JetStream's error code (`err_code`).
        code: u64,
        /// JetStream's description.
        description: String,
    },
    /// The answer is not the expected one.
    #[error("the broker's answer can't be used: {0}")]
    BadAnswer(String),
}

impl RequestError {
    /// Every value of [`Self::label`].
    pub const LABELS: [&'static str; 3] = ["NoStream", "NoAnswer", "BadAnswer"];

    /// Returns the error that stands for a missing answer.
    #[must_use]
    pub fn no_answer() -> Self {
        Self::Unavailable("the broker doesn't answer".to_owned())
    }

    pub(crate) fn bad_answer(what: &str) -> Self {
        Self::BadAnswer(what.to_owned())
    }

    /// Returns the reason as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoStream => "NoStream",
            Self::Unavailable(_) => "NoAnswer",
            Self::Refused { .. } | Self::BadAnswer(_) => "BadAnswer",
        }
    }

    /// Returns whether the stream, consumer or message that was asked for doesn't exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        // 10059: stream not found; 10014: consumer not found; 10037: message not found.
        matches!(self, Self::NoStream | Self::Refused { code: 10059 | 10014 | 10037, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_is_listed() {
        let refused = RequestError::Refused { code: 1, description: String::new() };
        for error in
            [RequestError::NoStream, RequestError::no_answer(), refused, RequestError::bad_answer("?")]
        {
            assert!(RequestError::LABELS.contains(&error.label()), "{error:?}");
        }
    }
}

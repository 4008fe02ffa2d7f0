//! Errors of requests: a status and a JSON body.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderValue, Response, StatusCode};

/// An error of a request. The `code` in the body is the variant's name, except for `Unavailable`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// The text names the parameter, its value and what would be valid.
    #[error("{0}")]
    BadRequest(String),
    /// The credential isn't known to this tenant, or there is no such tenant.
    #[error(
        "a token of this tenant is needed, in `Authorization: Bearer …` or in the parameter access_token"
    )]
    Unauthorized,
    /// The caller is known, but not allowed this device or origin.
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotFound(String),
    #[error("this address doesn't take this method; the header Allow names those that it takes")]
    MethodNotAllowed,
    #[error("the body has more than {limit} bytes")]
    PayloadTooLarge { limit: usize },
    #[error("the body did not come in time")]
    RequestTimeout,
    #[error("{message}")]
    Unavailable { code: &'static str, message: String },
    #[error("the server could not make an answer")]
    Internal,
}

const RETRY_AFTER_SECONDS: &str = "2";

impl RequestError {
    /// Returns the status, and the code for programs, which is from a closed set.
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::PayloadTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "RequestTimeout"),
            Self::Unavailable { code, .. } => (StatusCode::SERVICE_UNAVAILABLE, code),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
        }
    }

    /// Pages of every origin may read the response: it contains only what the caller sent.
    pub(crate) fn into_response(self) -> Response<Bytes> {
        let (status, code) = self.status_and_code();
        let body = serde_json::json!({"error": {"code": code, "message": self.to_string()}});
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        match self {
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Unavailable { .. } => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
            }
            _ => {}
        }
        response
    }
}

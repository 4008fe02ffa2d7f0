//! The dashboard's files, embedded in the program by build.rs.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use sha2::{Digest, Sha256};

const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// The page may load, run and contact only what is on this server. Screens often show it in a frame of their
/// own server, so the same origin may frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'self'";

struct Asset {
    content: &'static [u8],
    content_type: &'static str,
    etag: HeaderValue,
}

static TABLE: LazyLock<HashMap<&'static str, Asset>> = LazyLock::new(|| {
    let file = |(name, content): &(&'static str, &'static [u8])| {
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(content)[..8]);
        let etag =
            HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"0\""));
        (*name, Asset { content, content_type: content_type(name), etag })
    };
    FILES.iter().map(file).collect()
});

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("woff2") => "font/woff2",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Returns the file at a path such as `/` or `/style.css`; `None` if there is no such file.
pub(super) fn file(path: &str, request: &HeaderMap) -> Option<Response<Bytes>> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name,
    };
    let file = TABLE.get(name)?;
    let fresh = request.get_all(header::IF_NONE_MATCH).iter().any(|given| matches(given, &file.etag));
    let mut response = Response::new(Bytes::from_static(if fresh { b"" } else { file.content }));
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::ETAG, file.etag.clone());
    for (name, value) in headers_of_every_file(file.content_type) {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// Every origin may read the files, as pages of other servers load the client module. The files are the same
/// for every caller.
fn headers_of_every_file(content_type: &'static str) -> [(HeaderName, &'static str); 6] {
    [
        (header::CONTENT_TYPE, content_type),
        // Revalidated each time, mostly with 304, so that a new version is seen at once.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ]
}

/// Returns whether an `If-None-Match` names the tag. A proxy may have made it a weak one.
fn matches(given: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(given), Ok(etag)) = (given.to_str(), etag.to_str()) else { return false };
    given.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_and_client_module_are_served() {
        for (path, expected) in
            [("/", "text/html"), ("/index.html", "text/html"), ("/flutecast.js", "text/javascript")]
        {
            let response = file(path, &HeaderMap::new()).unwrap();
            let content_type = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
            assert!(content_type.starts_with(expected), "{path}: {content_type}");
            assert!(!response.body().is_empty());
        }
        for path in ["", "/missing", "/tests", "//", "/../Cargo.toml", "/v1/demo/events"] {
            assert!(file(path, &HeaderMap::new()).is_none(), "{path}");
        }
    }

    #[test]
    fn every_file_has_a_known_type() {
        for (name, _) in FILES {
            assert_ne!(content_type(name), "application/octet-stream", "{name}");
        }
    }

    #[test]
    fn unchanged_file_is_answered_with_304() {
        let first = file("/", &HeaderMap::new()).unwrap();
        let etag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for (given, expected) in [
            (etag.clone(), StatusCode::NOT_MODIFIED),
            (format!("\"other\", W/{etag}"), StatusCode::NOT_MODIFIED),
            ("\"other\"".to_owned(), StatusCode::OK),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::try_from(&given).unwrap());
            let response = file("/", &headers).unwrap();
            assert_eq!(response.status(), expected, "{given}");
            assert_eq!(response.body().is_empty(), expected == StatusCode::NOT_MODIFIED);
        }
    }
}

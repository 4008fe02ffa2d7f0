//! Paths under which gateways lead to this pod.
//!
//! An Ingress has no common way to rewrite paths, so the pod removes the prefix itself. Paths without a
//! prefix keep their meaning: callers inside the cluster use them, and gateways that rewrite send them.

use std::str::FromStr;

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

/// A path such as `/plant-1`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPrefix(String);

impl FromStr for PathPrefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write a path such as /plant-1, of letters, digits and -._~";
        let path = text.strip_suffix('/').unwrap_or(text);
        let mut segments = path.strip_prefix('/').ok_or(WRONG)?.split('/');
        let valid = |segment: &str| {
            let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !matches!(segment, "" | "." | "..") && segment.bytes().all(unreserved)
        };
        if !segments.clone().all(valid) {
            return Err(WRONG);
        }
        if segments.next() == Some("v1") {
            return Err("/v1 is the API's own path, and needs no prefix");
        }
        Ok(Self(path.to_owned()))
    }
}

/// Removes the longest of `prefixes` from the address of a request. Returns the address to send the client to
/// if the prefix has no slash after it: in a page at such an address, relative addresses would miss the
/// prefix.
pub(super) fn remove(prefixes: &[PathPrefix], uri: &mut Uri) -> Option<HeaderValue> {
    let rest = |PathPrefix(prefix): &PathPrefix| {
        let rest = uri.path().strip_prefix(prefix.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
    };
    let rest = prefixes.iter().filter_map(rest).min_by_key(String::len)?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if rest.is_empty() {
        return HeaderValue::try_from(format!("{}/{query}", uri.path())).ok();
    }
    let mut parts = std::mem::take(uri).into_parts();
    // A part of a valid path is one too.
    parts.path_and_query = PathAndQuery::try_from(format!("{rest}{query}")).ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(paths: &[&str]) -> Vec<PathPrefix> {
        paths.iter().map(|path| path.parse().unwrap()).collect()
    }

    /// Returns the address that is served, or `to ` and the address that the client is sent to.
    fn seen(paths: &[&str], uri: &str) -> String {
        let mut uri: Uri = uri.parse().unwrap();
        match remove(&prefixes(paths), &mut uri) {
            Some(location) => format!("to {}", location.to_str().unwrap()),
            None => uri.to_string(),
        }
    }

    #[test]
    fn prefix_is_removed_and_everything_else_stays() {
        for (uri, expected) in [
            ("/plant-1/", "/"),
            ("/plant-1/style.css", "/style.css"),
            ("/plant-1/v1/acme/events?device=A%2F1&x=/plant-1", "/v1/acme/events?device=A%2F1&x=/plant-1"),
            ("/plant-1/plant-1/", "/plant-1/"),
            ("/plant-1//v1", "//v1"),
            ("http://h:1/plant-1/v1/acme/devices", "http://h:1/v1/acme/devices"),
            ("/plant-1", "to /plant-1/"),
            ("/plant-1?tenant=a&b", "to /plant-1/?tenant=a&b"),
            ("http://h/plant-1?", "to /plant-1/?"),
            ("/", "/"),
            ("/v1/acme/devices", "/v1/acme/devices"),
            ("/plant-10/", "/plant-10/"),
            ("/Plant-1/", "/Plant-1/"),
            ("/x/plant-1/", "/x/plant-1/"),
            ("*", "*"),
        ] {
            assert_eq!(seen(&["/plant-1"], uri), expected, "{uri}");
        }
    }

    #[test]
    fn longest_prefix_counts() {
        for paths in [["/a", "/a/b"], ["/a/b", "/a"]] {
            assert_eq!(seen(&paths, "/a/b/v1/x"), "/v1/x");
            assert_eq!(seen(&paths, "/a/b"), "to /a/b/");
            assert_eq!(seen(&paths, "/a/c"), "/c");
        }
    }

    #[test]
    fn only_plain_paths_are_prefixes() {
        assert_eq!("/plant-1/".parse(), "/plant-1".parse::<PathPrefix>());
        assert!("/a/b_1.2~c".parse::<PathPrefix>().is_ok());
        for wrong in
            ["", "/", "plant", "//", "/a//b", "/a/..", "/./a", "/a b", "/a%20b", "/a?b", "/ä", "/a\r\n"]
        {
            assert!(wrong.parse::<PathPrefix>().is_err(), "{wrong:?}");
        }
        for own in ["/v1", "/v1/acme"] {
            assert!(own.parse::<PathPrefix>().unwrap_err().contains("API"), "{own}");
        }
        assert!("/v10".parse::<PathPrefix>().is_ok());
    }
}

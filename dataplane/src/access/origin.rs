//! The check of a browser's `Origin`.

/// The origins that a tenant allows besides the data plane's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origins {
    any: bool,
    listed: Vec<String>,
}

impl Origins {
    pub(crate) fn new(allowed: &[String]) -> Self {
        let any = allowed.iter().any(|origin| origin.trim() == "*");
        // An origin has no trailing slash, but people write one.
        let listed =
            allowed.iter().map(|origin| origin.trim().trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { any, listed }
    }

    /// Returns whether a page of `origin` may read from this server, which it calls `host` (host and port, as
    /// in the header `Host`). The server's own pages may.
    pub(crate) fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        self.any
            || is_same(origin, host)
            || self.listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
    }
}

/// Ignores the scheme: behind a proxy that terminates TLS this server doesn't know it.
fn is_same(origin: &str, host: Option<&str>) -> bool {
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let (Some(authority), Some(host)) = (authority, host) else { return false };
    !host.is_empty() && authority.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_and_own_origins_are_allowed() {
        let own = Some("screens.local:8080");
        let listed = Origins::new(&["https://Screens.acme.example/".to_owned()]);
        for (origin, host, expected) in [
            ("https://screens.acme.example", own, true),
            ("https://screens.acme.example:8443", own, false),
            ("http://screens.acme.example", own, false),
            ("https://screens.acme.example.evil.example", own, false),
            ("http://screens.local:8080", own, true),
            ("http://SCREENS.local:8080", own, true),
            ("http://screens.local", own, false),
            ("null", own, false),
            ("null", None, false),
            ("http://", Some(""), false),
            ("", Some(""), false),
        ] {
            assert_eq!(listed.allow(origin, host), expected, "{origin} on {host:?}");
        }
        assert!(!Origins::new(&[]).allow("https://a.example", own));
        assert!(Origins::new(&["*".to_owned()]).allow("null", None));
    }
}

//! Which web pages may read: the check of a browser's `Origin`.

/// The origins that a tenant allows beside the data plane's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    listed: Vec<String>,
}

impl Origins {
    /// Reads the list of an access document.
    #[must_use]
    pub fn new(allowed: &[String]) -> Self {
        let any = allowed.iter().any(|origin| origin.trim() == "*");
        // People write a slash behind an address; an origin has none.
        let listed =
            allowed.iter().map(|origin| origin.trim().trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { any, listed }
    }

    /// Whether a page of `origin` may read, where the page's browser calls this server `host` (host and port,
    /// as in the `Host` header). A page that this server gave out itself may.
    #[must_use]
    pub fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        self.any
            || is_same(origin, host)
            || self.listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
    }
}

/// The scheme is left out of the comparison: behind a proxy that ends TLS this server doesn't know it.
fn is_same(origin: &str, host: Option<&str>) -> bool {
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    matches!((authority, host), (Some(authority), Some(host)) if !host.is_empty() && authority.eq_ignore_ascii_case(host))
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

//! The enrollment settings of a Tenant.

use std::collections::BTreeMap;

use flutecast_crds::DeviceChannel;
use regex::{Regex, RegexBuilder};

/// The memory limit of a compiled pattern, in bytes. A pattern for codes needs some hundreds.
const PATTERN_SIZE: usize = 64 << 10;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Enrollment {
    pub(crate) creation: CreationPolicy,
    /// `None` if there is no limit.
    pub(crate) max_devices: Option<u32>,
}

/// The handling of a code that no Device has.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum CreationPolicy {
    #[default]
    Refuse,
    Create(Template),
    /// A Device should be created, but the Tenant's settings can't be used; its condition has the reason.
    Blocked,
}

/// The template of Devices that are created.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Template {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) channels: Vec<DeviceChannel>,
    /// The pattern that a code has to match; `None` if any code.
    pub(crate) code_pattern: Option<CodePattern>,
}

/// A pattern for whole device codes.
#[derive(Debug, Clone)]
pub(crate) struct CodePattern(Regex);

impl CodePattern {
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        // Compiled alone first: an open group must not close the added one.
        let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
        let whole = compile(pattern).and_then(|_| compile(&format!("^(?:{pattern})$")));
        whole.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it repeats too much".to_owned(),
            error => error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        })
    }

    #[must_use]
    pub(crate) fn matches(&self, code: &str) -> bool {
        self.0.is_match(code)
    }
}

impl PartialEq for CodePattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_codes() {
        let pattern = CodePattern::new("CORR-[0-9]+|FLEX-.*").unwrap();
        for (code, matches) in [("CORR-01", true), ("FLEX-", true), ("XCORR-01", false), ("CORR-01x", false)]
        {
            assert_eq!(pattern.matches(code), matches, "{code}");
        }
        for bad in ["(", "a)|(b", "((a{1000}){1000}){1000}"] {
            assert!(!CodePattern::new(bad).unwrap_err().is_empty(), "{bad}");
        }
    }
}

//! How a tenant's devices enrol, as its Tenant says.

use std::collections::BTreeMap;

use flutecast_crds::DeviceChannel;
use regex::{Regex, RegexBuilder};

/// The most memory that a pattern may need once it is compiled, in bytes. A pattern for codes needs some
/// hundreds.
const PATTERN_SIZE: usize = 64 << 10;

/// How a tenant's devices enrol.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Enrollment {
    /// What becomes of a code that no Device has.
    pub(crate) newcomers: Newcomers,
    /// How many devices the tenant may have.
    pub(crate) max_devices: Option<u32>,
}

/// What becomes of a device code that no Device has.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Newcomers {
    /// It is refused.
    #[default]
    Refused,
    /// A Device is created for it.
    Created(Template),
    /// A Device would be created for it, but what the Tenant says can't be used as it is; its verdict says
    /// why.
    Blocked,
}

/// What a Device that is created looks like.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Template {
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its channels, as the Device has them.
    pub(crate) channels: Vec<DeviceChannel>,
    /// What a code has to match.
    pub(crate) code_pattern: Option<CodePattern>,
}

/// What a device code has to match as a whole.
#[derive(Debug, Clone)]
pub(crate) struct CodePattern(Regex);

impl CodePattern {
    /// Compiles it.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        // Compiled alone first: an open bracket must not close ours.
        let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
        let whole = compile(pattern).and_then(|_| compile(&format!("^(?:{pattern})$")));
        whole.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it repeats too much".to_owned(),
            error => error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        })
    }

    /// Whether a code may be enrolled.
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
    fn a_pattern_is_about_the_whole_code() {
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

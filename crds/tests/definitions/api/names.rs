//! The patterns of the schemas accept the same strings as the name types of `flutecast_contract`.

use flutecast_contract::name::{ChannelName, DeviceCode, FormatName, IotId, SourceName, TenantName};
use flutecast_crds::pattern;
use regex::Regex;

/// Returns names near the limits of the patterns.
fn candidates() -> Vec<String> {
    let alphabet = ["a", "Z", "0", "-", "_", ".", ":", "/", "*", ">", " ", "ä", "\n", "~"];
    let mut all = vec![String::new()];
    for first in alphabet {
        all.push(first.to_owned());
        for second in alphabet {
            all.push(format!("{first}{second}"));
            for third in alphabet {
                all.push(format!("{first}{second}{third}"));
            }
        }
    }
    all.extend([62, 63, 64].map(|length| format!("{}.{}", "a".repeat(length), "b".repeat(63))));
    all.extend([31, 32, 33, 62, 63, 64, 65, 252, 253, 254].map(|length| "a".repeat(length)));
    all
}

fn agree(what: &str, pattern: &str, longest: usize, shortest: usize, valid: impl Fn(&str) -> bool) {
    let regex = Regex::new(pattern).unwrap();
    for name in candidates() {
        let length = name.chars().count();
        let schema = (shortest..=longest).contains(&length) && regex.is_match(&name);
        assert_eq!(schema, valid(&name), "{what} {name:?}: the schema and the mapping contract differ");
    }
}

#[test]
fn the_schemas_accept_exactly_the_names_of_the_contract() {
    agree("tenant", pattern::DNS_LABEL, 63, 1, |name| TenantName::new(name).is_ok());
    agree("source", pattern::DNS_LABEL, 63, 1, |name| SourceName::new(name).is_ok());
    agree("device code", pattern::DEVICE_CODE, 64, 1, |name| DeviceCode::new(name).is_ok());
    agree("channel", pattern::CHANNEL, 32, 1, |name| ChannelName::new(name).is_ok());
    agree("format", pattern::FORMAT, 253, 1, |name| FormatName::new(name).is_ok());
    // The schema also accepts an empty iotId, which is the same as none.
    agree("iotId", pattern::IOT_ID, 64, 0, |name| name.is_empty() || IotId::new(name).is_ok());
}

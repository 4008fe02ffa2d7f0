//! "Did you mean": the message for an unknown name.

use super::{Names, ParameterKind};

/// Returns whether the value of an unknown name may be a token. Such a value is not sent back, as responses
/// end up in logs.
pub(super) fn may_name_a_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    ["token", "auth", "key", "secret", "pass"].iter().any(|word| lower.contains(word))
}

/// Returns the message for `name`, which is not one of `names`.
pub(super) fn unknown(name: &str, value: &str, names: Names) -> String {
    let shown: String = name.chars().take(64).collect();
    let known: Vec<&str> =
        names.iter().map(|(known, _)| *known).filter(|known| *known != "access_token").collect();
    let mut message = format!(
        "{shown}: not a parameter of this address (its value is {value:?}); it takes {}",
        known.join(", ")
    );
    if names.iter().any(|(_, key)| *key == ParameterKind::AccessToken) {
        message.push_str(" and access_token");
    }
    let close = names.iter().map(|(known, _)| (distance(&shown, known), known)).min();
    // Two typos are likely in a long name only: in a short one they could turn any name into another.
    if let Some((_, known)) = close.filter(|(distance, known)| *distance <= 2.min(known.len() / 3)) {
        message.push_str(&format!("; did you mean {known}?"));
    }
    message
}

/// Returns the Levenshtein distance, ignoring ASCII case.
fn distance(a: &str, b: &str) -> usize {
    strsim::levenshtein(&a.to_ascii_lowercase(), &b.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_levenshtein() {
        for (a, b, expected) in [
            ("device", "device", 0),
            ("Device", "device", 0),
            ("devices", "device", 1),
            ("devcie", "device", 2),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("interval", "channel", 7),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}

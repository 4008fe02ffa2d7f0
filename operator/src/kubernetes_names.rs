//! Names and labels that Kubernetes accepts.

/// The longest name of an object, and the longest prefix of a label.
const MAX_NAME: usize = 253;
/// The longest name of a label behind its prefix, and the longest value.
const MAX_LABEL: usize = 63;

pub(crate) fn is_dns_subdomain(name: &str) -> bool {
    let is_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_NAME && name.split('.').all(|part| is_word(part, is_edge, b"-"))
}

pub(crate) fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

pub(crate) fn is_label_value(value: &str) -> bool {
    let is_edge = |byte: u8| byte.is_ascii_alphanumeric();
    value.is_empty() || value.len() <= MAX_LABEL && is_word(value, is_edge, b"-_.")
}

/// Returns whether a word begins and ends with an edge, and has only those and `inner` within.
fn is_word(word: &str, is_edge: impl Fn(u8) -> bool, inner: &[u8]) -> bool {
    let ends = [word.bytes().next(), word.bytes().next_back()];
    ends.into_iter().all(|end| end.is_some_and(&is_edge))
        && word.bytes().all(|byte| is_edge(byte) || inner.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys_are_those_of_kubernetes() {
        for good in ["line", "a", "a.b_c-D", "flutecast.io/type", "0"] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "-a", "a-", "a b", "a/b/c", "A.b/c", "a..b/c", "ä", &"a".repeat(64)]
        {
            assert!(!is_label_key(bad), "{bad}");
        }
    }
}

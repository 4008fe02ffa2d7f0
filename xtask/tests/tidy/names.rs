//! Checks that type names are unambiguous.

use std::collections::BTreeMap;

use crate::source::product_code;

/// The maximum number of types in the product that share a name.
const MOST: usize = 2;
/// Names with the same meaning everywhere.
const ALLOWED: [&str; 1] = ["Error"];

#[test]
fn no_type_name_stands_for_three_things() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for (file, code) in product_code() {
        for name in code.lines().filter_map(declared) {
            places.entry(name.to_owned()).or_default().push(file.clone());
        }
    }
    assert!(places.len() > 300, "{} type names", places.len());
    places.retain(|name, files| files.len() > MOST && !ALLOWED.contains(&name.as_str()));
    assert!(places.is_empty(), "{places:#?}");
}

/// Returns the name of the type that a line declares. Associated types are excluded, since their trait
/// determines the name.
fn declared(line: &str) -> Option<&str> {
    let is_indented = line.starts_with(' ');
    let mut words = line.split_whitespace().peekable();
    if words.peek().is_some_and(|word| word.starts_with("pub")) {
        words.next();
        // The rest of `pub(in crate::a)`.
        words.next_if(|word| word.ends_with(')'));
    }
    match words.next()? {
        "struct" | "enum" | "trait" | "union" => {}
        "type" if !is_indented => {}
        _ => return None,
    }
    let name = words.next()?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    Some(&name[..end]).filter(|name| name.starts_with(char::is_uppercase))
}

#[test]
fn declarations_are_found() {
    assert_eq!(declared("pub struct Hub<T> {"), Some("Hub"));
    assert_eq!(declared("    enum Kind {"), Some("Kind"));
    assert_eq!(declared("pub(in crate::a) struct Inner;"), Some("Inner"));
    assert_eq!(declared("type Frames = Vec<u8>;"), Some("Frames"));
    assert_eq!(declared("    type Err = Invalid;"), None);
    assert_eq!(declared("let structure = 1;"), None);
}

//! Checks that the top-level modules of a crate have no circular dependencies.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{PRODUCT, product_code};

/// The modules that each top-level module uses.
type Edges = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_crate_has_a_circle_among_its_modules() {
    let mut knots = Vec::new();
    for folder in PRODUCT {
        let edges = edges(folder);
        let tied: Vec<_> = edges.keys().filter(|module| reaches(&edges, module, module)).collect();
        if !tied.is_empty() {
            knots.push(format!("{folder}: {tied:?} of {edges:#?}"));
        }
    }
    assert!(knots.is_empty(), "{}", knots.join("\n"));
}

/// Returns the dependencies among a crate's top-level modules. The root (`lib.rs`, `main.rs`) is excluded,
/// since it uses all modules.
fn edges(folder: &str) -> Edges {
    let files: Vec<_> = product_code()
        .filter_map(|(file, code)| Some((module_path(file.strip_prefix(folder)?)?, code)))
        .collect();
    let modules: BTreeSet<&str> = files.iter().map(|(path, _)| path[0].as_str()).collect();
    let mut edges = Edges::new();
    for (path, code) in &files {
        let used = edges.entry(path[0].clone()).or_default();
        let names = used_modules(path, code).into_iter();
        used.extend(names.filter(|name| modules.contains(name.as_str()) && *name != path[0]));
    }
    edges
}

/// Returns the path of the module in a source file, or `None` for the root.
fn module_path(file: &str) -> Option<Vec<String>> {
    let path = file.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let is_root = matches!(path, "lib" | "main") || path.starts_with("bin/");
    (!is_root).then(|| path.split('/').map(str::to_owned).collect())
}

/// Returns the names that follow `crate::`, or the number of `super::` that leads to the root.
fn used_modules(path: &[String], code: &str) -> BTreeSet<String> {
    let up = "super::".repeat(path.len());
    let mut names = BTreeSet::new();
    for prefix in ["crate::", &up] {
        for (at, _) in code.match_indices(prefix) {
            // A longer chain of `super::` is a different path.
            if code[..at].ends_with("super::")
                || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => names.extend(first_names(group)),
                None => names.extend(word(rest)),
            }
        }
    }
    names
}

/// Returns the first name of each path in a group of imports, which may be nested.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut is_first) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_first = true,
            c if is_first && c.is_alphabetic() => {
                names.extend(word(&group[at..]));
                is_first = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// Returns whether a path of at least one edge leads from one module to another.
fn reaches(edges: &Edges, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for used in edges.get(module).into_iter().flatten() {
            if used == to {
                return true;
            }
            if seen.insert(used.as_str()) {
                next.push(used);
            }
        }
    }
    false
}

#[test]
fn uses_are_found_in_all_their_forms() {
    let path = ["a".to_owned(), "b".to_owned()];
    let code = "use crate::{one::{X, Y}, two};\nuse super::super::three::Z;\n\
                use super::sibling;\nlet x = crate::four::f();";
    let names: Vec<_> = used_modules(&path, code).into_iter().collect();
    assert_eq!(names, ["four", "one", "three", "two"]);
    let circle: Edges = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
        .map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])))
        .into();
    assert!(reaches(&circle, "a", "a") && reaches(&circle, "d", "c") && !reaches(&circle, "d", "d"));
}

//! Checks that every path and link in the documents has a target.

use std::collections::BTreeSet;
use std::path::Path;

use crate::source::{root, rust_files, text, tracked_files};

/// Lists old paths, which no longer exist.
const HISTORY: &str = "docs/renames.md";

/// Returns all Markdown files with their text.
fn documents() -> Vec<(String, String)> {
    let files = tracked_files().into_iter().filter(|file| file.ends_with(".md"));
    files.filter_map(|file| text(&file).map(|text| (file, text))).collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut found = Vec::new();
    for (file, text) in documents() {
        for link in links(&without_code(&text)) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            if path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let folder = Path::new(&file).parent().unwrap_or(Path::new(""));
            let target = if path.is_empty() { root().join(&file) } else { root().join(folder).join(path) };
            if !target.exists() {
                found.push(format!("{file}: {link}: there is no such file"));
            } else if !anchor.is_empty() && target.extension().is_some_and(|kind| kind == "md") {
                let text = std::fs::read_to_string(&target).expect("a document");
                if !anchors(&text).contains(anchor) {
                    found.push(format!("{file}: {link}: there is no such heading"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn paths_in_documents_exist() {
    let mut found = Vec::new();
    for (file, text) in documents().into_iter().filter(|(file, _)| file != HISTORY) {
        for path in code_spans(&text).into_iter().filter(|path| is_path(path)) {
            // A path is relative to the repository or to the document.
            let folder = Path::new(&file).parent().unwrap_or(Path::new(""));
            let exists =
                |path: &String| root().join(path).exists() || root().join(folder).join(path).exists();
            if !expand(&path).iter().all(exists) {
                found.push(format!("{file}: `{path}`"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn documents_that_sources_name_exist() {
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        for (at, _) in text.match_indices("docs/") {
            let rest = &text[at..];
            let end =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && !"/_-.".contains(c)).unwrap_or(rest.len());
            let path = rest[..end].trim_end_matches('.');
            if path.ends_with(".md") && !root().join(path).exists() {
                found.push(format!("{file}: {path}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Returns a document without its code blocks and code spans.
fn without_code(text: &str) -> String {
    let blocks = text.split("```").step_by(2).collect::<String>();
    blocks.split('`').step_by(2).collect()
}

/// Returns the targets of a document's links and images.
fn links(text: &str) -> Vec<String> {
    let parts = text.split("](").skip(1);
    parts.filter_map(|part| part.split_once(')').map(|(link, _)| link.to_owned())).collect()
}

/// Returns the texts in single backticks outside of code blocks.
fn code_spans(text: &str) -> Vec<String> {
    let blocks = text.split("```").step_by(2);
    blocks.flat_map(|block| block.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// Returns the anchors of a document's headings in the form that common renderers generate.
fn anchors(text: &str) -> BTreeSet<String> {
    let outside = text.split("```").step_by(2).collect::<String>();
    let headings = outside.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Returns whether a code span is a path of this repository, which starts with one of its folders.
fn is_path(span: &str) -> bool {
    let Some((first, rest)) = span.split_once('/') else { return false };
    let is_plain = !span.contains(|c: char| c.is_whitespace() || "<>*…$()\"'=:".contains(c));
    is_plain && !rest.is_empty() && !matches!(first, "" | "target") && root().join(first).is_dir()
}

/// Expands a span such as `a/{b,c}.rs` into its paths.
fn expand(span: &str) -> Vec<String> {
    let Some((before, rest)) = span.split_once('{') else { return vec![span.to_owned()] };
    let Some((names, after)) = rest.split_once('}') else { return vec![span.to_owned()] };
    names.split(',').flat_map(|name| expand(&format!("{before}{}{after}", name.trim()))).collect()
}

#[test]
fn documents_are_read_as_they_are_rendered() {
    let text = "# A b, `c`\nsee [x](a.md#b) and `a/{b,c}.md`\n```\n# no heading\n[no](link)\n```\n";
    assert_eq!(links(&without_code(text)), ["a.md#b"]);
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), ["a-b-c"]);
    assert_eq!(expand("a/{b,c}.md"), ["a/b.md", "a/c.md"]);
    assert_eq!(code_spans(text), ["c", "a/{b,c}.md"]);
}

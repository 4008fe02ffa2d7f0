//! What a program may do at the Kubernetes API. Each module that makes calls says in a constant which rights
//! they need; the manifests are written from these constants. Pure: no I/O, and nothing of what the programs
//! do.

use std::fmt::Write;

/// One rule of a Role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// The API group; empty: the core.
    pub group: &'static str,
    /// The resources in it, with their subresource after a slash.
    pub resources: &'static [&'static str],
    /// The objects, by name; empty: all of them.
    pub names: &'static [&'static str],
    /// What may be done with them.
    pub verbs: &'static [&'static str],
    /// What for: whole sentences, which become a comment. Empty: the rule says it all.
    pub why: &'static str,
}

/// A role or a cluster role, bound to a service account.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// The name of the role and of its binding.
    pub name: &'a str,
    /// The namespace in which the rules hold; none: all of them.
    pub namespace: Option<&'a str>,
    /// The service account and its namespace.
    pub account: (&'a str, &'a str),
    /// What the role is about, as a comment.
    pub about: &'a str,
    /// What is to be known about the binding, as a comment.
    pub about_binding: &'a str,
    /// Its rules.
    pub rights: &'a [&'a [Right]],
}

/// The widest line of a comment.
const WIDTH: usize = 130;

/// A manifest: its head as a comment, the service account if it is to be made, and the grants.
#[must_use]
pub fn manifest(head: &str, account: Option<(&str, &str)>, grants: &[Grant<'_>]) -> String {
    let mut documents: Vec<String> = Vec::new();
    if let Some((name, namespace)) = account {
        documents.push(format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: {namespace}\n"
        ));
    }
    for grant in grants {
        documents.push(role(grant));
        documents.push(binding(grant));
    }
    format!("{}{}", comment("", head), documents.join("---\n"))
}

fn role(grant: &Grant<'_>) -> String {
    let Grant { name, namespace, account: _, about, about_binding: _, rights } = grant;
    let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
    let rules: String = rights.iter().copied().flatten().map(rule).collect();
    format!(
        "{}apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n{}rules:\n{rules}",
        comment("", about),
        in_namespace(*namespace),
    )
}

fn binding(grant: &Grant<'_>) -> String {
    let Grant { name, namespace, account, about: _, about_binding, rights: _ } = grant;
    let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
    format!(
        "{}apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}Binding\nmetadata:\n  name: {name}\n{}roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  \
         kind: {kind}\n  name: {name}\nsubjects:\n  - kind: ServiceAccount\n    name: {}\n    namespace: {}\n",
        comment("", about_binding),
        in_namespace(*namespace),
        account.0,
        account.1,
    )
}

fn in_namespace(namespace: Option<&str>) -> String {
    namespace.map(|namespace| format!("  namespace: {namespace}\n")).unwrap_or_default()
}

fn rule(right: &Right) -> String {
    let Right { group, resources, names, verbs, why } = right;
    let group = if group.is_empty() { "\"\"" } else { group };
    let mut text = comment("  ", why);
    // Writing to a String can't fail.
    let _ = write!(text, "  - apiGroups: [{group}]\n    resources: [{}]\n", resources.join(", "));
    if !names.is_empty() {
        let _ = writeln!(text, "    resourceNames: [{}]", names.join(", "));
    }
    let _ = writeln!(text, "    verbs: [{}]", verbs.join(", "));
    text
}

/// A text as comment lines of at most [`WIDTH`] characters.
fn comment(indent: &str, text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}# {word}")),
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_a_service_account_a_role_and_its_binding() {
        const RIGHTS: &[Right] = &[
            Right {
                group: "",
                resources: &["configmaps"],
                names: &[],
                verbs: &["list", "watch"],
                why: "The mapping.",
            },
            Right { group: "b.io", resources: &["bs/status"], names: &["one"], verbs: &["patch"], why: "" },
        ];
        let grant = Grant {
            name: "a",
            namespace: Some("ns"),
            account: ("a", "ns"),
            about: "About.",
            about_binding: "",
            rights: &[RIGHTS],
        };
        let text = manifest("Head.", Some(("a", "ns")), &[grant]);
        assert!(text.starts_with("# Head.\napiVersion: v1\nkind: ServiceAccount\n"), "{text}");
        let role = "---\n# About.\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: a\n  namespace: ns\nrules:\n  # The mapping.\n  \
             - apiGroups: [\"\"]\n    resources: [configmaps]\n    verbs: [list, watch]\n  - apiGroups: [b.io]\n    resources: [bs/status]\n    \
             resourceNames: [one]\n    verbs: [patch]\n---\n";
        assert!(text.contains(role), "{text}");
        assert!(text.ends_with("  - kind: ServiceAccount\n    name: a\n    namespace: ns\n"), "{text}");
    }

    #[test]
    fn a_comment_is_wrapped() {
        let text = comment("  ", &"word ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= WIDTH && line.starts_with("  # ")), "{text}");
        assert_eq!(text.matches("word").count(), 40);
        assert_eq!(comment("", ""), "");
    }
}

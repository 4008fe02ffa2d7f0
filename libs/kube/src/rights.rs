//! Rights beside the calls that need them, and RBAC manifests from them.
//!
//! Each module that calls the API states in a constant which rights its calls need. A program collects these
//! constants and writes its manifests from them, so that a role allows what the program does and no more.

use serde::Serialize;
use serde_yaml::{FlowSeq, SerializerOptions};

/// One rule of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// The API group, or an empty text for the core group.
    pub group: &'static str,
    /// The resources of the group, a subresource after a slash.
    pub resources: &'static [&'static str],
    /// The names of the objects, or empty for all objects.
    pub names: &'static [&'static str],
    /// The verbs that are allowed.
    pub verbs: &'static [&'static str],
    /// The purpose in whole sentences, which become a comment. Empty if the rule says it all.
    pub why: &'static str,
}

impl Right {
    /// Returns the right to use `verbs` on all objects of `resources`.
    #[must_use]
    pub const fn new(
        group: &'static str,
        resources: &'static [&'static str],
        verbs: &'static [&'static str],
    ) -> Self {
        Self { group, resources, names: &[], verbs, why: "" }
    }

    /// Limits the right to the objects of these names.
    #[must_use]
    pub const fn named(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }

    /// Sets the comment.
    #[must_use]
    pub const fn because(self, why: &'static str) -> Self {
        Self { why, ..self }
    }
}

/// A role or a cluster role, bound to a service account.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// The name of the role and of its binding.
    pub name: &'a str,
    /// The namespace in which the rules hold, or `None` for all namespaces.
    pub namespace: Option<&'a str>,
    /// The name of the service account and its namespace.
    pub account: (&'a str, &'a str),
    /// A comment on the role.
    pub about: &'a str,
    /// A comment on the binding.
    pub about_binding: &'a str,
    /// The rules.
    pub rights: &'a [&'a [Right]],
}

/// The widest line of a comment.
const WIDTH: usize = 130;
/// The API group of roles, and its version.
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule<'a> {
    api_groups: FlowSeq<[&'a str; 1]>,
    resources: FlowSeq<&'a [&'a str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_names: Option<FlowSeq<&'a [&'a str]>>,
    verbs: FlowSeq<&'a [&'a str]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Binding<'a> {
    #[serde(flatten)]
    object: Object<'a>,
    role_ref: RoleRef<'a>,
    subjects: [Subject<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoleRef<'a> {
    api_group: &'a str,
    kind: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Subject<'a> {
    kind: &'a str,
    name: &'a str,
    namespace: &'a str,
}

/// Returns a manifest: `head` as a comment, the service account `(name, namespace)` if it is to be created,
/// and the grants.
#[must_use]
pub fn manifest(head: &str, account: Option<(&str, &str)>, grants: &[Grant<'_>]) -> String {
    let account = account.map(|(name, namespace)| {
        let metadata = Metadata { name, namespace: Some(namespace) };
        yaml(&Object { api_version: "v1", kind: "ServiceAccount", metadata })
    });
    let grants = grants.iter().flat_map(|grant| [role(grant), binding(grant)]);
    let documents: Vec<String> = account.into_iter().chain(grants).collect();
    comment("", head) + &documents.join("---\n")
}

fn role(grant: &Grant<'_>) -> String {
    let Grant { name, namespace, account: _, about, about_binding: _, rights } = *grant;
    let metadata = Metadata { name, namespace };
    let role = Object { api_version: RBAC.1, kind: role_kind(grant), metadata };
    let rules: String = rights.iter().copied().flatten().map(rule).collect();
    format!("{}{}rules:\n{rules}", comment("", about), yaml(&role))
}

fn binding(grant: &Grant<'_>) -> String {
    let Grant { name, namespace, account, about: _, about_binding, rights: _ } = *grant;
    let kind = role_kind(grant);
    let metadata = Metadata { name, namespace };
    let binding = Binding {
        object: Object { api_version: RBAC.1, kind: &format!("{kind}Binding"), metadata },
        role_ref: RoleRef { api_group: RBAC.0, kind, name },
        subjects: [Subject { kind: "ServiceAccount", name: account.0, namespace: account.1 }],
    };
    comment("", about_binding) + &yaml(&binding)
}

fn role_kind(grant: &Grant<'_>) -> &'static str {
    if grant.namespace.is_some() { "Role" } else { "ClusterRole" }
}

/// Returns one item of the list `rules`, with its comment.
fn rule(right: &Right) -> String {
    let Right { group, resources, names, verbs, why } = *right;
    let rule = Rule {
        api_groups: FlowSeq([group]),
        resources: FlowSeq(resources),
        resource_names: (!names.is_empty()).then_some(FlowSeq(names)),
        verbs: FlowSeq(verbs),
    };
    let item: String = yaml(&[rule]).lines().map(|line| format!("  {line}\n")).collect();
    comment("  ", why) + &item
}

fn yaml(value: &impl Serialize) -> String {
    let mut options = SerializerOptions::default();
    options.compact_list_indent = false;
    // Structs of strings can always be serialized.
    serde_yaml::to_string_with_options(value, options).unwrap_or_default()
}

/// Returns a text as comment lines of at most [`WIDTH`] characters.
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
        let role = "---\n\
            # About.\n\
            apiVersion: rbac.authorization.k8s.io/v1\n\
            kind: Role\n\
            metadata:\n  name: a\n  namespace: ns\n\
            rules:\n  # The mapping.\n  \
            - apiGroups: [\"\"]\n    resources: [configmaps]\n    verbs: [list, watch]\n  \
            - apiGroups: [b.io]\n    resources: [bs/status]\n    resourceNames: [one]\n    verbs: [patch]\n\
            ---\n";
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

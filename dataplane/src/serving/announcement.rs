//! What an announcement says and where: plain data, without I/O.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::catalog::Catalog;

/// Where announcements go and questions come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    /// `flutecast.serving.<release>.<server>`.
    pub announce: String,
    /// `flutecast.serving.<release>.query`.
    pub query: String,
}

impl Subjects {
    /// The subjects of one pod of a release.
    #[must_use]
    pub fn new(release: &str, server_name: &str) -> Self {
        let release = token(release);
        let mut server = token(server_name);
        if server == QUERY {
            server.push('_');
        }
        Self {
            announce: format!("flutecast.serving.{release}.{server}"),
            query: format!("flutecast.serving.{release}.{QUERY}"),
        }
    }
}

const QUERY: &str = "query";

/// A name as one token of a subject: what is neither a letter or digit of ASCII nor `-` nor `_` becomes `_`.
pub(crate) fn token(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let token: String = name.chars().map(safe).collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

#[derive(Serialize)]
struct Announcement<'a> {
    server: &'a str,
    tenants: BTreeMap<&'a str, Tenant<'a>>,
}

#[derive(Serialize)]
struct Tenant<'a> {
    shards: BTreeMap<usize, &'a str>,
}

/// The announcement of a pod that serves `catalog`, as JSON. The same catalog gives the same bytes.
#[must_use]
pub fn announcement(server_name: &str, catalog: &Catalog) -> Bytes {
    let tenants = catalog
        .tenants
        .iter()
        .map(|(name, tenant)| {
            let shards = tenant.revisions.iter().map(String::as_str).enumerate().collect();
            (name.as_str(), Tenant { shards })
        })
        .collect();
    let document = Announcement { server: server_name, tenants };
    // Text keys and values always can be written.
    serde_json::to_vec(&document).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use flutecast_contract::document::ShardDocument;

    use super::*;

    #[test]
    fn names_become_one_token() {
        let subjects = Subjects::new("my.release", "pod-1.example *>");
        assert_eq!(subjects.announce, "flutecast.serving.my_release.pod-1_example___");
        assert_eq!(subjects.query, "flutecast.serving.my_release.query");
        assert_eq!(Subjects::new("", "query").announce, "flutecast.serving._.query_");
    }

    #[test]
    fn every_shard_of_every_tenant_is_told() {
        let shard = |tenant: &str, shard: u32, shards: u32, revision: &str| -> ShardDocument {
            serde_yaml::from_str(&format!(
                "apiVersion: mapping.flutecast.io/v1\ntenant: {tenant}\nshard: {shard}\nshards: {shards}\nrevision: {revision}\nsettings: {{stream: S}}\n"
            ))
            .unwrap()
        };
        let documents =
            vec![shard("other", 0, 1, "r3"), shard("acme", 1, 2, "r2"), shard("acme", 0, 2, "r1")];
        let (catalog, problems) = Catalog::build(documents, None);
        assert_eq!(problems, []);
        assert_eq!(
            announcement("pod \"1\"", &catalog),
            r#"{"server":"pod \"1\"","tenants":{"acme":{"shards":{"0":"r1","1":"r2"}},"other":{"shards":{"0":"r3"}}}}"#
        );
        assert_eq!(announcement("p", &Catalog::default()), r#"{"server":"p","tenants":{}}"#);
    }
}

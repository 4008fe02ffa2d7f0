use std::fs;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::API_VERSION;
use flutecast_testkit::wait_until;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::Credential;
use crate::catalog::MappingState;

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(10);

fn shard(tenant: &str, shard: u32, shards: u32, devices: &[&str]) -> String {
    let mut yaml = format!(
        "apiVersion: {API_VERSION}\ntenant: {tenant}\nshard: {shard}\nshards: {shards}\nrevision: r{}\n",
        devices.len()
    );
    yaml.push_str("formats: {f: {codec: JSON, fields: [{name: v, pointer: /v, type: Number}]}}\n");
    if shard == 0 {
        yaml.push_str(&format!("settings: {{stream: IOT_{tenant}}}\n"));
    }
    yaml.push_str("devices:\n");
    for code in devices {
        yaml.push_str(&format!(
            "  {}: {{code: {code}, name: x, channels: {{c: {{format: f}}}}}}\n",
            code.to_lowercase()
        ));
    }
    yaml
}

fn access(tokens: &[&str]) -> String {
    let mut yaml = format!("apiVersion: {API_VERSION}\ntenants: {{acme: {{tokens: {{");
    for token in tokens {
        yaml.push_str(&format!(
            "{token}: {{sha256: {}}}, ",
            data_encoding::HEXLOWER.encode(&Sha256::digest(token))
        ));
    }
    yaml + "}}}\n"
}

struct Watched {
    folder: tempfile::TempDir,
    mapping: Mapping,
    metrics: prometheus_client::registry::Registry,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watched {
    fn start(path: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let mut metrics = prometheus_client::registry::Registry::default();
        let (mapping, task) =
            watch_folder(&folder.path().join(path), CatalogMetrics::register(&mut metrics), stop.clone());
        Self { folder, mapping, metrics, stop, task }
    }

    /// Writes a file atomically, as the operator does.
    fn write(&self, name: &str, content: &str) {
        let path = self.folder.path().join(name);
        let beside = self.folder.path().join(format!(".{}.tmp", name.replace('/', "_")));
        fs::write(&beside, content).unwrap();
        fs::rename(beside, path).unwrap();
    }

    fn codes(&self, tenant: &str) -> Vec<String> {
        let catalog = self.mapping.catalog.borrow().clone();
        let mut codes: Vec<String> = catalog
            .tenants
            .get(tenant)
            .into_iter()
            .flat_map(|t| t.by_code.keys().map(ToString::to_string))
            .collect();
        codes.sort();
        codes
    }

    async fn wait_for_codes(&self, tenant: &str, expected: &[&str], deadline: Duration) {
        wait_until("the devices", deadline, async || {
            let codes = self.codes(tenant);
            if codes == expected { Ok(()) } else { Err(format!("{codes:?}")) }
        })
        .await
        .unwrap();
    }

    async fn wait_for_problems(&self, kind: &str, expected: usize) {
        let wanted = format!("catalog_problems{{kind=\"{kind}\"}} {expected}");
        wait_until(&wanted, DEADLINE, async || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
            if text.contains(&wanted) { Ok(()) } else { Err(text) }
        })
        .await
        .unwrap();
    }

    fn opens(&self, token: &str) -> Option<bool> {
        let access = self.mapping.access.borrow().clone()?;
        Some(access.decide("acme", &Credential::token(token.as_bytes())).is_ok())
    }

    async fn wait_for_opens(&self, token: &str, expected: bool) {
        wait_until("access", SECOND, async || match self.opens(token) {
            Some(opens) if opens == expected => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn change_is_served_within_a_second() {
    let watched = Watched::start("");
    watched.write("flutecast-acme-0.yaml", &shard("acme", 0, 1, &["A"]));
    watched.wait_for_codes("acme", &["A"], DEADLINE).await;
    watched.write("flutecast-acme-0.yaml", &shard("acme", 0, 1, &["A", "B"]));
    watched.wait_for_codes("acme", &["A", "B"], SECOND).await;
    // Written in place, as an editor may.
    fs::write(watched.folder.path().join("flutecast-acme-0.yaml"), shard("acme", 0, 1, &["C"])).unwrap();
    watched.wait_for_codes("acme", &["C"], SECOND).await;
    fs::remove_file(watched.folder.path().join("flutecast-acme-0.yaml")).unwrap();
    watched.wait_for_codes("acme", &[], SECOND).await;
    watched.end().await;
}

#[tokio::test]
async fn broken_document_keeps_its_last_good_state_and_the_other_tenants() {
    let watched = Watched::start("");
    watched.write("flutecast-acme-0.yaml", &shard("acme", 0, 2, &["A"]));
    watched.write("flutecast-acme-1.yaml", &shard("acme", 1, 2, &["B"]));
    watched.write("flutecast-other-0.yaml", &shard("other", 0, 1, &["O"]));
    watched.wait_for_codes("acme", &["A", "B"], DEADLINE).await;
    let acme = Arc::clone(&watched.mapping.catalog.borrow().tenants["acme"]);
    for (broken, kind) in [
        ("tenant: [", "Unreadable"),
        ("", "Unreadable"),
        (&*shard("other", 1, 2, &["X"]), "Unreadable"),
        (&*shard("acme", 0, 2, &["X"]), "Unreadable"),
        (&*shard("acme", 1, 3, &["X"]), "IncompleteShards"),
        (&*"#".repeat(4 * 1024 * 1024 + 1), "Unreadable"),
    ] {
        watched.write("flutecast-acme-1.yaml", broken);
        watched.wait_for_problems(kind, 1).await;
        // The other tenant is still updated.
        watched.write("flutecast-other-0.yaml", &shard("other", 0, 1, &["O", "P"]));
        watched.wait_for_codes("other", &["O", "P"], SECOND).await;
        watched.write("flutecast-other-0.yaml", &shard("other", 0, 1, &["O"]));
        watched.wait_for_codes("other", &["O"], SECOND).await;
        assert!(Arc::ptr_eq(&acme, &watched.mapping.catalog.borrow().tenants["acme"]));
        watched.write("flutecast-acme-1.yaml", &shard("acme", 1, 2, &["B"]));
        watched.wait_for_problems(kind, 0).await;
    }
    // A missing shard does not mean that its devices were removed.
    fs::remove_file(watched.folder.path().join("flutecast-acme-1.yaml")).unwrap();
    watched.wait_for_problems("IncompleteShards", 1).await;
    assert_eq!(watched.codes("acme"), ["A", "B"]);
    watched.end().await;
}

#[tokio::test]
async fn files_of_other_names_are_not_read() {
    let watched = Watched::start("");
    for name in [
        "flutecast-acme-01.yaml",
        "flutecast-acme.yaml",
        "flutecast--0.yaml",
        "acme-0.yaml",
        ".flutecast-acme-0.yaml",
        "flutecast-acme-0.yaml.swp",
    ] {
        watched.write(name, &shard("acme", 0, 1, &["X"]));
    }
    watched.write("flutecast-other-0.yaml", &shard("other", 0, 1, &["O"]));
    watched.wait_for_codes("other", &["O"], DEADLINE).await;
    assert_eq!(watched.mapping.catalog.borrow().tenants.len(), 1);
    watched.wait_for_problems("Unreadable", 0).await;
    watched.end().await;
}

#[tokio::test]
async fn broken_access_document_keeps_access_and_a_removed_one_revokes_it() {
    let watched = Watched::start("");
    watched.write("flutecast-acme-0.yaml", &shard("acme", 0, 1, &["A"]));
    watched.wait_for_codes("acme", &["A"], DEADLINE).await;
    assert_eq!(watched.opens("one"), None);
    let state = watched.mapping.state.borrow().clone();
    assert!(matches!(&state, MappingState::Missing(reason) if reason.contains("flutecast-access.yaml")));

    watched.write("flutecast-access.yaml", &access(&["one"]));
    watched.wait_for_opens("one", true).await;
    assert_eq!(*watched.mapping.state.borrow(), MappingState::Loaded);

    watched.write("flutecast-access.yaml", "tenants: [");
    watched.wait_for_problems("Unreadable", 1).await;
    assert_eq!(watched.opens("one"), Some(true));

    watched.write("flutecast-access.yaml", &access(&["two"]));
    watched.wait_for_opens("two", true).await;
    assert_eq!(watched.opens("one"), Some(false));

    fs::remove_file(watched.folder.path().join("flutecast-access.yaml")).unwrap();
    watched.wait_for_opens("two", false).await;
    watched.end().await;
}

#[tokio::test]
async fn folder_may_appear_late_and_be_replaced() {
    let watched = Watched::start("mapping");
    wait_until("what is missing", DEADLINE, async || match &*watched.mapping.state.borrow() {
        MappingState::Missing(reason) if reason.contains("can't be read") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    let path = watched.folder.path().join("mapping");
    fs::create_dir(&path).unwrap();
    watched.write("mapping/flutecast-acme-0.yaml", &shard("acme", 0, 1, &["A"]));
    watched.wait_for_codes("acme", &["A"], DEADLINE).await;

    // While the folder is away, the mapping is kept.
    fs::rename(&path, watched.folder.path().join("old")).unwrap();
    watched.wait_for_problems("Unreadable", 1).await;
    assert_eq!(watched.codes("acme"), ["A"]);
    fs::create_dir(&path).unwrap();
    watched.write("mapping/flutecast-acme-0.yaml", &shard("acme", 0, 1, &["B"]));
    watched.wait_for_codes("acme", &["B"], DEADLINE).await;
    // Its events are received again, well before the next periodic reading.
    watched.write("mapping/flutecast-acme-0.yaml", &shard("acme", 0, 1, &["C"]));
    watched.wait_for_codes("acme", &["C"], SECOND).await;
    watched.end().await;
}

/// Kubernetes mounts a ConfigMap as symlinks through `..data`, and swaps that to update all files at once.
#[cfg(unix)]
#[tokio::test]
async fn swapped_symlink_is_followed() {
    use std::os::unix::fs::symlink;
    let watched = Watched::start("mount");
    let mount = watched.folder.path().join("mount");
    let version = |name: &str, devices: &[&str]| {
        fs::create_dir_all(mount.join(name)).unwrap();
        fs::write(mount.join(name).join("flutecast-acme-0.yaml"), shard("acme", 0, 1, devices)).unwrap();
        symlink(name, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    version("..1", &["A"]);
    symlink("..data/flutecast-acme-0.yaml", mount.join("flutecast-acme-0.yaml")).unwrap();
    watched.wait_for_codes("acme", &["A"], DEADLINE).await;
    version("..2", &["B"]);
    watched.wait_for_codes("acme", &["B"], SECOND).await;
    fs::remove_dir_all(mount.join("..1")).unwrap();
    version("..3", &["C"]);
    watched.wait_for_codes("acme", &["C"], SECOND).await;
    watched.end().await;
}

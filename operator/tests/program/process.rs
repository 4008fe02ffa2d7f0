//! The program with a folder, a nats-server, and signals.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_testkit::{NatsServer, Process, free_port, http_client, wait_until};

use crate::manifests::{device, format, tenant};

/// The time that a Tenant must be gone before its streams are deleted (docs/nats.md).
const REMOVAL_GRACE: Duration = Duration::from_secs(5);

const SOON: Duration = Duration::from_secs(15);
const TOKEN: &str = "a-token-of-many-letters";
/// A source that needs the stream SRC_demo_mes.
const MES_SOURCE: &str = "sources: [{name: mes, subject: mes.out, channel: counters, iotId: {pointer: /id}}]";

/// A folder of manifests, a folder for the mapping, and the operator.
struct Plant {
    folder: tempfile::TempDir,
    nats: String,
    process: Option<Process>,
}

impl Plant {
    fn new(nats: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        Self { folder, nats: nats.to_owned(), process: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn mapping(&self, name: &str) -> PathBuf {
        self.path("mapping").join(name)
    }

    /// Writes a manifest as editors do: into another file, which is then renamed.
    fn put(&self, name: &str, text: &str) {
        let path = self.path("manifests").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("tmp");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path("manifests").join(name)).unwrap();
    }

    fn start(&mut self, more: &[&str]) {
        let mut args: Vec<String> = ["--manifests", "--mapping-out", "--nats"].map(str::to_owned).to_vec();
        args.insert(1, self.path("manifests").display().to_string());
        args.insert(3, self.path("mapping").display().to_string());
        args.push(self.nats.clone());
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let program = PathBuf::from(env!("CARGO_BIN_EXE_flutecast-operator"));
        self.process = Some(Process::spawn(&program, args).unwrap());
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    async fn line(&mut self, what: &str) -> String {
        self.process().wait_for_line(what, SOON, |line| line.contains(what)).await.unwrap()
    }

    async fn end(&mut self) {
        let status = self.process().terminate(SOON).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.process().tail());
    }

    /// Returns the device codes in the mapping.
    fn codes(&self, tenant: &str) -> Vec<String> {
        let text =
            fs::read_to_string(self.mapping(&format!("flutecast-{tenant}-0.yaml"))).unwrap_or_default();
        let Ok(shard) = ShardDocument::from_yaml(&text) else { return Vec::new() };
        shard.devices.into_values().map(|device| device.code.to_string()).collect()
    }

    async fn wait_for_codes(&self, expected: &[&str]) {
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        wait_until(&format!("devices {expected:?}"), SOON, async || {
            let mut codes = self.codes("demo");
            codes.sort_unstable();
            if codes == expected { Ok(()) } else { Err(format!("{codes:?}")) }
        })
        .await
        .unwrap();
    }

    async fn wait_for_mapping(&self, tenant: &str) {
        let path = self.mapping(&format!("flutecast-{tenant}-0.yaml"));
        let there = async || if path.exists() { Ok(()) } else { Err("not there") };
        wait_until("the tenant's mapping", SOON, there).await.unwrap();
    }

    fn everything_written(&mut self) -> String {
        let output = self.process().output().join("\n");
        let files: Vec<String> = fs::read_dir(self.path("mapping"))
            .unwrap()
            .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        output + &files.join("\n")
    }
}

async fn wait_for_stream(nats: &NatsServer, name: &str, there: bool) {
    let context = async_nats::jetstream::new(nats.client().await.unwrap());
    wait_until(&format!("stream {name} there: {there}"), SOON, async || {
        let is_there = context.get_stream(name).await.is_ok();
        if is_there == there { Ok(()) } else { Err(format!("there: {is_there}")) }
    })
    .await
    .unwrap();
}

fn base() -> String {
    format!("{}---\n{}", tenant("demo", "displayName: Demo"), format("on-off"))
}

#[tokio::test]
async fn an_edit_is_in_force_within_a_second() {
    let nats = NatsServer::start().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    plant.put("base.yaml", &base());
    plant.put("line/d1.yaml", &device("d1", "demo", "C-1", "on-off"));
    plant.start(&[]);
    plant.line("Device/d1 Accepted").await;
    wait_for_stream(&nats, "IOT_demo", true).await;
    plant.wait_for_codes(&["C-1"]).await;

    let edited = Instant::now();
    plant.put("line/d2.yaml", &device("d2", "demo", "C-2", "on-off"));
    plant.wait_for_codes(&["C-1", "C-2"]).await;
    let tenant_with_source = tenant(
        "demo",
        "sources: [{name: gw, subject: plant.*.power, channel: power, iotId: {subjectToken: 2}}]",
    );
    plant.put("base.yaml", &format!("{tenant_with_source}---\n{}", format("on-off")));
    wait_for_stream(&nats, "SRC_demo_gw", true).await;
    assert!(edited.elapsed() < Duration::from_secs(2), "two edits took {:?}", edited.elapsed());

    // A broken file keeps its last good objects, and the outcome has the position.
    plant.put("line/d2.yaml", "kind: Device\nspec: [\n");
    let line = plant.line("File/line/d2.yaml Degraded").await;
    assert!(line.contains("InvalidYaml: line/d2.yaml:"), "{line}");
    assert_eq!(plant.codes("demo").len(), 2);

    // The outcome of a duplicate names the holder; it is accepted when the holder goes.
    plant.put("line/d3.yaml", &device("d3", "demo", "C-1", "on-off"));
    let line = plant.line("Device/d3 Refused").await;
    assert!(line.contains("DuplicateDeviceCode") && line.contains("Device/d1"), "{line}");
    plant.remove("line/d1.yaml");
    plant.line("Device/d1 Removed").await;
    plant.line("Device/d3 Accepted").await;
    plant.remove("line/d2.yaml");
    plant.wait_for_codes(&["C-1"]).await;
    plant.end().await;
}

/// A format that is edited into nonsense of any kind takes nothing from a screen, also over a restart.
#[tokio::test]
async fn a_format_that_breaks_stays_in_force_as_it_was() {
    let nats = NatsServer::start().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    plant.put("tenant.yaml", &tenant("demo", ""));
    plant.put("format.yaml", &format("on-off"));
    plant.put("d1.yaml", &device("d1", "demo", "C-1", "on-off"));
    plant.start(&[]);
    plant.line("Device/d1 Accepted").await;
    let document = plant.mapping("flutecast-demo-0.yaml");
    let before = fs::read_to_string(&document).unwrap();

    let broken = format("on-off").replace("fields:", "when: \"values.running >\"\n  fields:");
    plant.put("format.yaml", &broken);
    let line = plant.line("PushFormat/on-off Degraded").await;
    assert!(line.contains("FormatInvalid: spec.when: "), "{line}");
    let (_, since) = line.rsplit_once("; the version of ").unwrap();
    let since: k8s_openapi::jiff::Timestamp = since.strip_suffix(" is in force").unwrap().parse().unwrap();
    assert!(since.as_second() > 0);
    assert_eq!(fs::read_to_string(&document).unwrap(), before);
    plant.end().await;

    // It broke while the operator was there, or was away; as a format, as an object, or as YAML.
    let schema = format("on-off").replace("type: Bool", "type: Nonsense");
    for (text, told) in [
        (broken.as_str(), "PushFormat/on-off Degraded FormatInvalid"),
        (schema.as_str(), "PushFormat/on-off Degraded InvalidObject"),
        ("kind: [\n", "File/format.yaml Degraded InvalidYaml"),
    ] {
        plant.put("format.yaml", text);
        plant.start(&[]);
        let line = plant.line(told).await;
        assert!(line.ends_with("; the version before is in force") || told.starts_with("File"), "{line}");
        plant.line("Device/d1 Accepted").await;
        assert_eq!(fs::read_to_string(&document).unwrap(), before, "{told}");
        // A device that comes later has the version in force.
        plant.put("d2.yaml", &device("d2", "demo", "C-2", "on-off"));
        plant.line("Device/d2 Accepted").await;
        plant.remove("d2.yaml");
        plant.line("Device/d2 Removed").await;
        plant.end().await;
    }
    plant.start(&[]);
    plant.put("format.yaml", &format("on-off").replace("pointer: /on", "pointer: /is/on"));
    plant.line("PushFormat/on-off Accepted").await;
    assert!(fs::read_to_string(&document).unwrap().contains("/is/on"));
    plant.end().await;
}

#[tokio::test]
async fn works_without_nats_and_recovers() {
    let mut nats = NatsServer::start().await.unwrap();
    nats.stop().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    plant.put("base.yaml", &base());
    plant.put("d1.yaml", &device("d1", "demo", "C-1", "on-off"));
    let admin = format!("127.0.0.1:{}", free_port().unwrap());
    plant.start(&["--admin", &admin]);
    plant.line("Tenant/demo Degraded BrokerAway").await;
    plant.wait_for_codes(&["C-1"]).await;
    let ready = http_client::get(&format!("http://{admin}/readyz")).await.unwrap();
    assert_eq!((ready.status.as_u16(), ready.text().contains("NATS")), (503, true));

    nats.restart().await.unwrap();
    plant
        .process()
        .wait_for_line("Tenant/demo Accepted", SOON, |line| line == "Tenant/demo Accepted")
        .await
        .unwrap();
    wait_for_stream(&nats, "IOT_demo", true).await;
    assert_eq!(http_client::get(&format!("http://{admin}/readyz")).await.unwrap().status.as_u16(), 200);

    // While it is away, changes of the folder are applied. The outcome is printed once.
    nats.stop().await.unwrap();
    plant.put("d2.yaml", &device("d2", "demo", "C-2", "on-off"));
    plant.wait_for_codes(&["C-1", "C-2"]).await;
    nats.restart().await.unwrap();
    let metrics = http_client::get(&format!("http://{admin}/metrics")).await.unwrap().text();
    assert!(metrics.contains("flutecast_build_info{version=\""), "{metrics}");
    assert!(
        metrics.contains("flutecast_operator_objects{kind=\"Device\",condition=\"Ready\"} 2"),
        "{metrics}"
    );
    let said = plant.process().output().iter().filter(|line| line.contains("Degraded BrokerAway")).count();
    assert!(said <= 2, "{:?}", plant.process().output());
    plant.end().await;
}

#[tokio::test]
async fn deleted_streams_and_documents_come_back() {
    let nats = NatsServer::start().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    plant.put("base.yaml", &tenant("demo", MES_SOURCE));
    plant.start(&[]);
    wait_for_stream(&nats, "IOT_demo", true).await;
    let context = async_nats::jetstream::new(nats.client().await.unwrap());
    context.delete_stream("IOT_demo").await.unwrap();
    context.delete_stream("SRC_demo_mes").await.unwrap();
    wait_for_stream(&nats, "IOT_demo", true).await;
    wait_for_stream(&nats, "SRC_demo_mes", true).await;
    plant.end().await;
}

#[tokio::test]
async fn a_deleted_tenant_deletes_its_stream_only_if_configured() {
    let nats = NatsServer::start().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    plant.put("demo.yaml", &tenant("demo", "retention: {onDelete: Delete}"));
    plant.put("kept.yaml", &tenant("kept", "displayName: Kept"));
    plant.start(&[]);
    for stream in ["IOT_demo", "IOT_kept"] {
        wait_for_stream(&nats, stream, true).await;
    }
    // Removed and restored within a moment, as editors and git do: nothing is lost.
    plant.remove("demo.yaml");
    plant.line("Tenant/demo Removed").await;
    plant.put("demo.yaml", &tenant("demo", "retention: {onDelete: Delete}"));
    plant.wait_for_mapping("demo").await;
    let before = plant.process().line_count();
    let removed = Instant::now();
    plant.remove("demo.yaml");
    plant.remove("kept.yaml");
    plant
        .process()
        .wait_for_line_from(before, "Tenant/kept Removed", SOON, |line| line.contains("Tenant/kept Removed"))
        .await
        .unwrap();
    wait_for_stream(&nats, "IOT_demo", false).await;
    // The time counts from the second removal.
    assert!(removed.elapsed() >= REMOVAL_GRACE);
    wait_for_stream(&nats, "IOT_kept", true).await;
    assert!(
        !plant.mapping("flutecast-demo-0.yaml").exists() && !plant.mapping("flutecast-kept-0.yaml").exists()
    );
    plant.end().await;
}

#[tokio::test]
async fn a_removed_payload_source_stays_in_the_mapping_for_a_moment() {
    let nats = NatsServer::start().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    plant.put("base.yaml", &tenant("demo", MES_SOURCE));
    plant.start(&[]);
    wait_for_stream(&nats, "SRC_demo_mes", true).await;
    plant.wait_for_mapping("demo").await;
    let edited = Instant::now();
    plant.put("base.yaml", &tenant("demo", "displayName: Without"));
    // No message is left to split, so the stream is deleted at once; the mapping follows.
    wait_for_stream(&nats, "SRC_demo_mes", false).await;
    let mapping = plant.mapping("flutecast-demo-0.yaml");
    let text = async || {
        let text = fs::read_to_string(&mapping).unwrap();
        if text.contains("mes") || !text.contains("Without") { Err(text) } else { Ok(()) }
    };
    wait_until("the mapping without the source", SOON, text).await.unwrap();
    assert!(edited.elapsed() >= Duration::from_secs(1), "{:?}", edited.elapsed());
    plant.end().await;
}

#[tokio::test]
async fn nothing_is_read_from_a_stream_of_somebody_else() {
    let nats = NatsServer::start().await.unwrap();
    let context = async_nats::jetstream::new(nats.client().await.unwrap());
    let config = async_nats::jetstream::stream::Config {
        name: "IOT_demo".to_owned(),
        subjects: vec!["iot.demo.>".to_owned()],
        metadata: [
            ("flutecast.io/owner-namespace".to_owned(), "far".to_owned()),
            ("flutecast.io/owner-name".to_owned(), "demo".to_owned()),
        ]
        .into(),
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let mut plant = Plant::new(&nats.url());
    plant.put(
        "base.yaml",
        &format!("{}---\n{}", tenant("demo", "access: {anonymous: true}"), format("on-off")),
    );
    plant.put("d1.yaml", &device("d1", "demo", "C-1", "on-off"));
    plant.start(&[]);
    let line = plant.line("Tenant/demo Refused").await;
    assert!(
        line.contains("StreamOwnedByOther: stream IOT_demo exists and belongs to Tenant/far/demo"),
        "{line}"
    );
    let access = fs::read_to_string(plant.mapping("flutecast-access.yaml")).unwrap();
    assert!(!plant.mapping("flutecast-demo-0.yaml").exists() && !access.contains("demo"), "{access}");
    // Its owner releases it.
    context.delete_stream("IOT_demo").await.unwrap();
    plant.line("Tenant/demo Accepted").await;
    plant.wait_for_codes(&["C-1"]).await;
    plant.end().await;
}

#[tokio::test]
async fn tokens_appear_only_in_the_access_document() {
    let nats = NatsServer::start().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: walls}}\nstringData: {{wall: {TOKEN}, short: \
         shorty}}\n"
    );
    plant.put("base.yaml", &tenant("demo", "access: {tokens: {secretName: walls}}"));
    plant.put("secret.yaml", &secret);
    plant.start(&["--log-format", "json"]);
    plant.line("TokenTooShort").await;
    plant.put("secret.yaml", &secret.replace(", short", ", x: [\"unfinished, short"));
    plant.line("InvalidYaml").await;
    let access = plant.mapping("flutecast-access.yaml");
    assert_eq!(fs::metadata(&access).unwrap().permissions().mode() & 0o777, 0o600);
    let document = AccessDocument::from_yaml(&fs::read_to_string(&access).unwrap()).unwrap();
    let tokens = &document.tenants.values().next().unwrap().tokens;
    assert_eq!(tokens["wall"].sha256, flutecast_contract::document::token_sha256(TOKEN));
    let written = plant.everything_written();
    assert!(!written.contains(TOKEN) && !written.contains("shorty"), "{written}");
    plant.end().await;
    for line in plant.process().output() {
        let _: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
    }
}

fn stamps(folder: &Path) -> Vec<(PathBuf, u64, i64, i64, Vec<u8>)> {
    let mut stamps: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let metadata = fs::metadata(&path).unwrap();
            let bytes = fs::read(&path).unwrap();
            (path, metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), bytes)
        })
        .collect();
    stamps.sort();
    stamps
}

#[tokio::test]
async fn a_restart_writes_nothing_and_foreign_files_stay() {
    let nats = NatsServer::start().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    plant.put("base.yaml", &base());
    plant.put("z.yaml", &device("zz-holder", "demo", "C-1", "on-off"));
    plant.start(&[]);
    plant.line("Device/zz-holder Accepted").await;
    plant.put("a.yaml", &device("aa-newcomer", "demo", "C-1", "on-off"));
    plant.line("Device/aa-newcomer Refused").await;
    plant.end().await;
    for (name, text) in [
        ("notes.yaml", "mine: true\n"),
        ("flutecast-other-7.yaml", "not: a shard\n"),
        (".flutecast-tmp-dead", "half"),
    ] {
        fs::write(plant.mapping(name), text).unwrap();
    }
    // A shard of a tenant that was deleted while no operator ran.
    let stale = fs::read_to_string(plant.mapping("flutecast-demo-0.yaml"))
        .unwrap()
        .replace("tenant: demo", "tenant: gone");
    fs::write(plant.mapping("flutecast-gone-0.yaml"), stale).unwrap();
    let before = stamps(&plant.path("mapping"));
    plant.start(&[]);
    let line = plant.line("Device/aa-newcomer Refused").await;
    assert!(line.contains("Device/zz-holder"), "{line}");
    plant.line("Tenant/demo Accepted").await;
    plant.end().await;
    let after = stamps(&plant.path("mapping"));
    let gone = |name: &str| !after.iter().any(|stamp| stamp.0.ends_with(name));
    assert!(gone("flutecast-gone-0.yaml") && gone(".flutecast-tmp-dead"));
    assert_eq!(after.len(), before.len() - 2);
    assert!(after.iter().all(|stamp| before.contains(stamp)));
}

#[tokio::test]
async fn a_mounted_config_map_is_followed() {
    // Kubernetes mounts a ConfigMap as links into a folder that a link points to, and replaces that link.
    let nats = NatsServer::start().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    let manifests = plant.path("manifests");
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, manifests.join("..data_tmp")).unwrap();
        fs::rename(manifests.join("..data_tmp"), manifests.join("..data")).unwrap();
    };
    for (folder, code) in [("..one", "C-1"), ("..two", "C-2")] {
        fs::create_dir(manifests.join(folder)).unwrap();
        let text = format!("{}---\n{}", base(), device("d1", "demo", code, "on-off"));
        fs::write(manifests.join(folder).join("all.yaml"), text).unwrap();
    }
    link("..one");
    std::os::unix::fs::symlink("..data/all.yaml", manifests.join("all.yaml")).unwrap();
    plant.start(&[]);
    plant.wait_for_codes(&["C-1"]).await;
    link("..two");
    plant.wait_for_codes(&["C-2"]).await;
    plant.end().await;
}

#[tokio::test]
async fn a_folder_that_vanishes_changes_nothing() {
    let nats = NatsServer::start().await.unwrap();
    let mut plant = Plant::new(&nats.url());
    plant.put("base.yaml", &base());
    plant.put("d1.yaml", &device("d1", "demo", "C-1", "on-off"));
    plant.start(&[]);
    plant.wait_for_codes(&["C-1"]).await;
    fs::rename(plant.path("manifests"), plant.path("elsewhere")).unwrap();
    plant.line("the manifests can't be read").await;
    assert_eq!(plant.codes("demo"), ["C-1"]);
    fs::rename(plant.path("elsewhere"), plant.path("manifests")).unwrap();
    plant.put("d2.yaml", &device("d2", "demo", "C-2", "on-off"));
    plant.wait_for_codes(&["C-1", "C-2"]).await;
    plant.end().await;
}

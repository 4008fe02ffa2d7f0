//! The stream task on a real nats-server: a problem of one stream affects only that one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::jetstream::orphans::Installation;
use crate::jetstream::reconciler::{StreamReports, StreamTask, TenantReport, WantedStreams};
use crate::jetstream::streams::TenantStreams;
use crate::tests::{Folder, manifests};
use flutecast_contract::name::TenantName;
use flutecast_nats::JetStreamApi;
use flutecast_testkit::{NatsServer, wait_until};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);
const INSTALLATION: &str = "this-installation";

/// The task, and its channels.
struct Bench {
    api: JetStreamApi,
    wanted: watch::Sender<Option<Arc<WantedStreams>>>,
    report: watch::Receiver<StreamReports>,
    _server: NatsServer,
    _cancel: tokio_util::sync::DropGuard,
}

impl Bench {
    async fn start() -> Self {
        let server = NatsServer::start().await.unwrap();
        let api = JetStreamApi::new(server.client().await.unwrap());
        let (wanted, to_keep) = watch::channel(None);
        let (reports, report) = watch::channel(StreamReports::new());
        let (_, connected) = watch::channel(true);
        let cancel = CancellationToken::new();
        let task =
            StreamTask { api: api.clone(), connected, wanted: to_keep, reports, metrics: Arc::default() };
        drop(tokio::spawn(cancel.clone().run_until_cancelled_owned(task.run())));
        Self { api, wanted, report, _server: server, _cancel: cancel.drop_guard() }
    }

    /// Sets the wanted tenants, which are all that exist.
    fn keep(&self, tenants: &[&TenantStreams]) {
        let alive: BTreeSet<String> = tenants.iter().filter_map(|tenant| tenant.owner.uid.clone()).collect();
        let wanted = WantedStreams {
            tenants: tenants.iter().map(|tenant| (*tenant).clone()).collect(),
            existing: tenants
                .iter()
                .map(|tenant| ("default".to_owned(), tenant.owner.name.clone()))
                .collect(),
            installation: Some(Installation { id: INSTALLATION.to_owned(), scopes: vec![None], alive }),
        };
        self.wanted.send_replace(Some(Arc::new(wanted)));
    }

    /// Waits for a report about a tenant. Returns it.
    async fn until(&self, tenant: &TenantStreams, is_so: impl Fn(&TenantReport) -> bool) -> TenantReport {
        wait_until(&format!("the report of {}", tenant.tenant), SOON, async || {
            let told = self.report.borrow().get(&tenant.tenant).cloned().unwrap_or_default();
            if is_so(&told) { Ok(told) } else { Err(format!("{told:#?}")) }
        })
        .await
        .unwrap()
    }

    async fn until_applied(&self, tenant: &TenantStreams) {
        self.until(tenant, |told| told.findings.is_empty() && told.applied.as_ref() == Some(tenant)).await;
    }

    /// Changes one setting of a stream, as a user would.
    async fn edit(&self, stream: &str, key: &str, value: serde_json::Value) {
        let mut config = self.api.stream(stream).await.unwrap().unwrap().config;
        config.insert(key.to_owned(), value);
        self.api.update_stream(stream, config).await.unwrap();
    }
}

/// Returns the streams of a Tenant; `spec` is one line of its spec.
fn wanted(name: &str, spec: &str) -> TenantStreams {
    let mut folder = Folder::default();
    folder.load(&[("a.yaml", &manifests::tenant(name, spec))]);
    let mut streams = folder.built().tenants[&TenantName::new(name).unwrap()].streams.clone();
    streams.owner.uid = Some(format!("uid-of-{name}"));
    streams.owner.installation = Some(INSTALLATION.to_owned());
    streams
}

#[tokio::test]
async fn a_stream_that_nats_does_not_delete_delays_no_tenant() {
    let bench = Bench::start().await;
    let source = "{name: gw, subject: plant.*.power, channel: power, iotId: {subjectToken: 2}}";
    let (gone, stays) = (wanted("gone", &format!("sources: [{source}]")), wanted("stays", ""));
    bench.keep(&[&gone, &stays]);
    bench.until_applied(&gone).await;
    bench.until_applied(&stays).await;
    // From here on NATS refuses each update of the stream, also of its metadata, because the mirror may hold
    // longer messages.
    bench.edit("IOT_gone", "max_msg_size", json!(10)).await;
    bench.edit("SRC_gone_gw", "max_msg_size", json!(100)).await;

    let comes = wanted("comes", "");
    bench.keep(&[&stays, &comes]);
    bench.until_applied(&comes).await;
    bench.until_applied(&stays).await;
    let owner = |name: &'static str| {
        let api = bench.api.clone();
        async move {
            api.stream(name).await.unwrap().unwrap().metadata("flutecast.io/owner-uid").map(str::to_owned)
        }
    };
    assert_eq!(owner("IOT_gone").await.as_deref(), Some("uid-of-gone"), "it could be changed after all");
    assert_eq!(owner("SRC_gone_gw").await, None, "what can be let go is");

    // It is released when it can be updated again.
    bench.edit("SRC_gone_gw", "max_msg_size", json!(-1)).await;
    wait_until("the stream to be let go", SOON, async || match owner("IOT_gone").await {
        None => Ok(()),
        Some(uid) => Err(uid),
    })
    .await
    .unwrap();
}

/// An operator before this one only took the uid off streams that were kept.
#[tokio::test]
async fn sources_that_were_kept_capturing_are_free_for_another_tenant() {
    let bench = Bench::start().await;
    let source = "sources: [{name: gw, subject: plant.*.power, channel: power, iotId: {subjectToken: 2}}]";
    let (old, new) = (wanted("old", source), wanted("new", source));
    let kept = json!({
        "name": "SRC_old_gw", "subjects": ["plant.*.power"], "metadata": {
            "flutecast.io/owner-namespace": "default", "flutecast.io/owner-name": "old",
            "flutecast.io/realm": INSTALLATION, "flutecast.io/on-delete": "Keep",
        },
    });
    bench.api.create_stream("SRC_old_gw", kept.as_object().unwrap().clone()).await.unwrap();
    let subjects =
        async |stream: &str| bench.api.stream(stream).await.unwrap().unwrap().config["subjects"].clone();
    bench.keep(&[&new]);
    bench.until_applied(&new).await;
    assert_eq!(subjects("SRC_new_gw").await, json!(["plant.*.power"]));
    assert_eq!(subjects("SRC_old_gw").await, json!(["SRC_old_gw"]));
    // The next Tenant of the name has it again.
    bench.keep(&[&old]);
    bench.until_applied(&old).await;
    assert_eq!(subjects("SRC_old_gw").await, json!(["plant.*.power"]));
}

#[tokio::test]
async fn without_a_stream_of_last_values_a_tenant_works() {
    let bench = Bench::start().await;
    let foreign = json!({"name": "LAST_demo", "subjects": ["foreign.>"]});
    bench.api.create_stream("LAST_demo", foreign.as_object().unwrap().clone()).await.unwrap();
    let demo = wanted("demo", "");
    bench.keep(&[&demo]);
    let told = bench.until(&demo, |told| !told.findings.is_empty()).await;
    assert!(told.has_stream && !told.foreign && !told.has_kept, "{told:?}");
    let said = told.findings[0].to_string();
    assert!(said.starts_with("StreamOwnedByOther: stream LAST_demo exists"), "{said}");

    bench.api.delete_stream("LAST_demo").await.unwrap();
    bench.until_applied(&demo).await;
    bench.until(&demo, |told| told.has_kept).await;
}

#[tokio::test]
async fn foreign_changes_are_repaired_at_a_bounded_rate() {
    let bench = Bench::start().await;
    let demo = wanted("demo", "");
    bench.keep(&[&demo]);
    bench.until_applied(&demo).await;
    // Settings that lose messages within the retention.
    let as_wanted = bench.api.stream("IOT_demo").await.unwrap().unwrap().config;
    let mut config = as_wanted.clone();
    for (key, value) in [
        ("max_msgs", json!(3)),
        ("max_age", json!(60_000_000_000_u64)),
        ("duplicate_window", json!(60_000_000_000_u64)),
        ("no_ack", json!(true)),
        ("allow_rollup_hdrs", json!(true)),
        ("subject_transform", json!({"src": "iot.demo.>", "dest": "junk.>"})),
    ] {
        config.insert(key.to_owned(), value);
    }
    let edited = bench.api.update_stream("IOT_demo", config).await.unwrap().config;
    assert_eq!(edited["subject_transform"]["dest"], "junk.>");
    wait_until("the stream to be put right", SOON, async || {
        let now = bench.api.stream("IOT_demo").await.unwrap().unwrap().config;
        if now == as_wanted { Ok(()) } else { Err(format!("{now:#?}")) }
    })
    .await
    .unwrap();

    // A change that is repeated is repaired less and less often.
    let mut answers = 0;
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end {
        if bench.api.stream("IOT_demo").await.unwrap().unwrap().config["max_msgs"] == -1 {
            bench.edit("IOT_demo", "max_msgs", json!(3)).await;
            answers += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((2..=6).contains(&answers), "{answers} times in 6 s");
}

#[tokio::test]
async fn a_stream_that_can_not_be_repaired_is_reported() {
    let bench = Bench::start().await;
    let demo = wanted("demo", "");
    bench.keep(&[&demo]);
    bench.until_applied(&demo).await;
    bench.edit("IOT_demo", "sealed", json!(true)).await;
    let told = bench.until(&demo, |told| !told.findings.is_empty()).await;
    let told = told.findings[0].to_string();
    assert!(told.starts_with("StreamRefused: ") && told.contains("nats stream rm IOT_demo"), "{told}");
    bench.api.delete_stream("IOT_demo").await.unwrap();
    bench.until_applied(&demo).await;
}

//! The configuration of the bundled nats-server, run by a real one: each user has the rights that its program
//! needs, and no others.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use flutecast_contract::iot_id;
use flutecast_contract::name::{DeviceCode, TenantName};
use flutecast_testkit::{
    Dataplane, DataplaneOptions, Operator, OperatorOptions, Process, ProcessOptions, SseClient, SseEvent,
    free_ports, http_client, nats_server_program, wait_until,
};
use tokio::sync::mpsc;

use crate::support::{object, rendered, root, text};

const SOON: Duration = Duration::from_secs(20);
const PASSWORD: &str = "p1-of_Many-letters";

struct Server {
    port: u16,
    monitor: u16,
    process: Process,
}

impl Server {
    fn url(&self, user: &str) -> String {
        format!("nats://{user}:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    /// Starts the operator with the demo's manifests and the chart's login.
    async fn operator(&self, folder: &Path) -> Operator {
        let options = OperatorOptions {
            manifests: root().join("manifests/demo"),
            mapping: folder.join("mapping"),
            nats: self.url("operator"),
            ..OperatorOptions::default()
        };
        Operator::start(options).await.unwrap()
    }

    /// Starts the data plane with that operator's mapping and the chart's login.
    async fn dataplane(&self, folder: &Path) -> Dataplane {
        let password = folder.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let options = DataplaneOptions {
            mapping: folder.join("mapping"),
            nats: format!("nats://dataplane@127.0.0.1:{}", self.port),
            args: ["--release".into(), "plant-1".into(), "--nats-password-file".into(), password.into()]
                .into(),
            ..DataplaneOptions::default()
        };
        Dataplane::start(options).await.unwrap()
    }
}

/// Starts a nats-server with the chart's configuration. Only ports and folders are replaced.
async fn server(folder: &Path) -> Server {
    let sources = r#"nats.bundled.sourceSubjects=["plant.>","mes.out"]"#;
    server_with(folder, &["nats.bundled.enabled=true", sources]).await
}

async fn server_with(folder: &Path, values: &[&str]) -> Server {
    let objects = rendered(values);
    let text = object(&objects, "ConfigMap", "factory-flutecast-nats")["data"]["nats.conf"].as_str().unwrap();
    let [port, monitor, mqtt] = free_ports().unwrap();
    let store = format!("{:?}", folder.join("store").display().to_string());
    let mut own = text.to_owned();
    for (from, to) in [
        ("\"0.0.0.0:4222\"", format!("\"127.0.0.1:{port}\"")),
        ("\"0.0.0.0:8222\"", format!("\"127.0.0.1:{monitor}\"")),
        ("\"0.0.0.0:1883\"", format!("\"127.0.0.1:{mqtt}\"")),
        ("/data", store),
    ] {
        assert!(own.contains(from), "{own}");
        own = own.replace(from, &to);
    }
    let file = folder.join("nats.conf");
    std::fs::write(&file, own).unwrap();
    Server { port, monitor, process: start(&file, PASSWORD).await }
}

/// Starts nats-server with one password for all users, which stand in its environment.
async fn start(file: &Path, password: &str) -> Process {
    let env = ["OPERATOR", "DATAPLANE", "DEVICES"]
        .map(|user| (OsString::from(format!("{user}_PASSWORD")), OsString::from(password)));
    let options = ProcessOptions { env: env.to_vec(), ..ProcessOptions::default() };
    let args = ["--config".as_ref(), file.as_os_str()];
    let mut process = Process::spawn_with(nats_server_program().unwrap(), args, options).unwrap();
    process
        .wait_for_line("\"Server is ready\"", SOON, |line| line.ends_with("Server is ready"))
        .await
        .unwrap();
    process
}

/// The kubelet replaces the file of a mounted Secret. Whatever is first, the file or the restart of NATS,
/// the pod logs in with the new password and isn't restarted.
#[tokio::test(flavor = "multi_thread")]
async fn the_data_plane_follows_a_changed_password() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = server(folder.path()).await;
    let operator = server.operator(folder.path()).await;
    let dataplane = server.dataplane(folder.path()).await;
    drop(operator);
    let page = format!("http://127.0.0.1:{}/connz?auth=1", server.monitor);
    let is_connected = async || {
        let connections = http_client::get_json(&page).await.map_err(|error| error.to_string())?;
        let connections = connections["connections"].as_array().cloned().unwrap_or_default();
        let is_there = connections.iter().any(|one| one["authorized_user"] == "dataplane");
        if is_there { Ok(()) } else { Err(format!("{connections:?}")) }
    };
    wait_until("the first login", SOON, is_connected).await.unwrap();
    let (conf, password) = (folder.path().join("nats.conf"), folder.path().join("password"));
    for (next, file_first) in [("second-password", true), ("third-password", false)] {
        if file_first {
            std::fs::write(&password, next).unwrap();
        }
        server.process.terminate(SOON).await.unwrap();
        let from = dataplane.process.line_count();
        server.process = start(&conf, next).await;
        if !file_first {
            wait_until("a refused login", SOON, async || {
                let lines = dataplane.process.output().split_off(from).join("\n");
                if lines.contains("authorization violation") { Ok(()) } else { Err(lines) }
            })
            .await
            .unwrap();
            std::fs::write(&password, next).unwrap();
        }
        wait_until("a login with the new password", SOON, is_connected).await.unwrap();
    }
    for line in dataplane.process.output() {
        assert!(!line.contains("-password\"") && !line.contains(PASSWORD), "{line}");
    }
}

#[tokio::test]
async fn sync_interval_follows_the_value() {
    for (values, expected) in [
        (&[][..], "10000000000 null"),
        (&[r#"nats.bundled.jetstream.syncInterval="1m""#], "60000000000 null"),
        (&[r#"nats.bundled.jetstream.syncInterval="always""#], "120000000000 true"),
        // An upgrade with `--reuse-values` from an older chart has no value.
        (&["nats.bundled.jetstream.syncInterval=null"], "10000000000 null"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = server_with(folder.path(), &[&["nats.bundled.enabled=true"], values].concat()).await;
        let page = format!("http://127.0.0.1:{}/jsz", server.monitor);
        let answer = http_client::get_json(&page).await.unwrap();
        let config = &answer["config"];
        let seen = format!("{} {}", config["sync_interval"], config["sync_always"]);
        assert_eq!(seen, expected, "{values:?}");
    }
}

/// Returns a client that is logged in as `user`, and a channel with the server's permission errors.
async fn client(server: &Server, user: &str) -> (async_nats::Client, mpsc::UnboundedReceiver<String>) {
    let (refused, refusals) = mpsc::unbounded_channel();
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), PASSWORD.to_owned());
    let options = options.event_callback(move |event| {
        let text = event.to_string();
        if text.to_lowercase().contains("permission") {
            let _ = refused.send(text);
        }
        async {}
    });
    let url = format!("nats://127.0.0.1:{}", server.port);
    (options.connect(url).await.unwrap(), refusals)
}

/// Asserts that the operator may query the pods for the tenants that they serve, and receives their
/// announcements.
async fn operator_receives_announcements(operator: &async_nats::Client) {
    use futures_util::StreamExt;
    let heard = operator.subscribe("flutecast.serving.plant-1.*").await.unwrap();
    operator.publish("flutecast.serving.plant-1.query", "".into()).await.unwrap();
    let mut heard = heard
        .filter(|message| std::future::ready(String::from_utf8_lossy(&message.payload).contains("demo")))
        .boxed();
    let told = tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
    assert!(!told.subject.ends_with(".query"), "{told:?}");
}

/// Asserts that messages reach a screen from a device's own subject and from a source whose subject holds the
/// id.
async fn values_reach_a_screen(device: &async_nats::Client, dataplane: &Dataplane) {
    let id = iot_id::generate(&TenantName::new("demo").unwrap(), &DeviceCode::new("CORR-01").unwrap());
    let mut screen =
        SseClient::connect(&format!("{}/v1/demo/events?device=CORR-01", dataplane.url), &[]).await.unwrap();
    screen.next_named("hello", SOON).await.unwrap();
    for (subject, on) in [(format!("iot.demo.{id}.power"), 1), (format!("plant.gw1.{id}.power"), 0)] {
        let ts = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        device.publish(subject, format!("{{\"ts\": {ts}, \"on\": {on}}}").into()).await.unwrap();
        device.flush().await.unwrap();
        let expected = format!("\"values\":{{\"on\":{}}}", on == 1);
        let comes = |event: &SseEvent| event.data.as_deref().is_some_and(|data| data.contains(&expected));
        screen.next_where("a power event", SOON, comes).await.unwrap();
    }
}

/// Waits for the next permission error of the server.
async fn refusal(refused: &mut mpsc::UnboundedReceiver<String>, what: &str) -> String {
    let told = tokio::time::timeout(SOON, refused.recv()).await;
    told.unwrap_or_else(|_| panic!("{what} is allowed")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_reach_screens_and_each_user_has_only_its_rights() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path()).await;
    let operator = server.operator(folder.path()).await;
    let dataplane = server.dataplane(folder.path()).await;
    let (asks, mut asks_refused) = client(&server, "operator").await;
    operator_receives_announcements(&asks).await;
    let (device, mut device_refused) = client(&server, "devices").await;
    values_reach_a_screen(&device, &dataplane).await;

    // Only the stream republishes under live.>, so no user may publish there, and devices may not subscribe.
    for (who, client, refused) in
        [("devices", &device, &mut device_refused), ("operator", &asks, &mut asks_refused)]
    {
        client.publish("live.demo.x.power", "1".into()).await.unwrap();
        client.flush().await.unwrap();
        let told = refusal(refused, &format!("publishing on live.> as {who}")).await;
        assert!(told.contains("live.demo.x.power"), "{who}");
    }
    for subject in ["iot.>", "live.>", "flutecast.>"] {
        let _heard = device.subscribe(subject).await.unwrap();
        device.flush().await.unwrap();
        let told = refusal(&mut device_refused, &format!("reading {subject} as devices")).await;
        assert!(told.contains(subject));
    }
    // Only the operator may manage streams.
    for user in ["devices", "dataplane"] {
        let (client, mut refused) = client(&server, user).await;
        client.publish("$JS.API.STREAM.DELETE.IOT_demo", "".into()).await.unwrap();
        client.flush().await.unwrap();
        assert!(refusal(&mut refused, "STREAM.DELETE").await.contains("STREAM.DELETE"), "{user}");
    }
    only_the_operator_keeps_last_values(&server, &asks).await;
    queried_metrics_exist(&operator, &dataplane).await;
    // Neither program needs a right that it doesn't have.
    wait_until("the absence of permission errors in the logs", SOON, async || {
        let said = [operator.process.tail(), dataplane.process.tail()].join("\n").to_lowercase();
        if said.contains("permission") { Err(said) } else { Ok(()) }
    })
    .await
    .unwrap();
}

/// Asserts that others than the operator neither publish where last values are kept nor listen there, and
/// that the data plane can read them.
async fn only_the_operator_keeps_last_values(server: &Server, operator: &async_nats::Client) {
    let subject = "last.demo.k3v5.power";
    let operator = async_nats::jetstream::new(operator.clone());
    operator.publish(subject, "1".into()).await.unwrap().await.unwrap();
    for user in ["devices", "dataplane"] {
        let (client, mut refused) = client(server, user).await;
        client.publish(subject, "2".into()).await.unwrap();
        client.flush().await.unwrap();
        let told = refusal(&mut refused, &format!("publishing on last.> as {user}")).await;
        assert!(told.contains(subject), "{user}: {told}");
        let _heard = client.subscribe("last.>").await.unwrap();
        client.flush().await.unwrap();
        let told = refusal(&mut refused, &format!("reading last.> as {user}")).await;
        assert!(told.contains("last.>"), "{user}: {told}");
    }
    let (dataplane, _) = client(server, "dataplane").await;
    let get = serde_json::json!({"multi_last": [subject]}).to_string();
    let kept = dataplane.request("$JS.API.DIRECT.GET.LAST_demo", get.into()).await.unwrap();
    assert_eq!(&kept.payload[..], b"1");
}

/// Asserts that each metric in the alerts and on the dashboard exists in one of the programs.
async fn queried_metrics_exist(operator: &Operator, dataplane: &Dataplane) {
    let mut counted = BTreeSet::new();
    for admin in [&operator.admin_url, &dataplane.admin_url] {
        let metrics = http_client::get(&format!("{admin}/metrics")).await.unwrap().text();
        let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        counted.extend(types.filter_map(|line| {
            let (name, kind) = line.split_once(' ')?;
            Some(if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        }));
    }
    // A metric family without any value yet isn't exposed, so the sources count too.
    let registered: String = metric_sources().iter().map(|path| text(path)).collect();
    for asked in queried_metrics() {
        let base =
            asked.trim_start_matches("flutecast_").trim_start_matches("operator_").trim_end_matches("_total");
        let registered = registered.contains(&format!("\"{base}\","));
        assert!(counted.contains(&asked) || registered, "no program has {asked}; they have {counted:?}");
    }
}

/// Returns the source files of both programs that register metrics.
fn metric_sources() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = ["operator/src", "dataplane/src"].map(str::to_owned).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().display());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") && text(&path).contains("prometheus_client") {
                found.push(path);
            }
        }
    }
    found
}

/// If a pod that splits a source dies, the broker withholds its unacknowledged messages for 30 s. The next
/// pod reads them directly.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_reads_source_messages_that_a_crashed_pod_left() {
    use futures_util::StreamExt;

    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path()).await;
    let _operator = server.operator(folder.path()).await;

    let id = iot_id::generate(&TenantName::new("demo").unwrap(), &DeviceCode::new("CORR-01").unwrap());
    let (observer, _) = client(&server, "operator").await;
    let mut stored = observer.subscribe(format!("live.demo.{id}.counters")).await.unwrap();
    observer.flush().await.unwrap();
    let (mes, _) = client(&server, "devices").await;
    let mes = async_nats::jetstream::new(mes);
    let publish = async |n: u64| {
        let payload = format!("{{\"readings\":[{{\"deviceId\":\"{id}\",\"n\":{n}}}]}}");
        mes.publish("mes.out", payload.into()).await.unwrap().await.unwrap();
    };
    publish(1).await;
    // The dead pod: the broker delivered the message to it, and it never acknowledges.
    let (dead, _) = client(&server, "dataplane").await;
    let jetstream = async_nats::jetstream::new(dead);
    let stream = jetstream.get_stream_no_info("SRC_demo_mes").await.unwrap();
    let consumer: async_nats::jetstream::consumer::PullConsumer = stream.get_consumer("split").await.unwrap();
    let mut pull = consumer.stream().group("split").expires(SOON).messages().await.unwrap();
    let left = tokio::time::timeout(SOON, pull.next()).await.unwrap().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&left.payload).contains("\"n\":1"));
    drop((pull, consumer, stream, jetstream, left));

    let dataplane = server.dataplane(folder.path()).await;
    publish(2).await;
    for n in 1..=2 {
        // The broker waits 10 s for the dead pod, and would wait 30 s for its acknowledgement.
        let told = tokio::time::timeout(SOON, stored.next()).await;
        let told = told.unwrap_or_else(|_| panic!("{n} doesn't come\n{}", dataplane.process.tail())).unwrap();
        let text = String::from_utf8_lossy(&told.payload).into_owned();
        assert!(text.contains(&format!("\"n\":{n}")), "{n} in its order: {text}");
    }
}

/// The rights of the three users are documented and configured in three places.
#[test]
fn rights_agree_in_chart_example_and_documentation() {
    let objects = rendered(&["nats.bundled.enabled=true", r#"nats.bundled.sourceSubjects=["gw.>"]"#]);
    let bundled =
        object(&objects, "ConfigMap", "factory-flutecast-nats")["data"]["nats.conf"].as_str().unwrap();
    let bundled = bundled.replace(".plant-1.", ".*.");
    let shared = text("manifests/nats/two-factories.conf");
    let table = text("docs/install.md").replace("<release>", "*");
    let told = |text: &str, begin: &str| -> BTreeSet<String> {
        let rights = text.split_once(begin).unwrap_or_else(|| panic!("{begin} in\n{text}")).1;
        let (publish, rest) = rights.split_once("publish:").unwrap().1.split_once(']').unwrap();
        let subscribe = rest.split_once("subscribe:").unwrap().1.split_once(']').unwrap().0;
        let subjects = |list: &str, kind: &str| {
            let lines = list.lines().filter(|line| !line.trim_start().starts_with('#'));
            let subjects = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
            subjects.map(|subject| format!("{kind} {subject}")).collect::<Vec<_>>()
        };
        subjects(publish, "publish").into_iter().chain(subjects(subscribe, "subscribe")).collect()
    };
    for (user, set, row) in [
        ("operator", "OPERATOR_RIGHTS", "| operator |"),
        ("dataplane", "DATAPLANE_RIGHTS", "| data plane |"),
        ("devices", "DEVICE_RIGHTS", "| devices |"),
    ] {
        let in_chart = told(&bundled, &format!("user: {user}\n"));
        assert!(in_chart.len() > 3, "{in_chart:?}");
        assert_eq!(told(&shared, set), in_chart, "{user}");
        let row = table.lines().find(|line| line.starts_with(row)).unwrap();
        for right in in_chart {
            let subject = right.split_once(' ').unwrap().1;
            assert!(subject == "gw.>" || row.contains(&format!("`{subject}`")), "{right} isn't in {row}");
        }
    }
}

/// Returns the metrics in the alerts and on the dashboard.
fn queried_metrics() -> BTreeSet<String> {
    let text = text("charts/flutecast/templates/monitoring.yaml")
        + &text("charts/flutecast/dashboards/flutecast.json");
    let asked: BTreeSet<String> = text
        .lines()
        .filter(|line| line.contains("expr"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("flutecast_"))
        .map(str::to_owned)
        .collect();
    assert!(asked.len() > 10, "{asked:?}");
    asked
}

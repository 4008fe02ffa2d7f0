//! Authentication of the pod to NATS.

use flutecast_testkit::{
    Dataplane, DataplaneOptions, NatsOptions, NatsServer, Process, SseClient, free_ports, http_client,
    program, wait_until,
};

use crate::fixture::{DEADLINE, access, create_stream, shard};

async fn connects(nats: &str, more: &[&str]) -> Result<(), String> {
    let mapping = tempfile::tempdir().unwrap();
    let [port, admin] = free_ports().unwrap();
    let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
    let mut arguments = vec!["--mapping", mapping.path().to_str().unwrap(), "--nats", nats];
    arguments.extend(["--listen", &listen, "--admin", &admin, "--log", "debug"]);
    arguments.extend(more);
    let mut process = Process::spawn(program("flutecast-dataplane").unwrap(), arguments).unwrap();
    let outcome = wait_until("an outcome", DEADLINE, async || {
        if process.exit_status().unwrap().is_some() {
            // Its last lines may not have been read yet.
            let said = process.tail();
            return if said.contains("ERROR") { Ok(Err(said)) } else { Err(said) };
        }
        let text =
            http_client::get(&format!("http://{admin}/metrics")).await.map_err(|e| format!("{e:#}"))?.text();
        if text.contains("flutecast_broker_connected 1") {
            return Ok(Ok(()));
        }
        let refused =
            process.output().into_iter().find(|line| line.to_lowercase().contains("authorization violation"));
        refused.map(Err).ok_or(text)
    })
    .await;
    assert!(!process.tail().contains("s3cr3t"), "{}", process.tail());
    outcome.unwrap_or_else(|error| Err(format!("{error}: {}", process.tail())))
}

#[tokio::test]
async fn password_in_the_address_is_used_and_never_logged() {
    let extra = r#"authorization { user: "me@plant", password: "s3cr3t/%" }"#.to_owned();
    let nats = NatsServer::start_with(NatsOptions { extra, ..NatsOptions::default() }).await.unwrap();
    let host = nats.url().trim_start_matches("nats://").to_owned();
    connects(&format!("nats://me%40plant:s3cr3t%2F%25@{host}"), &[]).await.unwrap();
    // One of several addresses is enough.
    connects(&format!("nats://me%40plant:s3cr3t%2F%25@{host}, nats://127.0.0.1:1"), &[]).await.unwrap();
    let wrong = connects(&format!("nats://me%40plant:s3cr3t-wrong@{host}"), &[]).await.unwrap_err();
    assert!(wrong.to_lowercase().contains("authorization"), "{wrong}");
    let nonsense = connects("nats://me:s3cr3t%zz@localhost", &[]).await.unwrap_err();
    assert!(nonsense.contains("--nats can't be used"), "{nonsense}");
}

#[tokio::test]
async fn token_in_the_address_is_used_and_never_logged() {
    let extra = r#"authorization { token: "s3cr3t/%" }"#.to_owned();
    let nats = NatsServer::start_with(NatsOptions { extra, ..NatsOptions::default() }).await.unwrap();
    let host = nats.url().trim_start_matches("nats://").to_owned();
    connects(&format!("nats://s3cr3t%2F%25@{host}"), &[]).await.unwrap();
}

#[tokio::test]
async fn missing_files_are_reported_at_start() {
    for option in ["--nats-creds", "--nats-ca"] {
        let error = connects("nats://127.0.0.1:1", &[option, "missing.file"]).await.unwrap_err();
        assert!(error.contains(&format!("{option} missing.file can't be read")), "{error}");
    }
}

#[tokio::test]
async fn missing_nats_permissions_are_logged_and_counted() {
    let extra = r#"authorization { users: [
        {user: admin, password: a}
        {user: pod, password: p, permissions: {publish: [">"], subscribe: ["_INBOX.>", "flutecast.>"]}}
    ] }"#;
    let nats = NatsServer::start_with(NatsOptions { extra: extra.to_owned(), ..NatsOptions::default() });
    let nats = nats.await.unwrap();
    let host = nats.url().trim_start_matches("nats://").to_owned();
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), "a".to_owned());
    let admin = admin.connect(nats.url()).await.unwrap();
    create_stream(&admin, "open").await;
    let mapping = tempfile::tempdir().unwrap();
    std::fs::write(mapping.path().join("flutecast-open-0.yaml"), shard("open", "")).unwrap();
    std::fs::write(mapping.path().join("flutecast-access.yaml"), access()).unwrap();
    let options = DataplaneOptions {
        mapping: mapping.path().to_owned(),
        nats: format!("nats://pod:p@{host}"),
        ..DataplaneOptions::default()
    };
    let dataplane = Dataplane::start(options).await.unwrap();
    let url = format!("{}/v1/open/events?device=CORR-01", dataplane.url);
    let _client = SseClient::connect(&url, &[]).await.unwrap();
    wait_until("the refusals to be counted", DEADLINE, async || {
        // One for each of the device's channels.
        match dataplane.metric("flutecast_broker_refusals_total").await {
            Ok(3.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    let said = dataplane.process.output();
    let warnings: Vec<_> = said.iter().filter(|line| line.contains("the broker refuses something")).collect();
    assert_eq!(warnings.len(), 1, "{said:#?}");
    assert!(warnings[0].contains("live.open.corr1open."), "{warnings:?}");
}

//! A NATS with TLS and credentials files, as companies run it. Both programs log in, and clients without
//! credentials are refused. Failed logins appear in the programs' logs.

use std::ffi::OsString;
use std::time::Duration;

use flutecast_testkit::{
    Dataplane, DataplaneOptions, NatsIdentity, NatsOptions, NatsServer, Operator, OperatorOptions, Process,
    ProcessOptions, free_ports, http_client, in_repository, program, wait_until,
};

#[tokio::test]
async fn both_programs_log_in_with_credentials_over_tls() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let identity = NatsIdentity::new(folder.path())?;
    let options = NatsOptions { extra: identity.configuration().to_owned(), ..NatsOptions::default() };
    let nats = NatsServer::start_with(options).await?;
    let stranger = async_nats::ConnectOptions::new().add_root_certificates(identity.ca()).require_tls(true);
    assert!(stranger.connect(nats.url()).await.is_err(), "a client without credentials was accepted");
    let way = |creds: std::path::PathBuf| -> Vec<OsString> {
        vec!["--nats-creds".into(), creds.into(), "--nats-ca".into(), identity.ca().into()]
    };
    let mapping = folder.path().join("mapping");
    let operator = OperatorOptions {
        manifests: in_repository("manifests/demo"),
        mapping: mapping.clone(),
        nats: nats.url(),
        args: way(identity.credentials("operator")?),
        ..OperatorOptions::default()
    };
    // `start` returns when the operator is ready, so it has created the streams.
    let _operator = Operator::start(operator).await?;
    let dataplane = DataplaneOptions {
        mapping,
        nats: nats.url(),
        args: way(identity.credentials("dataplane")?),
        process: ProcessOptions::default(),
        ..DataplaneOptions::default()
    };
    let _dataplane = Dataplane::start(dataplane).await?;
    let seen = http_client::get_json(&format!("{}/connz?auth=1", nats.monitor_url())).await?;
    let connections = seen["connections"].as_array().cloned().unwrap_or_default();
    assert!(connections.len() >= 2, "{seen:#}");
    assert!(connections.iter().all(|one| one["tls_version"].is_string()), "{seen:#}");
    Ok(())
}

#[tokio::test]
async fn both_programs_report_why_they_cannot_log_in() -> anyhow::Result<()> {
    let (folder, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let identity = NatsIdentity::new(folder.path())?;
    let stranger = NatsIdentity::new(other.path())?;
    let options = NatsOptions { extra: identity.configuration().to_owned(), ..NatsOptions::default() };
    let nats = NatsServer::start_with(options).await?;
    let (address, ca) = (nats.url().trim_start_matches("nats://").to_owned(), stranger.ca());
    let login = ["--nats-ca".into(), ca.into_os_string()];
    let mut programs = Vec::new();
    for (nats, login, expected) in [
        ("nats://me:s3cr3t@127.0.0.1:1".to_owned(), &[][..], "127.0.0.1:1: IO error: Connection refused"),
        ("nats://me:s3cr3t@nowhere.invalid".to_owned(), &[], "nowhere.invalid:4222: this name isn't found"),
        (format!("nats://{address}"), &login, "invalid peer certificate"),
    ] {
        for name in ["flutecast-operator", "flutecast-dataplane"] {
            let [listen, admin] = free_ports()?.map(|port| format!("127.0.0.1:{port}"));
            let empty = tempfile::tempdir()?;
            let mut args: Vec<OsString> =
                ["--nats", &nats, "--admin", &admin].into_iter().map(OsString::from).collect();
            let places: [&std::ffi::OsStr; 4] = match name {
                "flutecast-operator" => [
                    "--manifests".as_ref(),
                    empty.path().as_ref(),
                    "--mapping-out".as_ref(),
                    folder.path().as_ref(),
                ],
                _ => ["--mapping".as_ref(), empty.path().as_ref(), "--listen".as_ref(), listen.as_ref()],
            };
            args.extend(places.map(OsString::from));
            args.extend(login.iter().cloned());
            programs.push((Process::spawn(program(name)?, args)?, expected, empty));
        }
    }
    for (process, expected, _) in &programs {
        let told = wait_until("the reason in the log", Duration::from_secs(30), async || {
            let said = process.output();
            let told = said.iter().find(|line| line.contains("NATS can't be reached"));
            told.cloned().ok_or_else(|| said.join("\n"))
        })
        .await?;
        assert!(told.contains("WARN") && told.contains(expected), "{}: {told}", process.name());
        assert!(!process.tail().contains("s3cr3t"), "{}", process.tail());
    }
    Ok(())
}

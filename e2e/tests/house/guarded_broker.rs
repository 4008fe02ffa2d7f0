//! A NATS with TLS and credentials files, as a company runs it: both programs show who they are, and nobody else comes in.

use std::ffi::OsString;
use std::path::Path;

use flutecast_e2e::{
    Dataplane, DataplaneOptions, NatsIdentity, NatsOptions, NatsServer, Operator, OperatorOptions,
    ProcessOptions, http_client,
};

#[tokio::test]
async fn both_programs_come_in_with_credentials_over_tls() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let identity = NatsIdentity::new(folder.path())?;
    let options = NatsOptions { extra: identity.configuration().to_owned(), ..NatsOptions::default() };
    let nats = NatsServer::start_with(options).await?;
    let stranger = async_nats::ConnectOptions::new().add_root_certificates(identity.ca()).require_tls(true);
    assert!(stranger.connect(nats.url()).await.is_err(), "without credentials nobody comes in");
    let way = |creds: std::path::PathBuf| -> Vec<OsString> {
        vec!["--nats-creds".into(), creds.into(), "--nats-ca".into(), identity.ca().into()]
    };
    let mapping = folder.path().join("mapping");
    let operator = OperatorOptions {
        manifests: Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/demo"),
        mapping: mapping.clone(),
        nats: nats.url(),
        args: way(identity.credentials("operator")?),
        ..OperatorOptions::default()
    };
    // Ready: it has made the streams.
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

//! The CRDs on a real API server: which objects `kubectl apply` accepts and refuses, and how `kubectl get`
//! shows them.

use flutecast_testkit::ApiServer;
use flutecast_testkit::in_repository;

/// Starts an API server with Flutecast's CRDs.
async fn with_kinds() -> ApiServer {
    let api = ApiServer::start().await.unwrap();
    api.apply_kinds().await.unwrap();
    api
}

#[tokio::test]
async fn the_demo_factory_is_accepted_and_listed() {
    let api = with_kinds().await;
    let demo = in_repository("manifests/demo").display().to_string();
    api.kubectl(&["apply", "--server-side", "--recursive", "-f", &demo], "").await.unwrap();
    let devices = api.kubectl(&["get", "fd"], "").await.unwrap();
    for code in ["CORR-01", "SLIT-01", "FLEX-01", "DIE-01", "STACK-01"] {
        assert!(devices.contains(code), "no {code} in:\n{devices}");
    }
    let all = api.kubectl(&["get", "flutecast", "-o", "name"], "").await.unwrap();
    for kind in ["tenant.flutecast.io/demo", "device.flutecast.io/", "pushformat.flutecast.io/"] {
        assert!(all.contains(kind), "no {kind} in:\n{all}");
    }
    // Applying again changes nothing, so the server's defaults don't differ from git.
    let difference = api.kubectl(&["diff", "--server-side", "--recursive", "-f", &demo], "").await;
    assert_eq!(difference.unwrap(), "");
}

#[tokio::test]
async fn the_samples_are_accepted() {
    let api = with_kinds().await;
    let samples = in_repository("manifests/samples").display().to_string();
    api.kubectl(&["apply", "--server-side", "--recursive", "-f", &samples], "").await.unwrap();
}

#[tokio::test]
async fn invalid_objects_are_refused_with_the_name_of_the_field() {
    let api = with_kinds().await;
    let cases = [
        (
            "apiVersion: flutecast.io/v1alpha1\nkind: Device\nmetadata: {name: d}\n\
             spec: {tenant: acme, deviceCode: 'no blanks', channels: [{name: power, format: on-off}]}\n",
            "deviceCode",
        ),
        (
            "apiVersion: flutecast.io/v1alpha1\nkind: PushFormat\nmetadata: {name: f}\n\
             spec: {codec: JSON, fields: [{name: speed, pointer: /v, expression: '1 + 1', type: Number}]}\n",
            "pointer",
        ),
        (
            "apiVersion: flutecast.io/v1alpha1\nkind: PushFormat\nmetadata: {name: f}\n\
             spec: {delivery: {policy: Every}, record: {merge: true}, fields: [{name: speed, pointer: /v, \
             type: Number}]}\n",
            "record is only for policy Latest",
        ),
        (
            "apiVersion: flutecast.io/v1alpha1\nkind: PushFormat\nmetadata: {name: f}\n\
             spec: {fields: [{name: speed, pointer: /v, type: Number, otherwise: unknown}]}\n",
            "otherwise is only for type Enum",
        ),
    ];
    for (object, field) in cases {
        let error = api.kubectl(&["apply", "--server-side", "-f", "-"], object).await.unwrap_err();
        assert!(error.to_string().contains(field), "{field} isn't named in: {error}");
    }
    // The device code identifies the device everywhere, so it is immutable.
    let device = |code: &str| {
        format!(
            "apiVersion: flutecast.io/v1alpha1\nkind: Device\nmetadata: {{name: d}}\n\
             spec: {{tenant: acme, deviceCode: {code}, channels: [{{name: power, format: on-off}}]}}\n"
        )
    };
    api.kubectl(&["apply", "--server-side", "-f", "-"], &device("A-1")).await.unwrap();
    let error = api.kubectl(&["apply", "--server-side", "-f", "-"], &device("A-2")).await.unwrap_err();
    assert!(error.to_string().contains("deviceCode can't be changed"), "{error}");
}

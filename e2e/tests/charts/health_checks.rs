//! The health checks of `manifests/argocd` and `manifests/flux`, evaluated as Argo CD and Flux do it.

use std::fmt::Write;
use std::process::Command;

use flutecast_testbed::tools;
use serde_json::Value;

use crate::support::{text, yaml};

/// The health of an object, in Argo CD's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Flux: Current.
    Healthy,
    /// Flux: InProgress.
    Progressing,
    /// Flux: Failed.
    Degraded,
}

/// Runs the health script of an object's kind with Argo CD's interpreter, without libraries, as Argo CD does.
/// Returns the health and the message.
pub(crate) fn argo_cd(object: &Value) -> (Health, String) {
    let settings = yaml(&text("manifests/argocd/argocd-cm.yaml"));
    let kind = object["kind"].as_str().unwrap();
    let script =
        settings["data"][format!("resource.customizations.health.flutecast.io_{kind}")].as_str().unwrap();
    let mut literal = String::new();
    lua(object, &mut literal);
    let program = format!(
        "local write = print\nos, io, string, math, debug, coroutine, require, print = nil\nobj = {literal}\n\
         local function health()\n{script}\nend\nlocal found = \
         health()\nwrite(found.status)\nwrite(found.message)\n"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), program).unwrap();
    let output = Command::new(tools::GLUA.path().unwrap()).arg(file.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{said}{complaint}");
    let (status, message) = said.split_once('\n').unwrap_or_else(|| panic!("{said:?}"));
    let health = match status {
        "Healthy" => Health::Healthy,
        "Progressing" => Health::Progressing,
        "Degraded" => Health::Degraded,
        other => panic!("Argo CD knows no {other}"),
    };
    (health, message.trim_end().to_owned())
}

/// Writes a value as a Lua literal.
fn lua(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("nil"),
        Value::Bool(_) | Value::Number(_) => {
            let _ = write!(out, "{value}");
        }
        Value::String(text) => {
            out.push('"');
            for byte in text.bytes() {
                let _ = write!(out, "\\{byte:03}");
            }
            out.push('"');
        }
        Value::Array(values) => {
            out.push('{');
            values.iter().for_each(|value| {
                lua(value, out);
                out.push(',');
            });
            out.push('}');
        }
        Value::Object(fields) => {
            out.push('{');
            fields.iter().for_each(|(name, value)| {
                out.push('[');
                lua(&Value::String(name.clone()), out);
                out.push_str("]=");
                lua(value, out);
                out.push(',');
            });
            out.push('}');
        }
    }
}

/// Evaluates the CEL expressions of an object's kind in Flux's order (RFC 9): `inProgress`, `failed`,
/// `current`. A status of another generation, and an expression that can't be evaluated, mean that Flux
/// waits.
pub(crate) fn flux(object: &Value) -> Health {
    let text = text("manifests/flux/plant-1/3-factory.yaml");
    let kustomization = yaml(text.rsplit("\n---\n").next().unwrap());
    let checks = kustomization["spec"]["healthCheckExprs"].as_array().unwrap();
    let check = checks.iter().find(|check| check["kind"] == object["kind"]).unwrap();
    assert_eq!(check["apiVersion"], object["apiVersion"]);
    let observed = &object["status"]["observedGeneration"];
    if !observed.is_null() && *observed != object["metadata"]["generation"] {
        return Health::Progressing;
    }
    for (name, health) in
        [("inProgress", Health::Progressing), ("failed", Health::Degraded), ("current", Health::Healthy)]
    {
        match evaluate(check[name].as_str().unwrap(), object) {
            Some(true) => return health,
            Some(false) => {}
            None => return Health::Progressing,
        }
    }
    Health::Progressing
}

fn evaluate(expression: &str, object: &Value) -> Option<bool> {
    let program = cel::Program::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut context = cel::Context::default();
    for (name, value) in object.as_object().unwrap() {
        context.add_variable(name.as_str(), value).unwrap();
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(result)) => Some(result),
        Ok(other) => panic!("{expression} gives {other:?}"),
        Err(_) => None,
    }
}

#[test]
fn object_without_a_current_ready_condition_is_progressing() {
    let object = |status: &str| {
        yaml(&format!(
            "{{apiVersion: flutecast.io/v1alpha1, kind: Tenant, metadata: {{name: a, generation: 2}}, \
             status: {status}}}"
        ))
    };
    for status in [
        "{}",
        "{observedGeneration: 2}",
        "{observedGeneration: 2, conditions: []}",
        "{observedGeneration: 1, conditions: [{type: Ready, status: 'True', reason: Accepted, message: ok}]}",
        // Another controller's condition.
        "{observedGeneration: 2, conditions: [{type: Stalled, status: 'False', reason: A, message: b}]}",
    ] {
        let object = object(status);
        assert_eq!(
            (argo_cd(&object).0, flux(&object)),
            (Health::Progressing, Health::Progressing),
            "{status}"
        );
    }
}

#[test]
fn messages_that_are_not_understood_make_nothing_unhealthy() {
    let device = yaml(
        "{apiVersion: flutecast.io/v1alpha1, kind: Device, metadata: {name: a, generation: 2}, status: \
         {observedGeneration: 2, conditions: [{type: MessagesUnderstood, status: 'False', reason: Malformed, \
         message: m}, {type: Ready, status: 'True', reason: Accepted, message: ok}]}}",
    );
    assert_eq!((argo_cd(&device).0, flux(&device)), (Health::Healthy, Health::Healthy));
}

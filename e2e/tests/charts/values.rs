//! Validation of the chart's values, and their effects.

use std::process::Command;

use flutecast_testkit::program;
use flutecast_xtask::charts::rendered_cases;
use serde_json::Value;

use crate::support::{documents, object, rendered, root, template, text, yaml};

#[test]
fn values_and_their_schema_name_the_same() {
    for name in ["flutecast", "flutecast-crds"] {
        let schema: Value =
            serde_json::from_str(&text(&format!("charts/{name}/values.schema.json"))).unwrap();
        let values = text(&format!("charts/{name}/values.yaml"));
        let mut found = Vec::new();
        compare("", &yaml(&values), &schema, &mut found);
        assert!(found.len() >= 3, "{found:?}");
        assert_eq!(without_a_comment(&values, &found), Vec::<String>::new(), "say above each what it is for");
    }
}

/// Returns those of the values, each a path such as `nats.url`, whose line has no comment above it.
fn without_a_comment(text: &str, values: &[String]) -> Vec<String> {
    let (mut path, mut before, mut missing) = (Vec::<(usize, &str)>::new(), "", Vec::new());
    for line in text.lines() {
        let key = line.trim_start();
        if let Some((name, _)) = key.split_once(':').filter(|_| !key.starts_with(['#', '-'])) {
            let indent = line.len() - key.len();
            path.retain(|(above, _)| *above < indent);
            path.push((indent, name));
            let path = path.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(".");
            if values.contains(&path) && !before.trim_start().starts_with('#') {
                missing.push(path);
            }
        }
        before = line;
    }
    missing
}

/// Compares values and schema recursively, as far as the schema names properties, and collects the paths of
/// the values that it describes.
fn compare(path: &str, values: &Value, schema: &Value, found: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object().filter(|_| schema["description"].is_null())
    else {
        assert!(schema["description"].is_string(), "{path} has no description");
        found.push(path.to_owned());
        return;
    };
    assert!(path == "global" || schema["additionalProperties"] == false, "{path} takes anything");
    let values = values.as_object().unwrap_or_else(|| panic!("{path} is no object in values.yaml"));
    for name in values.keys() {
        assert!(properties.contains_key(name), "{path}.{name} isn't in the schema");
    }
    for (name, schema) in properties {
        // What an umbrella chart passes on; it has no default.
        if path.is_empty() && !values.contains_key(name) && ["enabled", "global"].contains(&name.as_str()) {
            assert!(schema["description"].is_string(), "{name} has no description");
            continue;
        }
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let value = values.get(name).unwrap_or_else(|| panic!("{below} isn't in values.yaml"));
        compare(&below, value, schema, found);
    }
}

/// Invalid values, each with the text that the error must contain.
const BAD_VALUES: [(&str, &str); 42] = [
    ("natz={}", "additional properties 'natz' not allowed"),
    ("nats.url=\"10.0.0.1:4222\"", "/nats/url"),
    ("enabled=false", "/enabled': value must be true"),
    ("global={\"imageRegistry\":\"https://r\"}", "/global/imageRegistry"),
    ("ingress.path=\"plant-1\"", "/ingress/path"),
    ("ingress.path=\"/a/../b\"", "/ingress/path"),
    ("httpRoute.path=\"/plant 1\"", "/httpRoute/path"),
    ("nats.bundled.image={\"name\":\"nats\"}", "additional properties 'name' not allowed"),
    ("nats.bundled.image.tag=\"\"", "/nats/bundled/image/tag"),
    ("dataplane.replicas=0", "/dataplane/replicas': minimum: got 0, want 1"),
    ("dataplane.replicas=\"2\"", "/dataplane/replicas': got string, want integer"),
    ("dataplane.ping=\"15\"", "/dataplane/ping"),
    (
        "dataplane.podDisruptionBudget.maxUnavailable=\"half\"",
        "/dataplane/podDisruptionBudget/maxUnavailable",
    ),
    ("dataplane.resources.limit={}", "additional properties 'limit' not allowed"),
    ("operator.replicas=9", "/operator/replicas': maximum: got 9, want 5"),
    ("operator.image.digest=\"latest\"", "/operator/image/digest"),
    ("image.pullPolicy=\"Sometimes\"", "/image/pullPolicy"),
    ("ingress.controller=\"traefik\"", "value must be one of 'nginx', 'haproxy', 'none'"),
    ("tokenSecrets=[\"Not A Name\"]", "/tokenSecrets/0"),
    ("nats.bundled.sourceSubjects=[\"live.demo.>\"]", "/nats/bundled/sourceSubjects/0"),
    ("nats.bundled.sourceSubjects=[\">\"]", "/nats/bundled/sourceSubjects/0"),
    ("nats.bundled.persistence.size=\"much\"", "/nats/bundled/persistence/size"),
    ("nats.bundled.jetstream.syncInterval=\"never\"", "/nats/bundled/jetstream/syncInterval"),
    // nats-server accepts no fractions.
    ("nats.bundled.jetstream.maxFile=\"1.5Gi\"", "/nats/bundled/jetstream/maxFile"),
    (
        "nats={\"url\":\"\",\"bundled\":{\"enabled\":true,\"persistence\":{\"size\":\"5Gi\"}}}",
        "8Gi don't fit on a volume of 5Gi",
    ),
    ("image.registry=\"https://registry.plant.example\"", "/image/registry"),
    ("image.registry=\"registry.plant.example/\"", "/image/registry"),
    // Labels that select the chart's pods can't be overridden.
    ("commonLabels={\"app.kubernetes.io/name\":\"plant\"}", "/commonLabels"),
    ("dataplane.podLabels={\"app.kubernetes.io/component\":\"plant\"}", "/dataplane/podLabels"),
    // It becomes the name of a Service, which can't contain dots.
    ("fullnameOverride=\"plant.1\"", "/fullnameOverride"),
    ("dataplane.rebalance.rate=\"200%\"", "/dataplane/rebalance/rate"),
    ("networkPolicy.natsPorts=[0]", "/networkPolicy/natsPorts/0"),
    // A rule without ports would allow all ports.
    ("networkPolicy.natsPorts=[]", "/networkPolicy/natsPorts"),
    ("networkPolicy.apiServerPorts=[]", "/networkPolicy/apiServerPorts"),
    ("networkPolicy.dnsPorts=[]", "/networkPolicy/dnsPorts"),
    ("nats.bundled.enabled=true", "set exactly one of nats.url, nats.urlSecretName and nats.bundled.enabled"),
    ("nats.url=\"\"", "set exactly one of nats.url, nats.urlSecretName and nats.bundled.enabled"),
    (
        "nats={\"url\":\"tls://n\",\"tls\":{\"caSecretName\":\"a\",\"caConfigMapName\":\"b\"}}",
        "one of nats.tls.caSecretName and nats.tls.caConfigMapName",
    ),
    ("dataplane.autoscaling={\"enabled\":true,\"targetCPU\":0}", "set targetCPU or targetClients"),
    ("dataplane.autoscaling={\"enabled\":true,\"minReplicas\":11}", "minReplicas is more than maxReplicas"),
    ("httpRoute.enabled=true", "httpRoute.parentRefs: name the Gateway"),
    (
        "nats={\"url\":\"\",\"bundled\":{\"enabled\":true}}\nuninstall={\"keepStreams\":false}",
        "uninstall.keepStreams: the bundled NATS goes with the release",
    ),
];

#[test]
fn bad_values_are_refused_with_their_path() {
    for (value, expected) in BAD_VALUES {
        let values: Vec<_> = ["nats.url=\"nats://n\""].into_iter().chain(value.lines()).collect();
        let error = template(&values).expect_err(value).to_string();
        assert!(error.contains(expected), "{value}: {error}");
    }
    template(&["nats.url=\"nats://n\""]).unwrap();
    for good in [
        "image.registry=\"\"",
        "image.registry=\"localhost:5000/plant/flutecast\"",
        "fullnameOverride=\"f-1\"",
    ] {
        template(&["nats.url=\"nats://n\"", good]).unwrap();
    }
}

#[test]
fn uninstall_job_follows_the_values() {
    let nats = "nats.url=\"nats://n\"";
    let job = |values: &[&str]| {
        let objects = rendered(&[&[nats], values].concat());
        let jobs: Vec<_> = objects.iter().filter(|object| object["kind"] == "Job").cloned().collect();
        let hook = |object: &&Value| object["metadata"]["annotations"]["helm.sh/hook"] == "post-delete";
        let guarded = objects.iter().any(|object| object["kind"] == "NetworkPolicy");
        let with_it = if guarded { 4 } else { 3 };
        assert_eq!(
            objects.iter().filter(hook).count(),
            (1 + with_it) * jobs.len(),
            "service account, role, binding and, if enabled, a policy"
        );
        jobs.first().map(|job| job["spec"]["template"]["spec"]["containers"][0]["args"][1].clone())
    };
    assert_eq!(job(&[]), None, "by default there is no clean-up Job");
    for (values, expected) in [
        (&["protection=\"finalizer\""][..], "--clean-up=finalizers"),
        (&["uninstall={\"keepStreams\":false}"], "--clean-up=streams"),
        (&["uninstall={\"keepStreams\":false}", "networkPolicy={\"enabled\":false}"], "--clean-up=streams"),
        (&["uninstall={\"keepMapping\":false}", "protection=\"finalizer\""], "--clean-up=finalizers,mapping"),
    ] {
        assert_eq!(job(values).unwrap(), expected);
    }
}

/// `helm upgrade --reuse-values` takes the values of an older chart, which lack these; a rule without ports
/// would allow all ports.
#[test]
fn a_policy_limits_ports_even_without_values() {
    let missing =
        ["dnsPorts", "apiServerPorts", "natsPorts"].map(|name| format!("networkPolicy.{name}=null"));
    let values: Vec<_> =
        ["nats.url=\"nats://n\""].into_iter().chain(missing.iter().map(String::as_str)).collect();
    let objects = rendered(&values);
    for name in ["factory-flutecast-operator", "factory-flutecast-dataplane"] {
        let policy = object(&objects, "NetworkPolicy", name);
        let rules = policy["spec"]["egress"].as_array().unwrap();
        let ports = |rule: &Value| -> Vec<u64> {
            rule["ports"].as_array().into_iter().flatten().filter_map(|port| port["port"].as_u64()).collect()
        };
        let ports: Vec<_> = rules.iter().map(ports).collect();
        assert_eq!(ports, [vec![53, 53], vec![443, 6443], vec![4222]], "{name}");
    }
}

#[test]
fn one_program_may_have_another_version() {
    let objects =
        rendered(&["nats.url=\"nats://n\"", "image.tag=\"0.2.0\"", "dataplane.image.tag=\"0.1.0\""]);
    for (program, image) in [
        ("operator", "flutecast.io/flutecast-operator:0.2.0"),
        ("dataplane", "flutecast.io/flutecast-dataplane:0.1.0"),
    ] {
        let deployment = object(&objects, "Deployment", &format!("factory-flutecast-{program}"));
        assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], image);
    }
}

/// Returns the images of a release's pods, in order.
fn images(values: &[&str]) -> Vec<String> {
    let objects = rendered(&[&["nats.bundled.enabled=true"], values].concat());
    let containers = objects.iter().filter_map(|object| {
        object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().map(str::to_owned)
    });
    let mut images: Vec<_> = containers.collect();
    images.sort();
    images
}

#[test]
fn one_value_moves_all_images() {
    let version = env!("CARGO_PKG_VERSION");
    let at = |registry: &str, nats: &str| {
        let mut images =
            ["dataplane", "operator"].map(|name| format!("{registry}/flutecast-{name}:{version}")).to_vec();
        images.push(nats.to_owned());
        images.sort();
        images
    };
    let nats = yaml(&text("charts/flutecast/values.yaml"))["nats"]["bundled"]["image"]["tag"].clone();
    let nats = nats.as_str().unwrap();
    assert_eq!(images(&[]), at("flutecast.io", &format!("nats:{nats}")));
    let mirrored = at("r.plant/mirror", &format!("r.plant/mirror/nats:{nats}"));
    assert_eq!(images(&[r#"image.registry="r.plant/mirror""#]), mirrored);
    // An umbrella chart's word goes first.
    let both = [r#"image.registry="other""#, r#"global.imageRegistry="r.plant/mirror""#];
    assert_eq!(images(&both), mirrored);
    // What was valid before it had parts: a whole name, which stays as it is.
    let whole = [r#"nats.bundled.image="localhost:5000/nats:2""#, r#"image.registry="r.plant/mirror""#];
    assert_eq!(images(&whole), at("r.plant/mirror", "localhost:5000/nats:2"));
    let digest = format!("sha256:{}", "0".repeat(64));
    let pinned = [format!("nats.bundled.image.digest={digest:?}"), r#"image.tag="9.9.9""#.to_owned()];
    let pinned = images(&pinned.each_ref().map(String::as_str));
    assert_eq!(pinned.iter().find(|image| image.contains("nats")).unwrap(), &format!("nats@{digest}"));
}

#[test]
fn paths_of_gateways_become_prefixes_of_the_data_plane() {
    let prefixes = |ingress: &str, route: &str| {
        let objects = rendered(&[
            "nats.url=\"nats://n\"",
            &format!("ingress={{\"enabled\":true,\"path\":{ingress:?}}}"),
            &format!("httpRoute={{\"enabled\":true,\"path\":{route:?},\"parentRefs\":[{{\"name\":\"g\"}}]}}"),
        ]);
        let (_, dataplane) =
            arguments(&objects).into_iter().find(|(name, _)| name.ends_with("dataplane")).unwrap();
        let prefix = |argument: &String| argument.strip_prefix("--path-prefix=").map(str::to_owned);
        dataplane.iter().filter_map(prefix).collect::<Vec<_>>()
    };
    assert_eq!(prefixes("/", "/"), Vec::<String>::new());
    assert_eq!(prefixes("/plant-1", "/plant-1/"), ["/plant-1"]);
    assert_eq!(prefixes("/a/b/", "/v10"), ["/a/b", "/v10"]);
    // Only the API, at its own path.
    assert_eq!(prefixes("/v1", "/v1/acme/"), Vec::<String>::new());
}

#[test]
fn node_ports_can_be_set() {
    let ports = |kind: &str| {
        let nats = format!(
            "{{\"enabled\":true,\"service\":{{\"type\":{kind:?},\"nodePorts\":{{\"mqtt\":31883}}}}}}"
        );
        let screens = format!("dataplane.service={{\"type\":{kind:?},\"nodePort\":30080}}");
        let objects = rendered(&[&format!("nats.bundled={nats}"), &screens]);
        ["factory-flutecast", "factory-flutecast-nats"].map(|name| {
            let ports = object(&objects, "Service", name)["spec"]["ports"].as_array().unwrap().clone();
            ports.iter().map(|port| port["nodePort"].as_u64()).collect::<Vec<_>>()
        })
    };
    for kind in ["NodePort", "LoadBalancer"] {
        assert_eq!(ports(kind), [vec![Some(30_080)], vec![None, Some(31_883)]], "{kind}");
    }
    assert_eq!(ports("ClusterIP"), [vec![None], vec![None, None]], "the API server would refuse them");
}

/// The operator makes the passwords, with the right to do so, unless a Secret is given. Who doesn't make them
/// reads a file.
#[test]
fn passwords_are_made_by_the_operator_unless_they_are_given() {
    let release = |given: &str, persistence: &str| {
        let objects = rendered(&[
            "nats.bundled.enabled=true",
            &format!("nats.bundled.passwordsSecretName={given:?}"),
            &format!("nats.bundled.persistence={persistence}"),
        ]);
        assert!(objects.iter().all(|object| object["kind"] != "Secret"));
        let role = object(&objects, "Role", "flutecast-operator")["rules"].to_string();
        let programs = ["operator", "dataplane"].map(|program| {
            let pod = object(&objects, "Deployment", &format!("factory-flutecast-{program}"))["spec"]
                ["template"]["spec"]
                .clone();
            let flag = "--nats-passwords-secret=factory-flutecast-nats-passwords";
            let makes = pod["containers"][0]["args"].as_array().unwrap().iter().any(|arg| arg == flag);
            let reads = pod["containers"][0]["env"].to_string().contains("FLUTECAST_NATS_PASSWORD_FILE");
            let mounted = pod["volumes"][0]["secret"]["secretName"].as_str().unwrap_or("none").to_owned();
            (makes, reads, mounted)
        });
        let removes = objects.iter().any(|object| {
            let args = object["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
            object["kind"] == "Job" && args.contains("--clean-up=nats-passwords")
        });
        (role.contains("factory-flutecast-nats-passwords"), programs, removes)
    };
    let file = |name: &str| (false, true, name.to_owned());
    let made = [(true, false, "none".to_owned()), file("factory-flutecast-nats-passwords")];
    let given = [file("plant-nats"), file("plant-nats")];
    for (persistence, removes) in
        [(r#"{"keep":true}"#, false), (r#"{"keep":false}"#, true), (r#"{"enabled":false}"#, true)]
    {
        assert_eq!(release("", persistence), (true, made.clone(), removes), "{persistence}");
        assert_eq!(release("plant-nats", persistence), (false, given.clone(), false), "{persistence}");
    }
}

/// Returns the names and arguments of a release's programs.
fn arguments(objects: &[Value]) -> Vec<(String, Vec<String>)> {
    let deployments = objects.iter().filter(|object| object["kind"] == "Deployment");
    let container = |deployment: &Value| {
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned());
        (format!("flutecast-{}", container["name"].as_str().unwrap()), args.collect())
    };
    deployments.map(container).collect()
}

#[test]
fn programs_accept_the_rendered_arguments() {
    let mut cases: Vec<_> =
        rendered_cases(&root()).unwrap().into_iter().map(|(_, text)| documents(&text)).collect();
    // Extra arguments come after the chart's own, so they win.
    let values = [
        "nats.url=\"nats://n\"",
        "operator.extraArgs=[\"--log-format=text\"]",
        "dataplane.extraArgs=[\"--ping=3s\"]",
    ];
    cases.push(rendered(&values));
    cases.push(rendered(&[values[0], "ingress={\"enabled\":true,\"path\":\"/plant-1/\"}"]));
    let programs: Vec<_> = cases.iter().flat_map(|objects| arguments(objects)).collect();
    assert!(programs.len() >= 8, "{programs:?}");
    for (name, arguments) in programs {
        // The programs print their version only if all arguments before `--version` are valid.
        let output =
            Command::new(program(&name).unwrap()).args(&arguments).arg("--version").output().unwrap();
        assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

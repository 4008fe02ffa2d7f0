//! Rights of users who are not cluster administrators.

use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::release::install_crds;
use flutecast_testkit::in_repository;
use flutecast_testkit::wait_until;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn namespace_admin_can_install_a_factory() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("rights").await.unwrap();
    let name = namespace.name();
    install_crds(&cluster, &in_repository("charts/flutecast-crds")).await.unwrap();
    for role in ["view", "edit", "admin"] {
        let (bound, user) = (format!("--clusterrole={role}"), format!("--user={role}"));
        cluster.kubectl(&["create", "rolebinding", role, "-n", name, &bound, &user]).await.unwrap();
    }
    // The aggregated roles are filled by a controller, so they are polled.
    for (user, verb, what, expected) in [
        ("view", "watch", "tenants.flutecast.io", "yes"),
        ("view", "create", "devices.flutecast.io", "no"),
        ("edit", "list", "pushformats.flutecast.io", "yes"),
        ("edit", "delete", "devices.flutecast.io", "yes"),
        ("edit", "patch", "tenants.flutecast.io --subresource=status", "no"),
        ("admin", "patch", "tenants.flutecast.io --subresource=status", "yes"),
    ] {
        wait_until("the rights of a role", SOON, async || {
            // kubectl exits with an error if the result is "no".
            let mut asked = vec!["auth", "can-i", verb];
            asked.extend(what.split(' ').chain(["-n", name, "--as", user]));
            let said = cluster.kubectl(&asked).await.unwrap_or_else(|error| format!("{error:#}"));
            let found = if said.trim() == "yes" { "yes" } else { "no" };
            if found == expected { Ok(()) } else { Err(format!("{user} {verb} {what}: {said}")) }
        })
        .await
        .unwrap();
    }
    // RBAC lets a user create only roles within their own rights, so the install shows that the admin's
    // suffice.
    let chart = in_repository("charts/flutecast").display().to_string();
    let release = ["--namespace", name, "--kube-as-user", "admin"];
    let values = ["--set", "nats.url=nats://nowhere,protection=finalizer"];
    cluster.helm(&[&["install", "factory", &chart][..], &values, &release].concat(), SOON).await.unwrap();
    cluster.helm(&[&["uninstall", "factory", "--no-hooks"][..], &release].concat(), SOON).await.unwrap();
}

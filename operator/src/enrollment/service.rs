//! Starts and ends the servers as Tenants come and go.
//!
//! Only the operator that leads has a directory, so only that one receives requests.

use std::collections::BTreeMap;

use flutecast_contract::name::TenantName;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::server::{ServerContext, serve};

/// The most requests of one tenant that wait. The connection drops more than that.
pub(crate) const PENDING_REQUESTS: usize = 256;

/// Starts the task. It ends when `cancel` is cancelled.
#[must_use = "a task whose handle is dropped fails silently"]
pub(crate) fn spawn(context: ServerContext, cancel: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(run(context, cancel))
}

async fn run(mut context: ServerContext, cancel: CancellationToken) {
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut served: BTreeMap<TenantName, CancellationToken> = BTreeMap::new();
    loop {
        let wanted: Vec<TenantName> =
            context.directory.borrow_and_update().iter().flat_map(|all| all.keys().cloned()).collect();
        served.retain(|tenant, task| {
            let stays = wanted.contains(tenant);
            if !stays {
                task.cancel();
            }
            stays
        });
        for tenant in wanted {
            if served.contains_key(&tenant) {
                continue;
            }
            let task = cancel.child_token();
            served.insert(tenant.clone(), task.clone());
            tasks.spawn(serve(tenant, context.clone(), task));
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            changed = context.directory.changed() => if changed.is_err() {
                break;
            },
            Some(ended) = tasks.join_next() => match ended {
                // It was cancelled.
                Ok(()) => {}
                Err(error) => {
                    // The end of this task ends the program: there is no going on after a panic.
                    tracing::error!(%error, "a tenant's enrollment failed");
                    break;
                }
            },
        }
    }
    for task in served.values() {
        task.cancel();
    }
    while tasks.join_next().await.is_some() {}
}

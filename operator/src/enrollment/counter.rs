//! The task of one tenant: hears its requests and answers them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message};
use flutecast_contract::enrollment::Request;
use flutecast_contract::name::{DeviceCode, TenantName};
use flutecast_contract::subject;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Reason, Refusal, json};
use super::desk::{Desk, Step, unavailable};
use super::limiter::Seldom;
use super::maker::{Holder, Made, Maker};
use super::rights::Forbidden;
use super::roster::{Roll, Roster};
use super::{reply, template};
use crate::metrics::{Enrolled, Metrics};
use crate::enrollment::policy::Template;
use flutecast_process::backoff::jittered;

/// The queue group: of several operators one hears a request, also while one hands over to another.
const QUEUE: &str = "flutecast-enrolment";
/// How long a device waits for its new Device to be in the mapping.
const MAPPED: Duration = Duration::from_secs(5);
/// How long handing one answer to the connection may take.
const PUBLISH: Duration = Duration::from_secs(2);
/// After how long a tenant whose subscription ended is served again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often the log tells that Devices can't be created.
const TELL: Duration = Duration::from_secs(60);

/// What all tenants' tasks share.
#[derive(Clone)]
pub struct Shared {
    /// The connection.
    pub client: Client,
    /// What is known.
    pub roster: watch::Receiver<Option<Arc<Roster>>>,
    /// Where no Devices may be created.
    pub forbidden: watch::Receiver<Forbidden>,
    /// Creates Devices; none where they come from a folder.
    pub maker: Option<Maker>,
    /// Gets counts.
    pub metrics: Arc<Metrics>,
}

/// Serves a tenant until `cancel` is cancelled.
pub async fn serve(tenant: TenantName, shared: Shared, cancel: CancellationToken) {
    let again_and_again = async {
        // Ends only by being dropped.
        loop {
            let counter = Counter {
                desk: Desk::new(tenant.clone(), Instant::now()),
                tenant: tenant.clone(),
                shared: shared.clone(),
                creations: JoinSet::new(),
                told: Seldom::default(),
            };
            counter.run().await;
            tokio::time::sleep(jittered(AGAIN)).await;
        }
    };
    let _cancelled: Option<()> = cancel.run_until_cancelled(again_and_again).await;
}

struct Counter {
    tenant: TenantName,
    desk: Desk,
    shared: Shared,
    creations: JoinSet<Ended>,
    told: Seldom,
}

/// Creating a Device has ended.
struct Ended {
    code: DeviceCode,
    answer: Answer,
    result: Enrolled,
    /// What the API server said, if it was no.
    failure: Option<String>,
}

impl Counter {
    async fn run(mut self) {
        let subscribed =
            self.shared.client.queue_subscribe(subject::enroll(&self.tenant), QUEUE.to_owned()).await;
        let mut requests = match subscribed {
            Ok(requests) => requests,
            Err(error) => {
                tracing::warn!(tenant = %self.tenant, %error, "enrollment requests can't be heard; trying again");
                return;
            }
        };
        loop {
            tokio::select! {
                Some(done) = self.creations.join_next() => match done {
                    Ok(Ended { code, answer, result, failure }) => {
                        if let Some(error) = failure
                            && self.told.is_due(Instant::now(), TELL)
                        {
                            tracing::warn!(tenant = %self.tenant, code = code.as_str(), error, "a Device can't be created");
                        }
                        for place in self.desk.done(&code) {
                            self.say(place, Some(&code), &answer, result).await;
                        }
                    }
                    Err(error) => {
                        tracing::error!(tenant = %self.tenant, %error, "a task that created a Device failed");
                        return;
                    }
                },
                request = requests.next() => match request {
                    Some(request) => self.hear(request).await,
                    None => return,
                },
            }
        }
    }

    fn roll(&self) -> Option<Arc<Roll>> {
        self.shared.roster.borrow().as_ref()?.get(&self.tenant).cloned()
    }

    async fn hear(&mut self, message: Message) {
        let Some(roll) = self.roll() else { return };
        let request = Request::parse(&message.payload);
        let place = reply::place(
            &self.tenant,
            message.reply.as_ref().map(|reply| reply.as_str()),
            request.token.as_ref(),
        );
        let may_create =
            self.shared.maker.is_some() && !self.shared.forbidden.borrow().contains(&roll.namespace);
        match self.desk.decide(&roll, request, place, may_create, Instant::now()) {
            Step::Answer { place, code, answer } => {
                let result = result_of(&answer);
                self.say(place, code.as_ref(), &answer, result).await;
            }
            Step::Create { code, template } => self.create(code, &template, &roll),
            Step::Wait => {}
            Step::Drop => self.shared.metrics.enrolled(Enrolled::Dropped),
        }
    }

    async fn say(&self, place: String, code: Option<&DeviceCode>, answer: &Answer, result: Enrolled) {
        self.shared.metrics.enrolled(result);
        let text = json(&self.tenant, code, answer, jittered);
        let published = tokio::time::timeout(PUBLISH, self.shared.client.publish(place, text.into())).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::debug!(tenant = %self.tenant, "an answer to a device is lost");
        }
    }

    fn create(&mut self, code: DeviceCode, template: &Template, roll: &Roll) {
        let Some(maker) = self.shared.maker.clone() else { return };
        let device = template::device(&self.tenant, &roll.namespace, &code, template);
        let name = device.metadata.name.clone().unwrap_or_default();
        let (tenant, shared) = (self.tenant.clone(), self.shared.clone());
        self.creations.spawn(async move {
            let made = maker.create(&device).await;
            match &made {
                Made::Created => {
                    tracing::info!(%tenant, code = code.as_str(), device = name, "a device enrolled: its Device was created");
                }
                Made::Exists | Made::NameTaken(_) | Made::QuotaExceeded(_) | Made::Failed(_) => {}
            }
            let answer = match &made {
                Made::Created | Made::Exists => mapped(&tenant, &code, &name, shared.roster).await,
                Made::NameTaken(holder) => Err(name_taken(&tenant, &code, &name, holder)),
                Made::QuotaExceeded(_) => Err(Refusal::new(
                    Reason::QuotaExceeded,
                    format!("the namespace of tenant {tenant} has no room for another Device (ResourceQuota)"),
                )),
                Made::Failed(_) => Err(unavailable(&tenant)),
            };
            let result = if made == Made::Created && answer.is_ok() { Enrolled::Created } else { result_of(&answer) };
            let failure = match made {
                Made::Failed(error) => Some(error),
                Made::NameTaken(Holder { tenant, code }) => {
                    Some(format!("the name {name:?} is that of a Device of tenant {tenant:?} with code {code:?}"))
                }
                Made::Created | Made::Exists | Made::QuotaExceeded(_) => None,
            };
            Ended { code, answer, result, failure }
        });
    }
}

/// The Device of a code can't be created, since another one has its name. Of another tenant's Device a device
/// hears nothing but that.
fn name_taken(tenant: &TenantName, code: &DeviceCode, name: &str, holder: &Holder) -> Refusal {
    let by = if holder.tenant == tenant.as_str() {
        format!("a Device with spec.deviceCode {:?}", holder.code)
    } else {
        "a Device of another tenant".to_owned()
    };
    let code = code.as_str();
    let message = format!(
        "metadata.name: {name:?}, which a Device for {code:?} would be called, is taken by {by}; rename or delete that one, or apply a Device with \
         spec.tenant {:?} and spec.deviceCode {code:?} under another name",
        tenant.as_str()
    );
    Refusal::new(Reason::NameTaken, message)
}

/// Waits until a Device that was created is in the mapping.
async fn mapped(
    tenant: &TenantName,
    code: &DeviceCode,
    name: &str,
    mut roster: watch::Receiver<Option<Arc<Roster>>>,
) -> Answer {
    let desk = Desk::new(tenant.clone(), Instant::now());
    let known = |roster: &Option<Arc<Roster>>| desk.known(roster.as_ref()?.get(tenant)?, code);
    let settled = |answer: &Option<Answer>| match answer {
        Some(Ok(_)) => true,
        Some(Err(refusal)) => refusal.reason != Reason::Pending,
        None => false,
    };
    let wait = roster.wait_for(|roster| settled(&known(roster)));
    let last = match tokio::time::timeout(MAPPED, wait).await {
        Ok(Ok(roster)) => known(&roster),
        Ok(Err(_)) | Err(_) => None,
    };
    let last = last.or_else(|| known(&roster.borrow()));
    last.unwrap_or_else(|| {
        let message = format!("Device {name} was created and is about to be in force");
        Err(Refusal::new(Reason::Pending, message))
    })
}

fn result_of(answer: &Answer) -> Enrolled {
    match answer {
        Ok(_) => Enrolled::Answered,
        Err(refusal) => Enrolled::from(refusal.reason),
    }
}

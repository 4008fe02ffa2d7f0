//! The passwords of the bundled NATS: a Secret in the operator's own namespace, which the operator makes
//! once.
//!
//! Guarantees: a Secret that exists is never changed, however wrong it is. Of several operators that find
//! none at the same time, one makes it, and all use that one's. It is looked at again once a minute, and soon
//! when NATS is away, so that changed passwords are used without a restart; one that was deleted is made
//! again with the passwords that were in it (docs/decisions/131-passwords-of-the-bundled-nats.md).

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_contract::object::MANAGED_BY;
use flutecast_kube::Right;
use flutecast_kube::fault::brief;
use flutecast_nats::SecretText;
use flutecast_process::backoff::{Backoff, jittered};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use rand::RngExt;
use rand::distr::Alphanumeric;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::api_server::{ApiWrite, ApiWrites, MANAGER};
use crate::metrics::CallResult;

/// The Secret's name in the manifests. The chart puts the release's in its place.
const NAME: &str = "flutecast-nats-passwords";
/// In the operator's own namespace, with `--nats-passwords-secret`.
pub(crate) const RIGHTS: &[Right] = &[Right::new("", &["secrets"], &["get", "create", "patch"])
    .named(&[NAME])
    .because("Made once, by server-side apply, which needs the right to patch; then only read.")];
/// With `--clean-up=nats-passwords`.
pub(crate) const RIGHTS_AT_THE_END: Right = Right::new("", &["secrets"], &["delete"]).named(&[NAME]);

/// The users of the bundled NATS, which are the Secret's keys. The first one is the operator's own.
const USERS: [&str; 3] = ["operator", "dataplane", "devices"];
/// The letters and digits of a password that is made here, after the first letter: 238 bits.
const LENGTH: usize = 40;
const DEADLINE: Duration = Duration::from_secs(10);
/// The pauses while NATS is away, where its passwords may have changed.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
/// The longest pause while NATS is connected.
const INTERVAL: Duration = Duration::from_secs(60);

/// Why the passwords can't be used, and what would be right. Holds no password.
#[derive(Debug, thiserror::Error)]
enum PasswordsError {
    #[error(
        "the Secret {0} has no key {1}, so nats-server does not start: add it (a letter, then letters, \
         digits, - and _), or delete the Secret, and it is made again"
    )]
    NoKey(String, &'static str),
    #[error(
        "the Secret {0}: nats-server may not read the value of {1}, which has to be a letter, then letters, \
         digits, - and _"
    )]
    BadValue(String, &'static str),
    #[error(
        "a right is missing: {1}; the operator's role needs get, create and patch on the Secret {0} \
         (manifests/operator/nats-passwords.yaml)"
    )]
    Forbidden(String, String),
    #[error("the Secret {0} can't be {1}: {2}")]
    Refused(String, &'static str, String),
    #[error("the Secret {0}: the Kubernetes API does not answer within {DEADLINE:?}")]
    Late(String),
}

/// What the task finds out: the operator's own password, and what is wrong with the Secret.
#[derive(Debug, Clone)]
pub(crate) struct PasswordReports {
    pub(crate) own: watch::Sender<Option<SecretText>>,
    pub(crate) problem: watch::Sender<Option<String>>,
}

/// The task that makes and reads the Secret.
pub(crate) struct PasswordsTask {
    api: Api<Secret>,
    /// The Secret's namespace and name.
    namespace: String,
    name: String,
    /// The name of this process as a field manager. No other one has it, so that the API server refuses to
    /// replace what another operator made in the same moment.
    manager: String,
    /// What a Secret is made with: the passwords that were read last; random ones before that.
    passwords: BTreeMap<&'static str, String>,
    reports: PasswordReports,
    writes: ApiWrites,
}

impl PasswordsTask {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        reports: PasswordReports,
        writes: ApiWrites,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            manager: format!("{MANAGER}-{:016x}", rand::random::<u64>()),
            passwords: USERS.map(|user| (user, new_password())).into(),
            reports,
            writes,
        }
    }

    /// Runs forever. `connected` says whether NATS is.
    pub(crate) async fn run(mut self, mut connected: watch::Receiver<bool>) {
        let mut pauses = PAUSES;
        loop {
            let problem = match timeout(DEADLINE, self.look()).await {
                Ok(result) => result.err(),
                Err(_) => Some(PasswordsError::Late(self.place())),
            };
            self.report(problem.as_ref());
            if *connected.borrow_and_update() {
                let lost = connected.wait_for(|connected| !connected);
                if timeout(jittered(INTERVAL), lost).await.is_err() {
                    continue;
                }
                pauses.reset();
            }
            tokio::time::sleep(pauses.next_wait()).await;
        }
    }

    /// Logs a problem when it begins, and when it ends.
    fn report(&self, problem: Option<&PasswordsError>) {
        let problem = problem.map(ToString::to_string);
        let before = self.reports.problem.send_replace(problem.clone());
        match (before, problem) {
            (before, Some(problem)) if before.as_ref() != Some(&problem) => {
                tracing::warn!(problem, "NATS's passwords can't be used");
            }
            (Some(_), None) => tracing::info!(secret = self.place(), "NATS's passwords can be used"),
            _ => {}
        }
    }

    /// Reads the Secret, and makes it if it isn't there. Tells the operator's own password.
    async fn look(&mut self) -> Result<(), PasswordsError> {
        let read = async |api: &Api<Secret>| api.get_opt(&self.name).await;
        let there = read(&self.api).await.map_err(|error| self.fault("read", &error))?;
        let secret = match there {
            Some(secret) => secret,
            None => match self.make().await {
                Ok(secret) => secret,
                // Another operator made it.
                Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_already_exists() => {
                    self.api.get(&self.name).await.map_err(|error| self.fault("read", &error))?
                }
                Err(error) => return Err(self.fault("made", &error)),
            },
        };
        let (values, problem) = values(&self.place(), &secret);
        if let Some(own) = values.get(USERS[0]) {
            let own = Some(SecretText::from(own.as_str()));
            self.reports.own.send_if_modified(|known| {
                let differs = *known != own;
                known.clone_from(&own);
                differs
            });
        }
        self.passwords.extend(values);
        problem.map_or(Ok(()), Err)
    }

    /// Makes the Secret, unless there is one: with other values it would be a conflict of two managers.
    async fn make(&self) -> Result<Secret, kube::Error> {
        let data = self
            .passwords
            .iter()
            .map(|(user, password)| ((*user).to_owned(), ByteString(password.clone().into_bytes())));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                // Not the release's labels: Argo CD would take it for something that git has no more.
                labels: Some(BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(data.collect()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let made =
            self.api.patch(&self.name, &PatchParams::apply(&self.manager), &Patch::Apply(&secret)).await;
        let result = if made.is_ok() { CallResult::Done } else { CallResult::Failed };
        self.writes.count(ApiWrite::Passwords, result);
        if made.is_ok() {
            tracing::info!(secret = self.place(), "NATS's passwords are made");
        }
        made
    }

    fn fault(&self, done: &'static str, error: &kube::Error) -> PasswordsError {
        match error {
            // A quota answers 403 as well, in other words.
            kube::Error::Api(answer) if answer.code == 403 && answer.message.contains(" cannot ") => {
                PasswordsError::Forbidden(self.place(), answer.message.clone())
            }
            error => PasswordsError::Refused(self.place(), done, brief(error)),
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Returns the passwords of a Secret, and the first problem with them.
fn values(place: &str, secret: &Secret) -> (BTreeMap<&'static str, String>, Option<PasswordsError>) {
    let mut values = BTreeMap::new();
    let mut problem = None;
    for user in USERS {
        let bytes = secret.data.as_ref().and_then(|data| data.get(user));
        let Some(ByteString(bytes)) = bytes.filter(|bytes| !bytes.0.is_empty()) else {
            problem.get_or_insert_with(|| PasswordsError::NoKey(place.to_owned(), user));
            continue;
        };
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if !is_readable_for_nats(text) {
            problem.get_or_insert_with(|| PasswordsError::BadValue(place.to_owned(), user));
        }
        // nats-server takes more than it is sure to, so it is tried.
        if !text.is_empty() {
            values.insert(user, text.to_owned());
        }
    }
    (values, problem)
}

/// Returns whether nats-server reads a variable of its configuration as this text: not as a number, a
/// structure or a reference, and to its end.
fn is_readable_for_nats(password: &str) -> bool {
    password.starts_with(|first: char| first.is_ascii_alphabetic())
        && password.chars().all(|next| next.is_ascii_alphanumeric() || next == '-' || next == '_')
}

/// Returns a random password, from a generator that is fit for secrets.
fn new_password() -> String {
    let random: String = rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from).collect();
    format!("p{random}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(data: &[(&str, &str)]) -> Secret {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), bytes(value)));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    #[test]
    fn passwords_that_are_made_differ_and_can_be_read() {
        let made: std::collections::BTreeSet<_> = (0..50).map(|_| new_password()).collect();
        assert_eq!(made.len(), 50);
        assert!(made.iter().all(|password| password.len() == LENGTH + 1 && is_readable_for_nats(password)));
    }

    #[test]
    fn a_missing_key_and_an_unreadable_value_are_named_without_the_value() {
        let good = [("operator", "p-1"), ("dataplane", "p_2"), ("devices", "P3")];
        let (read, problem) = values("a/b", &secret(&good));
        assert!(problem.is_none() && read.len() == 3 && read["devices"] == "P3");

        for missing in [&good[..2], &[good[0], good[1], ("devices", "")]] {
            let (read, problem) = values("a/b", &secret(missing));
            let problem = problem.unwrap().to_string();
            assert!(problem.starts_with("the Secret a/b has no key devices"), "{problem}");
            assert_eq!(read.len(), 2);
        }
        let (read, problem) = values("a/b", &Secret::default());
        assert!(read.is_empty() && problem.unwrap().to_string().contains("no key operator"));

        for odd in ["1secret", "se cret", "sécret", "\"secret\"", "$secret", "secret\n", "-secret"] {
            let (read, problem) = values("a/b", &secret(&[good[0], ("dataplane", odd), good[2]]));
            let problem = problem.unwrap().to_string();
            assert!(problem.contains("the value of dataplane") && !problem.contains("cret,"), "{problem}");
            // It may work all the same.
            assert_eq!(read["dataplane"], odd);
        }
    }
}

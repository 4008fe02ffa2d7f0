//! All devices that are followed: whose turn it is to be looked up, and what is told of whom. Pure; the time
//! is handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use flutecast_contract::subject;
use flutecast_crds::Presence;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::Told;
use super::board::{Followed, Key};
use super::pace::{Bucket, CHANGES, Pace};
use super::pulse::{At, Heard, Look, Pulse};
use flutecast_process::backoff::Backoff;

/// The server answers for so many subjects at most (`maxAllowedResponses` in nats-server's stream.go).
pub const MAX_SUBJECTS: usize = 1024;
/// The first and the longest wait after a tenant's stream could not be read.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// After how long the broker's clock is asked for again.
const CLOCK_HOLDS: Duration = Duration::from_secs(60);
/// A clock of the broker that differs by more than this from what it should show was set.
const CLOCK_SET: SignedDuration = SignedDuration::from_secs(1);

/// One device, for as long as it is followed in one way; never used twice, so that an answer that comes late
/// finds nobody.
pub type Id = u64;

/// Everybody.
#[derive(Debug)]
pub struct Crowd {
    members: BTreeMap<Id, Member>,
    ids: BTreeMap<Key, Id>,
    tenants: BTreeMap<TenantName, Group>,
    /// Those of whom something else is the case than was told, by when it may be told.
    to_tell: BTreeSet<(Instant, Id)>,
    bucket: Bucket,
    next_id: Id,
}

#[derive(Debug)]
struct Member {
    key: Key,
    followed: Arc<Followed>,
    pulse: Pulse,
    told: Told,
    pace: Pace,
    /// Where it stands among those that wait for a look.
    look_at: Option<Instant>,
    tell_at: Option<Instant>,
}

/// The devices of one tenant.
#[derive(Debug)]
struct Group {
    looks: BTreeSet<(Instant, Id)>,
    is_asked: bool,
    /// When it may be asked again, after it could not be.
    retry_at: Option<Instant>,
    backoff: Backoff,
    clock: Option<At>,
}

/// What is asked of one tenant's stream at once.
#[derive(Debug, Clone)]
pub struct Round {
    /// The tenant.
    pub tenant: TenantName,
    /// The subjects whose last message is asked for, and whose channel each is.
    pub subjects: BTreeMap<String, (Id, usize)>,
    /// Whether the broker's clock is asked for too.
    pub with_clock: bool,
    asks: Vec<(Id, Look)>,
}

/// The answer to a [`Round`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The last message of each subject that has one: subject, sequence, and when it was stored.
    pub messages: Vec<(String, u64, Timestamp)>,
    /// What the broker's clock showed, if it was asked for.
    pub clock: Option<Timestamp>,
}

/// Something to be told.
#[derive(Debug, Clone)]
pub struct News {
    /// Of whom.
    pub key: Key,
    /// The device as it was followed.
    pub followed: Arc<Followed>,
    /// What.
    pub told: Told,
}

impl Crowd {
    /// Nobody yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            members: BTreeMap::new(),
            ids: BTreeMap::new(),
            tenants: BTreeMap::new(),
            to_tell: BTreeSet::new(),
            bucket: Bucket::new(CHANGES, now),
            next_id: 0,
        }
    }

    /// Follows a device, of which `told` is said. Answers the one that was followed under this name before.
    pub fn follow(&mut self, key: &Key, followed: Arc<Followed>, told: Told, now: Instant) -> Option<Id> {
        let before = self.forget(key);
        let id = self.next_id;
        self.next_id += 1;
        let stale_after: Vec<Duration> =
            followed.channels.iter().map(|(_, stale_after)| *stale_after).collect();
        let pulse = Pulse::new(&stale_after, told, now, rand::random());
        self.tenants.entry(followed.tenant.clone()).or_insert_with(Group::new);
        let member = Member {
            key: key.clone(),
            followed,
            pulse,
            told,
            // Whoever changes a spec wants to see what comes of it.
            pace: Pace::default(),
            look_at: None,
            tell_at: None,
        };
        self.members.insert(id, member);
        self.ids.insert(key.clone(), id);
        self.arrange(id, now);
        before
    }

    /// Follows a device no longer. Answers which it was.
    pub fn forget(&mut self, key: &Key) -> Option<Id> {
        let id = self.ids.remove(key)?;
        let member = self.members.remove(&id)?;
        if let Some(at) = member.tell_at {
            self.to_tell.remove(&(at, id));
        }
        if let Some(group) = self.tenants.get_mut(&member.followed.tenant)
            && let Some(at) = member.look_at
        {
            group.looks.remove(&(at, id));
        }
        // A group stays for as long as it is asked; it is small.
        self.tenants.retain(|_, group| group.is_asked || !group.looks.is_empty());
        Some(id)
    }

    /// The broker is there again: everybody is looked up.
    pub fn begin_again(&mut self, now: Instant) {
        for group in self.tenants.values_mut() {
            group.clock = None;
            group.retry_at = None;
        }
        let ids: Vec<Id> = self.members.keys().copied().collect();
        for id in ids {
            self.begin_member_again(id, now);
        }
    }

    fn begin_member_again(&mut self, id: Id, now: Instant) {
        if let Some(member) = self.members.get_mut(&id) {
            member.pulse.begin_again(now, rand::random());
            self.arrange(id, now);
        }
    }

    /// When there is something to ask.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.tenants.values().filter_map(Group::next).min()
    }

    /// When there is something to tell.
    #[must_use]
    pub fn next_tell(&self, now: Instant) -> Option<Instant> {
        let (first, _) = self.to_tell.first()?;
        Some((*first).max(self.bucket.earliest(now)))
    }

    /// What is to be asked now, of a tenant of which nothing is being asked; none: nothing is. The tenant
    /// that has waited for longest comes first: in one of many devices something is always due, and the
    /// others would never get their turn.
    pub fn ask(&mut self, now: Instant) -> Option<Round> {
        let due = |group: &Group| group.next().filter(|next| *next <= now);
        let (_, (tenant, group)) = self
            .tenants
            .iter_mut()
            .filter_map(|(tenant, group)| Some((due(group)?, (tenant, group))))
            .min_by_key(|(due, _)| *due)?;
        let clock_holds = group.clock.is_some_and(|clock| now < clock.local + CLOCK_HOLDS);
        let mut round = Round {
            tenant: tenant.clone(),
            subjects: BTreeMap::new(),
            with_clock: !clock_holds,
            asks: Vec::new(),
        };
        while let Some((at, id)) = group.looks.first().copied()
            && at <= now
        {
            let Some(member) = self.members.get_mut(&id) else {
                group.looks.pop_first();
                continue;
            };
            let (_, look) = member.pulse.next();
            let channels = match look {
                Look::One(channel) => channel..channel + 1,
                Look::All => 0..member.followed.channels.len(),
            };
            if !round.asks.is_empty() && round.subjects.len() + channels.len() > MAX_SUBJECTS {
                break;
            }
            group.looks.pop_first();
            member.look_at = None;
            for channel in channels {
                if let Some((name, _)) = member.followed.channels.get(channel) {
                    let subject = subject::stored(tenant, &member.followed.iot_id, name);
                    round.subjects.insert(subject, (id, channel));
                }
            }
            // Who is about to be called silent is so by the broker's clock as it is now.
            round.with_clock |= look == Look::All;
            round.asks.push((id, look));
        }
        group.is_asked = true;
        Some(round)
    }

    /// Takes in an answer. Answers who should be listened to.
    pub fn answered(&mut self, round: &Round, answer: &Answer, now: Instant) -> Vec<Id> {
        let Some(group) = self.tenants.get_mut(&round.tenant) else { return Vec::new() };
        group.is_asked = false;
        group.retry_at = None;
        group.backoff.reset();
        if let Some(clock) = answer.clock {
            group.set_clock(&round.tenant, At { local: now, broker: clock });
        }
        let Some(at) = group.at(now) else {
            // It was asked for, and isn't there.
            self.failed(round, now);
            return Vec::new();
        };
        let mut heard: BTreeMap<Id, Vec<Heard>> = BTreeMap::new();
        for (subject, sequence, stored) in &answer.messages {
            if let Some((id, channel)) = round.subjects.get(subject) {
                let message = Heard { channel: *channel, sequence: *sequence, stored: *stored };
                heard.entry(*id).or_default().push(message);
            }
        }
        let mut unheard = Vec::new();
        for (id, look) in &round.asks {
            let Some(member) = self.members.get_mut(id) else { continue };
            let messages = heard.get(id).map(Vec::as_slice).unwrap_or_default();
            member.pulse.answered(*look, messages, at, rand::random());
            if member.pulse.needs_ears() {
                unheard.push(*id);
            }
            self.arrange(*id, now);
        }
        unheard
    }

    /// A round has no answer; it is tried again later.
    pub fn failed(&mut self, round: &Round, now: Instant) {
        let Some(group) = self.tenants.get_mut(&round.tenant) else { return };
        group.is_asked = false;
        group.retry_at = Some(now + group.backoff.next_wait());
        group.clock = None;
        // A stream that can't be read may not have taken anything in either: that is no silence of its
        // devices.
        let of_this_tenant = self.members.iter().filter(|(_, member)| member.followed.tenant == round.tenant);
        let ids: Vec<Id> = of_this_tenant.map(|(id, _)| *id).collect();
        for id in ids {
            self.begin_member_again(id, now);
        }
    }

    /// A message of somebody who is listened to; nobody listens any longer. Answers whether somebody should.
    pub fn heard(&mut self, id: Id, message: &Heard, now: Instant) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        member.pulse.listened_to(false, now);
        member.pulse.heard(message, now, rand::random());
        let needs_ears = member.pulse.needs_ears();
        self.arrange(id, now);
        needs_ears
    }

    /// Somebody listens to a device from now on.
    pub fn listened_to(&mut self, id: Id, now: Instant) {
        if let Some(member) = self.members.get_mut(&id) {
            member.pulse.listened_to(true, now);
            self.arrange(id, now);
        }
    }

    /// How a device is followed.
    #[must_use]
    pub fn followed(&self, id: Id) -> Option<&Arc<Followed>> {
        self.members.get(&id).map(|member| &member.followed)
    }

    /// What may be told now.
    pub fn tell(&mut self, now: Instant) -> Vec<News> {
        let mut news = Vec::new();
        while let Some((at, id)) = self.to_tell.first().copied()
            && at <= now
            && self.bucket.take(now)
        {
            self.to_tell.pop_first();
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.tell_at = None;
            member.told = member.pulse.told();
            member.pace.tell(now);
            news.push(News { key: member.key.clone(), followed: member.followed.clone(), told: member.told });
        }
        news
    }

    /// How many devices are Online, Silent and Unknown.
    #[must_use]
    pub fn counts(&self) -> [(Presence, usize); 3] {
        let count = |presence| {
            let is = |member: &&Member| member.pulse.told().presence == presence;
            (presence, self.members.values().filter(is).count())
        };
        [count(Presence::Online), count(Presence::Silent), count(Presence::Unknown)]
    }

    /// Puts a device where it belongs among those that wait.
    fn arrange(&mut self, id: Id, now: Instant) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if let Some(group) = self.tenants.get_mut(&member.followed.tenant) {
            let (next, _) = member.pulse.next();
            if let Some(before) = member.look_at.replace(next) {
                group.looks.remove(&(before, id));
            }
            group.looks.insert((next, id));
        }
        let is_news = member.pulse.told().presence != member.told.presence;
        let tell_at = is_news
            .then(|| member.tell_at.unwrap_or_else(|| member.pace.earliest().map_or(now, |at| at.max(now))));
        if let Some(before) = member.tell_at
            && tell_at != Some(before)
        {
            self.to_tell.remove(&(before, id));
        }
        if let Some(at) = tell_at {
            self.to_tell.insert((at, id));
        }
        member.tell_at = tell_at;
    }
}

impl Group {
    fn new() -> Self {
        Self {
            looks: BTreeSet::new(),
            is_asked: false,
            retry_at: None,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            clock: None,
        }
    }

    fn next(&self) -> Option<Instant> {
        let (first, _) = self.looks.first().filter(|_| !self.is_asked)?;
        Some(self.retry_at.map_or(*first, |retry_at| retry_at.max(*first)))
    }

    /// Now, on both clocks; none before the broker's was asked for.
    fn at(&self, now: Instant) -> Option<At> {
        let clock = self.clock?;
        let since = SignedDuration::try_from(now.saturating_duration_since(clock.local)).ok()?;
        Some(At { local: now, broker: clock.broker.checked_add(since).ok()? })
    }

    fn set_clock(&mut self, tenant: &TenantName, clock: At) {
        if let Some(expected) = self.at(clock.local) {
            let by = clock.broker.duration_since(expected.broker);
            if by.abs() > CLOCK_SET {
                tracing::warn!(%tenant, %by, "the broker's clock was set, or another broker answers");
            }
        }
        self.clock = Some(clock);
    }
}

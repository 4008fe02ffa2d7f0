//! How many clients a pod sends away, and when: plain state, without I/O and without a clock of its own.
//!
//! Each pod looks only at its own surplus over the mean. Where a client that is sent away lands is nobody's
//! choice: behind kube-proxy it is chance, behind a gateway often the pod with the fewest. So a pod begins
//! when the shares differ by more than chance would explain, goes on at a bounded rate until it is at the
//! mean, and then rests, longer each time while the same pods are there
//! (docs/decisions/0067-who-is-sent-away.md).

use std::time::Duration;

use tokio::time::Instant;

/// How long the same pods must have been there before anything moves: gateways need a moment to learn of a
/// newcomer.
pub(super) const SETTLE: Duration = Duration::from_secs(3);
/// A pod begins when some pod has more than its share by more than this part of it.
const MOST_OVER: f64 = 0.10;
/// It also begins when some pod has less than its share by more than this part of it.
const MOST_UNDER: f64 = 0.15;
/// Differences of so many clients are never worth a move.
const FEW: f64 = 3.0;
/// A pod ends when it is so near to its share from above, as a part of it.
const NEAR: f64 = 0.02;
/// No pod sends away more in a second: each of them comes back with a `hello` and a snapshot that some pod
/// has to make.
const MOST_PER_SECOND: f64 = 200.0;
/// A pass has helped if less than this part of the unevenness is left when the next one begins.
const HELPED: f64 = 0.8;
/// The longest rest between two passes.
const LONGEST_REST: Duration = Duration::from_secs(6 * 3_600);

/// The bounds that an operator of the cluster sets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// Which part of its clients a pod may send away in a second; at least one client.
    pub(super) rate: f64,
    /// How long a pod rests after its first pass.
    pub(super) rest: Duration,
}

/// The pods that are counted, this one and the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    /// How many clients this pod has.
    pub(super) own: usize,
    /// The others by name, sorted, and how many clients each has.
    pub(super) others: Vec<(String, usize)>,
}

/// Decides for one pod.
#[derive(Debug)]
pub(super) struct Planner {
    limits: Limits,
    members: Vec<String>,
    phase: Phase,
    /// How many passes in a row there were with these pods that hardly helped, the last one included.
    passes: u32,
    /// How uneven it was when the last pass began.
    unevenness: f64,
    /// How many clients may be sent away now; grows with time.
    allowance: f64,
    stepped: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is moved, and nothing will be before this time.
    Watching { not_before: Instant },
    /// Clients are sent away; so many more at most.
    Moving { left: usize },
}

impl View {
    /// How many clients each pod would have if all had the same.
    pub(super) fn share(&self) -> f64 {
        let total: usize = self.own + self.others.iter().map(|(_, count)| count).sum::<usize>();
        total as f64 / (self.others.len() + 1) as f64
    }

    /// Whether the shares differ by more than chance would explain: throwing dice for each client gives
    /// differences of about the root of a share.
    fn is_uneven(&self) -> bool {
        let share = self.share();
        let most = share + share.sqrt().max(FEW).max(share * MOST_OVER);
        self.counts().any(|count| count > most) || self.has_a_poor_one()
    }

    /// Whether some pod has much less than its share.
    fn has_a_poor_one(&self) -> bool {
        let share = self.share();
        let least = share - share.sqrt().max(FEW).max(share * MOST_UNDER);
        self.counts().any(|count| count < least)
    }

    /// Whether this pod has no more than its share; or hardly more, as long as no pod is short of clients.
    fn has_its_share(&self) -> bool {
        let share = self.share();
        let near = if self.has_a_poor_one() { 0.5 } else { (share * NEAR).max(share.sqrt() * 0.3) };
        self.own as f64 <= share + near
    }

    /// The largest difference between a pod and its share, as a part of it.
    fn unevenness(&self) -> f64 {
        let share = self.share().max(1.0);
        self.counts().map(|count| (count - share).abs() / share).fold(0.0, f64::max)
    }

    fn counts(&self) -> impl Iterator<Item = f64> {
        self.others.iter().map(|(_, count)| *count as f64).chain([self.own as f64])
    }
}

impl Planner {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        let phase = Phase::Watching { not_before: now + SETTLE };
        let members = Vec::new();
        Self { limits, members, phase, passes: 0, unevenness: 0.0, allowance: 0.0, stepped: now }
    }

    /// Whether clients are being sent away.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self.phase, Phase::Moving { .. })
    }

    /// How many clients to send away now. What could be done of it is told with [`Self::moved`].
    pub(super) fn step(&mut self, now: Instant, view: &View) -> usize {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.stepped, now));
        if !self.members.iter().eq(view.others.iter().map(|(name, _)| name)) {
            self.members = view.others.iter().map(|(name, _)| name.clone()).collect();
            self.phase = Phase::Watching { not_before: now + SETTLE };
            self.passes = 0;
        }
        if let Phase::Watching { not_before } = self.phase {
            if now < not_before || view.has_its_share() || !view.is_uneven() {
                self.forget_passes(now, not_before);
                return 0;
            }
            // As many as are here: where they keep coming back, sending them away twice won't help.
            self.phase = Phase::Moving { left: view.own };
            let before = std::mem::replace(&mut self.unevenness, view.unevenness());
            self.passes = if self.unevenness < before * HELPED { 1 } else { self.passes + 1 };
            self.allowance = 0.0;
        }
        let Phase::Moving { left } = self.phase else { return 0 };
        if left == 0 || view.has_its_share() {
            let longer = 2_u32.saturating_pow(self.passes.saturating_sub(1));
            let rest = self.limits.rest.saturating_mul(longer).min(LONGEST_REST);
            self.phase = Phase::Watching { not_before: now + rest };
            return 0;
        }
        let rate = (view.own as f64 * self.limits.rate).clamp(1.0, MOST_PER_SECOND);
        // What could not be used isn't saved up: a burst is what is to be avoided.
        self.allowance = (self.allowance + rate * passed.as_secs_f64()).min(rate.max(1.0));
        let surplus = view.own as f64 - view.share();
        (self.allowance.min(surplus) as usize).min(left)
    }

    /// So many were sent away.
    pub(super) fn moved(&mut self, count: usize) {
        self.allowance = (self.allowance - count as f64).max(0.0);
        if let Phase::Moving { left } = &mut self.phase {
            *left = left.saturating_sub(count);
        }
    }

    /// After a long time in which nothing was moved, the next pass is the first one again.
    fn forget_passes(&mut self, now: Instant, not_before: Instant) {
        if now.saturating_duration_since(not_before) > LONGEST_REST {
            self.passes = 0;
        }
    }
}

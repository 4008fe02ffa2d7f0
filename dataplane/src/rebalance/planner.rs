//! Decides how many clients a pod sends away, and when. Synchronous, without I/O; the time is an argument.
//!
//! Each pod looks only at its own surplus over the mean. No pod chooses where a client lands: behind
//! kube-proxy that is random, behind a gateway often the pod with the fewest clients. So a pod begins when
//! the shares differ by more than chance explains, moves clients at a bounded rate until it is at the mean,
//! and then rests, longer each time while the pods stay the same (docs/decisions/105-rebalancing.md).

use std::time::Duration;

use tokio::time::Instant;

/// Clients are moved once the pods have been the same for this long: gateways need a moment to learn of a
/// new pod.
pub(super) const SETTLE: Duration = Duration::from_secs(3);
/// A pod begins if any pod exceeds its share by more than this part of it.
const MOST_OVER: f64 = 0.10;
/// It also begins if any pod is below its share by more than this part of it.
const MOST_UNDER: f64 = 0.15;
/// Differences of at most this many clients are never worth a move.
const FEW: f64 = 3.0;
/// A pod ends when its surplus is at most this part of its share.
const NEAR: f64 = 0.02;
/// No pod sends away more: each client comes back for a `hello` and a snapshot that some pod has to make.
const MOST_PER_SECOND: f64 = 200.0;
/// A pass has helped if less than this part of the unevenness is left at the beginning of the next one.
const HELPED: f64 = 0.8;
/// The longest rest between two passes.
const LONGEST_REST: Duration = Duration::from_secs(6 * 3_600);

/// The bounds set on the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RebalanceLimits {
    /// The part of its clients that a pod may send away in a second; at least one client.
    pub(crate) rate: f64,
    /// The least stay of a client that came back, and the time that a pod rests after its first pass.
    pub(crate) rest: Duration,
}

/// The load of the ready pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    /// The clients of this pod.
    pub(super) own: usize,
    /// The other pods and their clients, sorted by name.
    pub(super) others: Vec<(String, usize)>,
}

#[derive(Debug)]
pub(super) struct Planner {
    limits: RebalanceLimits,
    members: Vec<String>,
    phase: PlannerPhase,
    /// Passes in a row with these pods that hardly helped, including the last one.
    passes: u32,
    /// The unevenness at the beginning of the last pass.
    unevenness: f64,
    /// Clients that may be sent away now; grows with time.
    allowance: f64,
    stepped: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlannerPhase {
    /// No client is moved, at least until this time.
    Watching { not_before: Instant },
    /// Clients are sent away, at most this many more.
    Moving { left: usize },
}

impl View {
    /// Returns how many clients each pod would have if all had the same number.
    pub(super) fn share(&self) -> f64 {
        let total: usize = self.own + self.others.iter().map(|(_, count)| count).sum::<usize>();
        total as f64 / (self.others.len() + 1) as f64
    }

    /// Returns whether the shares differ by more than chance explains: random placement causes differences of
    /// about the square root of a share.
    fn is_uneven(&self) -> bool {
        let share = self.share();
        let most = share + share.sqrt().max(FEW).max(share * MOST_OVER);
        self.counts().any(|count| count > most) || self.has_underloaded_pod()
    }

    /// Returns whether any pod is far below its share.
    fn has_underloaded_pod(&self) -> bool {
        let share = self.share();
        let least = share - share.sqrt().max(FEW).max(share * MOST_UNDER);
        self.counts().any(|count| count < least)
    }

    /// Returns whether this pod has at most its share, or hardly more if no pod is far below its own.
    fn has_its_share(&self) -> bool {
        let share = self.share();
        let near = if self.has_underloaded_pod() { 0.5 } else { (share * NEAR).max(share.sqrt() * 0.3) };
        self.own as f64 <= share + near
    }

    /// Returns the largest difference between a pod and its share, as a part of the share.
    fn unevenness(&self) -> f64 {
        let share = self.share().max(1.0);
        self.counts().map(|count| (count - share).abs() / share).fold(0.0, f64::max)
    }

    fn counts(&self) -> impl Iterator<Item = f64> {
        self.others.iter().map(|(_, count)| *count as f64).chain([self.own as f64])
    }
}

impl Planner {
    pub(super) fn new(limits: RebalanceLimits, now: Instant) -> Self {
        let phase = PlannerPhase::Watching { not_before: now + SETTLE };
        let members = Vec::new();
        Self { limits, members, phase, passes: 0, unevenness: 0.0, allowance: 0.0, stepped: now }
    }

    pub(super) fn is_moving(&self) -> bool {
        matches!(self.phase, PlannerPhase::Moving { .. })
    }

    /// Returns how many clients to send away now; [`Self::moved`] is to be called with how many were.
    pub(super) fn step(&mut self, now: Instant, view: &View) -> usize {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.stepped, now));
        if !self.members.iter().eq(view.others.iter().map(|(name, _)| name)) {
            self.members = view.others.iter().map(|(name, _)| name.clone()).collect();
            self.phase = PlannerPhase::Watching { not_before: now + SETTLE };
            self.passes = 0;
        }
        if let PlannerPhase::Watching { not_before } = self.phase {
            if now < not_before || view.has_its_share() || !view.is_uneven() {
                // After a long time without moves, the next pass counts as the first.
                if now.saturating_duration_since(not_before) > LONGEST_REST {
                    self.passes = 0;
                }
                return 0;
            }
            // Each client at most once: if they keep coming back, sending them away again won't help.
            self.phase = PlannerPhase::Moving { left: view.own };
            let before = std::mem::replace(&mut self.unevenness, view.unevenness());
            self.passes = if self.unevenness < before * HELPED { 1 } else { self.passes + 1 };
            self.allowance = 0.0;
        }
        let PlannerPhase::Moving { left } = self.phase else { return 0 };
        if left == 0 || view.has_its_share() {
            let longer = 2_u32.saturating_pow(self.passes.saturating_sub(1));
            let rest = self.limits.rest.saturating_mul(longer).min(LONGEST_REST);
            self.phase = PlannerPhase::Watching { not_before: now + rest };
            return 0;
        }
        let rate = (view.own as f64 * self.limits.rate).clamp(1.0, MOST_PER_SECOND);
        // Unused allowance isn't saved, to avoid bursts.
        self.allowance = (self.allowance + rate * passed.as_secs_f64()).min(rate.max(1.0));
        let surplus = view.own as f64 - view.share();
        (self.allowance.min(surplus) as usize).min(left)
    }

    /// To be called with the number of clients that were sent away.
    pub(super) fn moved(&mut self, count: usize) {
        self.allowance = (self.allowance - count as f64).max(0.0);
        if let PlannerPhase::Moving { left } = &mut self.phase {
            *left = left.saturating_sub(count);
        }
    }
}

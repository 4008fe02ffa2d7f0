//! The tail: how far back the messages of a channel decide what it shows.
//!
//! What a channel shows is a pure function of its tail, the newest messages of its subject. The data plane
//! reads it back, the operator judges by it, and programs that were there all along forget by the same
//! bounds.

use std::time::Duration;

/// The most messages of a tail.
pub const MESSAGES: usize = 512;
/// The most bytes of the payloads of a tail that is read back. Of larger messages it holds fewer, at least
/// one.
pub const BYTES: usize = 4 * 1_024 * 1_024;
/// How far back lateness and repeats are looked for, by the times of storing.
pub const LATENESS_WINDOW: Duration = Duration::from_secs(60);
/// How far two clocks may differ. Of two messages whose times differ by no more, the one that was stored
/// later is the newer one.
pub const TIME_TOLERANCE: Duration = Duration::from_secs(1);
/// An event of a channel on which nothing is skipped is late if its time is longer than this before it was
/// stored.
pub const LATE_EVENT: Duration = Duration::from_secs(5);
/// How long a problem is shown after its last message, once good ones follow.
pub const PROBLEM_LINGER: Duration = Duration::from_secs(10);

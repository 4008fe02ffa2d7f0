//! Positions in a tenant's stream, and event ids: `<epoch>-<sequence>`.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// One incarnation of a tenant's stream, derived from the moment at which the stream was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// Returns the epoch of a stream with this creation time, as the server writes it: the first 32 bits of
    /// its SHA-256, so that streams created shortly after one another differ too.
    #[must_use]
    pub fn of_creation(created: &str) -> Self {
        let digest = Sha256::digest(created.as_bytes());
        Self(digest.iter().take(4).fold(0, |epoch, &byte| epoch << 8 | u32::from(byte)))
    }
}

/// The sequence number that a stream gives a message. The first message of a stream has 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The position before the first message.
    pub const START: Self = Self(0);
    /// A position that no stream reaches.
    pub const MAX: Self = Self(u64::MAX);

    /// Returns the sequence that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the sequence before this one; that of [`Self::START`] is itself.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in a tenant's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The incarnation of the stream to which `sequence` belongs.
    pub epoch: Epoch,
    /// The sequence of the last message that was delivered.
    pub sequence: Sequence,
}

/// The error for a string that is not an event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id; it needs 8 lower-case hexadecimal digits, '-' and a number (5f3a9c01-1042)")]
pub struct InvalidEventId;

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

impl FromStr for Epoch {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        if text.len() != 8 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidEventId);
        }
        u32::from_str_radix(text, 16).map(Self).map_err(|_| InvalidEventId)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let (epoch, sequence) = text.split_once('-').ok_or(InvalidEventId)?;
        if !matches!(sequence.len(), 1..=20) || !sequence.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidEventId);
        }
        let sequence = sequence.parse().map_err(|_| InvalidEventId)?;
        Ok(Self { epoch: epoch.parse()?, sequence: Sequence(sequence) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        for text in ["5f3a9c01-1042", "00000000-0", "ffffffff-18446744073709551615"] {
            assert_eq!(text.parse::<EventId>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "-",
            "5f3a9c01",
            "5f3a9c01-",
            "5F3a9c01-1",
            "5f3a9c1-1",
            "5f3a9c01-+1",
            "5f3a9c01-18446744073709551616",
        ] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn streams_created_shortly_after_one_another_have_different_epochs() {
        let epoch = Epoch::of_creation("2026-11-22T10:00:00.123456789Z");
        assert_eq!(epoch, Epoch::of_creation("2026-11-22T10:00:00.123456789Z"));
        assert_ne!(epoch, Epoch::of_creation("2026-11-22T10:00:00.123456790Z"));
    }
}

//! The order in which the streams of sources change the subjects that they capture. Pure.

use crate::jetstream::subject_pattern::SubjectPattern;

/// The subjects that a stream captures now and later.
#[derive(Debug)]
pub(super) struct Capture {
    current: Vec<SubjectPattern>,
    wanted: Vec<SubjectPattern>,
}

impl Capture {
    /// Subjects that can't be parsed block no other stream.
    pub(super) fn new<'a>(
        current: impl Iterator<Item = &'a str>,
        wanted: impl Iterator<Item = &'a str>,
    ) -> Self {
        let subject = |text: &str| SubjectPattern::new(text).ok();
        Self { current: current.filter_map(subject).collect(), wanted: wanted.filter_map(subject).collect() }
    }

    /// Notes that the stream was parked.
    pub(super) fn park(&mut self) {
        self.current.clear();
    }

    /// Returns whether it still captures something that `other` is to capture.
    fn blocks(&self, other: &Self) -> bool {
        let overlaps = |current: &SubjectPattern| other.wanted.iter().any(|wanted| wanted.overlaps(current));
        self.current != self.wanted && self.current.iter().any(overlaps)
    }
}

/// The next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextChange {
    /// This stream changes; its subjects are free.
    Change(usize),
    /// The streams block each other in a cycle; this one is parked first.
    Park(usize),
}

/// Returns the next step; `None` if there are no streams. A stream that doesn't change blocks no other here:
/// NATS refuses those that want its subject, with a message.
pub(super) fn next(captures: &[&Capture]) -> Option<NextChange> {
    let others = |one: usize| captures.iter().enumerate().filter(move |(other, _)| *other != one);
    let is_free = |one: usize| !others(one).any(|(_, other)| other.blocks(captures[one]));
    let is_blocking = |one: usize| others(one).any(|(_, other)| captures[one].blocks(other));
    let mut all = 0..captures.len();
    let free = all.clone().find(|one| is_free(*one)).map(NextChange::Change);
    // If none is free, one blocks another one, and doesn't after it was parked.
    free.or_else(|| all.find(|one| is_blocking(*one)).map(NextChange::Park))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of the changes, with a minus before a stream that is parked.
    fn order(captures: &[(&str, &str)]) -> String {
        let capture = |(current, wanted): &(&str, &str)| {
            Capture::new(current.split_whitespace(), wanted.split_whitespace())
        };
        let mut pending: Vec<(usize, Capture)> = captures.iter().map(capture).enumerate().collect();
        let mut order = String::new();
        while !pending.is_empty() {
            let captures: Vec<&Capture> = pending.iter().map(|(_, capture)| capture).collect();
            match next(&captures).unwrap() {
                NextChange::Change(free) => order.push_str(&format!("{} ", pending.remove(free).0)),
                NextChange::Park(first) => {
                    order.push_str(&format!("-{} ", pending[first].0));
                    pending[first].1.park();
                }
            }
        }
        order.trim().to_owned()
    }

    #[test]
    fn each_stream_finds_its_subjects_free() {
        for (captures, expected) in [
            (&[][..], ""),
            // One stays, one is new.
            (&[("a", "a"), ("", "b")], "0 1"),
            // A chain, which is resolved from its end.
            (&[("a", "b"), ("b", "c"), ("c", "d")], "2 1 0"),
            (&[("a.*", "b.*"), ("b.1", "c")], "1 0"),
            // Swapped, and in a cycle.
            (&[("a", "b"), ("b", "a")], "-0 1 0"),
            (&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "d")], "3 -0 2 1 0"),
            // A stream that waits for a cycle is not part of it.
            (&[("x", "a.1"), ("a.*", "b"), ("b", "a.2")], "-1 0 2 1"),
            // A stream doesn't block itself, and NATS refuses those that want the subject of one that stays.
            (&[("a.*", "a.>")], "0"),
            (&[("a", "b"), ("b", "b")], "0 1"),
        ] {
            assert_eq!(order(captures), expected, "{captures:?}");
        }
    }
}

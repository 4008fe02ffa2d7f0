//! In which order the streams of sources change what they capture. Pure.

use crate::jetstream::subject_pattern::SubjectPattern;

/// What a stream captures, and what it is to capture.
#[derive(Debug)]
pub(super) struct Capture {
    current: Vec<SubjectPattern>,
    wanted: Vec<SubjectPattern>,
}

impl Capture {
    /// From subjects as NATS writes them. What is none is in nobody's way.
    pub(super) fn new<'a>(
        current: impl Iterator<Item = &'a str>,
        wanted: impl Iterator<Item = &'a str>,
    ) -> Self {
        let subject = |text: &str| SubjectPattern::new(text).ok();
        Self { current: current.filter_map(subject).collect(), wanted: wanted.filter_map(subject).collect() }
    }

    /// It captures nothing from here on.
    pub(super) fn stop(&mut self) {
        self.current.clear();
    }

    /// Whether it captures something that another one is to capture, and is about to let go of it.
    fn is_in_the_way_of(&self, other: &Self) -> bool {
        let overlaps = |current: &SubjectPattern| other.wanted.iter().any(|wanted| wanted.overlaps(current));
        self.current != self.wanted && self.current.iter().any(overlaps)
    }
}

/// Which is to change next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextChange {
    /// This one: nobody is in its way.
    Change(usize),
    /// None, since they are in each other's way in a circle: this one has to stop first.
    Stop(usize),
}

/// Which of them is to change next; none: there are none. One that doesn't change is in nobody's way here:
/// NATS refuses whoever wants its subject, and says so.
pub(super) fn next(captures: &[&Capture]) -> Option<NextChange> {
    let others = |one: usize| captures.iter().enumerate().filter(move |(other, _)| *other != one);
    let is_free = |one: usize| !others(one).any(|(_, other)| other.is_in_the_way_of(captures[one]));
    let is_in_the_way = |one: usize| others(one).any(|(_, other)| captures[one].is_in_the_way_of(other));
    let mut all = 0..captures.len();
    let free = all.clone().find(|one| is_free(*one)).map(NextChange::Change);
    // If nobody is free somebody is in the way; he isn't any more when he has stopped.
    free.or_else(|| all.find(|one| is_in_the_way(*one)).map(NextChange::Stop))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order in which they change; one that has to stop first is told with a minus.
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
                NextChange::Stop(first) => {
                    order.push_str(&format!("-{} ", pending[first].0));
                    pending[first].1.stop();
                }
            }
        }
        order.trim().to_owned()
    }

    #[test]
    fn each_finds_its_subject_free() {
        for (captures, expected) in [
            (&[][..], ""),
            // Nothing changes; something comes.
            (&[("a", "a"), ("", "b")], "0 1"),
            // Handed on from the last to the first.
            (&[("a", "b"), ("b", "c"), ("c", "d")], "2 1 0"),
            (&[("a.*", "b.*"), ("b.1", "c")], "1 0"),
            // Swapped, and in a circle.
            (&[("a", "b"), ("b", "a")], "-0 1 0"),
            (&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "d")], "3 -0 2 1 0"),
            // Who waits for a circle is not in it.
            (&[("x", "a.1"), ("a.*", "b"), ("b", "a.2")], "-1 0 2 1"),
            // What is its own is in nobody's way, and what stays is refused by NATS.
            (&[("a.*", "a.>")], "0"),
            (&[("a", "b"), ("b", "b")], "0 1"),
        ] {
            assert_eq!(order(captures), expected, "{captures:?}");
        }
    }
}

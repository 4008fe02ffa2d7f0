//! Push-format programs from outside the crate.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod allocations;
mod documentation;

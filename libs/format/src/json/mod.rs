//! Reads untrusted JSON by pointer.
//!
//! [`Pointers`] holds the pointers (RFC 6901) to look up. [`Pointers::find`] scans a payload once, from its
//! first byte to its last, and stores what each pointer refers to in [`Matches`]. It builds no document, does
//! not recurse, and allocates nothing once its buffers have grown. A payload is accepted only if all of it is
//! one JSON text (RFC 8259) in UTF-8, so that no part of a truncated message is shown. If an object repeats a
//! key, the last value counts, as in `JSON.parse`.

mod elements;
mod find;
mod pointer;
mod scan;
mod text;

pub use elements::{Elements, elements};
pub use find::{Matches, Pointers, RawValue};
pub use pointer::{InvalidPointer, Pointer};
pub use scan::{InvalidJson, MAX_DEPTH};
pub use text::{RawString, escape, unescape};

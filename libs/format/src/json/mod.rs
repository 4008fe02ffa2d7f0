//! Reads JSON by pointer, from bytes that nobody has checked.
//!
//! [`Pointers`] holds the pointers (RFC 6901) of interest; [`Pointers::find`] walks a payload once, from its
//! first byte to its last, and notes where each of them points. No document is built, nothing is allocated
//! once the scratch memory has grown, nothing recurses. A payload is taken only if the whole of it is one
//! JSON text (RFC 8259) in UTF-8; so the work is bounded by its length, and no half-read message is ever
//! shown. Where an object has a key twice, the last one counts, as in `JSON.parse`.

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

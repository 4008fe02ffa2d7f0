//! One truth on every screen, and a reason for everything that isn't shown, on real parts: a channel is
//! looked at from all places at once, and all must show the same (docs/push-formats.md).
//!
//! | file | tests |
//! | --- | --- |
//! | `table` | the faults that this rule came from, row by row |
//! | `corners` | what a last message, a late one, a repeat or a record does to screens |
//! | `changes` | an edited format, a source that was behind, a value that outlived its stream |
//! | `clocks` | pods whose clocks are wrong |
//! | `faults` | devices of the demo that send wrong things: what is said of them, and that it ends |
//! | `random` | random formats and messages |

mod changes;
mod clocks;
mod corners;
mod faults;
mod plant;
mod random;
mod screen;
mod table;

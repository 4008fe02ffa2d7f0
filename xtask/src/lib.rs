//! Builds images with their bills of materials, and generates charts and docs. The crate links neither the
//! operator nor the data plane.

#![allow(missing_docs, reason = "only programs and tests of this workspace link it")]

pub mod charts;
pub mod images;

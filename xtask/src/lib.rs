//! Builds and writes files of this repository: images with their bills of materials, generated charts
//! and docs. Links neither of the programs.

#![allow(missing_docs, reason = "only programs and tests of this workspace link it")]

pub mod charts;
pub mod images;

//! hffs turns the machines of a lab into one cache of Hugging Face models.

pub mod config;
pub mod digest;
pub mod limits;
pub mod names;
pub mod piece;
pub mod plan;
pub mod tree;

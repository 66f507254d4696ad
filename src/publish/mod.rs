//! Publishing: the names that recordings get in the store, and whose turn it is.

pub mod key;
pub mod label;
pub mod numbers;
pub mod turns;

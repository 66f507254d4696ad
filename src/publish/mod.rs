//! Publishing: the names that recordings get in the store.

pub mod key;
pub mod label;

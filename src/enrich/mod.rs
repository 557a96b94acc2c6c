//! Names for numbers: what the kernel half does not know, looked up later.

pub(crate) mod mounts;

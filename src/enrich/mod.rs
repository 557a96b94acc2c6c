//! Names for numbers.

mod cgroups;
mod maps;
pub(crate) mod mounts;
mod processes;
mod spaces;
mod stat;
mod symbols;
mod users;

pub(crate) use maps::MapLine;
pub(crate) use processes::{MANY, Processes};
pub(crate) use spaces::{Space, Spaces};
pub(crate) use stat::{Stat, TICK_NS, ancestry, ids, unified};
pub(crate) use symbols::Symbols;

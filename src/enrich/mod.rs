//! Names for numbers.

mod cgroups;
pub(crate) mod mounts;
mod processes;
mod users;

pub(crate) use processes::{MANY, Processes};

//! stockade watches what processes do and makes the kernel refuse the rest.
//!
//! A [`Sensor`] attaches monitors, and where asked for a fence, to a [`Scope`] of processes, gives out what happens, and
//! says at its end whether the picture is complete. Below it stands [`Session`], which does the same without anything
//! around it.
//!
//! ```no_run
//! use std::time::Duration;
//! use stockade::{Monitor, Scope, Sensor};
//!
//! fn main() -> stockade::Result<()> {
//!     let mut sensor = Sensor::builder()
//!         .scope(Scope::new().tree(1234))
//!         .monitor(Monitor::Process)
//!         .build();
//!     sensor.attach()?;
//!     for _ in 0..100 {
//!         sensor.poll(Duration::from_millis(50), |event| println!("{event}"))?;
//!     }
//!     let certificate = sensor.stop(|event| println!("{event}"))?;
//!     println!("complete: {}", certificate.is_complete());
//!     Ok(())
//! }
//! ```
//!
//! On other systems than Linux everything compiles, and [`SessionBuilder::start`](session::SessionBuilder::start)
//! answers [`ErrorKind::Unsupported`].
//!
//! # Features
//!
//! `cli` (on by default) builds the program; a library user writes `default-features = false`. `symbolize` (on by
//! default) finds functions and source lines for profiles. `stream` adds `Sensor::into_stream`. `vendored` builds libelf
//! and zlib from source, `static` links them statically.

#[cfg(all(test, stockade_kernel))]
mod allocations;
pub mod armed;
// Elsewhere nobody reads rings; recordings are replayed.
#[cfg_attr(not(stockade_kernel), allow(dead_code))]
mod delivery;
pub mod doctor;
#[cfg(stockade_kernel)]
mod enrich;
mod error;
pub mod event;
#[cfg(stockade_kernel)]
mod fence;
// Elsewhere nobody reads rings; it is still tested.
#[cfg_attr(not(stockade_kernel), allow(dead_code))]
mod inference;
#[cfg(stockade_kernel)]
mod kernel;
pub mod kill;
pub mod launch;
mod monitor;
pub mod policy;
#[cfg_attr(not(stockade_kernel), allow(dead_code))]
mod recording;
mod replay;
#[cfg(stockade_kernel)]
mod resolver;
mod scope;
pub mod sensor;
pub mod session;
pub mod sink;
// Elsewhere nobody reads rings; records are still decoded in tests.
#[cfg_attr(not(stockade_kernel), allow(dead_code))]
mod wire;

pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use monitor::{Filter, Form, Monitor, Watch};
pub use replay::Recording;
pub use scope::Scope;
pub use sensor::Sensor;
pub use session::{Sampling, Session};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct ReadmeDoctests;

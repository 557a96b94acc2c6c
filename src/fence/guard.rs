//! What a fence keeps from those whom it holds: its maps, the names by which it outlives its monitor, and the monitor.

use std::os::fd::AsRawFd as _;

use super::canary::Canaries;
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{Asker, Loader, PinDirectory};
use crate::wire::{GUARDED_CANARY, GUARDED_HELD, GUARDED_MAPS};

/// Keeps the maps that are there, where the fence is one that does.
pub(super) fn keep(canaries: &Canaries, loader: &Loader) -> Result<()> {
    let Some(canary) = &canaries.map else {
        return Ok(());
    };
    let maps = loader.map_ids()?;
    // That of the canary, and two of what the fence says of itself.
    if maps.len() + 3 > GUARDED_MAPS as usize {
        return Err(Error::new(
            ErrorKind::Load,
            format!(
                "{} maps are too many to be guarded; this is a defect",
                maps.len()
            ),
        ));
    }
    for id in maps {
        guard(id, GUARDED_HELD, loader)?;
    }
    guard(canary.id(), GUARDED_CANARY, loader)
}

/// Keeps one that the objects have not brought along, in place of another one.
pub(super) fn keep_instead(id: u32, former: Option<u32>, loader: &Loader) -> Result<()> {
    guard(id, GUARDED_HELD, loader)?;
    let former = former.map(|id| id.to_ne_bytes().to_vec());
    loader.map("stk_guarded")?.remove(former.as_slice())
}

fn guard(id: u32, from: u8, loader: &Loader) -> Result<()> {
    let guarded = loader.map("stk_guarded")?;
    guarded.set(&id.to_ne_bytes(), &[from], "the guard of a map")
}

/// Keeps the names in the file system that this directory is in.
pub(super) fn keep_pins(directory: &PinDirectory, asker: &Asker, loader: &Loader) -> Result<()> {
    let fd = directory.fd().as_raw_fd();
    let files = asker.files()?;
    let found = files
        .iter()
        .find(|record| i32::try_from(record.fd).is_ok_and(|n| n == fd));
    let dev = found.map(|record| record.file.dev).ok_or_else(|| {
        Error::new(
            ErrorKind::Load,
            "the kernel did not report one of our descriptors; this is a defect",
        )
    })?;
    let pins = loader.map("stk_guard_pins")?;
    pins.set(
        &0u32.to_ne_bytes(),
        &dev.to_ne_bytes(),
        "the guard of the pins",
    )
}

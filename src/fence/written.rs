//! Which files those who are held may have written: noted by the kernel half, for rules about them.
//!
//! Invariant: no file that was written is left out. Where one finds no room, every file counts that has changed since.

use std::time::{SystemTime, UNIX_EPOCH};

use super::canary::Canaries;
use super::pins::Former;
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::Loader;
use crate::wire::{FileKey, WrittenAbout, bytes_of, read};

const ABOUT: &str = "stk_about_written";
const FILES: &str = "stk_written";
const WHAT: &str = "the files that were written";

/// Says from when on it is noted, before the policy is in force.
pub(super) fn begin(canaries: &Canaries, loader: &Loader) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let begun = WrittenAbout {
        // Files have their times from a clock that is a tick behind.
        since_s: now.map_or(0, |now| now.as_secs().saturating_sub(1)),
        lost: 0,
        canary: canaries.key,
    };
    let about = loader.map(ABOUT)?;
    about.set(&0u32.to_ne_bytes(), bytes_of(&begun), WHAT)
}

/// Adds what a fence has noted that goes on with it until this returns.
pub(super) fn take_over(former: &Former, loader: &Loader) -> Result<()> {
    let (Some(files), Some(about)) = (former.map(FILES)?, former.map(ABOUT)?) else {
        return Ok(());
    };
    let zero = 0u32.to_ne_bytes();
    let (_, key, _) = files.shape();
    let noted = about.get(&zero)?.as_deref().and_then(read::<WrittenAbout>);
    let (Some(noted), true) = (noted, key as usize == size_of::<FileKey>()) else {
        return Err(Error::new(
            ErrorKind::NotEnforced,
            "the fence that was left notes what is written in another way, as of another version of stockade",
        )
        .with_hint("take it down: stockade unpin"));
    };
    let ours = loader.map(FILES)?;
    let mut lost = noted.lost;
    for (file, is) in files.entries()? {
        // There may be less room.
        lost += u64::from(ours.set(&file, &is, WHAT).is_err());
    }
    if lost == 0 {
        return Ok(());
    }
    let ours = loader.map(ABOUT)?;
    if let Some(mut now) = ours.get(&zero)?.as_deref().and_then(read::<WrittenAbout>) {
        now.since_s = now.since_s.min(noted.since_s);
        now.lost += lost;
        ours.set(&zero, bytes_of(&now), WHAT)?;
    }
    Ok(())
}

/// Whether some had no room.
pub(super) fn lost(loader: &Loader) -> Result<bool> {
    let about = loader.map(ABOUT)?.get(&0u32.to_ne_bytes())?;
    let about = about.as_deref().and_then(read::<WrittenAbout>);
    Ok(about.is_some_and(|about| about.lost > 0))
}

//! When a policy is to be read again: on SIGHUP, and when its file has changed. And when it is confirmed: on SIGUSR1.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What changes when somebody writes a file, or puts another in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

#[derive(Debug)]
pub(super) struct Reread {
    signals: SignalFd,
    file: Option<File>,
}

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Whoever is told so reads the policy.
    pub(super) read: bool,
    pub(super) confirm: bool,
}

/// The file of the policy.
#[derive(Debug)]
struct File {
    path: PathBuf,
    /// As it was when it was read.
    read: Option<Stamp>,
    /// As it was at the last look.
    seen: Option<Stamp>,
    looked: Instant,
}

impl File {
    /// Whether it is another than the one that was read, and nobody has been writing it since the last look.
    fn has_changed(&mut self) -> bool {
        let now = Stamp::of(&self.path);
        let before = std::mem::replace(&mut self.seen, now);
        now.is_some() && now == before && now != self.read
    }
}

impl Reread {
    /// From now on neither signal ends anything. To be called before other threads are started, and before the file is read.
    pub(super) fn listen(path: Option<&Path>) -> anyhow::Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGHUP, Signal::SIGUSR1]);
        signals
            .thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            })
            .map(|signals| Reread {
                signals,
                file: path.map(|path| {
                    let now = Stamp::of(path);
                    File {
                        path: path.to_owned(),
                        read: now,
                        seen: now,
                        looked: Instant::now(),
                    }
                }),
            })
            .context("signals cannot be waited for")
    }

    /// What has been asked for since the last time.
    pub(super) fn asked(&mut self) -> Asked {
        let (mut due, mut confirm) = (false, false);
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let signal = i32::try_from(signal.ssi_signo).unwrap_or(0);
            due |= signal == Signal::SIGHUP as i32;
            confirm |= signal == Signal::SIGUSR1 as i32;
        }
        if let Some(file) = &mut self.file {
            if file.looked.elapsed() >= LOOK {
                file.looked = Instant::now();
                due |= file.has_changed();
            }
            if due {
                // Before it is read: what is written after this is seen at the next look.
                file.read = Stamp::of(&file.path);
            }
        }
        Asked { read: due, confirm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_changed_when_it_was_written_or_replaced_and_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        std::fs::write(&path, "version: 1").unwrap();
        let now = Stamp::of(&path);
        let mut file = File {
            path: path.clone(),
            read: now,
            seen: now,
            looked: Instant::now(),
        };
        assert!(!file.has_changed());
        std::fs::write(&path, "version: 1\n").unwrap();
        // Somebody may be in the middle of it.
        assert!(!file.has_changed());
        assert!(file.has_changed());
        file.read = Stamp::of(&path);
        assert!(!file.has_changed());
        let next = dir.path().join("next");
        std::fs::write(&next, "version: 1\n").unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert!(!file.has_changed());
        assert!(file.has_changed());
        // While there is none, the one that was read holds.
        std::fs::remove_file(&path).unwrap();
        assert!(!file.has_changed());
        assert!(!file.has_changed());
    }
}

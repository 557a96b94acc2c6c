//! Ctrl-C, SIGTERM and, where nothing else waits for it, SIGHUP: asked to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;

/// How often the user has asked to end.
#[derive(Debug, Clone)]
pub(super) struct Stop(Arc<AtomicU32>);

impl Stop {
    /// From now on signals are counted and end nothing by themselves.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let count = Arc::new(AtomicU32::new(0));
        let inner = Arc::clone(&count);
        ctrlc::set_handler(move || {
            inner.fetch_add(1, Ordering::Relaxed);
        })
        .context("signals cannot be handled")?;
        Ok(Stop(count))
    }

    pub(super) fn times(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn asked(&self) -> bool {
        self.times() > 0
    }
}

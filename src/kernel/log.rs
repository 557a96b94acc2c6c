//! libbpf's log, captured while we load: its errors carry an errno only, the reason is in what it prints.

use std::sync::{Mutex, MutexGuard, PoisonError};

use libbpf_rs::{PrintCallback, PrintLevel};

/// The print callback is one per process and a plain function, so the lines need a static home.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// One capture at a time, or two would restore each other's callback.
static TURN: Mutex<()> = Mutex::new(());

fn collect(_: PrintLevel, line: String) {
    LINES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(line);
}

/// While it lives, libbpf's warnings are collected instead of printed; the former callback comes back after it.
pub(super) struct Capture {
    before: Option<(PrintLevel, PrintCallback)>,
    _turn: MutexGuard<'static, ()>,
}

impl Capture {
    pub(super) fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        LINES.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Capture {
            before: libbpf_rs::set_print(Some((PrintLevel::Warn, collect))),
            _turn: turn,
        }
    }

    /// The lines since the start or the last call.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *LINES.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        libbpf_rs::set_print(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theirs(_: PrintLevel, _: String) {}

    #[test]
    fn the_former_callback_comes_back() {
        let original = libbpf_rs::set_print(Some((PrintLevel::Debug, theirs)));
        drop(Capture::start());
        let (level, callback) = libbpf_rs::set_print(original).expect("a callback was set");
        assert_eq!(level, PrintLevel::Debug);
        assert!(std::ptr::fn_addr_eq(callback, theirs as PrintCallback));
    }
}

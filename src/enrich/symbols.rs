//! Functions and source lines of addresses.
//!
//! Lives on one thread: the symbolizer is neither `Send` nor `Sync`. What it has found is kept, because the same
//! addresses come again and again, up to a number of addresses; then all starts anew, the parsed files too.

use std::collections::HashMap;
use std::sync::Arc;

use super::spaces::{Mapped, Space};
use crate::event::Frame;

/// Addresses that are kept: a few hundred bytes each.
const KEPT: usize = 65_536;

/// Names for addresses.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    /// By file and the offset in it.
    user: HashMap<(u64, u64), Arc<[Frame]>>,
    kernel: HashMap<u64, Arc<[Frame]>>,
    finder: finder::Finder,
}

impl Symbols {
    /// The functions of a process's stack, both innermost first. It ends where no code is mapped: without frame pointers
    /// the kernel takes other numbers for return addresses, and nothing behind one of these is true.
    pub(crate) fn user(&mut self, stack: &[u64], space: &Space) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(stack.len());
        for (i, &address) in stack.iter().enumerate() {
            let Some((mapped, offset)) = space.find(address) else {
                // Of a process that nothing is known of, the addresses are all there is.
                if i > 0 && !space.is_empty() {
                    break;
                }
                frames.push(Frame::new(address));
                continue;
            };
            let called = u64::from(i > 0);
            let key = (mapped.id, offset.saturating_sub(called));
            let found = match self.user.get(&key) {
                Some(found) => Arc::clone(found),
                None => {
                    let found = self.look_up(mapped, key.1);
                    self.user.insert(key, Arc::clone(&found));
                    found
                }
            };
            append(&mut frames, &found, address, called, offset);
        }
        frames
    }

    /// The functions of the kernel's stack, both innermost first.
    pub(crate) fn kernel(&mut self, stack: &[u64]) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(stack.len());
        for (i, &address) in stack.iter().enumerate() {
            let called = u64::from(i > 0);
            let at = address.saturating_sub(called);
            let found = match self.kernel.get(&at) {
                Some(found) => Arc::clone(found),
                None => {
                    let mut found = self.finder.kernel(at);
                    or_module(&mut found, "[kernel]");
                    let found: Arc<[Frame]> = found.into();
                    self.kernel.insert(at, Arc::clone(&found));
                    found
                }
            };
            append(&mut frames, &found, address, called, 0);
        }
        frames
    }

    fn look_up(&mut self, mapped: &Mapped, offset: u64) -> Arc<[Frame]> {
        let mut found = mapped
            .with(|path| self.finder.file(path, offset))
            .unwrap_or_default();
        or_module(&mut found, &mapped.module);
        found.into()
    }

    /// Forgets everything when it has become too much.
    pub(crate) fn round(&mut self) {
        if self.user.len() + self.kernel.len() > KEPT {
            *self = Symbols::default();
        }
    }
}

/// Frames of one address. The address of a call is where it returns to: one instruction further.
fn append(frames: &mut Vec<Frame>, found: &[Frame], address: u64, called: u64, offset: u64) {
    frames.extend(found.iter().map(|frame| Frame {
        address,
        offset: frame.offset + called * u64::from(frame.function.is_some()),
        module_offset: offset,
        ..frame.clone()
    }));
}

/// At least one frame, and each with its module where it has none.
fn or_module(found: &mut Vec<Frame>, module: &str) {
    if found.is_empty() {
        found.push(Frame::new(0));
    }
    let module: Arc<str> = module.into();
    for frame in found {
        frame.module.get_or_insert_with(|| Arc::clone(&module));
    }
}

#[cfg(feature = "symbolize")]
mod finder {
    use std::fmt;
    use std::path::Path;
    use std::sync::Arc;

    use blazesym::MaybeDefault;
    use blazesym::symbolize::source::{Elf, Kernel, Source};
    use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

    use crate::event::{Frame, text};

    #[derive(Default)]
    pub(super) struct Finder(Symbolizer);

    impl fmt::Debug for Finder {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Finder").finish_non_exhaustive()
        }
    }

    impl Finder {
        /// What is at this offset of a file, innermost first; nothing when it is not known.
        pub(super) fn file(&self, path: &Path, offset: u64) -> Vec<Frame> {
            self.find(
                &Source::from(Elf::new(path)),
                Input::FileOffset(offset),
                false,
            )
        }

        /// What is at this address of the kernel.
        pub(super) fn kernel(&self, address: u64) -> Vec<Frame> {
            let kernel = Kernel {
                // The running kernel's own list; an image with debug information would be gigabytes to go through.
                vmlinux: MaybeDefault::None,
                debug_syms: false,
                ..Kernel::default()
            };
            self.find(&Source::from(kernel), Input::AbsAddr(address), true)
        }

        fn find(&self, source: &Source<'_>, at: Input<u64>, kernel: bool) -> Vec<Frame> {
            let found = self.0.symbolize_single(source, at);
            let Some(sym) = found.ok().and_then(Symbolized::into_sym) else {
                return Vec::new();
            };
            let mut frames: Vec<Frame> = sym
                .inlined
                .iter()
                .rev()
                .map(|inlined| Frame {
                    inlined: true,
                    ..frame(&inlined.name, inlined.code_info.as_ref(), &sym)
                })
                .collect();
            frames.push(frame(&sym.name, sym.code_info.as_deref(), &sym));
            if kernel && let Some(module) = &sym.module {
                // Of a file it would be our own descriptor.
                let module = module.to_string_lossy();
                let module = module.trim_matches(['[', ']']);
                let module: Arc<str> = format!("[{}]", text::escape(module.as_bytes())).into();
                for frame in &mut frames {
                    frame.module = Some(Arc::clone(&module));
                }
            }
            frames
        }
    }

    fn frame(name: &str, code: Option<&CodeInfo<'_>>, sym: &Sym<'_>) -> Frame {
        use std::os::unix::ffi::OsStrExt as _;

        Frame {
            function: Some(text::escape(name.as_bytes()).into()),
            offset: sym.offset as u64,
            file: code.map(|c| text::escape(c.to_path().as_os_str().as_bytes()).into()),
            line: code.and_then(|c| c.line),
            ..Frame::new(0)
        }
    }
}

#[cfg(not(feature = "symbolize"))]
mod finder {
    use std::path::Path;

    use crate::event::Frame;

    /// Finds nothing: frames have their module and the offset in it.
    #[derive(Debug, Default)]
    pub(super) struct Finder;

    impl Finder {
        pub(super) fn file(&self, _: &Path, _: u64) -> Vec<Frame> {
            Vec::new()
        }

        pub(super) fn kernel(&self, _: u64) -> Vec<Frame> {
            Vec::new()
        }
    }
}

#[cfg(all(test, feature = "symbolize"))]
mod tests {
    use super::*;
    use crate::enrich::Spaces;
    use crate::event::ProcessId;

    #[inline(never)]
    fn landmark(number: u64) -> u64 {
        number ^ 4711
    }

    #[test]
    fn a_function_of_our_own_has_its_name_and_line() {
        let here = landmark as fn(u64) -> u64 as usize as u64;
        let mut spaces = Spaces::default();
        spaces.learn(std::process::id());
        let stack = [here, here + 1, 16, here];
        let space = spaces.of(ProcessId::new(0, std::process::id()), &stack);
        let frames = Symbols::default().user(&stack, &space);
        let of = |frame: &Frame| {
            let name = frame.function.as_deref().unwrap_or_default();
            assert!(name.ends_with("landmark"), "{frame:?}");
            let file = frame.file.as_deref().unwrap_or_default();
            assert!(file.ends_with("src/enrich/symbols.rs"), "{frame:?}");
            assert!(frame.line.is_some(), "{frame:?}");
            assert_eq!(frame.module, frames[0].module);
            (frame.address, frame.offset)
        };
        assert_eq!(of(&frames[0]), (here, 0));
        // The caller's instruction is the one before; the address is told as it was found.
        assert_eq!(of(&frames[1]), (here + 1, 1));
        // The third one is no code, and so neither is the fourth a caller.
        assert_eq!(frames.len(), 2, "{frames:?}");
        let nowhere = Symbols::default().user(&stack, &Space::default());
        assert_eq!(nowhere.len(), 4);
        assert_eq!(nowhere[2], Frame::new(16));
    }
}

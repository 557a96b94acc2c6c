//! Which paths are wanted, where only some are.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::event::{FilePath, Kind, text};
#[cfg(stockade_kernel)]
use crate::kernel::Loader;

use crate::wire::{PREFIX_MAX, PREFIXES_MAX};
#[cfg(stockade_kernel)]
use crate::wire::{RawPrefix, bytes_of};

/// A path that is wanted with all below it, without the slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Prefix {
    /// As the kernel has it.
    #[serde(skip)]
    bytes: Vec<u8>,
    /// As events show it.
    escaped: String,
}

/// Those that were chosen; none stands for all paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Paths(Vec<Prefix>);

impl Paths {
    /// Adds one. Where it leads to another place by links, that one too: the kernel knows files by where they are.
    pub(crate) fn add(&mut self, path: &Path) -> Result<()> {
        self.add_as_it_is(path)?;
        match path.canonicalize() {
            Ok(place) => self.add_as_it_is(&place),
            // What is not there yet can be asked for as well.
            Err(_) => Ok(()),
        }
    }

    fn add_as_it_is(&mut self, path: &Path) -> Result<()> {
        let usage = |why: &str, fix: &str| {
            Err(Error::new(
                ErrorKind::Usage,
                format!("events below {} cannot be chosen: {why}", path.display()),
            )
            .with_hint(fix))
        };
        let mut bytes = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    bytes.push(b'/');
                    bytes.extend(name.as_encoded_bytes());
                }
                Component::ParentDir | Component::Prefix(_) => {
                    return usage("it goes back up", "write it without ..");
                }
            }
        }
        if !path.has_root() {
            return usage("it is not absolute", "write it from / on");
        }
        if bytes.len() > PREFIX_MAX {
            return usage(
                &format!("it has more than {PREFIX_MAX} bytes"),
                "choose a directory above it",
            );
        }
        if !self.0.iter().any(|known| known.bytes == bytes) {
            if self.0.len() == PREFIXES_MAX {
                return usage(
                    &format!(
                        "with links followed, more than {PREFIXES_MAX} paths are named already"
                    ),
                    "choose a directory that has several of them",
                );
            }
            let mut escaped = String::new();
            text::escape_into(&mut escaped, &bytes);
            self.0.push(Prefix { bytes, escaped });
        }
        Ok(())
    }

    /// How many there are.
    #[cfg(stockade_kernel)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells the programs.
    #[cfg(stockade_kernel)]
    pub(crate) fn fill(&self, loader: &Loader) -> Result<()> {
        for (number, prefix) in (0u32..).zip(&self.0) {
            loader.map("stk_prefixes")?.set(
                &number.to_ne_bytes(),
                bytes_of(&RawPrefix::new(&prefix.bytes)),
                format_args!("choosing events below {}", prefix.escaped),
            )?;
        }
        Ok(())
    }

    /// Whether an event is about one of them; what has no path is always wanted. The kernel half has left out most of
    /// the others: not those whose path it does not know whole.
    pub(crate) fn wants(&self, kind: &Kind) -> bool {
        if self.0.is_empty() {
            return true;
        }
        match kind {
            Kind::Open(e) | Kind::Create(e) => self.has(&e.path),
            Kind::Unlink(e) => self.has(&e.path),
            Kind::Rename(e) => self.has(&e.from) || self.has(&e.to),
            Kind::Change(e) => {
                self.has(&e.path) || e.from.as_ref().is_some_and(|from| self.has(from))
            }
            Kind::Mount(e) | Kind::Umount(e) => self.has(&e.path),
            Kind::FileSummary(e) => e.path.as_ref().is_none_or(|path| self.has(path)),
            _ => true,
        }
    }

    /// Of what is cut, or begins nobody knows where, it cannot be said: better too much than in silence.
    fn has(&self, path: &FilePath) -> bool {
        let below = |prefix: &Prefix| {
            let rest = path.path.strip_prefix(prefix.escaped.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        path.truncated || !path.path.starts_with('/') || self.0.iter().any(below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    fn paths(of: &[&str]) -> Paths {
        let mut paths = Paths::default();
        for path in of {
            paths.add_as_it_is(Path::new(path)).unwrap();
        }
        paths
    }

    #[test]
    fn a_path_is_wanted_with_all_below_it() {
        let has = |prefix: &str, path: &str, truncated| {
            paths(&[prefix]).has(&FilePath {
                path: path.to_owned(),
                truncated,
                ..FilePath::default()
            })
        };
        for (prefix, path) in [
            ("/etc", "/etc"),
            ("/etc/", "/etc/passwd"),
            ("/", "/etc"),
            ("//etc/./ssh", "/etc/ssh/keys/a"),
            ("/tmp/a\nb", "/tmp/a\\nb/c"),
        ] {
            assert!(has(prefix, path, false), "{prefix} {path}");
        }
        for (prefix, path) in [
            ("/etc", "/etc2"),
            ("/etc/ssh", "/etc"),
            ("/etc", "/var/etc"),
        ] {
            assert!(!has(prefix, path, false), "{prefix} {path}");
            assert!(has(prefix, path, true), "{prefix} {path}");
        }
        assert!(has("/etc", "passwd", false));
    }

    #[test]
    fn what_has_no_path_is_wanted_and_either_name_counts() {
        let nowhere = paths(&["/nowhere"]);
        let about_files: Vec<&str> = crate::event::KINDS
            .iter()
            .copied()
            .filter(|kind| {
                crate::Watch::telling(kind).is_some_and(|w| w.monitor() == crate::Monitor::File)
            })
            .collect();
        let mut left_out = 0;
        for event in sample::samples() {
            let wanted = nowhere.wants(&event.kind);
            left_out += u32::from(!wanted);
            assert!(wanted || about_files.contains(&event.kind.name()));
            if let Kind::Rename(e) = &event.kind {
                for path in [&e.from, &e.to].map(|path| &path.path) {
                    // Relative ones are wanted in any case.
                    assert!(!path.starts_with('/') || paths(&[path]).wants(&event.kind));
                }
            }
        }
        assert!(left_out >= 8, "{left_out}");
    }

    #[test]
    fn paths_that_cannot_be_chosen_are_refused() {
        let mut all = Paths::default();
        for (wrong, why) in [
            ("etc", "not absolute"),
            ("/etc/../var", "goes back up"),
            (&format!("/{}", "a".repeat(256)), "more than 256 bytes"),
        ] {
            let e = all.add(Path::new(wrong)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage);
            assert!(e.to_string().contains(why), "{e}");
        }
        for n in 0..8 {
            all.add(Path::new(&format!("/nowhere/{n}"))).unwrap();
        }
        all.add(Path::new("/nowhere/0")).unwrap();
        let e = all.add(Path::new("/nowhere/8")).unwrap_err();
        assert!(e.to_string().contains("more than 8 paths"), "{e}");
    }
}

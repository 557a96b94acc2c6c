//! A map of the kernel half, read and written by system calls that disturb nobody's programs.

use std::borrow::Borrow;
use std::fmt;
use std::os::fd::AsFd as _;

use libbpf_rs::libbpf_sys::{bpf_map_create_opts, size_t};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};
use plain::Plain;
use rustix::io::Errno;

use super::pins::PinDirectory;
use super::refused;
use super::steady::Steady;
use crate::error::Result;
use crate::wire::bytes_of;

/// So many calls in one go: real-time for well below a millisecond.
const TOGETHER: usize = 256;

/// A map with keys and values, borrowed from the loader or, for another thread, with a descriptor of its own.
pub(crate) struct Table<M> {
    name: &'static str,
    map: M,
}

/// A map with a descriptor of its own.
pub(crate) type OwnTable = Table<MapHandle>;

impl OwnTable {
    /// A map that no program uses: an array with so many values of so many bytes.
    pub(crate) fn array(name: &'static str, bytes: u32, entries: u32) -> Result<Self> {
        let options = bpf_map_create_opts {
            sz: size_of::<bpf_map_create_opts>() as size_t,
            ..bpf_map_create_opts::default()
        };
        let map = MapHandle::create(MapType::Array, Some(name), 4, bytes, entries, &options)
            .map_err(|e| refused(&format!("the map {name}"), &e, &[]))?;
        Ok(Table::new(name, map))
    }

    /// Whether the map with this number can be had for writing.
    pub(crate) fn reach(id: u32) -> rustix::io::Result<()> {
        match MapHandle::from_map_id(id) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == libbpf_rs::ErrorKind::PermissionDenied => Err(Errno::PERM),
            Err(_) => Err(Errno::IO),
        }
    }

    /// Its number, by which it is found as long as somebody holds it.
    pub(crate) fn id(&self) -> Result<u32> {
        match self.map.info() {
            Ok(info) => Ok(info.info.id),
            Err(e) => Err(refused(
                &format!("asking for the map {}", self.name),
                &e,
                &[],
            )),
        }
    }

    /// Gives it a name in a directory.
    pub(crate) fn pin(&self, directory: &PinDirectory, name: &str) -> Result<()> {
        directory.pin(self.map.as_fd(), name)
    }

    /// How many values there can be, and of how many bytes a key and a value are.
    pub(crate) fn shape(&self) -> (u32, u32, u32) {
        let map = &self.map;
        (map.max_entries(), map.key_size(), map.value_size())
    }
}

impl<M> fmt::Debug for Table<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}

impl<M: Borrow<MapHandle>> Table<M> {
    pub(super) fn new(name: &'static str, map: M) -> Self {
        Table { name, map }
    }

    /// Enters a value, or replaces it. `what` is what an error says was refused.
    pub(crate) fn set(&self, key: &[u8], value: &[u8], what: impl fmt::Display) -> Result<()> {
        let _steady = Steady::hold();
        self.enter(key, value, &what)
    }

    /// Enters many, or replaces them.
    pub(crate) fn set_all<K: Plain, V: Plain>(
        &self,
        entries: &[(K, V)],
        what: impl fmt::Display,
    ) -> Result<()> {
        for some in entries.chunks(TOGETHER) {
            let _steady = Steady::hold();
            for (key, value) in some {
                self.enter(bytes_of(key), bytes_of(value), &what)?;
            }
        }
        Ok(())
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let _steady = Steady::hold();
        self.lookup(key)
    }

    /// All keys, in order. Finding them disturbs nobody.
    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self.map.borrow().keys().collect();
        keys.sort_unstable();
        // One that is removed meanwhile makes the kernel begin anew.
        keys.dedup();
        keys
    }

    /// Keys and their values, in the order of the keys.
    pub(crate) fn entries(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.entries_of(self.keys())
    }

    /// The same of those keys that are wanted, which are removed.
    pub(crate) fn take(&self, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut keys = self.keys();
        keys.retain(|key| wanted(key));
        let taken = self.entries_of(keys.clone())?;
        self.remove(&keys)?;
        Ok(taken)
    }

    fn entries_of(&self, keys: Vec<Vec<u8>>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::with_capacity(keys.len());
        let mut keys = keys.into_iter();
        loop {
            let some: Vec<_> = keys.by_ref().take(TOGETHER).collect();
            if some.is_empty() {
                return Ok(entries);
            }
            let _steady = Steady::hold();
            for key in some {
                if let Some(value) = self.lookup(&key)? {
                    entries.push((key, value));
                }
            }
        }
    }

    /// Removes keys; one that is not there any more is as good.
    pub(crate) fn remove(&self, keys: &[Vec<u8>]) -> Result<()> {
        for some in keys.chunks(TOGETHER) {
            let _steady = Steady::hold();
            for key in some {
                match self.map.borrow().delete(key) {
                    Err(e) if e.kind() != libbpf_rs::ErrorKind::NotFound => {
                        return Err(refused(&format!("clearing the map {}", self.name), &e, &[]));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn enter(&self, key: &[u8], value: &[u8], what: &dyn fmt::Display) -> Result<()> {
        self.map
            .borrow()
            .update(key, value, MapFlags::ANY)
            .map_err(|e| refused(&what.to_string(), &e, &[]))
    }

    fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.map
            .borrow()
            .lookup(key, MapFlags::ANY)
            .map_err(|e| refused(&format!("reading the map {}", self.name), &e, &[]))
    }
}

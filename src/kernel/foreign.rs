//! Maps that somebody else may have made, to be read: found by their name or number, and never written.

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys::{
    BPF_F_RDONLY, BPF_MAP_TYPE_ARRAY, bpf_get_fd_by_id_opts, bpf_map_get_fd_by_id_opts,
    bpf_map_get_info_by_fd, bpf_map_get_next_id, bpf_map_info, bpf_map_lookup_elem, size_t,
};
use rustix::io::Errno;

use super::refused;
use crate::error::Result;

/// A map that can be read.
#[derive(Debug)]
pub(crate) struct ForeignMap {
    fd: OwnedFd,
    info: bpf_map_info,
}

impl ForeignMap {
    /// All maps of this machine that have this name.
    ///
    /// # Errors
    ///
    /// Also where one of them, or of the others, cannot be looked at: then nobody knows whether that were all.
    pub(crate) fn all(name: &str) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut id = 0;
        loop {
            // SAFETY: it writes a number, to a place that is there.
            let asked = unsafe { bpf_map_get_next_id(id, &raw mut id) };
            match asked {
                0 => {}
                e if e == -Errno::NOENT.raw_os_error() => return Ok(found),
                e => return Err(failed("the list of maps", e)),
            }
            found.extend(Self::by_id(id)?.filter(|map| map.name() == name.as_bytes()));
        }
    }

    /// The map with this number; `None` when it has gone.
    pub(crate) fn by_id(id: u32) -> Result<Option<Self>> {
        let options = bpf_get_fd_by_id_opts {
            sz: size_of::<bpf_get_fd_by_id_opts>() as size_t,
            open_flags: BPF_F_RDONLY,
            ..bpf_get_fd_by_id_opts::default()
        };
        // SAFETY: the options are of the size that they say.
        let fd = unsafe { bpf_map_get_fd_by_id_opts(id, &raw const options) };
        match fd {
            0.. => {
                // SAFETY: just made, and nobody else has it.
                Self::new(unsafe { OwnedFd::from_raw_fd(fd) }).map(Some)
            }
            e if e == -Errno::NOENT.raw_os_error() => Ok(None),
            e => Err(failed(&format!("the map {id}"), e)),
        }
    }

    pub(super) fn new(fd: OwnedFd) -> Result<Self> {
        // SAFETY: a plain C structure; the kernel wants zeros where it knows no field.
        let mut info: bpf_map_info = unsafe { std::mem::zeroed() };
        let mut len = u32::try_from(size_of_val(&info)).unwrap_or(0);
        // SAFETY: `info` has `len` bytes; the kernel fills in at most that much.
        let asked = unsafe { bpf_map_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut len) };
        match asked {
            0 => Ok(ForeignMap { fd, info }),
            e => Err(failed("asking for a map", e)),
        }
    }

    fn name(&self) -> &[u8] {
        // SAFETY: the array is ours, and the kernel has put a NUL into it.
        let name = unsafe { CStr::from_ptr(self.info.name.as_ptr()) };
        name.to_bytes()
    }

    /// How many values there can be, and of how many bytes a key and a value are.
    pub(crate) fn shape(&self) -> (u32, u32, u32) {
        let info = &self.info;
        (info.max_entries, info.key_size, info.value_size)
    }

    /// The value at an index of an array; `None`: there is none, or it is no array.
    pub(crate) fn at(&self, index: u32) -> Result<Option<Vec<u8>>> {
        let (_, _, value) = self.shape();
        // Of maps with a value for each CPU the kernel writes more than one, and of others a key may be larger.
        if self.info.type_ != BPF_MAP_TYPE_ARRAY {
            return Ok(None);
        }
        let mut bytes = vec![0; value as usize];
        // SAFETY: an array's keys have four bytes, and its values as many as the kernel has told.
        let found = unsafe {
            bpf_map_lookup_elem(
                self.fd.as_raw_fd(),
                (&raw const index).cast(),
                bytes.as_mut_ptr().cast(),
            )
        };
        match found {
            0 => Ok(Some(bytes)),
            e if e == -Errno::NOENT.raw_os_error() => Ok(None),
            e => Err(failed("reading a map", e)),
        }
    }
}

fn failed(what: &str, error: i32) -> crate::error::Error {
    let error = libbpf_rs::Error::from_raw_os_error(error.abs());
    refused(what, &error, &[])
}

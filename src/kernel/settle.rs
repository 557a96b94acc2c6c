//! Waits for programs that are running.

use std::os::fd::{AsFd as _, AsRawFd as _};

use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};

use super::refused;
use crate::error::Result;

/// Returns when every program has ended that was running when it was called, on whatever CPU: none of ours sleeps, so each
/// runs within one of the kernel's read-side sections, and the kernel waits for those before it returns from changing a map
/// of maps (kernel/bpf/syscall.c, `maybe_wait_bpf_programs`). Unlike membarrier(2) it does so on machines with
/// `nohz_full` as well.
///
/// # Errors
///
/// [`Load`](crate::ErrorKind::Load): the kernel refuses such a map.
pub(crate) fn wait_for_programs() -> Result<()> {
    let wait = || -> libbpf_rs::Result<()> {
        let mut options = bpf_map_create_opts {
            sz: size_of::<bpf_map_create_opts>() as _,
            ..bpf_map_create_opts::default()
        };
        let name = Some("stk_wait");
        let inner = MapHandle::create(MapType::Array, name, 4, 4, 1, &options)?;
        let inner = inner.as_fd().as_raw_fd();
        options.inner_map_fd = u32::try_from(inner).unwrap_or(u32::MAX);
        let outer = MapHandle::create(MapType::ArrayOfMaps, name, 4, 4, 1, &options)?;
        outer.update(&[0; 4], &inner.to_ne_bytes(), MapFlags::ANY)
    };
    wait().map_err(|e| refused("waiting for programs that run", &e, &[]))
}

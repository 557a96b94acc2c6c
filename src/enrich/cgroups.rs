//! From the number of a cgroup to its path, and from the path to the container or the unit it stands for.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::event::text;

/// What a cgroup's path says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// From the root of the cgroup v2 tree, escaped.
    pub(crate) path: String,
    pub(crate) container: Option<String>,
    pub(crate) unit: Option<String>,
}

/// At most so many are kept; a machine has a few hundred.
const KEPT: usize = 4096;

/// The cgroups that were met.
#[derive(Debug)]
pub(crate) struct Cgroups {
    mount: Option<(File, PathBuf)>,
    known: HashMap<u64, Option<Arc<Cgroup>>>,
}

impl Cgroups {
    /// Nothing can be looked up where no cgroup2 file system is mounted.
    pub(crate) fn new() -> Self {
        let mount = super::mounts::cgroup2().and_then(|at| Some((File::open(&at).ok()?, at)));
        Cgroups {
            mount,
            known: HashMap::new(),
        }
    }

    /// What is known of a cgroup; `None` when it is gone or cannot be seen from here.
    pub(crate) fn get(&mut self, id: u64) -> Option<Arc<Cgroup>> {
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        let found = self.find(id).map(Arc::new);
        self.known.insert(id, found.clone());
        found
    }

    fn find(&self, id: u64) -> Option<Cgroup> {
        let (mount, at) = self.mount.as_ref()?;
        let cgroup = open_by_id(mount, id)?;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd())).ok()?;
        let below = link.strip_prefix(at).ok()?;
        let path = text::escape(format!("/{}", below.display()).as_bytes());
        Some(Cgroup {
            container: container_of(&path).map(str::to_owned),
            unit: unit_of(&path).map(str::to_owned),
            path,
        })
    }
}

/// A cgroup's id is the file handle of its directory (kernfs, 5.5 and later).
fn open_by_id(mount: &File, id: u64) -> Option<OwnedFd> {
    /// include/linux/exportfs.h
    const FILEID_KERNFS: i32 = 0xfe;

    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: u64,
    }
    let mut handle = Handle {
        bytes: 8,
        kind: FILEID_KERNFS,
        id,
    };
    // SAFETY: a file_handle of the size that it names, which the kernel only reads; the descriptor is open.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut handle,
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: a new descriptor that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The container that a path names: 64 hexadecimal digits, as docker, podman, containerd and cri-o write them, alone or
/// as `docker-ID.scope`, `cri-containerd-ID.scope`, `libpod-ID.scope`, `crio-ID.scope`. The innermost counts.
fn container_of(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|part| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let id = name.rsplit(['-', ':']).next()?;
        let is_id = id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then_some(id)
    })
}

/// The innermost systemd unit that is not a slice.
fn unit_of(path: &str) -> Option<&str> {
    path.rsplit('/')
        .find(|part| part.ends_with(".service") || part.ends_with(".scope"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f0c1b0c6b2ab8ffb4bb2bcb3f6aa8d4d35a2c9b4e3e0d7d2f1a0b9c8d7e6f5a";

    #[test]
    fn container_is_named_as_its_engines_name_it() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("/kubepods/burstable/pod0f/{ID}"),
            format!(
                "/system.slice/containerd.service/kubepods-besteffort.slice:cri-containerd:{ID}"
            ),
        ] {
            assert_eq!(container_of(&path), Some(ID), "{path}");
        }
        for path in ["/", "/system.slice/ssh.service", "/docker/4f0c1b0c"] {
            assert_eq!(container_of(path), None, "{path}");
        }
    }

    #[test]
    fn unit_is_the_innermost_that_runs_something() {
        assert_eq!(unit_of("/system.slice/ssh.service"), Some("ssh.service"));
        assert_eq!(
            unit_of("/user.slice/user-0.slice/session-3.scope"),
            Some("session-3.scope")
        );
        assert_eq!(unit_of("/system.slice"), None);
    }
}

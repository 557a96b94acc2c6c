//! Perf events: the clock that calls a program on every CPU, and what the kernel tells of address spaces.

use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::libbpf_sys as sys;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::mapping::Mapping;
use super::possible_cpus;
use crate::error::{Error, ErrorKind, Result};

/// What each CPU may have to tell before it is read: some 600 programs that start.
const RING_BYTES: usize = 64 << 10;

/// An attribute of the size that this version knows; all else is off.
pub(super) fn attributes(kind: sys::perf_type_id, config: u64) -> sys::perf_event_attr {
    sys::perf_event_attr {
        type_: kind,
        // Some 140 bytes.
        size: size_of::<sys::perf_event_attr>() as u32,
        config,
        ..Default::default()
    }
}

/// perf_event_open(2) on one CPU, for every process.
pub(super) fn open(attr: &mut sys::perf_event_attr, cpu: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: `attr` is a valid perf_event_attr of the size it names and outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_mut(attr),
            -1,
            cpu,
            -1,
            sys::PERF_FLAG_FD_CLOEXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: a non-negative result is a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The same event on every CPU that is online.
fn on_every_cpu(what: &str, attr: &mut sys::perf_event_attr) -> Result<Vec<OwnedFd>> {
    let failed = |e: std::io::Error| {
        Error::new(ErrorKind::Load, format!("{what}: perf_event_open: {e}")).with_source(e)
    };
    let mut events = Vec::new();
    for cpu in 0..possible_cpus()? {
        // The kernel's own numbers of CPUs are signed.
        match open(attr, cpu.cast_signed()) {
            Ok(event) => events.push(event),
            // Not online.
            Err(e) if e.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(events)
}

/// A clock on every CPU that ticks so often a second while the CPU has something to run.
pub(super) fn clocks(hz: u32) -> Result<Vec<OwnedFd>> {
    let mut attr = attributes(sys::PERF_TYPE_SOFTWARE, sys::PERF_COUNT_SW_CPU_CLOCK.into());
    attr.set_freq(1);
    attr.set_exclude_idle(1);
    attr.__bindgen_anon_1.sample_freq = hz.into();
    on_every_cpu("the sampling clock", &mut attr).map_err(|e| {
        let limit = std::fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate");
        match limit.ok().and_then(|l| l.trim().parse::<u32>().ok()) {
            Some(limit) if limit < hz => Error::new(
                ErrorKind::Load,
                format!("this kernel allows {limit} samples a second, not {hz}"),
            )
            .with_hint("choose a lower --freq, or raise kernel.perf_event_max_sample_rate"),
            _ => e,
        }
    })
}

/// What has become of an address space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Executable memory was mapped.
    Map {
        pid: u32,
        start: u64,
        len: u64,
        /// Where in the file it begins.
        offset: u64,
        major: u32,
        minor: u32,
        inode: u64,
        /// As the process sees it, or what the kernel calls memory without a file: `//anon`, `[vdso]`.
        path: Vec<u8>,
    },
    /// Another program starts: all that was mapped is gone.
    Exec { pid: u32 },
    /// A process was created, with a copy of its parent's address space.
    Fork { pid: u32, parent: u32 },
    /// The first thread of a process has ended.
    Exit { pid: u32 },
    /// So many changes are not known.
    Lost { count: u64 },
}

/// Changes of address spaces on the whole machine, from the moment it is made.
#[derive(Debug)]
pub(crate) struct Changes {
    rings: Vec<Ring>,
    /// Read, and perhaps with older ones on another CPU still to come.
    early: Vec<(u64, Change)>,
}

impl Changes {
    pub(crate) fn open() -> Result<Self> {
        let mut attr = attributes(sys::PERF_TYPE_SOFTWARE, sys::PERF_COUNT_SW_DUMMY.into());
        attr.sample_type = sys::PERF_SAMPLE_TIME.into();
        attr.set_mmap(1);
        attr.set_mmap2(1);
        attr.set_comm(1);
        attr.set_comm_exec(1);
        attr.set_task(1);
        attr.set_sample_id_all(1);
        attr.set_use_clockid(1);
        attr.clockid = libc::CLOCK_BOOTTIME;
        attr.set_watermark(1);
        attr.__bindgen_anon_2.wakeup_watermark = (RING_BYTES / 4) as u32;
        let rings = on_every_cpu("changes of address spaces", &mut attr)?
            .into_iter()
            .map(Ring::map)
            .collect::<Result<_>>()?;
        Ok(Changes {
            rings,
            early: Vec::new(),
        })
    }

    /// Descriptors that become readable when there is much to read.
    pub(crate) fn signs(&self) -> Result<Vec<OwnedFd>> {
        let signs = self.rings.iter().map(|ring| ring.event.try_clone());
        signs.collect::<std::io::Result<_>>().map_err(|e| {
            Error::new(ErrorKind::Io, "descriptors of changes of address spaces").with_source(e)
        })
    }

    /// What happened up to now, in its order.
    pub(crate) fn read(&mut self, now_ns: u64) -> Vec<Change> {
        let mut found = std::mem::take(&mut self.early);
        for ring in &mut self.rings {
            ring.read(&mut |record| found.extend(parse(record)));
        }
        found.sort_by_key(|(time_ns, _)| *time_ns);
        let late = found.partition_point(|(time_ns, _)| *time_ns <= now_ns);
        self.early = found.split_off(late);
        found.into_iter().map(|(_, change)| change).collect()
    }
}

/// The memory that the kernel writes one CPU's records to.
#[derive(Debug)]
struct Ring {
    event: OwnedFd,
    /// A page for both sides' positions, then the records.
    memory: Mapping,
    page: usize,
}

impl Ring {
    fn map(event: OwnedFd) -> Result<Self> {
        let page = rustix::param::page_size();
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let memory =
            Mapping::new(&event, page + RING_BYTES, both, MapFlags::SHARED).map_err(|e| {
                Error::new(
                    ErrorKind::Load,
                    format!("memory for changes of address spaces: {e}"),
                )
                .with_hint("run as root, or raise kernel.perf_event_mlock_kb")
            })?;
        Ok(Ring {
            event,
            memory,
            page,
        })
    }

    /// Hands over every whole record, header first.
    fn read(&mut self, on: &mut dyn FnMut(&[u8])) {
        let control = self
            .memory
            .start()
            .cast::<sys::perf_event_mmap_page>()
            .as_ptr();
        // SAFETY: the mapping begins with this struct and lives as long as `self`; both fields are aligned, and the
        // kernel accesses them in the same way (Documentation in include/uapi/linux/perf_event.h).
        let (head, tail) = unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*control).data_head),
                AtomicU64::from_ptr(&raw mut (*control).data_tail),
            )
        };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        let mut record = Vec::new();
        while at < end {
            let Some(len) = self.copy(at, 8, &mut record).then(|| len_of(&record)) else {
                break;
            };
            if len < 8 || len as u64 > end - at || !self.copy(at, len, &mut record) {
                break;
            }
            on(&record);
            at += len as u64;
        }
        tail.store(end, Ordering::Release);
    }

    /// Copies so many bytes from a position of the stream, which may go on at the start of the memory.
    fn copy(&self, position: u64, len: usize, out: &mut Vec<u8>) -> bool {
        out.clear();
        if len > RING_BYTES {
            return false;
        }
        // The size is a power of two.
        let at = (position % RING_BYTES as u64) as usize;
        let first = len.min(RING_BYTES - at);
        // SAFETY: both parts lie within the RING_BYTES behind the first page of the mapping, and the kernel writes
        // nothing there until the tail has moved past them.
        unsafe {
            let data = self.memory.start().as_ptr().add(self.page);
            out.extend_from_slice(std::slice::from_raw_parts(data.add(at), first));
            out.extend_from_slice(std::slice::from_raw_parts(data, len - first));
        }
        true
    }
}

fn len_of(header: &[u8]) -> usize {
    header
        .get(6..8)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u16::from_ne_bytes(*b).into())
}

/// A record with its time, which stands at its end; `None` for what does not matter here.
fn parse(record: &[u8]) -> Option<(u64, Change)> {
    let word = |at: usize| Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u64::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let misc = word(4)? & 0xffff;
    let time_ns = long(record.len().checked_sub(8)?)?;
    let change = match word(0)? {
        sys::PERF_RECORD_MMAP2 => {
            let path = record.get(72..record.len() - 8)?;
            let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
            Change::Map {
                pid: word(8)?,
                start: long(16)?,
                len: long(24)?,
                offset: long(32)?,
                major: word(40)?,
                minor: word(44)?,
                inode: long(48)?,
                path: path[..end].to_owned(),
            }
        }
        sys::PERF_RECORD_COMM if misc & sys::PERF_RECORD_MISC_COMM_EXEC != 0 => {
            Change::Exec { pid: word(8)? }
        }
        // pid, ppid, tid, ptid; of a thread the first two are the same.
        sys::PERF_RECORD_FORK if word(8)? != word(12)? => Change::Fork {
            pid: word(8)?,
            parent: word(12)?,
        },
        sys::PERF_RECORD_EXIT if word(8)? == word(16)? => Change::Exit { pid: word(8)? },
        // id, lost
        sys::PERF_RECORD_LOST => Change::Lost { count: long(16)? },
        _ => return None,
    };
    Some((time_ns, change))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, misc: u16, words: &[u32], path: &[u8], time_ns: u64) -> Vec<u8> {
        let mut body: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        body.extend_from_slice(path);
        body.resize(body.len().next_multiple_of(8), 0);
        body.extend(time_ns.to_ne_bytes());
        let len = u16::try_from(8 + body.len()).expect("a short record");
        let mut all = kind.to_ne_bytes().to_vec();
        all.extend(misc.to_ne_bytes());
        all.extend(len.to_ne_bytes());
        all.extend(body);
        all
    }

    #[test]
    fn records_of_the_kernel_are_understood() {
        let map = record(
            sys::PERF_RECORD_MMAP2,
            2,
            &[
                7, 8, 0x1000, 0, 0x2000, 0, 0x3000, 0, 8, 1, 99, 0, 5, 0, 5, 2,
            ],
            b"/usr/bin/true\0",
            1000,
        );
        let (time_ns, change) = parse(&map).expect("a mapping");
        assert_eq!(time_ns, 1000);
        assert_eq!(
            change,
            Change::Map {
                pid: 7,
                start: 0x1000,
                len: 0x2000,
                offset: 0x3000,
                major: 8,
                minor: 1,
                inode: 99,
                path: b"/usr/bin/true".to_vec(),
            }
        );
        let exec = sys::PERF_RECORD_MISC_COMM_EXEC as u16;
        for (record, expected) in [
            (
                record(sys::PERF_RECORD_COMM, exec, &[7, 7], b"true\0", 1),
                Some(Change::Exec { pid: 7 }),
            ),
            (
                record(sys::PERF_RECORD_COMM, 0, &[7, 7], b"true\0", 1),
                None,
            ),
            (
                record(sys::PERF_RECORD_FORK, 0, &[9, 7, 9, 7, 0, 0], b"", 1),
                Some(Change::Fork { pid: 9, parent: 7 }),
            ),
            (
                record(sys::PERF_RECORD_FORK, 0, &[7, 7, 9, 7, 0, 0], b"", 1),
                None,
            ),
            (
                record(sys::PERF_RECORD_EXIT, 0, &[7, 7, 9, 9, 0, 0], b"", 1),
                None,
            ),
            (
                record(sys::PERF_RECORD_EXIT, 0, &[7, 1, 7, 1, 0, 0], b"", 1),
                Some(Change::Exit { pid: 7 }),
            ),
            (
                record(sys::PERF_RECORD_LOST, 0, &[9, 0, 7, 0], b"", 1),
                Some(Change::Lost { count: 7 }),
            ),
        ] {
            assert_eq!(parse(&record).map(|(_, change)| change), expected);
        }
        for len in 0..map.len() {
            let _ = parse(&map[..len]);
        }
    }
}

//! Counts of reads and writes by process and file, held against what the helper did, call by call.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use serde_json::Value;

use crate::fence::text;
use crate::harness::{Ctx, Ended, Needs, Outcome, Test, number, stockade, word};
use crate::helper::in_child;
use crate::mounts::{file_system, overlay};

pub(crate) const TESTS: &[Test] = &[Test::new(
    "file_summary_counts_every_byte",
    Needs::Watch,
    every_byte,
)];

/// How often the busy file is read: through many flushes.
const STORM: u64 = 3_000;

/// What was done to a file: opens, failures, reads, bytes read, writes, bytes written.
type Counts = [u64; 6];

/// By name in each directory. Everything is read and written by the calls of the same name; what is mapped only opened.
const DONE: &[(&str, Counts)] = &[
    ("read", [1, 0, 4, 10_100, 0, 0]),
    ("readv", [1, 0, 3, 47, 0, 0]),
    ("write", [1, 0, 0, 0, 2, 1_024]),
    ("writev", [1, 0, 0, 0, 3, 126]),
    ("failing", [1, 1, 0, 0, 1, 0]),
    ("source", [1, 0, 3, 10_000, 0, 0]),
    ("sent", [1, 0, 0, 0, 1, 5_000]),
    ("spliced", [1, 0, 0, 0, 1, 3_000]),
    ("copied", [1, 0, 0, 0, 1, 2_000]),
    ("interrupted", [1, 0, 0, 0, PIECES, PIECES]),
    ("mapped", [1, 0, 0, 0, 0, 0]),
];
/// Written one by one, while signals come.
const PIECES: u64 = 2_000;
/// In the first directory alone.
const BUSY: (&str, Counts) = ("busy", [1, 0, STORM, STORM * 10, 0, 0]);
/// Opens of what is not there.
const MISSING: u64 = 3;
/// Through io_uring, which system calls do not show.
const RING: (&str, Counts) = ("ring", [1, 0, 1, 300, 2, 750]);
/// The same past the page cache, where the answer comes in an interrupt.
const DIRECT: (&str, Counts) = ("direct", [1, 0, 1, 4_096, 1, 8_192]);

/// Entry as the helper program: what happens is this process's child's, which has opened nothing before.
pub(crate) fn main(args: &[String]) -> i32 {
    let [pid_file, rings, dirs @ ..] = args else {
        panic!("--files PID-FILE RINGS DIR...");
    };
    let (pid, code) = in_child(|| {
        for dir in dirs {
            let dir = Path::new(dir);
            work(dir).expect("the calls work");
            if rings.contains("ring") {
                ring(&dir.join("ring")).expect("io_uring works");
            }
        }
        busy(&Path::new(&dirs[0]).join("busy")).expect("the calls work");
        if rings.contains("direct") {
            // The last directory is on a disk.
            direct(&Path::new(&dirs[dirs.len() - 1]).join("direct")).expect("O_DIRECT works");
        }
        0
    });
    fs::write(pid_file, pid.to_string()).expect("the pid can be noted");
    code
}

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
}

fn work(dir: &Path) -> rustix::io::Result<()> {
    use rustix::io::{
        pread, preadv, preadv2, pwrite, pwritev, pwritev2, read, readv, write, writev,
    };
    let made = OFlags::WRONLY | OFlags::CREATE;
    let mut bytes = vec![7; 20_000];
    let buf = bytes.as_mut_slice();

    let file = open(&dir.join("read"), OFlags::RDONLY)?;
    assert_eq!(read(&file, &mut buf[..4096])?, 4096);
    assert_eq!(pread(&file, &mut buf[..100], 5)?, 100);
    assert_eq!(read(&file, &mut *buf)?, 5904);
    assert_eq!(read(&file, &mut *buf)?, 0);

    let file = open(&dir.join("readv"), OFlags::RDONLY)?;
    let (one, two) = buf.split_at_mut(10);
    let mut list = [
        IoSliceMut::new(&mut one[..10]),
        IoSliceMut::new(&mut two[..20]),
    ];
    assert_eq!(readv(&file, &mut list)?, 30);
    let mut list = [
        IoSliceMut::new(&mut one[..5]),
        IoSliceMut::new(&mut two[..5]),
    ];
    assert_eq!(preadv(&file, &mut list, 0)?, 10);
    let mut list = [IoSliceMut::new(&mut one[..7])];
    assert_eq!(preadv2(&file, &mut list, 0, ReadWriteFlags::empty())?, 7);

    let file = open(&dir.join("write"), made)?;
    assert_eq!(write(&file, &buf[..1000])?, 1000);
    assert_eq!(pwrite(&file, &buf[..24], 0)?, 24);

    let file = open(&dir.join("writev"), made)?;
    let list = [IoSlice::new(&buf[..100]), IoSlice::new(&buf[..23])];
    assert_eq!(writev(&file, &list)?, 123);
    assert_eq!(pwritev(&file, &[IoSlice::new(&buf[..1])], 0)?, 1);
    let flags = ReadWriteFlags::empty();
    assert_eq!(pwritev2(&file, &[IoSlice::new(&buf[..2])], 0, flags)?, 2);

    let file = open(&dir.join("failing"), OFlags::RDONLY)?;
    assert_eq!(write(&file, &buf[..1]), Err(Errno::BADF));
    for _ in 0..MISSING {
        assert_eq!(
            open(&dir.join("missing"), OFlags::RDONLY).err(),
            Some(Errno::NOENT)
        );
    }

    let source = open(&dir.join("source"), OFlags::RDONLY)?;
    let sent = open(&dir.join("sent"), made)?;
    assert_eq!(rustix::fs::sendfile(&sent, &source, None, 5000)?, 5000);
    let spliced = open(&dir.join("spliced"), made)?;
    let (from, to) = rustix::pipe::pipe()?;
    let flags = rustix::pipe::SpliceFlags::empty();
    assert_eq!(
        rustix::pipe::splice(&source, None, &to, None, 3000, flags)?,
        3000
    );
    assert_eq!(
        rustix::pipe::splice(&from, None, &spliced, None, 3000, flags)?,
        3000
    );
    let copied = open(&dir.join("copied"), made)?;
    assert_eq!(
        rustix::fs::copy_file_range(&source, None, &copied, None, 2000)?,
        2000
    );

    // Pipes are no files.
    assert_eq!(write(&to, &buf[..10])?, 10);
    assert_eq!(read(&from, &mut buf[..10])?, 10);

    interrupted(&dir.join("interrupted"))?;
    mapped(&dir.join("mapped"))?;
    Ok(())
}

/// Moves bytes while a signal comes each millisecond: calls that it meets too early are made again by the kernel.
fn interrupted(path: &Path) -> rustix::io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let each = |us| {
        let time = libc::timeval {
            tv_sec: 0,
            tv_usec: us,
        };
        let timer = libc::itimerval {
            it_interval: time,
            it_value: time,
        };
        // SAFETY: the timer is read, and nothing written.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }
    };
    // SAFETY: the handler does nothing; with signal(3), calls go on behind it.
    unsafe { libc::signal(libc::SIGALRM, nothing as *const () as libc::sighandler_t) };
    let file = open(path, OFlags::CREATE | OFlags::WRONLY)?;
    let (from, to) = rustix::pipe::pipe()?;
    let flags = rustix::pipe::SpliceFlags::empty();
    assert_eq!(each(1_000), 0);
    for _ in 0..PIECES {
        assert_eq!(rustix::io::write(&to, b"x")?, 1);
        assert_eq!(rustix::pipe::splice(&from, None, &file, None, 1, flags)?, 1);
    }
    assert_eq!(each(0), 0);
    Ok(())
}

fn busy(path: &Path) -> rustix::io::Result<()> {
    let file = open(path, OFlags::RDONLY)?;
    let mut bytes = [0; 10];
    for _ in 0..STORM {
        assert_eq!(rustix::io::pread(&file, &mut bytes, 0)?, 10);
    }
    Ok(())
}

/// Changes a page of a file, and reads it, without a call that says so.
fn mapped(path: &Path) -> rustix::io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let file = open(path, OFlags::RDWR)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, of a file that has a page.
    let at = unsafe {
        mmap(
            std::ptr::null_mut(),
            4096,
            access,
            MapFlags::SHARED,
            &file,
            0,
        )?
    };
    // SAFETY: the mapping above, which nobody else knows.
    unsafe {
        at.cast::<u8>()
            .write_volatile(at.cast::<u8>().read_volatile() + 1);
        munmap(at, 4096)
    }
}

/// What one request through a ring answers.
fn answer(ring: &mut io_uring::IoUring, entry: &io_uring::squeue::Entry) -> std::io::Result<i32> {
    // SAFETY: the buffers of the requests outlive the wait below.
    unsafe { ring.submission().push(entry) }.expect("an empty queue has room");
    ring.submit_and_wait(1)?;
    Ok(ring.completion().next().expect("one completion").result())
}

fn ring(path: &Path) -> std::io::Result<()> {
    use io_uring::{opcode, squeue, types};
    use std::os::fd::AsRawFd as _;
    let mut ring = io_uring::IoUring::new(4)?;
    let file = open(path, OFlags::RDWR | OFlags::CREATE)?;
    let fd = types::Fd(file.as_raw_fd());
    let mut buf = vec![7_u8; 1000];
    let write = opcode::Write::new(fd, buf.as_ptr(), 700).build();
    assert_eq!(answer(&mut ring, &write)?, 700);
    let read = opcode::Read::new(fd, buf.as_mut_ptr(), 300).build();
    assert_eq!(answer(&mut ring, &read)?, 300);
    // By a worker of the kernel's.
    let write = opcode::Write::new(fd, buf.as_ptr(), 50).offset(900).build();
    assert_eq!(answer(&mut ring, &write.flags(squeue::Flags::ASYNC))?, 50);
    Ok(())
}

fn direct(path: &Path) -> std::io::Result<()> {
    use io_uring::{opcode, types};
    use std::os::fd::AsRawFd as _;
    let mut ring = io_uring::IoUring::new(4)?;
    let file = open(path, OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT)?;
    let fd = types::Fd(file.as_raw_fd());
    let mut bytes = vec![7_u8; 4 * 4096];
    let start = bytes.as_ptr().align_offset(4096);
    let buf = &mut bytes[start..];
    let write = opcode::Write::new(fd, buf.as_ptr(), 8192).build();
    assert_eq!(answer(&mut ring, &write)?, 8192);
    let read = opcode::Read::new(fd, buf.as_mut_ptr(), 4096).build();
    assert_eq!(answer(&mut ring, &read)?, 4096);
    Ok(())
}

/// The files that the helper finds there.
fn prepare(dir: &Path) {
    for (name, len) in [
        ("read", 10_000),
        ("readv", 1_000),
        ("failing", 1),
        ("source", 10_000),
        ("mapped", 4_096),
        ("busy", 10),
    ] {
        fs::write(dir.join(name), vec![1; len]).expect("a file");
    }
}

struct Found {
    counts: Counts,
    /// Reads and writes in the histograms.
    timed: [u64; 2],
    inode: Option<String>,
}

/// What was told of this process, over all flushes, by path; what could not be opened under no path.
fn told(ended: &Ended, pid: u64) -> BTreeMap<String, Found> {
    let mut all: BTreeMap<String, Found> = BTreeMap::new();
    for event in ended
        .of("file_summary")
        .filter(|e| number(e, "process.pid") == pid)
    {
        let inode = event["file.inode"].as_str().map(str::to_owned);
        let path = match &inode {
            Some(_) => word(event, "file.path"),
            None => "",
        };
        if inode.is_some() {
            assert_eq!(word(event, "file.type"), "file", "{event}");
        }
        let found = all.entry(path.to_owned()).or_insert(Found {
            counts: [0; 6],
            timed: [0; 2],
            inode: inode.clone(),
        });
        assert_eq!(found.inode, inode, "{event}");
        for (count, key) in found.counts.iter_mut().zip([
            "opens",
            "failures",
            "reads",
            "read_bytes",
            "writes",
            "written_bytes",
        ]) {
            *count += number(event, &format!("stockade.file.{key}"));
        }
        for (count, key) in found.timed.iter_mut().zip(["read", "write"]) {
            let slots = event[format!("stockade.file.{key}_log2_us")].as_array();
            let slots = slots.expect("a histogram");
            assert_eq!(slots.len(), 24, "{event}");
            *count += slots.iter().filter_map(Value::as_u64).sum::<u64>();
        }
    }
    all
}

/// Runs the helper in these directories. The file of each name must have been used exactly so.
fn check(ctx: &Ctx, dirs: &[PathBuf], rings: &str, expected: &[(PathBuf, Counts)]) -> Ended {
    let pid_file = ctx.path("pid");
    let mut args: Vec<String> = [
        "run",
        "--file=summary",
        "--interval",
        "0.2",
        "--format",
        "json",
    ]
    .map(str::to_owned)
    .into();
    args.extend(["--", text(&ctx.helper), "--files", text(&pid_file), rings].map(str::to_owned));
    args.extend(dirs.iter().map(|dir| text(dir).to_owned()));
    let ended = stockade(ctx, args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let pid = fs::read_to_string(&pid_file).expect("the helper's pid");
    let mut told = told(&ended, pid.parse().expect("a pid"));
    // A kernel that preempts fexit programs may have skipped one; the end record then says so.
    let end = ended.events.last().expect("an end record");
    let skipped = number(end, "stockade.skipped_programs");
    for (path, counts) in expected {
        let found = told.remove(text(path));
        let found = found.unwrap_or_else(|| panic!("nothing is told of {path:?}: {end}"));
        let inode = fs::metadata(path).expect("the file").ino().to_string();
        assert_eq!(found.inode.as_deref(), Some(inode.as_str()), "{path:?}");
        if skipped == 0 {
            assert_eq!(found.counts, *counts, "{path:?}");
        } else {
            let missing = counts
                .iter()
                .zip(found.counts)
                .map(|(n, m)| n.checked_sub(m));
            assert!(
                missing.clone().all(|n| n.is_some()),
                "{path:?}: {:?}",
                found.counts
            );
        }
        if !path.ends_with("ring") && !path.ends_with("direct") && skipped == 0 {
            assert_eq!(found.timed, [counts[2], counts[4]], "{path:?}");
        }
    }
    let refused = told.remove("").map(|found| found.counts);
    let tries = MISSING * dirs.len() as u64;
    if skipped == 0 {
        assert_eq!(refused, Some([tries, tries, 0, 0, 0, 0]));
    }
    let rest: Vec<_> = told.keys().collect();
    assert!(rest.is_empty(), "also told of {rest:?}");
    ended
}

fn expected(dirs: &[PathBuf], more: &[(&str, Counts)]) -> Vec<(PathBuf, Counts)> {
    let all = dirs.iter().flat_map(|dir| {
        let known = DONE.iter().chain(more);
        known.map(|(name, counts)| (dir.join(name), *counts))
    });
    all.collect()
}

fn every_byte(ctx: &Ctx) -> Outcome {
    let plain = ctx.path("plain");
    fs::create_dir(&plain).expect("a directory");
    if ctx.host {
        // Where fexit programs are refused, system calls are looked at, and a ring makes none.
        prepare(&plain);
        let dirs = [plain];
        check(ctx, &dirs, "none", &expected(&dirs, &[BUSY]));
        return Outcome::Passed;
    }
    // On an overlay the file that is named counts, and not the one of the layer that it lies in.
    let merged = ctx.path("merged");
    fs::create_dir(&merged).expect("a mount point");
    let layers = overlay(ctx, &merged);
    let (disk, mount) = file_system(ctx, "ext4");
    let dirs = [plain, merged, disk];
    dirs.iter().for_each(|dir| prepare(dir));
    let mut all = expected(&dirs, &[RING]);
    all.push((dirs[0].join(BUSY.0), BUSY.1));
    all.push((dirs[2].join(DIRECT.0), DIRECT.1));
    check(ctx, &dirs, "ring,direct", &all).complete();
    drop((layers, mount));
    Outcome::Passed
}

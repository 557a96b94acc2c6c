//! A fence leaves alone what its rules are not about: the same calls have the same results without it, inside it, and in
//! audit mode.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use libc::c_int;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, MemfdFlags, Mode, OFlags, RenameFlags,
    ResolveFlags, XattrFlags,
};
use rustix::mm::{MapFlags, MprotectFlags, MsyncFlags, ProtFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;

use crate::fence::text;
use crate::harness::{Ctx, Needs, Outcome, Process, Stockade, Test};
use crate::helper::{ACL, acl, in_child};
use crate::mounts::file_system;
use crate::places::policy_of;

pub(crate) const TESTS: &[Test] = &[Test::new(
    "fence_changes_nothing_that_its_rules_are_not_about",
    Needs::Fence,
    transparent,
)];

/// What differs all the same where addresses are denied and bytes are limited, as docs/POLICY.md says: sockets of which
/// nobody can tell whom they reach, and several messages to names in one call.
const DOCUMENTED: [&str; 5] = [
    "socket: raw",
    "socket: packet",
    "socket: MPTCP",
    "socket: vsock",
    "udp: two messages to one name",
];

/// The names and results of what was done, one line each.
struct Notes {
    lines: String,
    /// Only what begins with this is done.
    only: String,
}

impl Notes {
    fn note<T: Display>(&mut self, name: &str, operation: impl FnOnce() -> io::Result<T>) {
        if !name.starts_with(&self.only) {
            return;
        }
        let result = match operation() {
            Ok(result) => format!("{result}").replace('\n', "|"),
            Err(e) => match e.raw_os_error() {
                Some(errno) => format!("errno {errno}"),
                None => format!("{:?}", e.kind()),
            },
        };
        self.lines.push_str(&format!("{name}\t{result}\n"));
    }
}

/// `vm --operations OUT DIRECTORY ONLY`
pub(crate) fn main(args: &[String]) -> i32 {
    let dir = PathBuf::from(&args[1]);
    let mut notes = Notes {
        lines: String::new(),
        only: args[2].clone(),
    };
    // Names of devices, times and numbers of processes are nobody's result.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    fs::create_dir_all(&dir).expect("a directory");
    std::env::set_current_dir(&dir).expect("our own directory");
    files(&mut notes);
    if !notes.only.is_empty() {
        fs::write(&args[0], notes.lines).expect("the results can be written");
        return 0;
    }
    contents(&mut notes);
    attributes(&mut notes);
    mounts(&mut notes);
    programs(&mut notes);
    processes(&mut notes);
    network(&mut notes);
    fs::write(&args[0], notes.lines).expect("the results can be written");
    0
}

/// What a call gave, or its errno.
fn check(result: impl Into<i64>) -> io::Result<i64> {
    match result.into() {
        ..0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// How a process of ours ends that does this: an errno is added to 100.
fn child(body: impl FnOnce() -> io::Result<i32>) -> io::Result<i32> {
    let errno = |e: io::Error| 100 + e.raw_os_error().unwrap_or(0);
    Ok(in_child(|| body().unwrap_or_else(errno)).1)
}

fn open(name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o644);
    Ok(rustix::fs::open(name, flags | OFlags::CLOEXEC, mode)?)
}

fn make(name: &str, content: &str) {
    fs::write(name, content).expect("our own directory");
}

fn about(name: &str) -> io::Result<String> {
    let meta = fs::symlink_metadata(name)?;
    let (mode, size, links) = (meta.mode(), meta.size(), meta.nlink());
    let size = if meta.is_dir() { 0 } else { size };
    Ok(format!(
        "{mode:o} {size} {links} {} {} {}",
        meta.uid(),
        meta.gid(),
        meta.rdev()
    ))
}

fn unit(result: rustix::io::Result<()>) -> io::Result<&'static str> {
    Ok(result.map(|()| "done")?)
}

fn files(n: &mut Notes) {
    make("file", "content");
    make("other", "other");
    fs::create_dir("dir").expect("our own directory");
    make("dir/inside", "inside");
    symlink("file", "link").expect("our own directory");
    symlink("/", "root-link").expect("our own directory");
    let excl = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    n.note("open: missing", || {
        open("missing", OFlags::RDONLY).map(|_| "")
    });
    n.note("open: new", || {
        open("new", excl)?;
        about("new")
    });
    n.note("open: new again", || open("new", excl).map(|_| ""));
    n.note("open: directory to write", || {
        open("dir", OFlags::WRONLY).map(|_| "")
    });
    n.note("open: file as directory", || {
        open("file", OFlags::DIRECTORY).map(|_| "")
    });
    n.note("open: below a file", || {
        open("file/below", OFlags::RDONLY).map(|_| "")
    });
    n.note("open: link not followed", || {
        open("link", OFlags::NOFOLLOW).map(|_| "")
    });
    n.note("open: name too long", || {
        open(&"n".repeat(256), OFlags::RDONLY).map(|_| "")
    });
    n.note("open: read of a path descriptor", || {
        let fd = open("file", OFlags::PATH)?;
        Ok(rustix::io::read(&fd, &mut [0; 4])?)
    });
    for (name, path, resolve) in [
        ("beneath", "dir/inside", ResolveFlags::BENEATH),
        ("out of it", "../other", ResolveFlags::BENEATH),
        ("in root", "/file", ResolveFlags::IN_ROOT),
        ("no links", "link", ResolveFlags::NO_SYMLINKS),
        ("no magic", "/proc/self/exe", ResolveFlags::NO_MAGICLINKS),
        ("one mount", "root-link/proc/version", ResolveFlags::NO_XDEV),
    ] {
        n.note(&format!("openat2: {name}"), || {
            let here = open(".", OFlags::PATH | OFlags::DIRECTORY)?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let fd = rustix::fs::openat2(&here, path, flags, Mode::empty(), resolve)?;
            Ok(File::from(fd).metadata()?.size())
        });
    }
    n.note("tmpfile: linked", || {
        let fd = open(".", OFlags::RDWR | OFlags::TMPFILE)?;
        rustix::io::write(&fd, b"nameless")?;
        rustix::fs::linkat(&fd, "", CWD, "named", AtFlags::EMPTY_PATH)?;
        fs::read_to_string("named")
    });
    n.note("tmpfile: never to be linked", || {
        let fd = open(".", OFlags::RDWR | OFlags::TMPFILE | OFlags::EXCL)?;
        unit(rustix::fs::linkat(
            &fd,
            "",
            CWD,
            "never",
            AtFlags::EMPTY_PATH,
        ))
    });
    n.note("handle: opened", || {
        // By its number: what the kernel says about it is its own.
        let fd = open("file", OFlags::PATH)?;
        let again = open(&format!("/proc/self/fd/{}", fd.as_raw_fd()), OFlags::RDONLY)?;
        let mut text = String::new();
        File::from(again).read_to_string(&mut text)?;
        Ok(text)
    });
    n.note("mkdir: new", || {
        fs::create_dir("made")?;
        about("made")
    });
    n.note("mkdir: there", || fs::create_dir("made").map(|()| ""));
    n.note("mkdir: nowhere", || fs::create_dir("no/where").map(|()| ""));
    n.note("rmdir: full", || fs::remove_dir("dir").map(|()| ""));
    n.note("rmdir: empty", || fs::remove_dir("made").map(|()| ""));
    n.note("unlink: directory", || unit(rustix::fs::unlink("dir")));
    n.note("unlink: file", || {
        make("gone", "");
        rustix::fs::unlink("gone")?;
        about("gone")
    });
    n.note("unlink: open file", || {
        make("kept", "kept");
        let mut file = File::open("kept")?;
        fs::remove_file("kept")?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(format!("{text} {}", file.metadata()?.nlink()))
    });
    let rename = |from: &str, to: &str, flags| rustix::fs::renameat_with(CWD, from, CWD, to, flags);
    n.note("rename: plain", || {
        make("a", "a");
        rename("a", "b", RenameFlags::empty())?;
        fs::read_to_string("b")
    });
    n.note("rename: over", || {
        make("a", "newer");
        rename("a", "b", RenameFlags::empty())?;
        fs::read_to_string("b")
    });
    n.note("rename: not over", || {
        make("a", "a");
        unit(rename("a", "b", RenameFlags::NOREPLACE))
    });
    n.note("rename: exchange", || {
        rename("a", "b", RenameFlags::EXCHANGE)?;
        Ok(fs::read_to_string("a")? + &fs::read_to_string("b")?)
    });
    n.note("rename: whiteout", || {
        rename("a", "c", RenameFlags::WHITEOUT)?;
        about("a")
    });
    n.note("rename: into itself", || {
        unit(rename("dir", "dir/below", RenameFlags::empty()))
    });
    n.note("rename: over a full directory", || {
        fs::create_dir("empty")?;
        unit(rename("empty", "dir", RenameFlags::empty()))
    });
    n.note("link: file", || {
        fs::hard_link("file", "hard")?;
        about("file")
    });
    n.note("link: there", || {
        fs::hard_link("file", "other").map(|()| "")
    });
    n.note("link: directory", || {
        fs::hard_link("dir", "dir-2").map(|()| "")
    });
    n.note("link: symbolic link", || {
        rustix::fs::linkat(CWD, "link", CWD, "link-2", AtFlags::empty())?;
        Ok(fs::read_link("link-2")?.display().to_string())
    });
    n.note("symlink: there", || symlink("x", "link").map(|()| ""));
    n.note("symlink: loop", || {
        symlink("loop", "loop")?;
        File::open("loop").map(|_| "")
    });
    for (name, kind, device) in [
        ("pipe", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        (
            "device",
            FileType::CharacterDevice,
            rustix::fs::makedev(1, 3),
        ),
    ] {
        n.note(&format!("mknod: {name}"), || {
            rustix::fs::mknodat(CWD, name, kind, Mode::from_raw_mode(0o600), device)?;
            about(name)
        });
    }
    n.note("mknod: used", || {
        let mut null = File::options().read(true).write(true).open("device")?;
        Ok(null.write(b"nothing")? + null.read(&mut [0; 8])?)
    });
    n.note("directory: listed", || {
        let mut names: Vec<_> = fs::read_dir(".")?
            .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort();
        Ok(names.join(" "))
    });
    n.note("directory: worked in", || {
        child(|| {
            std::env::set_current_dir("dir")?;
            Ok(i32::from(std::env::current_dir()?.ends_with("dir")))
        })
    });
    n.note("directory: chroot", || {
        child(|| {
            rustix::process::chroot("dir")?;
            Ok(i32::try_from(fs::read("/inside")?.len()).unwrap_or(0))
        })
    });
    n.note("watch: inotify", || {
        use rustix::fs::inotify;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags)?;
        inotify::add_watch(&watch, "dir", inotify::WatchFlags::ALL_EVENTS)?;
        make("dir/watched", "text");
        fs::rename("dir/watched", "dir/renamed")?;
        fs::remove_file("dir/renamed")?;
        let mut room = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&watch, &mut room);
        let mut all = Vec::new();
        while let Ok(event) = events.next() {
            all.push(format!("{:x}", event.events().bits()));
        }
        Ok(all.join(" "))
    });
    n.note("watch: fanotify", || {
        // SAFETY: plain numbers.
        let fd =
            check(unsafe { libc::fanotify_init(libc::FAN_CLASS_NOTIF | libc::FAN_NONBLOCK, 0) })?;
        // SAFETY: it is new, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as c_int) };
        let (add, open) = (libc::FAN_MARK_ADD, libc::FAN_OPEN | libc::FAN_MODIFY);
        // SAFETY: a terminated path.
        check(unsafe {
            libc::fanotify_mark(fd.as_raw_fd(), add, open, libc::AT_FDCWD, c"file".as_ptr())
        })?;
        drop(File::open("file")?);
        Ok(rustix::io::read(&fd, &mut [0; 4096])?)
    });
}

fn contents(n: &mut Notes) {
    make("data", "0123456789");
    let both = OFlags::RDWR;
    n.note("write: to what is open to read", || {
        Ok(rustix::io::write(open("data", OFlags::RDONLY)?, b"x")?)
    });
    n.note("read: directory", || {
        Ok(rustix::io::read(open("dir", OFlags::RDONLY)?, &mut [0; 4])?)
    });
    n.note("write: at places", || {
        let fd = open("data", both)?;
        rustix::io::pwrite(&fd, b"abc", 4)?;
        let parts = [io::IoSlice::new(b"x"), io::IoSlice::new(b"yz")];
        rustix::io::writev(&fd, &parts)?;
        let mut bytes = [0; 10];
        rustix::io::pread(&fd, &mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    });
    n.note("write: at the end", || {
        let mut file = File::options().append(true).open("data")?;
        file.write_all(b"end")?;
        fs::read_to_string("data")
    });
    n.note("write: more than may be", || {
        child(|| {
            let limit = rustix::process::Rlimit {
                current: Some(4),
                maximum: Some(4),
            };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, limit)?;
            // SAFETY: the kernel's own handling; the signal would end this process before it can tell.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            let mut file = File::options().append(true).open("data")?;
            Ok(i32::try_from(file.write(b"more")?).unwrap_or(0))
        })
    });
    n.note("seek: holes", || {
        let mut file = File::create("holes")?;
        file.seek(SeekFrom::Start(1 << 20))?;
        file.write_all(b"x")?;
        let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0))?;
        let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0))?;
        Ok(format!("{data} {hole}"))
    });
    n.note("truncate: shorter", || {
        // SAFETY: a terminated path.
        check(unsafe { libc::truncate(c"data".as_ptr(), 5) })?;
        fs::read_to_string("data")
    });
    n.note("truncate: longer", || {
        rustix::fs::ftruncate(open("data", both)?, 8)?;
        Ok(fs::read("data")?.len())
    });
    n.note("truncate: directory", || {
        // SAFETY: a terminated path.
        check(unsafe { libc::truncate(c"dir".as_ptr(), 0) })
    });
    n.note("truncate: when opened", || {
        open("data", OFlags::WRONLY | OFlags::TRUNC)?;
        about("data")
    });
    for (name, flags) in [
        ("longer", FallocateFlags::empty()),
        ("same size", FallocateFlags::KEEP_SIZE),
        (
            "hole",
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        ),
        ("zeros", FallocateFlags::ZERO_RANGE),
        ("without sense", FallocateFlags::PUNCH_HOLE),
    ] {
        n.note(&format!("fallocate: {name}"), || {
            rustix::fs::fallocate(open("data", both)?, flags, 4096, 8192)?;
            about("data")
        });
    }
    make("from", "to be copied");
    n.note("copy: sendfile", || {
        let (from, to) = (open("from", both)?, open("to", both | OFlags::CREATE)?);
        rustix::fs::sendfile(&to, &from, None, 100)?;
        fs::read_to_string("to")
    });
    n.note("copy: copy_file_range", || {
        let (from, to) = (open("from", both)?, open("to", both | OFlags::TRUNC)?);
        rustix::fs::copy_file_range(&from, None, &to, None, 5)?;
        fs::read_to_string("to")
    });
    n.note("copy: splice and tee", || {
        use rustix::pipe::{SpliceFlags, pipe, splice, tee};
        let (from, to) = (open("from", both)?, open("to", both | OFlags::TRUNC)?);
        let ((reader, writer), (second, more)) = (pipe()?, pipe()?);
        let none = SpliceFlags::empty();
        let count = splice(&from, None, &writer, None, 100, none)?;
        let again = tee(&reader, &more, 100, none)?;
        splice(&reader, None, &to, None, count, none)?;
        let mut bytes = vec![0; again];
        rustix::io::read(&second, &mut bytes)?;
        Ok(fs::read_to_string("to")? + &String::from_utf8_lossy(&bytes))
    });
    n.note("sync: all ways", || {
        let fd = open("data", both)?;
        rustix::fs::fsync(&fd)?;
        rustix::fs::fdatasync(&fd)?;
        // SAFETY: plain numbers.
        check(unsafe { libc::syncfs(fd.as_raw_fd()) })
    });
    n.note("lock: flock", || {
        let (one, two) = (open("data", both)?, open("data", both)?);
        rustix::fs::flock(&one, FlockOperation::LockExclusive)?;
        unit(rustix::fs::flock(
            &two,
            FlockOperation::NonBlockingLockShared,
        ))
    });
    n.note("lock: fcntl", || {
        let fd = open("data", both)?;
        rustix::fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        child(|| {
            let other = open("data", both)?;
            rustix::fs::fcntl_lock(&other, FlockOperation::NonBlockingLockExclusive)?;
            Ok(0)
        })
    });
    n.note("lock: lease", || {
        let fd = open("data", OFlags::RDONLY)?;
        // SAFETY: plain numbers.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) })
    });
    n.note("map: shared", || mapped(MapFlags::SHARED));
    n.note("map: private", || mapped(MapFlags::PRIVATE));
    n.note("map: what is open to read", || {
        let fd = open("from", OFlags::RDONLY)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), 4096, access, MapFlags::SHARED, &fd, 0)
        };
        Ok(at.map(|_| "mapped")?)
    });
    n.note("map: executable", || {
        let fd = open("/bin/true", OFlags::RDONLY)?;
        let access = ProtFlags::READ | ProtFlags::EXEC;
        let flags = MapFlags::PRIVATE;
        // SAFETY: a new mapping at a place of the kernel's choice, of a file that nobody changes.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, access, flags, &fd, 0) }?;
        // SAFETY: as above.
        let start = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), 4) };
        Ok(String::from_utf8_lossy(&start[1..]).into_owned())
    });
    n.note("map: executable later", || {
        let (access, flags) = (ProtFlags::READ, MapFlags::PRIVATE);
        let fd = open("/bin/true", OFlags::RDONLY)?;
        // SAFETY: as above.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, access, flags, &fd, 0) }?;
        let later = MprotectFlags::READ | MprotectFlags::EXEC;
        // SAFETY: the mapping above.
        unit(unsafe { rustix::mm::mprotect(at, 4096, later) })
    });
    n.note("map: memory to run", || {
        let access = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
        let (place, flags) = (std::ptr::null_mut(), MapFlags::PRIVATE);
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe { rustix::mm::mmap_anonymous(place, 4096, access, flags) }?;
        Ok(if at.is_null() { "nowhere" } else { "mapped" })
    });
    n.note("memfd: sealed", || {
        let fd = rustix::fs::memfd_create("m", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::io::write(&fd, b"memory")?;
        rustix::fs::fcntl_add_seals(&fd, rustix::fs::SealFlags::WRITE)?;
        Ok(rustix::io::write(&fd, b"more")?)
    });
    n.note("ring: open, write and read", || {
        use io_uring::{opcode, squeue::Flags, types};
        let mut ring = io_uring::IoUring::new(8)?;
        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c"ring".as_ptr())
            .flags(libc::O_RDWR | libc::O_CREAT)
            .mode(0o600)
            .build();
        let mut run = |entry: io_uring::squeue::Entry| -> io::Result<i32> {
            // SAFETY: what the entry points to lives until its completion is here.
            unsafe { ring.submission().push(&entry) }.expect("an empty queue has room");
            ring.submit_and_wait(1)?;
            let result = ring.completion().next().expect("one completion").result();
            if result < 0 {
                return Err(io::Error::from_raw_os_error(-result));
            }
            Ok(result)
        };
        let fd = types::Fd(run(open)?);
        let wrote = run(opcode::Write::new(fd, b"ring".as_ptr(), 4)
            .offset(0)
            .build())?;
        let mut bytes = [0; 8];
        let read = opcode::Read::new(fd, bytes.as_mut_ptr(), 8).offset(0);
        let got = run(read.build().flags(Flags::ASYNC))?;
        let synced = run(opcode::Fsync::new(fd).build())?;
        run(opcode::Close::new(fd).build())?;
        Ok(format!(
            "{wrote} {got} {synced} {}",
            String::from_utf8_lossy(&bytes[..4])
        ))
    });
}

/// What is seen of a mapping, and what of it is in the file.
fn mapped(flags: MapFlags) -> io::Result<String> {
    make("mapped", "before");
    let fd = open("mapped", OFlags::RDWR)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice, which is written below and given back.
    unsafe {
        let at = rustix::mm::mmap(std::ptr::null_mut(), 4096, access, flags, &fd, 0)?;
        at.cast::<u8>().write(b'B');
        rustix::mm::msync(at, 4096, MsyncFlags::SYNC)?;
        let seen = String::from_utf8_lossy(std::slice::from_raw_parts(at.cast(), 6)).into_owned();
        rustix::mm::munmap(at, 4096)?;
        Ok(seen + &fs::read_to_string("mapped")?)
    }
}

fn attributes(n: &mut Notes) {
    make("attributes", "");
    let name = "attributes";
    n.note("mode: changed", || {
        fs::set_permissions(name, fs::Permissions::from_mode(0o4711))?;
        about(name)
    });
    n.note("mode: by descriptor", || {
        rustix::fs::fchmod(open(name, OFlags::RDONLY)?, Mode::from_raw_mode(0o640))?;
        about(name)
    });
    n.note("mode: missing", || {
        unit(rustix::fs::chmod("missing", Mode::from_raw_mode(0o600)))
    });
    n.note("owner: changed", || {
        std::os::unix::fs::chown(name, Some(7), Some(8))?;
        about(name)
    });
    n.note("owner: by nobody", || {
        child(|| {
            nobody()?;
            std::os::unix::fs::chown(name, Some(9), None)?;
            Ok(0)
        })
    });
    n.note("times: set", || {
        let at = |tv_sec| rustix::fs::Timespec { tv_sec, tv_nsec: 5 };
        let times = rustix::fs::Timestamps {
            last_access: at(100),
            last_modification: at(200),
        };
        rustix::fs::utimensat(CWD, name, &times, AtFlags::empty())?;
        let meta = fs::metadata(name)?;
        Ok(format!(
            "{} {} {}",
            meta.atime(),
            meta.mtime(),
            meta.mtime_nsec()
        ))
    });
    for space in ["user", "trusted", "security"] {
        let key = format!("{space}.test");
        n.note(&format!("xattr: {space}"), || {
            let none = XattrFlags::empty();
            rustix::fs::setxattr(name, &*key, b"value", none)?;
            let mut room = [0; 256];
            let size = rustix::fs::getxattr(name, &*key, &mut room)?;
            let value = String::from_utf8_lossy(&room[..size]).into_owned();
            rustix::fs::removexattr(name, &*key)?;
            Ok(value)
        });
    }
    n.note("xattr: missing", || {
        Ok(rustix::fs::getxattr(name, "user.none", &mut [0u8; 8])?)
    });
    n.note("xattr: there", || {
        rustix::fs::setxattr(name, "user.once", b"1", XattrFlags::CREATE)?;
        unit(rustix::fs::setxattr(
            name,
            "user.once",
            b"2",
            XattrFlags::CREATE,
        ))
    });
    n.note("acl: set, read and removed", || {
        rustix::fs::setxattr(name, ACL, &acl(), XattrFlags::empty())?;
        let size = rustix::fs::getxattr(name, ACL, &mut [0u8; 256])?;
        let after = about(name)?;
        rustix::fs::removexattr(name, ACL)?;
        Ok(format!("{size} {after}"))
    });
    n.note("flags: only to be added to", || {
        let fd = open(name, OFlags::RDONLY)?;
        let before = rustix::fs::ioctl_getflags(&fd)?;
        rustix::fs::ioctl_setflags(&fd, before | rustix::fs::IFlags::APPEND)?;
        let written = fs::write(name, "x").map_err(|e| e.raw_os_error());
        rustix::fs::ioctl_setflags(&fd, before)?;
        Ok(format!("{written:?}"))
    });
    n.note("status: of everything", || {
        use rustix::fs::{StatxFlags, statx};
        let stat = statx(CWD, name, AtFlags::empty(), StatxFlags::BASIC_STATS)?;
        let system = rustix::fs::statfs(name)?;
        Ok(format!(
            "{:o} {} {:x} {}",
            stat.stx_mode, stat.stx_size, system.f_type, system.f_namelen
        ))
    });
    n.note("access: by nobody", || {
        child(|| {
            nobody()?;
            rustix::fs::access(name, rustix::fs::Access::WRITE_OK)?;
            Ok(0)
        })
    });
    n.note("access: opened by nobody", || {
        child(|| {
            nobody()?;
            File::open("/etc/shadow")?;
            Ok(0)
        })
    });
}

/// Somebody without rights, for good.
fn nobody() -> io::Result<()> {
    // SAFETY: plain numbers; this process has one thread.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(65534, 65534, 65534))?;
        check(libc::setresuid(65534, 65534, 65534)).map(drop)
    }
}

fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: a plain number; this process is for this alone.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

fn mounts(n: &mut Notes) {
    for place in ["mounted", "bound"] {
        fs::create_dir(place).expect("our own directory");
    }
    let tmpfs = |flags| rustix::mount::mount("tmpfs", "mounted", "tmpfs", flags, None);
    n.note("mount: tmpfs and what it holds", || {
        child(|| {
            unshare(libc::CLONE_NEWNS)?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private)?;
            tmpfs(MountFlags::NOSUID)?;
            make("mounted/file", "in it");
            rustix::mount::mount_bind("mounted", "bound")?;
            let seen = fs::read("bound/file")?.len();
            rustix::mount::mount_remount("mounted", MountFlags::RDONLY, "")?;
            let refused = fs::write("mounted/file", "x").map_err(|e| e.raw_os_error());
            if refused != Err(Some(libc::EROFS)) {
                return Ok(70);
            }
            let file = File::open("mounted/file")?;
            let busy = rustix::mount::unmount("mounted", UnmountFlags::empty());
            drop(file);
            if busy != Err(rustix::io::Errno::BUSY) {
                return Ok(71);
            }
            rustix::mount::unmount("bound", UnmountFlags::empty())?;
            rustix::mount::unmount("mounted", UnmountFlags::empty())?;
            Ok(i32::try_from(seen).unwrap_or(0))
        })
    });
    n.note("mount: by descriptors", || {
        use rustix::mount::{
            FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsmount,
            fsopen, move_mount,
        };
        child(|| {
            unshare(libc::CLONE_NEWNS)?;
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let flags = FsMountFlags::FSMOUNT_CLOEXEC;
            let mount = fsmount(&context, flags, MountAttrFlags::empty())?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&mount, "", CWD, "mounted", flags)?;
            make("mounted/file", "in it");
            let seen = fs::read("mounted/file")?.len();
            rustix::mount::unmount("mounted", UnmountFlags::DETACH)?;
            Ok(i32::try_from(seen).unwrap_or(0))
        })
    });
    n.note("mount: by nobody", || {
        child(|| {
            nobody()?;
            tmpfs(MountFlags::empty())?;
            Ok(0)
        })
    });
    n.note("mount: on a file", || {
        unit(rustix::mount::mount(
            "tmpfs",
            "file",
            "tmpfs",
            MountFlags::empty(),
            None,
        ))
    });
    n.note("mount: of no kind", || {
        unit(rustix::mount::mount(
            "none",
            "mounted",
            "no such",
            MountFlags::empty(),
            None,
        ))
    });
    n.note("umount: not mounted", || {
        unit(rustix::mount::unmount("mounted", UnmountFlags::empty()))
    });
}

/// How a program ends, and what it says.
fn said(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let status = output.status;
    Ok(format!(
        "{:?} {:?} {}{}",
        status.code(),
        status.signal(),
        String::from_utf8_lossy(&output.stdout),
        output.stderr.len()
    ))
}

fn executable(name: &str, content: &[u8], mode: u32) {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(name)
        .expect("our own directory");
    file.write_all(content).expect("our own directory");
    fs::set_permissions(name, fs::Permissions::from_mode(mode)).expect("our own file");
}

fn programs(n: &mut Notes) {
    let shell = |line: &str| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line, "zero", "first"]).env_clear();
        command.env("X", "x").env("PATH", "/usr/bin:/bin");
        command
    };
    n.note("exec: status", || said(&mut shell("exit 7")));
    n.note("exec: arguments and environment", || {
        said(&mut shell("echo $0 $1 $X"))
    });
    n.note("exec: pipeline", || {
        said(&mut shell("cat file other | wc -c; ls dir; false"))
    });
    n.note("exec: signal", || said(&mut shell("kill -USR1 $$")));
    n.note("exec: missing", || said(&mut Command::new("./missing")));
    n.note("exec: directory", || said(&mut Command::new("./dir")));
    executable("plain", b"#!/bin/sh\nexit 3\n", 0o644);
    n.note("exec: not executable", || {
        said(&mut Command::new("./plain"))
    });
    executable("script", b"#!/bin/sh\necho $#; exit 5\n", 0o755);
    n.note("exec: script", || {
        said(Command::new("./script").args(["a", "b"]))
    });
    executable("nested", b"#!./script and\n", 0o755);
    n.note("exec: script of a script", || {
        said(&mut Command::new("./nested"))
    });
    executable("lost", b"#!/no/such/shell\n", 0o755);
    n.note("exec: no interpreter", || said(&mut Command::new("./lost")));
    executable("format", b"\x7fELF and nothing", 0o755);
    n.note("exec: no format", || said(&mut Command::new("./format")));
    n.note("exec: too many arguments", || {
        let long = "x".repeat(200_000);
        said(Command::new("/bin/true").arg(long))
    });
    let tool = fs::read("/usr/bin/id").expect("a program");
    executable("id", &tool, 0o4755);
    n.note("exec: as its owner", || {
        said(Command::new("./id").arg("-u").uid(65534).gid(65534))
    });
    executable("group", &tool, 0o2755);
    n.note("exec: as its group", || {
        said(Command::new("./group").arg("-g").uid(65534).gid(65534))
    });
    n.note("exec: while written", || {
        let _writer = File::options().write(true).open("id")?;
        said(Command::new("./id").arg("-u"))
    });
    n.note("exec: in a directory of its own", || {
        said(Command::new("/bin/pwd").current_dir("/proc"))
    });
    n.note("exec: descriptor", || {
        let fd = open("id", OFlags::PATH)?;
        child(|| by_descriptor(&fd))
    });
    n.note("exec: memory", || {
        let fd = rustix::fs::memfd_create("id", MemfdFlags::empty())?;
        rustix::io::write(&fd, &fs::read("/bin/true")?)?;
        child(|| by_descriptor(&fd))
    });
    n.note("exec: removed", || {
        executable("removed", &fs::read("/bin/true")?, 0o755);
        let fd = open("removed", OFlags::RDONLY)?;
        fs::remove_file("removed")?;
        child(|| by_descriptor(&fd))
    });
    n.note("exec: loader", || {
        said(Command::new(crate::places::loader()).arg("/bin/true"))
    });
}

fn by_descriptor(fd: &OwnedFd) -> io::Result<i32> {
    let argv = [c"id".as_ptr(), std::ptr::null()];
    // What it says is the other ones' business.
    let null = open("/dev/null", OFlags::WRONLY)?;
    // SAFETY: plain numbers.
    check(unsafe { libc::dup2(null.as_raw_fd(), libc::STDOUT_FILENO) })?;
    // SAFETY: terminated lists; the empty path and the flag mean the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            argv.as_ptr().add(1),
            libc::AT_EMPTY_PATH,
        );
    }
    Err(io::Error::last_os_error())
}

fn processes(n: &mut Notes) {
    n.note("fork: status", || child(|| Ok(42)));
    n.note("fork: killed", || {
        child(|| {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, Signal::KILL)?;
            Ok(0)
        })
    });
    n.note("fork: many", || {
        let mut sum = 0;
        for number in 0..20 {
            sum += child(|| Ok(number))?;
        }
        Ok(sum)
    });
    n.note("thread: many", || {
        let threads: Vec<_> = (0..20).map(|n| std::thread::spawn(move || n)).collect();
        let sum: i32 = threads.into_iter().filter_map(|t| t.join().ok()).sum();
        Ok(sum)
    });
    n.note("process: session", || {
        child(|| {
            rustix::process::setsid()?;
            Ok(i32::from(
                rustix::process::getsid(None)? == rustix::process::getpid(),
            ))
        })
    });
    n.note("process: name", || {
        child(|| {
            rustix::thread::set_name(c"another")?;
            Ok(i32::try_from(fs::read("/proc/self/comm")?.len()).unwrap_or(0))
        })
    });
    n.note("process: own memory", || {
        let word = 0x1234_5678_u32;
        let mut bytes = [0; 4];
        let memory = File::open("/proc/self/mem")?;
        let at = (&raw const word).addr() as u64;
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, at)?;
        Ok(u32::from_ne_bytes(bytes))
    });
    n.note("process: traced", || {
        child(|| {
            // SAFETY: what the call takes.
            check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })?;
            Ok(0)
        })
    });
    n.note("process: by descriptor", || {
        let own = rustix::process::getpid();
        let fd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty())?;
        // SAFETY: plain numbers.
        check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd.as_raw_fd(), 0, 0) })
            .map(|_| "taken")
    });
    n.note("process: nobody's rights", || {
        child(|| {
            nobody()?;
            // SAFETY: a plain number.
            check(unsafe { libc::setuid(0) })?;
            Ok(0)
        })
    });
    for (name, flag) in [
        ("names", libc::CLONE_NEWUTS),
        ("users", libc::CLONE_NEWUSER),
        ("networks", libc::CLONE_NEWNET),
        ("segments", libc::CLONE_NEWIPC),
        ("groups", libc::CLONE_NEWCGROUP),
    ] {
        n.note(&format!("space: {name}"), || {
            child(|| {
                unshare(flag)?;
                let devices = fs::read_dir("/sys/class/net").map_or(0, Iterator::count);
                Ok(i32::from(devices > 0) + rustix::process::getuid().as_raw().min(50) as i32)
            })
        });
    }
    n.note("space: processes", || {
        child(|| {
            unshare(libc::CLONE_NEWPID)?;
            child(|| Ok(rustix::process::getpid().as_raw_nonzero().get()))
        })
    });
    n.note("memory: segment", || {
        // SAFETY: plain numbers, and a segment of our own.
        unsafe {
            let id = check(libc::shmget(
                libc::IPC_PRIVATE,
                4096,
                libc::IPC_CREAT | 0o600,
            ))?;
            let at = libc::shmat(id as c_int, std::ptr::null(), 0);
            assert_ne!(at as isize, -1);
            at.cast::<u8>().write(9);
            let seen = at.cast::<u8>().read();
            check(libc::shmdt(at))?;
            check(libc::shmctl(
                id as c_int,
                libc::IPC_RMID,
                std::ptr::null_mut(),
            ))?;
            Ok(seen)
        }
    });
    n.note("descriptors: too many", || {
        child(|| {
            let limit = rustix::process::Rlimit {
                current: Some(20),
                maximum: Some(20),
            };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
            let mut all = Vec::new();
            loop {
                match File::open("file") {
                    Ok(file) => all.push(file),
                    Err(e) => return Err(e),
                }
            }
        })
    });
    n.note("events: counted and polled", || {
        use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
        let fd = eventfd(3, EventfdFlags::CLOEXEC)?;
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let ready = poll(&mut fds, None)?;
        let mut count = [0; 8];
        rustix::io::read(&fd, &mut count)?;
        Ok(ready as u64 + u64::from_ne_bytes(count))
    });
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

fn network(n: &mut Notes) {
    let exchange = |at: &str| -> io::Result<String> {
        let server = TcpListener::bind(at)?;
        let mut client = TcpStream::connect(server.local_addr()?)?;
        let (mut served, _) = server.accept()?;
        client.set_nodelay(true)?;
        client.write_all(b"question")?;
        client.shutdown(Shutdown::Write)?;
        let mut said = String::new();
        served.read_to_string(&mut said)?;
        served.write_all(b"answer")?;
        drop(served);
        client.read_to_string(&mut said)?;
        Ok(said)
    };
    n.note("tcp: IPv4", || exchange("127.0.0.1:0"));
    n.note("tcp: IPv6", || exchange("[::1]:0"));
    n.note("tcp: refused", || {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        TcpStream::connect(("127.0.0.1", port)).map(|_| "")
    });
    n.note("tcp: nowhere", || {
        TcpStream::connect("255.255.255.255:9").map(|_| "")
    });
    n.note("tcp: twice at one address", || {
        let first = TcpListener::bind("127.0.0.1:0")?;
        TcpListener::bind(first.local_addr()?).map(|_| "")
    });
    n.note("tcp: closed on the other side", || {
        let server = TcpListener::bind("127.0.0.1:0")?;
        let mut client = TcpStream::connect(server.local_addr()?)?;
        client.shutdown(Shutdown::Write)?;
        client.write(b"more")
    });
    n.note("tcp: options", || {
        use rustix::net::sockopt;
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        sockopt::set_socket_keepalive(&fd, true)?;
        sockopt::set_ip_ttl(&fd, 9)?;
        let (ttl, kind) = (sockopt::ip_ttl(&fd)?, sockopt::socket_type(&fd)?);
        Ok(format!("{ttl} {}", kind.as_raw()))
    });
    n.note("tcp: sent from a file", || {
        let server = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(server.local_addr()?)?;
        let (mut served, _) = server.accept()?;
        rustix::fs::sendfile(&client, &File::open("from")?, None, 100)?;
        drop(client);
        let mut said = String::new();
        served.read_to_string(&mut said)?;
        Ok(said)
    });
    n.note("tcp: by a ring", || {
        use io_uring::{opcode, types};
        let server = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(server.local_addr()?)?;
        let (mut served, _) = server.accept()?;
        let fd = types::Fd(client.as_raw_fd());
        let mut ring = io_uring::IoUring::new(4)?;
        let entry = opcode::Send::new(fd, b"ring".as_ptr(), 4).build();
        // SAFETY: the bytes live for ever.
        unsafe { ring.submission().push(&entry) }.expect("an empty queue has room");
        ring.submit_and_wait(1)?;
        let sent = ring.completion().next().expect("one completion").result();
        let mut bytes = [0; 4];
        served.read_exact(&mut bytes)?;
        Ok(format!("{sent} {}", String::from_utf8_lossy(&bytes)))
    });
    n.note("bind: not ours", || {
        TcpListener::bind("198.51.100.1:0").map(|_| "")
    });
    n.note("bind: a port of the system, by nobody", || {
        child(|| {
            nobody()?;
            TcpListener::bind("127.0.0.1:99")?;
            Ok(0)
        })
    });
    n.note("udp: to and fro", || {
        let (one, two) = (
            UdpSocket::bind("127.0.0.1:0")?,
            UdpSocket::bind("127.0.0.1:0")?,
        );
        one.send_to(b"datagram", two.local_addr()?)?;
        two.connect(one.local_addr()?)?;
        let mut room = [0; 32];
        let seen = two.peek(&mut room)?;
        let got = two.recv(&mut room[..4])?;
        Ok(format!("{seen} {got} {}", two.send(b"back")?))
    });
    n.note("udp: refused", || {
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let one = UdpSocket::bind("127.0.0.1:0")?;
        one.connect(("127.0.0.1", port))?;
        one.send(b"x")?;
        one.recv(&mut [0; 4])
    });
    n.note("udp: nobody has said anything", || {
        let one = UdpSocket::bind("127.0.0.1:0")?;
        one.set_nonblocking(true)?;
        one.recv(&mut [0; 4])
    });
    n.note("udp: too long", || {
        let one = UdpSocket::bind("127.0.0.1:0")?;
        one.send_to(&[0; 70_000], one.local_addr()?)
    });
    n.note("udp: to everybody", || {
        UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", "255.255.255.255:9")
    });
    n.note("udp: group", || {
        let one = UdpSocket::bind("0.0.0.0:0")?;
        one.join_multicast_v4(&Ipv4Addr::new(239, 1, 2, 3), &Ipv4Addr::LOCALHOST)?;
        one.set_multicast_ttl_v4(3)?;
        one.multicast_ttl_v4()
    });
    n.note("udp: two messages to one name", || two_messages(true));
    n.note("udp: two messages", || two_messages(false));
    n.note("unix: stream", || {
        let server = UnixListener::bind("stream")?;
        let mut client = UnixStream::connect("stream")?;
        let (mut served, _) = server.accept()?;
        client.write_all(b"local")?;
        drop(client);
        let mut said = String::new();
        served.read_to_string(&mut said)?;
        Ok(said)
    });
    n.note("unix: nobody there any more", || {
        UnixStream::connect("stream").map(|_| "")
    });
    n.note("unix: nothing there", || {
        UnixStream::connect("missing").map(|_| "")
    });
    n.note("unix: no socket", || {
        UnixStream::connect("file").map(|_| "")
    });
    n.note("unix: by nobody", || {
        let _server = UnixListener::bind("closed")?;
        fs::set_permissions("closed", fs::Permissions::from_mode(0o700))?;
        child(|| {
            nobody()?;
            UnixStream::connect("closed")?;
            Ok(0)
        })
    });
    n.note("unix: datagrams", || {
        let server = UnixDatagram::bind("datagram")?;
        UnixDatagram::unbound()?.send_to(b"local", "datagram")?;
        server.recv(&mut [0; 16])
    });
    n.note("unix: pair", || {
        let (mut one, mut two) = UnixStream::pair()?;
        one.write_all(b"pair")?;
        let mut bytes = [0; 4];
        two.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    });
    n.note("unix: address in use", || {
        UnixListener::bind("datagram").map(|_| "")
    });
    n.note("netlink: asked for devices", || {
        let fd = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        let mut request = [0u8; 32];
        request[..4].copy_from_slice(&32_u32.to_ne_bytes());
        request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        rustix::net::send(&fd, &request, rustix::net::SendFlags::empty())?;
        let mut answer = [0; 16384];
        let (_, size) = rustix::net::recv(&fd, &mut answer, rustix::net::RecvFlags::empty())?;
        assert!(size > size_of::<libc::nlmsghdr>());
        Ok(u16::from_ne_bytes([answer[4], answer[5]]))
    });
    for (name, family, kind, protocol) in [
        ("raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        ("packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
        (
            "MPTCP",
            libc::AF_INET,
            libc::SOCK_STREAM,
            libc::IPPROTO_MPTCP,
        ),
        ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ("AF_ALG", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        (
            "no protocol",
            libc::AF_INET,
            libc::SOCK_STREAM,
            libc::IPPROTO_UDP,
        ),
        ("no family", 99, libc::SOCK_STREAM, 0),
        ("netlink", libc::AF_NETLINK, libc::SOCK_RAW, 0),
    ] {
        n.note(&format!("socket: {name}"), || {
            socket(family, kind, protocol).map(|_| "made")
        });
    }
}

/// Two messages in one call, to an address that each has or to the one that the socket is connected to.
fn two_messages(named: bool) -> io::Result<i64> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    let port = receiver.local_addr()?.port();
    if !named {
        sender.connect(("127.0.0.1", port))?;
    }
    let mut address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be(),
        },
        sin_zero: [0; 8],
    };
    let mut part = libc::iovec {
        iov_base: c"x".as_ptr().cast_mut().cast(),
        iov_len: 1,
    };
    // SAFETY: numbers and pointers, for which 0 is a value.
    let mut one: libc::mmsghdr = unsafe { std::mem::zeroed() };
    one.msg_hdr.msg_iov = &raw mut part;
    one.msg_hdr.msg_iovlen = 1;
    if named {
        one.msg_hdr.msg_name = (&raw mut address).cast();
        one.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
    }
    let mut two = [one, one];
    // SAFETY: whole messages.
    check(unsafe { libc::sendmmsg(sender.as_raw_fd(), two.as_mut_ptr(), 2, 0) })
}

/// The lines that two have noted differently, by their names.
fn differences(one: &str, two: &str) -> Vec<String> {
    let names = |text: &str| -> Vec<String> {
        let name = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
        text.lines().map(name).collect()
    };
    assert_eq!(names(one), names(two), "not the same operations");
    let pairs = one.lines().zip(two.lines());
    let other = pairs.filter(|(one, two)| one != two);
    other.map(|(one, two)| format!("{one} | {two}")).collect()
}

fn transparent(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    for dir in [&ctx.dir, &root] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let elsewhere = root.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let [secret, tool, kept] = ["secret", "tool", "kept"].map(|name| elsewhere.join(name));
    for file in [&secret, &tool, &kept] {
        fs::copy("/bin/true", file).unwrap();
    }
    let mut count = 0;
    let mut run = |sections: Option<&str>, more: &[&str], only: &str| -> String {
        count += 1;
        // As long in each run: nothing is to differ but the fence.
        let dir = root.join(format!("run-{count}"));
        let out = ctx.path(&format!("operations-{count}"));
        let mut command = vec![text(&ctx.helper), "--operations", text(&out), text(&dir)];
        command.push(only);
        let Some(sections) = sections else {
            let mut plain = Process(
                Command::new(command[0])
                    .args(&command[1..])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap(),
            );
            assert_eq!(plain.wait(), 0);
            return fs::read_to_string(&out).unwrap();
        };
        let policy = policy_of(ctx, &sections.replace("DIR", text(&dir)));
        let mut args = vec!["run", "--format", "json", "--monitor", "process"];
        args.extend(["--policy", text(&policy)]);
        args.extend(more);
        args.push("--");
        args.extend(command);
        let ended = Stockade::start(ctx, args).wait();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        // A limit that was met, or a rule that was, would be no unrelated one.
        let told = ended.of("denial");
        let told: Vec<_> = told
            .filter(|e| e["rule.id"] != "addresses" && e["rule.id"] != "bytes")
            .collect();
        assert!(!only.is_empty() || told.is_empty(), "{told:?}");
        fs::read_to_string(&out).unwrap()
    };
    let unrelated = format!(
        "files:\n\
         - {{ id: secret, deny: all, paths: ['{secret}'] }}\n\
         - {{ id: elsewhere, deny: all, paths: ['{elsewhere}/**'] }}\n\
         - {{ id: kept, deny: [write, metadata], inodes: ['{kept}'] }}\n\
         exec:\n\
         - {{ id: tool, deny: ['{tool}'] }}\n\
         network:\n\
         - {{ id: addresses, deny: [connect, send], to: ['203.0.113.0/24', '2001:db8::/32'] }}\n\
         - {{ id: own, deny: [bind, listen, accept], at: ['203.0.113.7:443'] }}\n\
         syscalls:\n\
         - {{ id: calls, deny: [kexec_load, init_module, finit_module] }}\n\
         limits:\n\
         - {{ id: processes, limit: [forks, threads], per_second: 10000 }}\n\
         - {{ id: connections, limit: connections, per_second: 10000, per: process }}\n\
         - {{ id: bytes, limit: bytes, per_second: 1 GiB }}\n\
         - {{ id: counted, syscall: kexec_load, per_second: 10, action: log }}",
        secret = text(&secret),
        elsewhere = text(&elsewhere),
        kept = text(&kept),
        tool = text(&tool),
    );
    let without = run(None, &[], "");
    assert!(without.lines().count() > 160, "{without}");
    let mut within = differences(&without, &run(Some(&unrelated), &[], ""));
    // Nothing else, and all of these, whether the kernel has such a socket or not.
    let mut documented = DOCUMENTED.to_vec();
    within.retain(|line| {
        let name = line.split('\t').next().unwrap_or_default();
        let known = documented.iter().position(|one| *one == name);
        let refused = known.filter(|_| line.ends_with("\terrno 1"));
        refused.map(|at| documented.swap_remove(at)).is_none()
    });
    assert!(within.is_empty(), "\n  {}", within.join("\n  "));
    assert!(documented.is_empty(), "not refused: {documented:?}");
    let audited = differences(&without, &run(Some(&unrelated), &["--audit"], ""));
    assert!(audited.is_empty(), "\n  {}", audited.join("\n  "));
    // That a difference would be seen: the same with a rule that is about this.
    let related = "files:\n- { id: related, deny: [delete, replace], paths: ['DIR/**'] }";
    let short = run(None, &[], "rename: ");
    let seen = differences(&short, &run(Some(related), &[], "rename: "));
    assert!(seen.len() >= 4, "{seen:?}");
    Outcome::Passed
}

//! The tests' other half: performs system calls one by one, inside or outside the fence, and notes what became of each.
//!
//! Every step runs in a process of its own, so that a denial can be held against the step it belongs to. A step that
//! succeeds undoes itself where it can: the same list serves outside the fence, where everything works.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

use crate::harness::poll;

/// One access: a label, an operation and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) label: String,
    words: Vec<String>,
}

pub(crate) fn step(label: &str, words: &[&dyn AsRef<OsStr>]) -> Step {
    Step {
        label: label.to_owned(),
        words: words
            .iter()
            .map(|&w| {
                let w: &OsStr = w.as_ref();
                w.to_str()
                    .expect("the tests' own names are UTF-8")
                    .to_owned()
            })
            .collect(),
    }
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) label: String,
    pub(crate) pid: u64,
    /// 0 when it worked.
    pub(crate) errno: i32,
}

/// The steps as arguments of this program: it notes in `out` what became of them.
pub(crate) fn arguments(out: &Path, steps: &[Step]) -> Vec<String> {
    let mut words = vec![
        "--helper".to_owned(),
        out.to_str()
            .expect("the tests' own names are UTF-8")
            .to_owned(),
    ];
    words.extend(steps.iter().map(|s| {
        let mut all = vec![s.label.clone()];
        all.extend(s.words.iter().cloned());
        all.join("\t")
    }));
    words
}

/// The helper's pid and what became of its steps.
pub(crate) fn results(out: &Path) -> (u64, Vec<Done>) {
    let text = fs::read_to_string(out).unwrap_or_else(|e| panic!("the helper has not run: {e}"));
    let mut lines = text.lines();
    let pid = lines
        .next()
        .and_then(|l| l.parse().ok())
        .expect("the helper's pid");
    let done = lines
        .map(|line| {
            let mut words = line.split('\t');
            Done {
                label: words.next().expect("a label").to_owned(),
                pid: words.next().and_then(|w| w.parse().ok()).expect("a pid"),
                errno: words.next().and_then(|w| w.parse().ok()).expect("an errno"),
            }
        })
        .collect();
    (pid, done)
}

/// Entry as the helper program.
pub(crate) fn main(args: &[String]) -> i32 {
    let mut out = fs::File::create(&args[0]).expect("the file for the results");
    writeln!(out, "{}", std::process::id()).expect("the results can be written");
    for arg in &args[1..] {
        let mut words = arg.split('\t');
        let label = words.next().expect("a label");
        let words: Vec<&str> = words.collect();
        let done = perform(label, &words);
        writeln!(out, "{}\t{}\t{}", done.label, done.pid, done.errno)
            .expect("the results can be written");
    }
    0
}

/// Does the steps from here, outside every fence.
pub(crate) fn outside(steps: &[Step]) -> Vec<Done> {
    steps
        .iter()
        .map(|s| {
            perform(
                &s.label,
                &s.words.iter().map(String::as_str).collect::<Vec<_>>(),
            )
        })
        .collect()
}

fn perform(label: &str, words: &[&str]) -> Done {
    // Not an access: another process is told, or waited for.
    let inline = match words[0] {
        "touch" => Some(fs::write(words[1], b"").map_or(1, |()| 0)),
        "wait" => {
            poll("the go", || Path::new(words[1]).exists().then_some(()));
            Some(0)
        }
        _ => None,
    };
    if let Some(errno) = inline {
        return Done {
            label: label.to_owned(),
            pid: 0,
            errno,
        };
    }
    let (pid, errno) = in_child(|| errno_of(operation(words)));
    Done {
        label: label.to_owned(),
        pid,
        errno,
    }
}

/// Runs it in a forked process; gives the pid and the exit code.
pub(crate) fn in_child(body: impl FnOnce() -> i32) -> (u64, i32) {
    // SAFETY: this program has one thread, so the child may do whatever the parent may.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let code = body();
        // SAFETY: ends the process without running what the parent will run.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: status is ours; the pid is our child's.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "waitpid");
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        1000 + libc::WTERMSIG(status)
    };
    (u64::from(pid.unsigned_abs()), code)
}

fn errno_of(result: Result<()>) -> i32 {
    result.map_or_else(Errno::raw_os_error, |()| 0)
}

fn text(path: &str) -> CString {
    CString::new(path).expect("no NUL in the tests' names")
}

/// The errno of a raw call that gave -1.
fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// What a raw call gave, or its errno.
pub(crate) fn check(result: impl Into<i64>) -> Result<i64> {
    let result = result.into();
    if result < 0 { Err(last()) } else { Ok(result) }
}

fn open(path: &str, flags: OFlags) -> Result<rustix::fd::OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

fn operation(words: &[&str]) -> Result<()> {
    let path = words[1];
    let second = words.get(2).copied().unwrap_or_default();
    match words[0] {
        "net" => crate::contacts::operation(path, second),
        "host" => crate::hosts::operation(path, second, words.get(3).copied().unwrap_or_default()),
        "call" => crate::calls::operation(path, second),
        "written" => crate::written::operation(&words[1..]),
        "program" => crate::programs::operation(&words[1..]),
        "limited" => crate::limits::operation(&words[1..]),
        "crowd" => crate::limits::crowd(path, second),
        "net-twice" => crate::limits::net_twice(path, second),
        "sendfile-twice" => crate::limits::sendfile_twice(path),
        "unix" => crate::sockets::operation(path, second),
        "reach" => crate::guard::operation(path, second),
        "subject" => crate::subjects::operation(path, second),
        "evade" => crate::evasion::operation(&words[1..]),
        "open" => open(path, OFlags::RDONLY).map(drop),
        "hammer" => crate::reload::hammer(path, second),
        "open-while-moved" => crate::depth::open_while_moved(path),
        "open-write" => open(path, OFlags::WRONLY).map(drop),
        "open-rdwr" => open(path, OFlags::RDWR).map(drop),
        "open-trunc" => open(path, OFlags::WRONLY | OFlags::TRUNC).map(drop),
        "open-creat" => open(path, OFlags::RDWR | OFlags::CREATE).map(drop),
        "openat2" => rustix::fs::openat2(
            CWD,
            path,
            OFlags::RDONLY,
            Mode::empty(),
            ResolveFlags::NO_MAGICLINKS,
        )
        .map(drop),
        "proc-fd" => {
            // An O_PATH open reaches nothing; opening it again would.
            let fd = open(path, OFlags::PATH)?;
            open(&format!("/proc/self/fd/{}", fd.as_raw_fd()), OFlags::RDONLY).map(drop)
        }
        "uring" => uring(path, false),
        "uring-async" => uring(path, true),
        "handle" => {
            let parent = Path::new(path).parent().and_then(Path::to_str);
            by_handle(path, parent.expect("a path with a parent"), false)
        }
        // From another directory of its file system, when nobody knows its name any more.
        "handle-cold" => by_handle(path, second, true),
        "execve" => {
            let argv = [text(path)];
            let pointers = [argv[0].as_ptr(), std::ptr::null()];
            // SAFETY: a terminated list of one terminated string.
            unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
            Err(last())
        }
        "map" => map(path, false, false),
        "map-exec" => map(path, true, false),
        "map-then-exec" => map(path, false, true),
        // By the program loader, which maps what it is told to run.
        "loader" => {
            let argv = [text(path), text(second)];
            let pointers = [argv[0].as_ptr(), argv[1].as_ptr(), std::ptr::null()];
            // SAFETY: a terminated list of terminated strings.
            unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
            Err(last())
        }
        "execveat" => {
            let fd = open(path, OFlags::PATH)?;
            let argv = [text(path)];
            let pointers = [argv[0].as_ptr(), std::ptr::null()];
            // SAFETY: as above; the empty path and the flag mean the descriptor itself.
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    fd.as_raw_fd(),
                    c"".as_ptr(),
                    pointers.as_ptr(),
                    pointers.as_ptr().add(1),
                    libc::AT_EMPTY_PATH,
                );
            }
            Err(last())
        }
        // SAFETY: a terminated path.
        "truncate" => check(unsafe { libc::truncate(text(path).as_ptr(), 0) }).map(drop),
        "unlink" => rustix::fs::unlink(path),
        "rename" => {
            rustix::fs::rename(path, second)?;
            rustix::fs::rename(second, path)
        }
        // Replaces for good.
        "rename-over" => rustix::fs::rename(path, second),
        "exchange" => {
            let swap = || rustix::fs::renameat_with(CWD, path, CWD, second, RenameFlags::EXCHANGE);
            swap()?;
            swap()
        }
        "link" => {
            rustix::fs::link(path, second)?;
            rustix::fs::unlink(second)
        }
        "link-opath" => {
            let fd = open(path, OFlags::PATH)?;
            rustix::fs::linkat(&fd, "", CWD, second, AtFlags::EMPTY_PATH)?;
            rustix::fs::unlink(second)
        }
        "chmod" => rustix::fs::chmod(path, Mode::from_raw_mode(0o700)),
        "chown" => rustix::fs::chownat(
            CWD,
            path,
            Some(Uid::ROOT),
            Some(Gid::ROOT),
            AtFlags::empty(),
        ),
        "utimens" => {
            let now = rustix::fs::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let times = rustix::fs::Timestamps {
                last_access: now,
                last_modification: now,
            };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())
        }
        "setxattr" => {
            rustix::fs::setxattr(path, "trusted.stockade", b"changed", XattrFlags::empty())
        }
        "removexattr" => rustix::fs::removexattr(path, "trusted.stockade"),
        // Any other operation, without rights.
        "as-nobody" => {
            // SAFETY: plain numbers; this process is for this step alone.
            check(unsafe { libc::setresgid(65534, 65534, 65534) })?;
            // SAFETY: as above.
            check(unsafe { libc::setresuid(65534, 65534, 65534) })?;
            operation(&words[1..])
        }
        "in-root" => {
            rustix::process::chroot(path)?;
            operation(&words[2..])
        }
        // What the tests of changes do, each once and for good.
        "make-dir" => rustix::fs::mkdir(path, Mode::from_raw_mode(0o751)),
        "remove-dir" => rustix::fs::rmdir(path),
        "make-link" => rustix::fs::link(path, second),
        "make-symlink" => rustix::fs::symlink(path, second),
        "make-node" => {
            let (kind, mode) = match second {
                "char" => (FileType::CharacterDevice, 0o640),
                "fifo" => (FileType::Fifo, 0o600),
                _ => (FileType::RegularFile, 0o604),
            };
            let device = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device)
        }
        "fchmod" => rustix::fs::fchmod(open(path, OFlags::RDONLY)?, Mode::from_raw_mode(0o4711)),
        "fchown" => {
            let group = Some(Gid::from_raw(34));
            rustix::fs::fchown(open(path, OFlags::RDONLY)?, None, group)
        }
        "futimens" => {
            let time = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
            let times = rustix::fs::Timestamps {
                last_access: time(0, rustix::fs::UTIME_OMIT),
                last_modification: time(1_000_000_000, 7),
            };
            rustix::fs::futimens(open(path, OFlags::RDWR)?, &times)
        }
        "resize" => rustix::fs::ftruncate(open(path, OFlags::RDWR)?, 12_345),
        "resize-limited" => {
            let limit = rustix::process::Rlimit {
                current: Some(10),
                maximum: Some(10),
            };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, limit)?;
            // SAFETY: the kernel's own handling; the signal would end this process before it can tell the errno.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            rustix::fs::ftruncate(open(path, OFlags::RDWR)?, 54_321)
        }
        "set-acl" => rustix::fs::setxattr(path, ACL, &acl(), XattrFlags::empty()),
        "remove-acl" => rustix::fs::removexattr(path, ACL),
        "set-attribute" => {
            let fd = open(path, OFlags::RDWR)?;
            rustix::fs::fsetxattr(fd, second, b"1", XattrFlags::empty())
        }
        "mount" => {
            let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
            rustix::mount::mount("some source", path, second, flags, None)
        }
        "move-mount" => {
            use rustix::mount::{
                FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
                fsconfig_set_string, fsmount, fsopen, move_mount,
            };
            let context = fsopen(second, FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, "source", "another source")?;
            fsconfig_create(&context)?;
            let mount = fsmount(
                &context,
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::empty(),
            )?;
            move_mount(
                &mount,
                "",
                CWD,
                path,
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )
        }
        "umount" => rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH),
        "create" => rustix::fs::open(
            path,
            OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o640),
        )
        .map(drop),
        "mkdir" => rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)),
        "chroot-open" => {
            rustix::process::chroot(path)?;
            open(second, OFlags::RDONLY).map(drop)
        }
        "chroot-rename" => {
            rustix::process::chroot(path)?;
            rustix::fs::rename(second, words[3])
        }
        "daemon" => daemon(path, second),
        "cycle" => cycle(path, second),
        "burn" => burn(path),
        other => panic!("no operation {other}"),
    }
}

/// Maps the first page, executable at once or later on.
fn map(path: &str, executable: bool, later: bool) -> Result<()> {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
    let fd = open(path, OFlags::RDONLY)?;
    let prot = if executable {
        ProtFlags::READ | ProtFlags::EXEC
    } else {
        ProtFlags::READ
    };
    let length = 4096;
    // SAFETY: a new mapping at a place of the kernel's choice, which nobody looks into.
    let at =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, prot, MapFlags::PRIVATE, fd, 0) }?;
    if later {
        // SAFETY: the mapping above, and still nobody looks into it.
        unsafe { rustix::mm::mprotect(at, length, MprotectFlags::READ | MprotectFlags::EXEC) }?;
    }
    Ok(())
}

/// Opens through a ring, from a worker of the kernel's if asked.
fn uring(path: &str, force_async: bool) -> Result<()> {
    use io_uring::{opcode, squeue, types};
    let path = text(path);
    let mut entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
        .flags(libc::O_RDONLY)
        .build();
    if force_async {
        entry = entry.flags(squeue::Flags::ASYNC);
    }
    submit(&entry)
}

/// Does what an entry says through a ring of its own; what it points to outlives this.
pub(crate) fn submit(entry: &io_uring::squeue::Entry) -> Result<()> {
    let of = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let mut ring = io_uring::IoUring::new(4).map_err(of)?;
    // SAFETY: the caller keeps what the entry points to until the wait below is over.
    unsafe { ring.submission().push(entry) }.expect("an empty queue has room");
    ring.submit_and_wait(1).map_err(of)?;
    let result = ring.completion().next().expect("one completion").result();
    if result < 0 {
        return Err(Errno::from_raw_os_error(-result));
    }
    Ok(())
}

fn by_handle(path: &str, directory: &str, cold: bool) -> Result<()> {
    #[repr(C, align(8))]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }
    let mount = open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut handle = Handle {
        bytes: 128,
        kind: 0,
        data: [0; 128],
    };
    let mut id = 0i32;
    // SAFETY: handle has the room that it says.
    check(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            text(path).as_ptr(),
            &raw mut handle,
            &raw mut id,
            0,
        )
    })?;
    if cold {
        for _ in 0..3 {
            rustix::fs::sync();
            fs::write("/proc/sys/vm/drop_caches", "3").expect("the caches can be dropped");
        }
    }
    // SAFETY: as the kernel filled it.
    check(unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut handle,
            libc::O_RDONLY,
        )
    })
    .map(drop)
}

/// Leaves session and parent behind, then opens; notes its pid in a file.
fn daemon(path: &str, pid_file: &str) -> Result<()> {
    let (read, write) = rustix::pipe::pipe()?;
    in_child(|| {
        rustix::process::setsid().expect("a new session");
        let parent = rustix::process::getpid();
        // SAFETY: one thread, as in in_child().
        if unsafe { libc::fork() } == 0 {
            poll("another parent", || {
                (rustix::process::getppid() != Some(parent)).then_some(())
            });
            fs::write(pid_file, std::process::id().to_string()).expect("the pid can be noted");
            let errno = errno_of(open(path, OFlags::RDONLY).map(drop));
            rustix::io::write(&write, &errno.to_ne_bytes()).expect("the pipe is open");
        }
        0
    });
    drop(write);
    let mut errno = [0; 4];
    assert_eq!(
        rustix::io::read(&read, &mut errno)?,
        4,
        "the daemon has answered"
    );
    match i32::from_ne_bytes(errno) {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Makes, opens and removes files, so that inode numbers come round; notes how often one was `wanted`.
fn cycle(dir: &str, words: &str) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let mut words = words.split(',');
    let mut next = || {
        words
            .next()
            .and_then(|w| w.parse::<u64>().ok())
            .expect("a number")
    };
    let (wanted, count) = (next(), next());
    let name = format!("{dir}/fresh");
    let mut met = 0u64;
    for _ in 0..count {
        let made = rustix::fs::open(
            &name,
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            Mode::from_raw_mode(0o600),
        )?;
        let file = fs::File::from(made);
        met += u64::from(file.metadata().map_or(0, |m| m.ino()) == wanted);
        drop(file);
        open(&name, OFlags::RDWR)?;
        rustix::fs::unlink(&name)?;
    }
    fs::write(format!("{dir}/met"), met.to_string()).expect("the count can be noted");
    Ok(())
}

/// Uses memory and processor in a child, and notes what wait4(2) says about it: pid, user and system time, memory.
fn burn(out: &str) -> Result<()> {
    // SAFETY: one thread, as in in_child().
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let mut memory = vec![0u8; 48 << 20];
        let end = std::time::Instant::now() + std::time::Duration::from_millis(400);
        let mut round = 0u8;
        while std::time::Instant::now() < end {
            round = round.wrapping_add(1);
            for byte in memory.iter_mut().step_by(4096) {
                *byte = byte.wrapping_add(round);
            }
            let _ = fs::metadata("/");
        }
        // SAFETY: as in in_child().
        unsafe { libc::_exit(i32::from(std::hint::black_box(memory)[4096] == 255)) };
    }
    let mut status = 0;
    // SAFETY: a plain C structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are ours.
    unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let ns = |t: libc::timeval| t.tv_sec * 1_000_000_000 + t.tv_usec * 1000;
    let line = format!(
        "{pid} {} {} {}",
        ns(usage.ru_utime),
        ns(usage.ru_stime),
        usage.ru_maxrss * 1024
    );
    fs::write(out, line).expect("the usage can be noted");
    Ok(())
}

/// The attribute in which a file's access list is.
pub(crate) const ACL: &str = "system.posix_acl_access";

/// Owner rw, user 7 r, group r, mask r, others none (include/uapi/linux/posix_acl_xattr.h).
pub(crate) fn acl() -> Vec<u8> {
    let version = 2_u32;
    let mut list = version.to_le_bytes().to_vec();
    for (tag, rights, id) in [
        (1_u16, 6_u16, !0),
        (2, 4, 7_u32),
        (4, 4, !0),
        (16, 4, !0),
        (32, 0, !0),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

//! What is tried to get at a denied file all the same: by other paths, namespaces and tables of calls, by races, by what
//! was open before, and with the help of others.

use std::ffi::CString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, FdFlags, Result};
use rustix::mount::{OpenTreeFlags, UnmountFlags};

use crate::bypass;
use crate::fence::{EPERM, text, until_ready};
use crate::harness::{Ctx, DEADLINE, Needs, Outcome, Stockade, Test, poll};
use crate::helper::{Step, check, in_child, outside, results, step};
use crate::mounts::{Mount, bind, file_system, mount, must};
use crate::places::{policy_of, rule, under};
use crate::variants::running;

pub(crate) const TESTS: &[Test] = &[Test::new(
    "denied_file_is_refused_by_whatever_way_it_is_reached",
    Needs::Fence,
    reached,
)];

const CONTENT: &str = "not to be read";

/// How often each of two things is met in a race.
const ATTEMPTS: u32 = 30;

fn open(path: &str) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a name in a directory that is known by its descriptor.
fn open_in(directory: &OwnedFd, name: &str) -> Result<()> {
    rustix::fs::openat(directory, name, OFlags::RDONLY, Mode::empty()).map(drop)
}

fn unshare(flags: libc::c_int) -> Result<()> {
    // SAFETY: a plain number; this process is for this step alone.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// The same in a process that is born into the namespaces that this one has asked for.
fn as_child(body: impl FnOnce() -> Result<()>) -> Result<()> {
    match in_child(|| body().map_or_else(Errno::raw_os_error, |()| 0)).1 {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Whether it is what the denied file has in it.
fn is_secret(bytes: &[u8]) -> Result<()> {
    if bytes.starts_with(CONTENT.as_bytes()) {
        Ok(())
    } else {
        Err(Errno::NODATA)
    }
}

fn read_from(fd: impl std::os::fd::AsFd) -> Result<()> {
    let mut bytes = [0; CONTENT.len()];
    let count = rustix::io::pread(fd, &mut bytes, 0)?;
    is_secret(&bytes[..count])
}

/// Opened through a ring whose thread in the kernel takes what is to be done by itself.
fn by_polled_ring(path: &str) -> Result<()> {
    let of = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let path = CString::new(path).expect("no NUL");
    let ring = io_uring::IoUring::builder()
        .setup_sqpoll(1000)
        .build(4)
        .map_err(of)?;
    submit(ring, &path, None)
}

/// The same with the rights that a process had when it registered them.
fn by_registered_rights(path: &str) -> Result<()> {
    let of = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let path = CString::new(path).expect("no NUL");
    let ring = io_uring::IoUring::new(4).map_err(of)?;
    let rights = ring.submitter().register_personality().map_err(of)?;
    submit(ring, &path, Some(rights))
}

fn submit(mut ring: io_uring::IoUring, path: &CString, rights: Option<u16>) -> Result<()> {
    use io_uring::{opcode, types};
    let of = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let mut entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
        .flags(libc::O_RDONLY)
        .build();
    if let Some(rights) = rights {
        entry = entry.personality(rights);
    }
    // SAFETY: the path lives until the wait below is over.
    unsafe { ring.submission().push(&entry) }.expect("an empty queue has room");
    ring.submit_and_wait(1).map_err(of)?;
    match ring.completion().next().expect("one completion").result() {
        errno @ ..0 => Err(Errno::from_raw_os_error(-errno)),
        _ => Ok(()),
    }
}

/// Reads a name whose meaning somebody changes all the time, until it has meant both things often: what is denied is refused
/// each time.
fn race(path: &str) -> Result<()> {
    let (mut refused, mut other) = (0, 0);
    let end = Instant::now() + DEADLINE;
    while (refused < ATTEMPTS || other < ATTEMPTS) && Instant::now() < end {
        match open(path).and_then(read_from) {
            Err(Errno::PERM) => refused += 1,
            Err(Errno::NODATA) => other += 1,
            other => return other,
        }
    }
    Err(if refused < ATTEMPTS || other < ATTEMPTS {
        Errno::TIME
    } else {
        Errno::PERM
    })
}

/// A descriptor that somebody sends over this socket.
fn received(socket: RawFd) -> Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    // SAFETY: it was handed down, and stays open in this process.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0; 1];
    let mut parts = [std::io::IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut parts, &mut control, RecvFlags::empty())?;
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    fds.next().and_then(|mut fds| fds.next()).ok_or(Errno::BADF)
}

fn send(socket: &OwnedFd, fd: &OwnedFd) {
    use rustix::fd::AsFd as _;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let fds = [fd.as_fd()];
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let byte = [std::io::IoSlice::new(b"x")];
    sendmsg(socket, &byte, &mut control, SendFlags::empty()).expect("somebody who receives");
}

/// One step of the helper's.
pub(crate) fn operation(words: &[&str]) -> Result<()> {
    let (what, path) = (words[0], words[1]);
    let second = words.get(2).copied().unwrap_or_default();
    let number = || path.parse().expect("a number");
    // SAFETY: it was handed down, and stays open in this process.
    let given = || unsafe { BorrowedFd::borrow_raw(number()) };
    match what {
        "cwd" => {
            rustix::process::chdir(path)?;
            open(second).map(drop)
        }
        "dev-fd" => {
            let fd = rustix::fs::open(path, OFlags::PATH, Mode::empty())?;
            open(&format!("/dev/fd/{}/{second}", fd.as_raw_fd())).map(drop)
        }
        // A name as bytes in hexadecimal, in a directory.
        "bytes" => {
            let fd = rustix::fs::open(path, OFlags::PATH, Mode::empty())?;
            let bytes = second.as_bytes().chunks(2).map(|two| {
                let two = std::str::from_utf8(two).expect("two digits");
                u8::from_str_radix(two, 16).expect("two digits")
            });
            let name: Vec<u8> = bytes.collect();
            rustix::fs::openat(&fd, &name[..], OFlags::RDONLY, Mode::empty()).map(drop)
        }
        // Deeper than a path can say, one long name after the other.
        "long-path" => open_in(&descend(path, false)?, "file"),
        "creat" => {
            let path = CString::new(path).expect("no NUL");
            // SAFETY: a terminated path.
            check(unsafe { libc::creat(path.as_ptr(), 0o600) }).map(drop)
        }
        "thread" => std::thread::scope(|scope| {
            let opened = scope.spawn(|| open(path).map(drop));
            opened.join().unwrap_or(Err(Errno::IO))
        }),
        "renamed" => {
            rustix::thread::set_name(c"systemd")?;
            open(path).map(drop)
        }
        "pid-namespace" => {
            unshare(libc::CLONE_NEWPID)?;
            as_child(|| open(path).map(drop))
        }
        "user-namespace" => {
            unshare(libc::CLONE_NEWUSER)?;
            open(path).map(drop)
        }
        // Mounted elsewhere, by whoever makes himself a namespace for it.
        "mount-namespace" => {
            unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
            rustix::mount::mount_bind_recursive(path, second)?;
            open(&format!("{second}/{}", words[3])).map(drop)
        }
        "rename" => {
            rustix::fs::rename(path, second)?;
            open(second).map(drop)
        }
        "link" => {
            rustix::fs::link(path, second)?;
            open(second).map(drop)
        }
        // Loaded into a program by its loader, which goes on without what it cannot map.
        "preload" => {
            let mut cat = Command::new("/bin/cat");
            let maps = cat.arg("/proc/self/maps").env("LD_PRELOAD", path);
            let maps = maps.stderr(Stdio::null()).output().expect("a program");
            let has = |line: &str| line.contains(" r-xp ") && line.ends_with(path);
            match String::from_utf8_lossy(&maps.stdout).lines().any(has) {
                true => Ok(()),
                false => Err(Errno::PERM),
            }
        }
        // The kernel takes no notice of the second flag.
        "bind-private" => {
            let [from, to] = [path, second].map(|p| CString::new(p).expect("no NUL"));
            let none = std::ptr::null();
            let flags = libc::MS_BIND | libc::MS_PRIVATE;
            // SAFETY: terminated paths, and nothing where nothing is asked for.
            check(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), none, flags, none.cast()) })
                .map(drop)?;
            rustix::mount::unmount(second, UnmountFlags::DETACH)
        }
        // Where nobody has mounted it.
        "open-tree" => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_in(&rustix::mount::open_tree(CWD, path, flags)?, second)
        }
        "mounted-again" => {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount(path, second, "ext4", flags, None)?;
            open(&format!("{second}/dir/secret")).map(drop)
        }
        "polled-ring" => by_polled_ring(path),
        "registered-rights" => by_registered_rights(path),
        "race" => race(path),
        // Of a descriptor that was open before.
        "read" => read_from(given()),
        "write" => rustix::io::pwrite(given(), b"N", 0).map(drop),
        "resize" => rustix::fs::ftruncate(given(), 4),
        "mode" => rustix::fs::fchmod(given(), Mode::from_raw_mode(0o666)),
        "map" | "map-exec" => {
            use rustix::mm::{MapFlags, ProtFlags, mmap};
            let more = if what == "map" {
                ProtFlags::empty()
            } else {
                ProtFlags::EXEC
            };
            let (length, flags) = (CONTENT.len(), MapFlags::SHARED);
            let access = ProtFlags::READ | more;
            let place = std::ptr::null_mut();
            // SAFETY: a new mapping at a place of the kernel's choice.
            let at = unsafe { mmap(place, length, access, flags, given(), 0) }?;
            // SAFETY: as long as it was mapped, in a file that is longer.
            is_secret(unsafe { std::slice::from_raw_parts(at.cast(), length) })
        }
        "again" => open(&format!("/proc/self/fd/{path}")).map(drop),
        "received" => read_from(received(number())?),
        // Another process' descriptor, and another's memory.
        "taken" => {
            let pid = rustix::process::Pid::from_raw(number()).expect("a pid");
            let flags = rustix::process::PidfdFlags::empty();
            let process = rustix::process::pidfd_open(pid, flags)?;
            let fd: RawFd = second.parse().expect("a descriptor");
            // SAFETY: plain numbers.
            let taken =
                check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })?;
            // SAFETY: it is new, and nobody else's.
            read_from(unsafe { OwnedFd::from_raw_fd(taken as RawFd) })
        }
        "memory" => {
            let memory = open(&format!("/proc/{path}/mem"))?;
            let mut bytes = [0; CONTENT.len()];
            let at = second.parse().expect("an address");
            let count = rustix::io::pread(&memory, &mut bytes, at)?;
            is_secret(&bytes[..count])
        }
        other => panic!("no operation {other}"),
    }
}

/// As many directories of the longest name as no path has room for, made if asked.
fn descend(from: &str, make: bool) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(from, flags, Mode::empty())?;
    let name = "n".repeat(255);
    for _ in 0..20 {
        if make {
            rustix::fs::mkdirat(&at, &*name, Mode::from_raw_mode(0o755))?;
        }
        at = rustix::fs::openat(&at, &*name, flags, Mode::empty())?;
    }
    Ok(at)
}

/// A step, the rule that refuses it, and as what; `None`: it works.
type Case = (Step, Option<(&'static str, &'static str)>);

/// Names that would forge something where they are told, and as what they are told.
const ODD: [(&str, &str, &str); 4] = [
    ("newline", "new\nline", "new\\nline"),
    ("escape", "esc\u{1b}[2J", "esc\\x1b[2J"),
    ("deleted", "secret (deleted)", "secret (deleted)"),
    ("quotes", "quote\"'\\", "quote\"'\\\\"),
];

fn reached(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    let world = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&ctx.dir, world).unwrap();
    let dir = root.join("dir");
    let (secret, other, copy) = (dir.join("secret"), dir.join("other"), root.join("copy"));
    let (closed, inner) = (root.join("closed"), root.join("closed/inner"));
    for path in [&dir, &inner, &root.join("left"), &root.join("right")] {
        fs::create_dir_all(path).unwrap();
    }
    for (file, content) in [
        (&secret, CONTENT),
        (&other, "something else"),
        (&copy, CONTENT),
        (&closed.join("file"), CONTENT),
        (&root.join("left/file"), "something else"),
        (&closed.join("renamed"), CONTENT),
        (&closed.join("linked"), CONTENT),
        (&root.join("target"), CONTENT),
    ] {
        fs::write(file, content).unwrap();
    }
    fs::hard_link(&secret, root.join("right/file")).unwrap();
    symlink(&other, root.join("link")).unwrap();
    symlink(&secret, root.join("other-link")).unwrap();
    let led = root.join("led");
    symlink(root.join("target"), &led).unwrap();
    let named = closed.join("named");
    fs::create_dir(&named).unwrap();
    let mounted = [&inner, &named].map(|at| {
        let mounted = mount(&["-t", "tmpfs", "tmpfs"], at);
        fs::write(at.join("file"), CONTENT).unwrap();
        mounted
    });
    // What is mounted in the directory, and somewhere else as well.
    let (shared, elsewhere) = (closed.join("shared"), ctx.path("elsewhere"));
    for at in [&shared, &elsewhere] {
        fs::create_dir(at).unwrap();
    }
    let _elsewhere = mount(&["-t", "tmpfs", "tmpfs"], &elsewhere);
    let _shared = bind(&elsewhere, &shared);
    fs::write(elsewhere.join("file"), CONTENT).unwrap();
    let deep = descend(text(&closed), true).unwrap();
    let mode = Mode::from_raw_mode(0o644);
    rustix::fs::openat(&deep, "file", OFlags::WRONLY | OFlags::CREATE, mode).unwrap();
    // Any library but the C library, which every program has already.
    let library = root.join("library.so");
    let needed = must("ldd", &[text(&ctx.helper)]);
    let mut all = needed.split_whitespace().filter(|w| w.starts_with("/lib"));
    let any = all.find(|path| !path.contains("/libc.") && !path.contains("/ld-"));
    fs::copy(any.expect("a library of this program's"), &library).unwrap();
    let unreadable = std::ffi::OsStr::from_bytes(b"bad-\xff\xfe");
    fs::write(closed.join(unreadable), CONTENT).unwrap();
    let odd = ODD.map(|(way, name, told)| (way, dir.join(name), dir.join(told)));
    for (_, path, _) in &odd {
        fs::write(path, CONTENT).unwrap();
    }
    let places: Vec<PathBuf> = ["bound", "bound-inner", "again", "bound-named"]
        .map(|p| ctx.path(p))
        .into();
    for place in &places {
        fs::create_dir(place).unwrap();
    }
    // Where names are the same that differ in case; Debian's 5.10 has none.
    let folds = running() >= (6, 1);
    let folded = ctx.path("folded");
    fs::create_dir(&folded).unwrap();
    let _folded = folds.then(|| case_folding(ctx, &folded));
    let (name, other_case) = (folded.join("dir/Name"), folded.join("dir/NAME"));
    let device = must("findmnt", &["-n", "-o", "SOURCE", text(&root)]);

    // Handed down, open.
    let flags = OFlags::RDWR;
    let before = rustix::fs::open(&secret, flags, Mode::empty()).unwrap();
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).unwrap();
    let fd = before.as_raw_fd().to_string();
    let socket = theirs.as_raw_fd().to_string();
    let kept = rustix::fs::open(&secret, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let kept_fd = kept.as_raw_fd().to_string();
    let own = std::process::id().to_string();
    let memory = CONTENT.to_owned();
    let address = memory.as_ptr().addr().to_string();

    let file = |access| Some(("file", access));
    let below = Some(("below", "read"));
    let case = |label: &str, refused, words: &[&dyn AsRef<std::ffi::OsStr>]| -> Case {
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"evade"];
        all.extend(words);
        (step(label, &all), refused)
    };
    let plain = |label: &str, refused, words: &[&dyn AsRef<std::ffi::OsStr>]| -> Case {
        (step(label, words), refused)
    };
    let dots = format!("{}/.//../dir/./secret", text(&dir));
    let by_root = format!("/proc/self/root{}", text(&secret));
    let mut cases = vec![
        plain("path/dots", file("read"), &[&"open", &dots]),
        plain("path/proc-root", file("read"), &[&"open", &by_root]),
        case(
            "path/proc-cwd",
            file("read"),
            &[&"cwd", &dir, &"/proc/self/cwd/secret"],
        ),
        case("path/relative", file("read"), &[&"cwd", &dir, &"secret"]),
        case("path/dev-fd", file("read"), &[&"dev-fd", &dir, &"secret"]),
        case("path/long", below, &[&"long-path", &closed]),
        case("path/no-text", below, &[&"bytes", &closed, &"6261642dfffe"]),
        plain(
            "space/chroot",
            file("read"),
            &[&"chroot-open", &dir, &"/secret"],
        ),
        case(
            "space/mount",
            file("read"),
            &[&"mount-namespace", &dir, &places[0], &"secret"],
        ),
        case(
            "space/mount-of-a-mount",
            below,
            &[&"mount-namespace", &inner, &places[1], &"file"],
        ),
        case(
            "space/mount-of-a-named-mount",
            below,
            &[&"mount-namespace", &named, &places[3], &"file"],
        ),
        case(
            "space/open-tree",
            file("read"),
            &[&"open-tree", &dir, &"secret"],
        ),
        case(
            "space/open-tree-directory",
            below,
            &[&"open-tree", &closed, &"file"],
        ),
        case(
            "space/open-tree-of-a-mount",
            below,
            &[&"open-tree", &inner, &"file"],
        ),
        plain(
            "space/other-mount",
            None,
            &[&"open", &elsewhere.join("file")],
        ),
        case(
            "space/mounted-again",
            file("read"),
            &[&"mounted-again", &device, &places[2]],
        ),
        case(
            "space/mount-over-it",
            file("mount"),
            &[&"bind-private", &places[0], &dir],
        ),
        case("space/pid", file("read"), &[&"pid-namespace", &secret]),
        case("space/user", file("read"), &[&"user-namespace", &secret]),
        plain(
            "space/other-user",
            file("read"),
            &[&"as-nobody", &"open", &secret],
        ),
        case("call-for-file/creat", file("write"), &[&"creat", &secret]),
        case("call-for-file/thread", file("read"), &[&"thread", &secret]),
        case(
            "call-for-file/renamed",
            file("read"),
            &[&"renamed", &secret],
        ),
        case(
            "call-for-file/ring-with-rights",
            file("read"),
            &[&"registered-rights", &secret],
        ),
        case(
            "call-for-file/ring-that-polls",
            file("read"),
            &[&"polled-ring", &secret],
        ),
        case(
            "exec/preload",
            Some(("program", "exec")),
            &[&"preload", &library],
        ),
        case("before/read", None, &[&"read", &fd]),
        case("before/map", None, &[&"map", &fd]),
        case("before/map-exec", file("exec"), &[&"map-exec", &fd]),
        case("before/open-again", file("read"), &[&"again", &fd]),
        case("before/truncate", file("write"), &[&"resize", &fd]),
        case("before/chmod", file("metadata"), &[&"mode", &fd]),
        plain(
            "path/link-that-is-named",
            Some(("led", "read")),
            &[&"open", &led],
        ),
        case(
            "dir/rename-out-unless-denied",
            None,
            &[&"rename", &closed.join("renamed"), &root.join("renamed")],
        ),
        case(
            "dir/link-out-unless-denied",
            None,
            &[&"link", &closed.join("linked"), &root.join("linked")],
        ),
        plain("around/copy", None, &[&"open", &copy]),
        plain("around/block-device", None, &[&"open", &device]),
        case("around/memory", None, &[&"memory", &own, &address]),
        case("around/descriptor-taken", None, &[&"taken", &own, &kept_fd]),
    ];
    if cfg!(target_arch = "x86_64") {
        let words: &[&dyn AsRef<std::ffi::OsStr>] = &[&"call", &"compat-open", &secret];
        cases.push(plain("call-for-file/compat", file("read"), words));
    }
    for (way, path, _) in &odd {
        let way = format!("path/name-with-{way}");
        cases.push(plain(&way, Some(("odd", "read")), &[&"open", path]));
    }
    if folds {
        let refused = Some(("folded", "read"));
        cases.push(plain("path/case-folded", refused, &[&"open", &other_case]));
    }
    let races = [
        case("race/symlink", file("read"), &[&"race", &root.join("link")]),
        case(
            "race/directory",
            file("read"),
            &[&"race", &root.join("left/file")],
        ),
    ];
    let last = [
        case("around/descriptor-sent", None, &[&"received", &socket]),
        plain("path/link-changed", None, &[&"open", &led]),
        // At the end: it changes what others look for.
        case("before/write", None, &[&"write", &fd]),
    ];

    let [racing, raced, ready, go] = ["racing", "raced", "ready", "go"].map(|n| ctx.path(n));
    let steps_of = |cases: &[Case]| -> Vec<Step> { cases.iter().map(|(s, _)| s.clone()).collect() };
    let mut steps = vec![step("racing", &[&"touch", &racing])];
    steps.extend(steps_of(&races));
    steps.push(step("raced", &[&"touch", &raced]));
    steps.extend(steps_of(&cases));
    steps.push(step("ready", &[&"touch", &ready]));
    steps.push(step("go", &[&"wait", &go]));
    steps.extend(steps_of(&last));
    let mut rules = vec![
        rule("file", "all", &[text(&secret).to_owned()]),
        rule(
            "below",
            "[read]",
            &[&closed, &named].map(|dir| format!("{}/**", text(dir))),
        ),
    ];
    rules.push(rule("led", "[read]", &[text(&led).to_owned()]));
    if folds {
        rules.push(rule("folded", "all", &[text(&name).to_owned()]));
    }
    let sections = format!(
        "files:\n{}\nexec:\n  - {{ id: program, deny: ['{}'] }}",
        rules.join("\n"),
        text(&library)
    );
    let policy = policy_of(ctx, &sections);
    let named: Vec<&str> = odd
        .iter()
        .flat_map(|(_, path, _)| ["--deny-file", text(path)])
        .collect();
    let out = ctx.path("results");
    let mut run = Stockade::start(ctx, under(&policy, &named, &out, &steps, ctx));
    until_ready(&mut run, &racing);
    // What the two names mean changes for as long as they are read.
    let exchange = |a: &str, b: &str| {
        let (a, b) = (root.join(a), root.join(b));
        rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    };
    poll("the end of the races", || {
        for _ in 0..50 {
            exchange("link", "other-link");
            exchange("left", "right");
        }
        raced.exists().then_some(())
    });
    until_ready(&mut run, &ready);
    // Somebody outside who is given the number that a fenced process had is not held.
    let lines = fs::read_to_string(&out).unwrap();
    let first = lines.lines().nth(2).and_then(|l| l.split('\t').nth(1));
    let former = first.and_then(|pid| pid.parse().ok()).unwrap();
    let numbers = "/proc/sys/kernel/ns_last_pid";
    let latest = fs::read_to_string(numbers).unwrap();
    let twin = reborn_as(former, &secret);
    // The steps that come now are told apart from those before by their numbers.
    fs::write(numbers, latest).unwrap();
    send(&ours, &kept);
    fs::remove_file(&led).unwrap();
    symlink(&copy, &led).unwrap();
    fs::write(&go, "").unwrap();
    let ended = run.wait();
    drop(mounted);
    for place in &places {
        // Where mounts are shared, what a namespace mounts is seen outside.
        let _ = rustix::mount::unmount(place, UnmountFlags::DETACH);
    }
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(twin, 0, "outside, by the number {former}");
    let (_, done) = results(&out);
    assert_eq!(done.len(), steps.len());
    let all = races.iter().chain(&cases).chain(&last);
    let steps_done: Vec<_> = done.iter().filter(|done| done.pid != 0).collect();
    assert_eq!(steps_done.len(), all.clone().count());
    let mut wrong = Vec::new();
    let mut shown = Vec::new();
    for ((_, refused), done) in all.zip(steps_done) {
        let told = bypass::told_of(&ended, done);
        let right = match refused {
            None => done.errno == 0 && told.is_empty(),
            Some((rule, access)) => {
                done.errno == EPERM
                    && told.first().is_some_and(|event| {
                        let kinds = event["stockade.access"].as_array();
                        let rule_id = event["rule.id"].as_str().unwrap_or_default();
                        let by = match *rule {
                            "odd" => rule_id.starts_with("deny-file:"),
                            rule => rule_id == rule,
                        };
                        by && event["stockade.verdict"] == "deny"
                            && kinds.is_some_and(|all| all.iter().any(|a| a == access))
                    })
            }
        };
        if !right {
            let told: Vec<String> = told.iter().map(ToString::to_string).collect();
            let (label, errno) = (&done.label, done.errno);
            wrong.push(format!("{label}: errno {errno}, {told:?}"));
        }
        shown.push(done.clone());
    }
    // A name is told so that nobody takes it for something else.
    for (way, path, escaped) in &odd {
        let label = format!("path/name-with-{way}");
        let done = done.iter().find(|done| done.label == label).unwrap();
        for event in bypass::told_of(&ended, done) {
            let by = format!("deny-file:{}", text(path));
            if event["file.path"] != text(escaped) || event["rule.id"] != by {
                wrong.push(format!("{label}: {event}"));
            }
        }
    }
    let preload = step("preload", &[&"evade", &"preload", &library]);
    let over = step("mount", &[&"evade", &"bind-private", &places[0], &dir]);
    for done in outside(&[step("open", &[&"open", &secret]), preload, over]) {
        assert_eq!(done.errno, 0, "outside: {}", done.label);
    }
    assert_eq!(memory, CONTENT);
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all("ext4", &ended, &shown);
    Outcome::Passed
}

/// A file system with a directory in which names are found whatever their case, and a file in there.
fn case_folding(ctx: &Ctx, at: &Path) -> Mount {
    let image = ctx.path("folded-image");
    let made = fs::File::create(&image).and_then(|image| image.set_len(16 << 20));
    made.expect("an image");
    let options = ["-q", "-F", "-O", "casefold", "-E", "encoding=utf8"];
    let all: Vec<&str> = options.into_iter().chain([text(&image)]).collect();
    must("mkfs.ext4", &all);
    let mounted = mount(&["-o", "loop", "-t", "ext4", text(&image)], at);
    let dir = at.join("dir");
    fs::create_dir(&dir).unwrap();
    must("chattr", &["+F", text(&dir)]);
    fs::write(dir.join("Name"), CONTENT).unwrap();
    mounted
}

/// Opens a file in a process of ours that has this number, which was another's: the errno.
fn reborn_as(number: u64, path: &Path) -> i32 {
    poll("the number to come round", || {
        // The next one that is free is given out; somebody else may be faster.
        let last = fs::File::options()
            .write(true)
            .open("/proc/sys/kernel/ns_last_pid");
        write!(last.unwrap(), "{}", number - 1).unwrap();
        let (pid, errno) = in_child(|| {
            let mut bytes = String::new();
            let read = fs::File::open(path).and_then(|mut file| file.read_to_string(&mut bytes));
            read.map_or_else(|e| e.raw_os_error().unwrap_or(libc::EIO), |_| 0)
        });
        (pid == number).then_some(errno)
    })
}

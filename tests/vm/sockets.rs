//! UNIX sockets that live at paths, to rules about files.

use std::ffi::c_int;
use std::fs;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::ptr::from_ref;

use libc::{sockaddr, sockaddr_un, socklen_t};
use rustix::io::{FdFlags, Result};

use crate::bypass;
use crate::fence::{EPERM, denials_of, text, until_ready};
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, stockade};
use crate::helper::{Done, Step, check, outside, results, step, submit};
use crate::mounts::{bind as bind_mount, file_system};
use crate::places::{policy_of, under};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "unix_socket_is_refused_as_a_file_on_tmpfs",
        Needs::Fence,
        |ctx| by_itself(ctx, "tmpfs"),
    ),
    Test::new(
        "unix_socket_is_refused_as_a_file_on_ext4",
        Needs::Fence,
        |ctx| by_itself(ctx, "ext4"),
    ),
    Test::new(
        "unix_socket_is_refused_as_a_file_on_btrfs",
        Needs::Fence,
        |ctx| by_itself(ctx, "btrfs"),
    ),
    Test::new(
        "unix_socket_is_refused_as_a_file_on_overlay",
        Needs::Fence,
        |ctx| by_itself(ctx, "overlay"),
    ),
    Test::new(
        "unix_sockets_in_a_directory_are_refused_on_tmpfs",
        Needs::Fence,
        |ctx| in_directory(ctx, "tmpfs"),
    ),
    Test::new(
        "unix_sockets_in_a_directory_are_refused_on_overlay",
        Needs::Fence,
        |ctx| in_directory(ctx, "overlay"),
    ),
    Test::new(
        "unix_socket_that_was_connected_before_takes_no_further_datagram",
        Needs::Fence,
        from_before,
    ),
    Test::new(
        "unix_sockets_outside_of_what_may_be_written_are_refused",
        Needs::Fence,
        allowed,
    ),
    Test::new(
        "unix_socket_rule_in_audit_mode_tells_once_and_refuses_nothing",
        Needs::Fence,
        audit,
    ),
];

const TOKEN: &[u8] = b"token";

/// An address as calls take it; a leading `@` stands for the NUL of an abstract name.
fn address(path: &str) -> (sockaddr_un, socklen_t) {
    // SAFETY: numbers alone, for which 0 is a value.
    let mut all: sockaddr_un = unsafe { zeroed() };
    all.sun_family = libc::AF_UNIX as u16;
    let bytes = Path::new(path).as_os_str().as_bytes();
    assert!(bytes.len() < all.sun_path.len(), "{path} is too long");
    for (to, from) in all.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let is_abstract = bytes.first() == Some(&b'@');
    if is_abstract {
        all.sun_path[0] = 0;
    }
    let size = offset_of!(sockaddr_un, sun_path) + bytes.len() + usize::from(!is_abstract);
    (all, size as socklen_t)
}

fn ptr(address: &sockaddr_un) -> *const sockaddr {
    from_ref(address).cast()
}

fn socket(kind: c_int) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

fn connect(kind: c_int, path: &str) -> Result<OwnedFd> {
    let fd = socket(kind)?;
    let (address, size) = address(path);
    // SAFETY: an address and its size.
    check(unsafe { libc::connect(fd.as_raw_fd(), ptr(&address), size) })?;
    Ok(fd)
}

/// Never waits: a queue that is full would be a fault of the test.
fn send(fd: c_int) -> Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: bytes and their size.
    check(unsafe { libc::send(fd, TOKEN.as_ptr().cast(), TOKEN.len(), flags) } as i64).map(drop)
}

/// A message to that path, for a call that takes one.
fn message<T>(path: &str, call: impl FnOnce(&libc::msghdr) -> T) -> T {
    let (mut address, size) = address(path);
    let mut token = libc::iovec {
        iov_base: TOKEN.as_ptr().cast_mut().cast(),
        iov_len: TOKEN.len(),
    };
    // SAFETY: numbers and pointers, for which 0 is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size;
    message.msg_iov = &raw mut token;
    message.msg_iovlen = 1;
    call(&message)
}

/// One step of the helper: what is done, and the socket's path or the number of a descriptor that was handed down.
pub(crate) fn operation(what: &str, path: &str) -> Result<()> {
    let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    let (mut to, size) = address(path);
    match what {
        "stream" => connect(stream, path).map(drop),
        "seqpacket" => connect(libc::SOCK_SEQPACKET, path).map(drop),
        "datagram" => connect(datagram, path).map(drop),
        "sendto" => {
            let (fd, token) = (socket(datagram)?, TOKEN.as_ptr().cast());
            let (fd, flags) = (fd.as_raw_fd(), libc::MSG_DONTWAIT);
            // SAFETY: bytes and an address with their sizes.
            let sent = unsafe { libc::sendto(fd, token, TOKEN.len(), flags, ptr(&to), size) };
            check(sent as i64).map(drop)
        }
        "sendmsg" => {
            let fd = socket(datagram)?;
            message(path, |message| {
                // SAFETY: a whole message.
                check(unsafe { libc::sendmsg(fd.as_raw_fd(), message, libc::MSG_DONTWAIT) } as i64)
                    .map(drop)
            })
        }
        "sendmmsg" => {
            let fd = socket(datagram)?;
            message(path, |message| {
                let one = libc::mmsghdr {
                    msg_hdr: *message,
                    msg_len: 0,
                };
                let mut two = [one, one];
                // SAFETY: whole messages.
                check(unsafe { libc::sendmmsg(fd.as_raw_fd(), two.as_mut_ptr(), 2, 0) }).map(drop)
            })
        }
        "uring-connect" => {
            let fd = socket(stream)?;
            let fd = io_uring::types::Fd(fd.as_raw_fd());
            submit(&io_uring::opcode::Connect::new(fd, ptr(&to), size).build())
        }
        "uring-async" => {
            let fd = socket(stream)?;
            let fd = io_uring::types::Fd(fd.as_raw_fd());
            let entry = io_uring::opcode::Connect::new(fd, ptr(&to), size).build();
            submit(&entry.flags(io_uring::squeue::Flags::ASYNC))
        }
        "uring-sendmsg" => {
            let fd = socket(datagram)?;
            message(path, |message| {
                let fd = io_uring::types::Fd(fd.as_raw_fd());
                submit(&io_uring::opcode::SendMsg::new(fd, message).build())
            })
        }
        // By a descriptor that reaches nothing itself.
        "proc-fd" => {
            use rustix::fs::{CWD, Mode, OFlags, openat};
            let fd = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            connect(stream, &format!("/proc/self/fd/{}", fd.as_raw_fd())).map(drop)
        }
        "relative" => {
            let path = Path::new(path);
            rustix::process::chdir(path.parent().expect("a directory"))?;
            connect(stream, text(Path::new(path.file_name().expect("a name")))).map(drop)
        }
        "pair" => {
            use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
            for kind in [SocketType::STREAM, SocketType::DGRAM] {
                let (one, _other) =
                    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
                send(one.as_raw_fd())?;
            }
            Ok(())
        }
        // A descriptor that is connected already.
        "send" => send(path.parse().expect("a descriptor")),
        // Connected to nobody any more, and again to whom it was.
        "reconnect" => {
            let (fd, path) = path.split_once(':').expect("a descriptor and a path");
            let fd = fd.parse().expect("a descriptor");
            to.sun_family = libc::AF_UNSPEC as u16;
            // SAFETY: an address and its size.
            check(unsafe { libc::connect(fd, ptr(&to), size_of::<u16>() as socklen_t) })?;
            let (to, size) = address(path);
            // SAFETY: an address and its size.
            check(unsafe { libc::connect(fd, ptr(&to), size) }).map(drop)
        }
        other => panic!("no operation {other}"),
    }
}

/// A socket that is bound there, and who connects to it or sends to it is let in.
fn serve(kind: c_int, path: &str) -> OwnedFd {
    let fd = socket(kind).expect("a socket");
    let (at, size) = address(path);
    // SAFETY: an address and its size.
    check(unsafe { libc::bind(fd.as_raw_fd(), ptr(&at), size) }).expect("a free name");
    if kind != libc::SOCK_DGRAM {
        // SAFETY: plain numbers.
        check(unsafe { libc::listen(fd.as_raw_fd(), 128) }).expect("a socket that listens");
    }
    rustix::io::ioctl_fionbio(&fd, true).expect("a socket");
    fd
}

/// How many datagrams have come. A queue holds ten.
fn drained(fd: &OwnedFd) -> usize {
    let mut bytes = [0; 64];
    let mut count = 0;
    while let Ok(size) = rustix::io::read(fd, &mut bytes) {
        assert_eq!(&bytes[..size], TOKEN);
        count += 1;
    }
    count
}

/// One of each kind, in a directory.
struct Servers {
    stream: PathBuf,
    seqpacket: PathBuf,
    datagram: PathBuf,
    receiver: OwnedFd,
    _others: [OwnedFd; 2],
}

impl Servers {
    fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("a directory");
        let [stream, seqpacket, datagram] =
            ["stream", "seqpacket", "datagram"].map(|name| directory.join(name));
        Servers {
            _others: [
                serve(libc::SOCK_STREAM, text(&stream)),
                serve(libc::SOCK_SEQPACKET, text(&seqpacket)),
            ],
            receiver: serve(libc::SOCK_DGRAM, text(&datagram)),
            stream,
            seqpacket,
            datagram,
        }
    }

    /// Each way to reach each of them.
    fn ways<'a>(&'a self, name: &str, is_refused: bool) -> Vec<Case<'a>> {
        let all: [(&str, &Path); 11] = [
            ("stream", &self.stream),
            ("uring-connect", &self.stream),
            ("uring-async", &self.stream),
            ("proc-fd", &self.stream),
            ("relative", &self.stream),
            ("seqpacket", &self.seqpacket),
            ("datagram", &self.datagram),
            ("sendto", &self.datagram),
            ("sendmsg", &self.datagram),
            ("sendmmsg", &self.datagram),
            ("uring-sendmsg", &self.datagram),
        ];
        all.map(|(what, path)| Case::new(name, what, path, is_refused.then_some(path)))
            .into()
    }
}

/// A step, and as what it is refused: the path where the socket was bound. `None`: it works.
struct Case<'a> {
    step: Step,
    refused: Option<&'a Path>,
}

impl<'a> Case<'a> {
    fn new(name: &str, what: &str, object: &Path, refused: Option<&'a Path>) -> Self {
        // Of what is refused by its class, `unix/`, and of all else as it is.
        let label = match name.split_once('/') {
            Some((_, "")) => format!("{name}{what}"),
            Some(_) => name.to_owned(),
            None => format!("{name}: {what}"),
        };
        Case {
            step: step(&label, &[&"unix", &what, &object]),
            refused,
        }
    }
}

fn steps_of(cases: &[Case<'_>]) -> Vec<Step> {
    cases.iter().map(|case| case.step.clone()).collect()
}

/// What is wrong with how these cases came out under this rule.
fn faults(ended: &Ended, cases: &[Case<'_>], done: &[Done], rule: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (case, done) in cases.iter().zip(done) {
        let events = denials_of(ended, done);
        let right = match case.refused {
            None => done.errno == 0 && events.is_empty(),
            Some(path) => {
                let [event] = events[..] else {
                    wrong.push(format!("{}: errno {}, {events:?}", done.label, done.errno));
                    continue;
                };
                done.errno == EPERM
                    && event["rule.id"] == rule
                    && event["stockade.verdict"] == "deny"
                    && event["stockade.access"] == serde_json::json!(["write"])
                    && event["file.path"] == text(path)
            }
        };
        if !right {
            wrong.push(format!("{}: errno {}, {events:?}", done.label, done.errno));
        }
    }
    if done.len() != cases.len() {
        wrong.push(format!("{} of {} steps", done.len(), cases.len()));
    }
    wrong
}

/// A rule of this effect for `write`.
fn rule(id: &str, effect: &str, paths: &[&str]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| format!("'{path}'")).collect();
    let paths = paths.join(", ");
    format!("  - {{ id: {id}, {effect}: [write], paths: [{paths}] }}\n")
}

/// Sockets that rules name, under their own names and others.
fn by_itself(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let dir = root.join("dir");
    let closed = Servers::new(&dir);
    let open = Servers::new(&root.join("open"));
    let (hard, link) = (root.join("hard"), root.join("link"));
    fs::hard_link(&closed.stream, &hard).unwrap();
    std::os::unix::fs::symlink(&closed.stream, &link).unwrap();
    let (bound, bound_file) = (ctx.path("bound"), ctx.path("bound-file"));
    fs::create_dir(&bound).unwrap();
    fs::write(&bound_file, "").unwrap();
    let _bound = bind_mount(&dir, &bound);
    let _bound_file = bind_mount(&closed.stream, &bound_file);
    let name = format!("@stockade-test-{}", std::process::id());
    let _abstract = serve(libc::SOCK_STREAM, &name);
    let moved = root.join("moved");
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));

    let mut before = closed.ways("unix/", true);
    before.extend(open.ways("open", false));
    for (name, path) in [
        ("unix/hard-link", &hard),
        ("unix/symlink", &link),
        ("unix/bind-mount", &bound.join("stream")),
        ("unix/bind-mount-of-it", &bound_file),
    ] {
        before.push(Case::new(name, "stream", path, Some(&closed.stream)));
    }
    before.push(Case::new("unix/pair", "pair", Path::new("0"), None));
    before.push(Case::new("unix/abstract", "stream", Path::new(&name), None));
    // Where only a tag tells files apart, and no socket's tag can be read, its name is what is left.
    let by_key = ["tmpfs", "ext4"].contains(&kind);
    let after = [
        Case::new("unix/moved", "stream", &moved, by_key.then_some(&*moved)),
        Case::new(
            "unix/moved-other-name",
            "stream",
            &hard,
            by_key.then_some(&*moved),
        ),
    ];
    let mut steps = steps_of(&before);
    steps.push(step("ready", &[&"touch", &ready]));
    steps.push(step("go", &[&"wait", &go]));
    steps.extend(steps_of(&after));
    let named = [&closed.stream, &closed.seqpacket, &closed.datagram].map(|path| text(path));
    let policy = policy_of(ctx, &format!("files:\n{}", rule("closed", "deny", &named)));
    let out = ctx.path("results");
    let mut run = Stockade::start(ctx, under(&policy, &[], &out, &steps, ctx));
    if !ctx.has_lsm() && !by_key {
        let ended = run.wait();
        assert_eq!(ended.code, 40, "{}", ended.stderr);
        assert!(!out.exists(), "the command has run without a fence");
        bypass::unarmed(kind, &ended, &steps);
        return Outcome::Passed;
    }
    until_ready(&mut run, &ready);
    assert_eq!(drained(&closed.receiver), 0);
    assert_eq!(drained(&open.receiver), 5);
    // From outside all of it works.
    let mut wrong: Vec<String> = outside(&steps_of(&before))
        .iter()
        .filter(|done| done.errno != 0)
        .map(|done| format!("outside, {}: errno {}", done.label, done.errno))
        .collect();
    assert_eq!(drained(&closed.receiver), 5);
    fs::rename(&closed.stream, &moved).unwrap();
    fs::write(&go, "").unwrap();
    let ended = run.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    wrong.extend(faults(&ended, &before, &done[..before.len()], "closed"));
    wrong.extend(faults(&ended, &after, &done[before.len() + 2..], "closed"));
    let end = ended.complete();
    assert_eq!(end["stockade.fence"]["mechanism"], ctx.mechanism.as_str());
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all(kind, &ended, &done);
    Outcome::Passed
}

/// Sockets that are in a directory, by where they were bound.
fn in_directory(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let dir = root.join("dir");
    let closed = Servers::new(&dir.join("sub"));
    let open = Servers::new(&root.join("open"));
    let bound = ctx.path("bound");
    fs::create_dir(&bound).unwrap();
    let _bound = bind_mount(&dir, &bound);
    // From elsewhere, by a name that is in there.
    let (linked, mounted) = (dir.join("linked"), dir.join("mounted"));
    fs::hard_link(&open.stream, &linked).unwrap();
    fs::write(&mounted, "").unwrap();
    let _mount = bind_mount(&open.stream, &mounted);
    let left = dir.join("left");
    let out_of_it = root.join("left");
    let _left = serve(libc::SOCK_STREAM, text(&left));
    fs::hard_link(&left, &out_of_it).unwrap();
    let later = dir.join("later");
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));

    let mut before = closed.ways("unix-directory/", true);
    before.extend(open.ways("open", false));
    before.push(Case::new(
        "unix-directory/bind-mount",
        "stream",
        &bound.join("sub/stream"),
        Some(&closed.stream),
    ));
    before.push(Case::new(
        "unix-directory/linked-out",
        "stream",
        &out_of_it,
        Some(&left),
    ));
    before.push(Case::new(
        "unix-directory/linked-into",
        "stream",
        &linked,
        None,
    ));
    before.push(Case::new(
        "unix-directory/mounted-in",
        "stream",
        &mounted,
        None,
    ));
    let moved = root.join("open/sub/stream");
    let after = [
        Case::new("unix-directory/made-later", "stream", &later, Some(&later)),
        // It is where it is now.
        Case::new("unix-directory/moved-out", "stream", &moved, None),
    ];
    let mut steps = steps_of(&before);
    steps.push(step("ready", &[&"touch", &ready]));
    steps.push(step("go", &[&"wait", &go]));
    steps.extend(steps_of(&after));
    let below = format!("{}/**", text(&dir));
    let policy = policy_of(
        ctx,
        &format!("files:\n{}", rule("closed", "deny", &[&below])),
    );
    let out = ctx.path("results");
    let mut run = Stockade::start(ctx, under(&policy, &[], &out, &steps, ctx));
    until_ready(&mut run, &ready);
    let _later = serve(libc::SOCK_STREAM, text(&later));
    fs::rename(dir.join("sub"), root.join("open/sub")).unwrap();
    fs::write(&go, "").unwrap();
    let ended = run.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let mut wrong = faults(&ended, &before, &done[..before.len()], "closed");
    wrong.extend(faults(&ended, &after, &done[before.len() + 2..], "closed"));
    assert_eq!(drained(&closed.receiver), 0);
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all(kind, &ended, &done);
    Outcome::Passed
}

/// Datagrams are judged one by one, a stream where it is connected.
fn from_before(ctx: &Ctx) -> Outcome {
    let servers = Servers::new(&ctx.path("dir"));
    let hand_down = |kind, path: &Path| {
        let fd = connect(kind, text(path)).expect("a connection");
        rustix::io::fcntl_setfd(&fd, FdFlags::empty()).expect("a descriptor");
        fd
    };
    let datagram = hand_down(libc::SOCK_DGRAM, &servers.datagram);
    let stream = hand_down(libc::SOCK_STREAM, &servers.stream);
    let seqpacket = hand_down(libc::SOCK_SEQPACKET, &servers.seqpacket);
    let number = |fd: &OwnedFd| PathBuf::from(fd.as_raw_fd().to_string());
    let again = format!("{}:{}", datagram.as_raw_fd(), text(&servers.datagram));
    let refused = Some(&*servers.datagram);
    let cases = [
        Case::new("unix/before-datagram", "send", &number(&datagram), refused),
        Case::new(
            "unix/before-reconnect",
            "reconnect",
            Path::new(&again),
            refused,
        ),
        Case::new("unix/before-stream", "send", &number(&stream), None),
        Case::new("unix/before-seqpacket", "send", &number(&seqpacket), None),
    ];
    let below = format!("{}/**", text(&ctx.path("dir")));
    let policy = policy_of(
        ctx,
        &format!("files:\n{}", rule("closed", "deny", &[&below])),
    );
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps_of(&cases), ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let wrong = faults(&ended, &cases, &done, "closed");
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    assert_eq!(drained(&servers.receiver), 0);
    bypass::all("tmpfs", &ended, &done);
    Outcome::Passed
}

/// Who may only write in some places connects to no socket in others.
fn allowed(ctx: &Ctx) -> Outcome {
    let (work, other) = (ctx.path("work"), ctx.path("other"));
    let inside = Servers::new(&work);
    let outer = Servers::new(&other);
    let _abstract = serve(libc::SOCK_STREAM, "@stockade-test-allowed");
    let mut cases = inside.ways("inside", false);
    cases.extend(outer.ways("outside", true));
    cases.push(Case::new("a pair", "pair", Path::new("0"), None));
    let name = Path::new("@stockade-test-allowed");
    cases.push(Case::new("no file", "stream", name, None));
    let out = ctx.path("results");
    let below = format!("{}/**", text(&work));
    let may = rule("work", "allow", &[&below, text(&out)]);
    let policy = policy_of(ctx, &format!("files:\n{may}"));
    let ended = stockade(ctx, under(&policy, &[], &out, &steps_of(&cases), ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let wrong = faults(&ended, &cases, &done, "work");
    assert!(ended.of("denial").all(|e| e["stockade.unlisted"] == true));
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Outcome::Passed
}

fn audit(ctx: &Ctx) -> Outcome {
    let servers = Servers::new(&ctx.path("dir"));
    let mut cases = servers.ways("audited", true);
    // Asked for each of two datagrams.
    cases.retain(|case| !case.step.label.ends_with("sendmmsg"));
    let named = [&servers.stream, &servers.seqpacket, &servers.datagram].map(|path| text(path));
    let policy = policy_of(ctx, &format!("files:\n{}", rule("closed", "deny", &named)));
    let out = ctx.path("results");
    let steps = steps_of(&cases);
    let ended = stockade(ctx, under(&policy, &["--audit"], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let mut wrong = Vec::new();
    for (case, done) in cases.iter().zip(&done) {
        let events = denials_of(&ended, done);
        let right = |event: &serde_json::Value| {
            event["stockade.verdict"] == "audit"
                && case
                    .refused
                    .is_some_and(|path| event["file.path"] == text(path))
        };
        if done.errno != 0 || events.len() != 1 || !right(events[0]) {
            wrong.push(format!("{}: errno {}, {events:?}", done.label, done.errno));
        }
    }
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    assert_eq!(drained(&servers.receiver), 3);
    Outcome::Passed
}

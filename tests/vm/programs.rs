//! Running what has no name, and what runs with its owner's rights.

use std::ffi::{CString, c_int};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::bypass;
use crate::fence::{EPERM, confined_as, denials_of, text};
use crate::harness::{Ctx, Ended, Needs, Outcome, Test, stockade};
use crate::helper::{Done, Step, outside, results, step};
use crate::mounts::file_system;
use crate::places::{loader, policy_of, provision, under};
use crate::variants::running;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "what_has_no_name_is_refused_to_run_on_tmpfs",
        Needs::Fence,
        |ctx| fileless(ctx, "tmpfs"),
    ),
    Test::new(
        "what_has_no_name_is_refused_to_run_on_ext4",
        Needs::Fence,
        |ctx| fileless(ctx, "ext4"),
    ),
    Test::new(
        "what_has_no_name_is_refused_to_run_on_overlay",
        Needs::Fence,
        |ctx| fileless(ctx, "overlay"),
    ),
    Test::new(
        "what_runs_as_its_owner_is_refused_on_tmpfs",
        Needs::Fence,
        |ctx| setuid(ctx, "tmpfs"),
    ),
    Test::new(
        "what_runs_as_its_owner_is_refused_on_ext4",
        Needs::Fence,
        |ctx| setuid(ctx, "ext4"),
    ),
    Test::new(
        "what_runs_as_its_owner_is_refused_on_overlay",
        Needs::Fence,
        |ctx| setuid(ctx, "overlay"),
    ),
    Test::new(
        "what_has_no_name_is_in_no_directory_that_may_be_run",
        Needs::Fence,
        allowed,
    ),
    Test::new(
        "stronger_rule_lets_one_program_run_as_its_owner",
        Needs::Fence,
        excepted,
    ),
    Test::new(
        "rule_for_what_is_run_has_a_mode_and_a_way_to_refuse",
        Needs::Fence,
        outcomes,
    ),
];

/// Where a descriptor stays when another program takes this one's place.
const KEPT: c_int = 200;

/// A file with what `program` has, made in one of these ways; `directory` is where it is, or was.
fn made(how: &str, program: &str, directory: &str) -> Result<OwnedFd> {
    let bytes = fs::read(program).expect("a program");
    let name = format!("{directory}/made-{}", std::process::id());
    let full = Mode::from_raw_mode(0o755);
    let read_again = |fd: OwnedFd| {
        // Nobody runs what somebody may write.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::open(path, OFlags::RDONLY, Mode::empty())
    };
    let write = |fd: &OwnedFd| {
        let mut file = fs::File::from(fd.try_clone().expect("a descriptor"));
        std::io::Write::write_all(&mut file, &bytes).expect("room");
    };
    match how {
        "memfd" => {
            let fd = rustix::fs::memfd_create("made", MemfdFlags::empty())?;
            write(&fd);
            Ok(fd)
        }
        "tmpfile" | "tmpfile-linked" => {
            let fd = rustix::fs::open(directory, OFlags::RDWR | OFlags::TMPFILE, full)?;
            write(&fd);
            if how == "tmpfile-linked" {
                rustix::fs::linkat(&fd, "", CWD, &*name, AtFlags::EMPTY_PATH)?;
            }
            read_again(fd)
        }
        "removed" | "removed-linked" | "named" => {
            fs::write(&name, &bytes).expect("room");
            rustix::fs::chmod(&*name, full)?;
            let fd = rustix::fs::open(&*name, OFlags::RDONLY, Mode::empty())?;
            if how == "removed-linked" {
                rustix::fs::link(&*name, format!("{name}-too"))?;
            }
            if how != "named" {
                rustix::fs::unlink(&*name)?;
            }
            Ok(fd)
        }
        other => panic!("nothing is made by {other}"),
    }
}

fn exec(program: &str, first: Option<&str>) -> Result<()> {
    let words = [Some(program), first].into_iter().flatten();
    let argv: Vec<CString> = words.map(|w| CString::new(w).expect("no NUL")).collect();
    let mut pointers: Vec<*const libc::c_char> = argv.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: a terminated list of terminated strings.
    unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
    Err(last())
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn map(fd: &OwnedFd, first: ProtFlags, then: Option<MprotectFlags>) -> Result<()> {
    let flags = MapFlags::PRIVATE;
    // SAFETY: a new mapping at a place of the kernel's choice, which nobody looks into.
    let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, first, flags, fd, 0) }?;
    match then {
        // SAFETY: the mapping above, and still nobody looks into it.
        Some(then) => unsafe { rustix::mm::mprotect(at, 4096, then) },
        None => Ok(()),
    }
}

/// Memory that no descriptor stands for.
fn map_memory(flags: MapFlags, first: ProtFlags, then: Option<MprotectFlags>) -> Result<()> {
    // SAFETY: as in map().
    let at = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, first, flags) }?;
    match then {
        // SAFETY: as in map().
        Some(then) => unsafe { rustix::mm::mprotect(at, 4096, then) },
        None => Ok(()),
    }
}

/// One step of the helper: makes a file, and does this with it.
pub(crate) fn operation(words: &[&str]) -> Result<()> {
    let [what, how, program, directory] = words else {
        panic!("no operation {words:?}");
    };
    let (read, exec_too) = (ProtFlags::READ, ProtFlags::READ | ProtFlags::EXEC);
    let later = MprotectFlags::READ | MprotectFlags::EXEC;
    match *how {
        "memory" => {
            let flags = match *what {
                "shared-later" | "shared" => MapFlags::SHARED,
                _ => MapFlags::PRIVATE,
            };
            return match *what {
                "later" | "shared-later" => map_memory(flags, read, Some(later)),
                _ => map_memory(flags, exec_too, None),
            };
        }
        "segment" => {
            // SAFETY: plain numbers.
            let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o700) };
            assert!(id >= 0, "a segment");
            // SAFETY: a place of the kernel's choice, which nobody looks into.
            let at = unsafe { libc::shmat(id, std::ptr::null(), 0o100000) };
            let result = if at as isize == -1 {
                Err(last())
            } else {
                Ok(())
            };
            // SAFETY: the segment above, which nobody has but this process.
            unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
            return result;
        }
        _ => {}
    }
    let fd = made(how, program, directory)?;
    let by_number = format!("/proc/self/fd/{KEPT}");
    // SAFETY: plain numbers; nothing of this process has that one.
    assert_eq!(unsafe { libc::dup2(fd.as_raw_fd(), KEPT) }, KEPT);
    match *what {
        "execveat" => {
            let argv = [c"made".as_ptr(), std::ptr::null()];
            // SAFETY: terminated lists; the empty path and the flag mean the descriptor itself.
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    KEPT,
                    c"".as_ptr(),
                    argv.as_ptr(),
                    argv.as_ptr().add(1),
                    libc::AT_EMPTY_PATH,
                );
            }
            Err(last())
        }
        "by-number" => exec(&by_number, None),
        "loader" => exec(text(&loader()), Some(&by_number)),
        "script" => {
            let script = format!("{directory}/script-{}", std::process::id());
            fs::write(&script, format!("#!{by_number}\n")).expect("room");
            rustix::fs::chmod(&*script, Mode::from_raw_mode(0o755))?;
            exec(&script, None)
        }
        "map-exec" => map(&fd, exec_too, None),
        "map-then-exec" => map(&fd, read, Some(later)),
        "map" => map(&fd, read, None),
        other => panic!("nothing is done by {other}"),
    }
}

/// A step, and whether it is refused.
pub(crate) type Case = (Step, bool);

fn case(what: &str, how: &str, program: &Path, directory: &Path, is_refused: bool) -> Case {
    labelled(
        &format!("{how}: {what}"),
        what,
        how,
        program,
        directory,
        is_refused,
    )
}

fn labelled(
    label: &str,
    what: &str,
    how: &str,
    program: &Path,
    directory: &Path,
    is_refused: bool,
) -> Case {
    let step = step(label, &[&"program", &what, &how, &program, &directory]);
    (step, is_refused)
}

pub(crate) fn on_path(
    label: &str,
    words: &[&dyn AsRef<std::ffi::OsStr>],
    is_refused: bool,
) -> Case {
    (step(label, words), is_refused)
}

pub(crate) fn steps_of(cases: &[Case]) -> Vec<Step> {
    cases.iter().map(|(step, _)| step.clone()).collect()
}

/// What is wrong with how these cases came out under this rule.
pub(crate) fn faults(ended: &Ended, cases: &[Case], done: &[Done], rule: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((_, is_refused), done) in cases.iter().zip(done) {
        let events = denials_of(ended, done);
        // 127 is the exit status of a loader that cannot map what it was told to.
        let is_loader = done.label.ends_with("loader");
        let refused = done.errno == EPERM || is_loader && done.errno == 127;
        let right = match (is_refused, &events[..]) {
            (false, told) => done.errno == 0 && told.is_empty(),
            (true, [event]) => {
                refused
                    && event["rule.id"] == rule
                    && event["stockade.verdict"] == "deny"
                    && event["stockade.access"] == serde_json::json!(["exec"])
            }
            (true, _) => false,
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

fn fileless(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let program = Path::new("/bin/true");
    // Older overlayfs makes no files without a name.
    let has_tmpfile = kind != "overlay"
        || running() >= (6, 12)
        || made("tmpfile", "/bin/true", text(&root)).is_ok();
    let mut cases = Vec::new();
    let ways = ["memfd", "removed", "tmpfile"].into_iter();
    for how in ways.filter(|how| has_tmpfile || *how != "tmpfile") {
        for what in [
            "execveat",
            "by-number",
            "loader",
            "script",
            "map-exec",
            "map-then-exec",
        ] {
            let label = format!("fileless/{how}-{what}");
            cases.push(labelled(&label, what, how, program, &root, true));
        }
        cases.push(case("map", how, program, &root, false));
    }
    // What has a link again, or still one.
    let ways = ["tmpfile-linked", "removed-linked", "named"].into_iter();
    for how in ways.filter(|how| has_tmpfile || *how != "tmpfile-linked") {
        for what in ["execveat", "loader", "script", "map-then-exec"] {
            cases.push(case(what, how, program, &root, false));
        }
    }
    // Memory that is shared is a file without a link to the kernel; where it is executable from the start no hook is told.
    for (what, how, is_refused) in [
        ("at once", "memory", false),
        ("later", "memory", false),
        ("shared", "memory", false),
        ("shared-later", "memory", true),
        ("attach", "segment", true),
    ] {
        let label = format!("fileless/{how}-{}", what.replace(' ', "-"));
        cases.push(labelled(&label, what, how, program, &root, is_refused));
    }
    cases.push(on_path("a program", &[&"execve", &program], false));
    let steps = steps_of(&cases);
    let policy = policy_of(ctx, "exec:\n  - { id: no-memory, deny: [fileless] }");
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let mut wrong = faults(&ended, &cases, &done, "no-memory");
    // Each is told by the name that it has, or had.
    for done in &done {
        for event in denials_of(&ended, done) {
            let path = event["file.path"].as_str().unwrap_or_default();
            let right = match done.label.split(['/', '-']).nth(1) {
                Some("memfd") => path == "/memfd:made",
                Some("removed") => path.starts_with(&format!("{}/made-", text(&root))),
                Some("tmpfile") => path.starts_with(&format!("{}/#", text(&root))),
                _ => path.starts_with('/') && path.len() > 1,
            };
            if !right || event["stockade.file.deleted"] != true {
                wrong.push(format!("{}: {event}", done.label));
            }
        }
    }
    for done in outside(&steps) {
        if done.errno != 0 {
            wrong.push(format!("outside, {}: errno {}", done.label, done.errno));
        }
    }
    let end = ended.complete();
    assert_eq!(end["stockade.fence"]["mechanism"], ctx.mechanism.as_str());
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all(kind, &ended, &done);
    Outcome::Passed
}

fn setuid(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let program = |name: &str, mode: u32| -> PathBuf {
        let path = root.join(name);
        fs::copy("/bin/true", &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let (user, group) = (program("user", 0o4755), program("group", 0o2755));
    // To be locked by who opens it, and nothing else.
    let locked = program("locked", 0o2745);
    let (plain, later) = (program("plain", 0o755), program("later", 0o755));
    let hard = root.join("hard");
    fs::hard_link(&user, &hard).unwrap();
    let script = root.join("script");
    fs::write(&script, format!("#!{}\n", text(&user))).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let loader = loader();
    let cases = [
        on_path("setuid/user", &[&"execve", &user], true),
        on_path("setuid/group", &[&"execve", &group], true),
        on_path("setuid/hard-link", &[&"execve", &hard], true),
        on_path("setuid/execveat", &[&"execveat", &user], true),
        on_path("setuid/script", &[&"execve", &script], true),
        on_path("locked", &[&"execve", &locked], false),
        on_path("neither", &[&"execve", &plain], false),
        // By somebody else it is mapped, and gives nobody its owner's rights.
        on_path("setuid/loader", &[&"loader", &loader, &user], false),
        on_path("setuid/map", &[&"map-exec", &user], false),
        on_path("later", &[&"execve", &later], false),
        on_path("made so", &[&"fchmod", &later], false),
        on_path("setuid/made-so-later", &[&"execve", &later], true),
    ];
    let policy = policy_of(ctx, "exec:\n  - { id: no-owner, deny: [setuid] }");
    let out = ctx.path("results");
    let steps = steps_of(&cases);
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let wrong = faults(&ended, &cases, &done, "no-owner");
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all(kind, &ended, &done);
    Outcome::Passed
}

/// An allow-list is about directories, and a file that never was in one is in none of them.
fn allowed(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    let (good, other) = (root.join("good"), root.join("other"));
    let command = provision(ctx, &good);
    fs::create_dir(&other).unwrap();
    let tool = good.join("tool");
    fs::copy("/bin/busybox", &tool).unwrap();
    let applet = good.join("true");
    fs::copy("/bin/busybox", &applet).unwrap();
    let good_text = text(&good);
    let below = format!("'{good_text}/**'");
    for (list, is_refused) in [(below.clone(), true), (format!("{below}, fileless"), false)] {
        let cases = [
            case("map-exec", "memfd", &tool, &good, is_refused),
            case("map-then-exec", "memfd", &tool, &good, is_refused),
            case("execveat", "memfd", &tool, &good, is_refused),
            // It is judged by the directory where it is, or was.
            case("map-exec", "tmpfile", &tool, &good, false),
            case("map-exec", "removed", &tool, &good, false),
            case("map-exec", "tmpfile", &tool, &other, is_refused),
            case("map-exec", "removed", &tool, &other, is_refused),
            case("map-exec", "named", &tool, &other, true),
            on_path("a program", &[&"execve", &applet], false),
        ];
        let policy = policy_of(ctx, &format!("exec:\n  - {{ id: these, allow: [{list}] }}"));
        let out = ctx.path("results");
        let command: Vec<&str> = command.iter().map(|path| text(path)).collect();
        let rules = ["--policy", text(&policy)];
        let ended = stockade(ctx, confined_as(rules, &command, &out, &steps_of(&cases)));
        assert_eq!(ended.code, 0, "{list}: {}", ended.stderr);
        let (_, mut done) = results(&out);
        for done in &mut done {
            // busybox does not know what "made" is, and was run.
            if done.label == "memfd: execveat" && done.errno == 127 {
                done.errno = 0;
            }
        }
        let wrong = faults(&ended, &cases, &done, "these");
        assert!(ended.of("denial").all(|e| e["stockade.unlisted"] == true));
        ended.complete();
        assert!(wrong.is_empty(), "{list}\n  {}", wrong.join("\n  "));
    }
    Outcome::Passed
}

fn excepted(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    let good = root.join("good");
    let command = provision(ctx, &good);
    let program = |name: &str| {
        fs::create_dir_all(good.join(name)).unwrap();
        let path = good.join(name).join("true");
        fs::copy("/bin/busybox", &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        path
    };
    let (this, other) = (program("this"), program("other"));
    let cases = [
        on_path("this", &[&"execve", &this], false),
        on_path("another", &[&"execve", &other], true),
    ];
    let rules = [
        format!("id: these, allow: ['{}/**']", text(&good)),
        "id: no-owner, deny: [setuid], priority: 1".to_owned(),
        format!("id: but, allow: ['{}'], priority: 2", text(&this)),
    ]
    .map(|rule| format!("\n  - {{ {rule} }}"));
    let policy = policy_of(ctx, &format!("exec:{}", rules.concat()));
    let out = ctx.path("results");
    let command: Vec<&str> = command.iter().map(|path| text(path)).collect();
    let rules = ["--policy", text(&policy)];
    let ended = stockade(ctx, confined_as(rules, &command, &out, &steps_of(&cases)));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let wrong = faults(&ended, &cases, &done, "no-owner");
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Outcome::Passed
}

fn outcomes(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    let program = Path::new("/bin/true");
    let tool = root.join("tool");
    fs::copy(program, &tool).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).unwrap();
    let steps = [
        case("map-exec", "memfd", program, &root, true).0,
        case("execveat", "removed", program, &root, true).0,
        step("setuid", &[&"execve", &tool]),
    ];
    // What each of the three comes to, and what is told of it.
    let killed = 1000 + libc::SIGKILL;
    for (rules, errnos, verdict) in [
        ("deny: [fileless, setuid], mode: audit", [0; 3], "audit"),
        (
            "deny: [fileless, setuid], errno: EACCES",
            [libc::EACCES; 3],
            "deny",
        ),
        (
            "deny: [fileless, setuid], action: kill",
            [killed; 3],
            "kill",
        ),
    ] {
        let policy = policy_of(ctx, &format!("exec:\n  - {{ id: one, {rules} }}"));
        let out = ctx.path("results");
        let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let (_, done) = results(&out);
        assert_eq!(done.len(), steps.len());
        for (done, errno) in done.iter().zip(errnos) {
            let events = denials_of(&ended, done);
            let told = events.len() == 1 && events[0]["stockade.verdict"] == verdict;
            assert!(
                done.errno == errno && told,
                "{rules}, {}: errno {}, {events:?}",
                done.label,
                done.errno
            );
        }
        ended.complete();
    }
    Outcome::Passed
}

//! Running what was written inside the fence.

use std::fs;
use std::io::Write as _;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::Signal;

use crate::bypass;
use crate::fence::text;
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, poll, stockade};
use crate::helper::{Done, Step, arguments, outside, results};
use crate::mounts::{file_system, mount, must};
use crate::pins::{NAME, PINNED, Unpinned, shell};
use crate::places::{loader, policy_named, policy_of, under};
use crate::programs::{Case, faults, on_path, steps_of};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "what_was_written_inside_is_refused_to_run_on_tmpfs",
        Needs::Fence,
        |ctx| ways(ctx, "tmpfs"),
    ),
    Test::new(
        "what_was_written_inside_is_refused_to_run_on_ext4",
        Needs::Fence,
        |ctx| ways(ctx, "ext4"),
    ),
    Test::new(
        "what_was_written_inside_is_refused_to_run_on_btrfs",
        Needs::Fence,
        |ctx| ways(ctx, "btrfs"),
    ),
    Test::new(
        "what_was_written_inside_is_refused_to_run_on_overlay",
        Needs::Fence,
        |ctx| ways(ctx, "overlay"),
    ),
    Test::new(
        "what_was_written_by_descriptors_of_others_is_refused_to_run",
        Needs::Fence,
        inherited,
    ),
    Test::new(
        "without_room_for_what_was_written_all_that_changed_is_refused",
        Needs::Fence,
        without_room,
    ),
    Test::new(
        "what_was_written_stays_so_when_the_fence_is_taken_over",
        Needs::Fence,
        taken_over,
    ),
];

const RULE: &str = "exec:\n  - { id: drift, deny: [written] }";

/// Open when the helper starts, by whoever has started it.
const INHERITED: i32 = 7;

fn inherited_fd() -> BorrowedFd<'static> {
    // SAFETY: nobody closes it as long as the helper runs.
    unsafe { BorrowedFd::borrow_raw(INHERITED) }
}

fn write_mapped(fd: &impl std::os::fd::AsFd) -> Result<()> {
    let (both, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a new mapping at a place of the kernel's choice; the file has at least a page.
    unsafe {
        let at = rustix::mm::mmap(std::ptr::null_mut(), 4096, both, shared, fd, 0)?;
        let byte = at.cast::<u8>();
        byte.write_volatile(byte.read_volatile());
        rustix::mm::munmap(at, 4096)
    }
}

/// One step of the helper: writes a program in one of these ways, or does what is no writing. It can be run as before.
pub(crate) fn operation(words: &[&str]) -> Result<()> {
    let [how, file] = words else {
        panic!("no operation {words:?}");
    };
    let file = Path::new(file);
    let beside = file.with_extension("beside");
    let full = Mode::from_raw_mode(0o755);
    let open = |path: &Path, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, full);
    // Behind what a program loader looks at.
    let append = |path: &Path| {
        let fd = open(path, OFlags::WRONLY | OFlags::APPEND)?;
        rustix::io::write(&fd, b"\0").map(drop)
    };
    let copy = |fd: OwnedFd| {
        let bytes = fs::read("/bin/true").expect("a program");
        fs::File::from(fd).write_all(&bytes).expect("room");
    };
    match *how {
        "append" => append(file),
        "opened" => open(file, OFlags::RDWR).map(drop),
        "mapping" => write_mapped(&open(file, OFlags::RDWR)?),
        "made" => {
            copy(open(file, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?);
            Ok(())
        }
        "tmpfile" => {
            let directory = file.parent().expect("a directory");
            let fd = open(directory, OFlags::RDWR | OFlags::TMPFILE)?;
            copy(fd.try_clone().expect("a descriptor"));
            rustix::fs::linkat(&fd, "", CWD, file, AtFlags::EMPTY_PATH)
        }
        "put-there" => {
            copy(open(&beside, OFlags::WRONLY | OFlags::CREATE)?);
            rustix::fs::rename(&beside, file)
        }
        "by-link" => {
            rustix::fs::link(file, &beside)?;
            append(&beside)
        }
        "inherited" => rustix::io::write(inherited_fd(), b"\0").map(drop),
        "inherited-mapping" => write_mapped(&inherited_fd()),
        // A copy of its subvolume, in which it stays when it is removed.
        "snapshot" => {
            let (from, to) = (file.parent().expect("a directory"), beside);
            must("btrfs", &["subvolume", "snapshot", text(from), text(&to)]);
            rustix::fs::unlink(file)
        }
        // An image with a program in it, to which the kernel writes nothing that has a name.
        "mounted" => {
            fs::copy(file, &beside).expect("room");
            let at = file.with_extension("at");
            fs::create_dir(&at).expect("a mount point");
            let mounted = mount(&["-o", "loop,ro", text(&beside)], &at);
            let ran = std::process::Command::new(at.join("true")).status();
            drop(mounted);
            ran.map(drop)
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
        }
        // Not written.
        "read" => open(file, OFlags::RDONLY).map(drop),
        "moved" => {
            rustix::fs::rename(file, &beside)?;
            rustix::fs::link(&beside, file)?;
            rustix::fs::chmod(file, full)
        }
        // Mapped to be run while nobody has written it.
        "mapped-first" => {
            let (run, shared) = (ProtFlags::READ | ProtFlags::EXEC, MapFlags::SHARED);
            let fd = open(file, OFlags::RDONLY)?;
            // SAFETY: as in write_mapped().
            let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, run, shared, &fd, 0) }?;
            let fd = open(file, OFlags::WRONLY)?;
            rustix::io::pwrite(&fd, b"\x7fElf", 0)?;
            // SAFETY: the mapping above, which shares what was written.
            let found = unsafe { at.cast::<[u8; 4]>().read_volatile() };
            rustix::io::pwrite(&fd, b"\x7fELF", 0)?;
            match &found {
                b"\x7fElf" => Ok(()),
                _ => Err(Errno::IO),
            }
        }
        other => panic!("nothing is written by {other}"),
    }
}

fn program(path: &Path) {
    fs::copy("/bin/true", path).unwrap();
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The helper's steps under the rule.
fn run(ctx: &Ctx, more: &[&str], cases: &[Case]) -> (Ended, Vec<Done>) {
    let policy = policy_of(ctx, RULE);
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, more, &out, &steps_of(cases), ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    (ended, done)
}

fn ways(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    // Of the lower layer, so that writing takes it up.
    let made_in = match kind {
        "overlay" => ctx.path("lower"),
        _ => root.clone(),
    };
    let loader = loader();
    let mut cases = Vec::new();
    let has_tmpfile = kind != "overlay" || crate::variants::running() >= (6, 12);
    let hows = [
        "append",
        "opened",
        "mapping",
        "made",
        "put-there",
        "by-link",
    ];
    for how in hows.into_iter().chain(has_tmpfile.then_some("tmpfile")) {
        let file = root.join(how);
        if !matches!(how, "made" | "tmpfile") {
            program(&made_in.join(how));
        }
        let by_script = format!("{how}.sh");
        script(&made_in.join(&by_script), &format!("#!{}\n", text(&file)));
        cases.push(on_path(how, &[&"written", &how, &file], false));
        let by_script = root.join(by_script);
        let label = |what: &str| format!("written/{how}-{what}");
        cases.push(on_path(&label("execve"), &[&"execve", &file], true));
        if matches!(how, "append" | "made") {
            let runs: [(&str, &[&dyn AsRef<std::ffi::OsStr>]); 5] = [
                ("execveat", &[&"execveat", &file]),
                ("script", &[&"execve", &by_script]),
                ("loader", &[&"loader", &loader, &file]),
                ("map-exec", &[&"map-exec", &file]),
                ("map-then-exec", &[&"map-then-exec", &file]),
            ];
            cases.extend(runs.map(|(what, words)| on_path(&label(what), words, true)));
        }
    }
    for how in ["read", "moved"] {
        let file = root.join(how);
        program(&made_in.join(how));
        cases.push(on_path(how, &[&"written", &how, &file], false));
        // A new name for a file of a lower layer makes a copy of it.
        let is_written = kind == "overlay" && how == "moved";
        cases.push(on_path("still runs", &[&"execve", &file], is_written));
    }
    // There the mapping keeps what the lower layer has.
    if kind != "overlay" {
        let first = root.join("first");
        program(&first);
        cases.push(on_path(
            "written/mapped-first",
            &[&"written", &"mapped-first", &first],
            false,
        ));
    }
    if kind == "btrfs" {
        let file = root.join("copied");
        let copy = root.join("copied.beside/copied");
        cases.push(on_path("made", &[&"written", &"made", &file], false));
        cases.push(on_path(
            "snapshot",
            &[&"written", &"snapshot", &file],
            false,
        ));
        cases.push(on_path(
            "written/snapshot-execve",
            &[&"execve", &copy],
            true,
        ));
    }
    if kind == "ext4" {
        let image = ctx.path("made.image");
        let file = fs::File::create(&image).unwrap();
        file.set_len(16 << 20).unwrap();
        must("mkfs.ext4", &["-q", "-F", text(&image)]);
        let at = ctx.path("made.outside");
        fs::create_dir(&at).unwrap();
        let mounted = mount(&["-o", "loop", text(&image)], &at);
        program(&at.join("true"));
        drop(mounted);
        cases.push(on_path(
            "written/mounted",
            &[&"written", &"mounted", &image],
            false,
        ));
    }
    // Read by a program that may run.
    let read = root.join("append.sh");
    cases.push(on_path("append", &[&"written", &"append", &read], false));
    cases.push(on_path(
        "read by a shell",
        &[&"loader", &"/bin/sh", &read],
        false,
    ));
    let (ended, done) = run(ctx, &[], &cases);
    let end = ended.complete();
    let mut wrong = faults(&ended, &cases, &done, "drift");
    // Without a fence each of them runs.
    let runs = cases.iter().filter(|(_, is_refused)| *is_refused);
    let runs: Vec<Step> = runs.map(|(step, _)| step.clone()).collect();
    for done in outside(&runs) {
        if done.errno != 0 {
            wrong.push(format!("outside, {}: errno {}", done.label, done.errno));
        }
    }
    assert_eq!(end["stockade.fence"]["mechanism"], ctx.mechanism.as_str());
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all(kind, &ended, &done);
    Outcome::Passed
}

/// Starts the helper with a descriptor of ours, fences it as a service is, and lets it go.
fn inherited(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    for how in ["inherited", "inherited-mapping"] {
        let (file, other) = (root.join(how), root.join(format!("{how}-not")));
        program(&file);
        program(&other);
        let (go, out) = (root.join(format!("{how}-go")), ctx.path(how));
        let label = |what: &str| format!("written/{how}-{what}");
        let cases = [
            on_path("go", &[&"wait", &go], false),
            on_path(how, &[&"written", &how, &file], false),
            on_path(&label("execve"), &[&"execve", &file], true),
            on_path(&label("map-exec"), &[&"map-exec", &file], true),
            on_path("another", &[&"execve", &other], false),
        ];
        let open = format!("exec \"$@\" {INHERITED}<>{}", text(&file));
        let args = arguments(&out, &steps_of(&cases));
        let mut helper = shell(&open, "helper", text(&ctx.helper), args);
        let pid = helper.pid().to_string();
        let policy = ctx.path("policy.yaml");
        fs::write(&policy, include_str!("../../policies/no-drift.yaml")).unwrap();
        let words = ["enforce", "--format", "json", "--monitor", "process"];
        let whom = ["--tree", &pid, "--policy", text(&policy)];
        let mut enforce = Stockade::start(ctx, words.into_iter().chain(whom));
        enforce.until_stderr("fence armed");
        fs::write(&go, "").unwrap();
        assert_eq!(helper.wait(), 0);
        enforce.process.signal(Signal::TERM);
        let ended = enforce.wait();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let (_, done) = results(&out);
        let wrong = faults(&ended, &cases, &done, "only-what-was-there");
        assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
        bypass::all("ext4", &ended, &done);
    }
    Outcome::Passed
}

fn without_room(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    let files: Vec<PathBuf> = (0..4).map(|n| root.join(format!("written-{n}"))).collect();
    let before = root.join("before");
    program(&before);
    let made = std::time::Instant::now();
    poll("the next second, and another one", || {
        (made.elapsed().as_secs() >= 2).then_some(())
    });
    let mut cases = Vec::new();
    for file in &files {
        cases.push(on_path("made", &[&"written", &"made", file], false));
    }
    cases.extend(
        files
            .iter()
            .map(|file| on_path("run", &[&"execve", file], true)),
    );
    cases.push(on_path("from before", &[&"execve", &before], false));
    // Changed, and written by nobody: that cannot be told any more.
    cases.push(on_path("chmod", &[&"written", &"moved", &before], false));
    cases.push(on_path("changed", &[&"execve", &before], true));
    let (ended, done) = run(ctx, &["--room", "2"], &cases);
    let wrong = faults(&ended, &cases, &done, "drift");
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    let end = ended.of("end").next().expect("an end record");
    assert_eq!(end["stockade.complete"], false, "{end}");
    assert!(
        end.to_string()
            .contains("there was no room to note all files that were written"),
        "{end}"
    );
    // What is gone leaves its room to others.
    let mut cases = Vec::new();
    for _ in 0..6 {
        let file = root.join("again");
        cases.push(on_path("made", &[&"written", &"made", &file], false));
        cases.push(on_path("gone", &[&"unlink", &file], false));
    }
    let after = root.join("after");
    program(&after);
    cases.push(on_path("changed", &[&"written", &"moved", &after], false));
    cases.push(on_path("still runs", &[&"execve", &after], false));
    let (ended, done) = run(ctx, &["--room", "2"], &cases);
    let wrong = faults(&ended, &cases, &done, "drift");
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    ended.complete();
    Outcome::Passed
}

fn taken_over(ctx: &Ctx) -> Outcome {
    let _unpinned = Unpinned(ctx);
    let (root, _mounted) = file_system(ctx, "ext4");
    let [first, later, none] = ["first", "later", "none"].map(|name| root.join(name));
    program(&none);
    let out = ctx.path("results");
    let go = [0, 1, 2].map(|n| ctx.path(&format!("go-{n}")));
    let ready = [0, 1].map(|n| ctx.path(&format!("ready-{n}")));
    let cases = [
        on_path("go", &[&"wait", &go[0]], false),
        on_path("made", &[&"written", &"made", &first], false),
        on_path("ready", &[&"touch", &ready[0]], false),
        // Nobody looks after the fence.
        on_path("go", &[&"wait", &go[1]], false),
        on_path("alone", &[&"execve", &first], true),
        on_path("made", &[&"written", &"made", &later], false),
        on_path("ready", &[&"touch", &ready[1]], false),
        on_path("go", &[&"wait", &go[2]], false),
        on_path("first", &[&"execve", &first], true),
        on_path("later", &[&"execve", &later], true),
        on_path("none", &[&"execve", &none], false),
    ];
    let mut helper = shell(
        "exec \"$@\"",
        "helper",
        text(&ctx.helper),
        arguments(&out, &steps_of(&cases)),
    );
    let pid = helper.pid().to_string();
    let policy = policy_named(ctx, NAME, RULE);
    let start = || {
        let words = ["enforce", "--format", "json", "--monitor", "process"];
        let whom = ["--fail-closed", "--tree", &pid, "--policy", text(&policy)];
        let mut started = Stockade::start(ctx, words.into_iter().chain(whom));
        started.until_stderr(PINNED);
        started
    };
    let until = |file: &Path| poll("the helper", || file.exists().then_some(()));
    let before = start();
    fs::write(&go[0], "").unwrap();
    until(&ready[0]);
    before.process.signal(Signal::TERM);
    assert_eq!(before.wait().code, 0);
    fs::write(&go[1], "").unwrap();
    until(&ready[1]);
    let after = start();
    fs::write(&go[2], "").unwrap();
    assert_eq!(helper.wait(), 0);
    // What was refused between is told by the next one.
    after.process.signal(Signal::TERM);
    let ended = after.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let wrong = faults(&ended, &cases, &done, "drift");
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Outcome::Passed
}

//! The program without privileges: usage, policy errors, and what it says when the rights are missing.
#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::RwLock;

/// Held for writing while a program is copied: a child that another test begins meanwhile has the copy open for writing
/// until it executes, and what is open for writing cannot be executed.
static COPYING: RwLock<()> = RwLock::new(());

/// The program, as an unprivileged user would run it, and the directory that both can read.
struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Nobody must be able to execute it, wherever the checkout is.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        let alone = COPYING.write().expect("no copy has failed");
        std::fs::copy(env!("CARGO_BIN_EXE_stockade"), dir.path().join("stockade"))
            .expect("copy the program");
        drop(alone);
        Program { dir }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.dir.path().join("stockade"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", "/nonexistent");
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let among_others = COPYING.read().expect("no copy has failed");
        let child = command.spawn().expect("the program runs");
        drop(among_others);
        child.wait_with_output().expect("its output")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn ends(output: &Output, code: i32, says: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    assert!(
        stderr(output).contains(says),
        "wanted {says:?} in: {}",
        stderr(output)
    );
    assert!(
        output.stdout.is_empty(),
        "stdout is for events: {:?}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_thing() {
    let program = Program::new();
    ends(
        &program.run(&["monitor", "proces", "--host"]),
        2,
        "there is no monitor \"proces\"; the monitors are process, file",
    );
    ends(&program.run(&["run"]), 2, "COMMAND");
    ends(
        &program.run(&["enforce", "--host"]),
        2,
        "--policy FILE or --deny-file PATH",
    );
    ends(
        &program.run(&["monitor", "--tree", "x"]),
        2,
        "invalid value 'x'",
    );
    ends(
        &program.run(&["monitor", "--host", "--format", "xml"]),
        2,
        "text, json",
    );
    ends(
        &program.run(&["monitor", "--host", "--ring-kib", "3"]),
        2,
        "--ring-kib",
    );
    ends(
        &program.run(&["monitor", "disk", "--allocations", "--host"]),
        2,
        "allocations of the kernel are told by the memory monitor as summary, which is not on",
    );
}

#[test]
fn a_wrong_policy_ends_with_1_before_anything_runs() {
    let program = Program::new();
    program.write(
        "bad.yaml",
        "version: 1\nname: x\nfiles:\n  - id: a\n    deny: all\n    path: [/etc/shadow]\n",
    );
    let bad = program.run(&["run", "--policy", "bad.yaml", "--", "touch", "ran"]);
    ends(&bad, 1, "bad.yaml:6:5: unknown key \"path\"");
    let missing = program.run(&["run", "--policy", "missing.yaml", "--", "touch", "ran"]);
    ends(&missing, 1, "missing.yaml cannot be read");
    assert!(!program.dir.path().join("ran").exists());
}

#[test]
fn without_rights_it_ends_with_40_says_what_is_missing_and_runs_nothing() {
    let program = Program::new();
    for args in [
        &["monitor", "--host"][..],
        &["run", "--", "touch", "/tmp/stockade-test-must-not-exist"],
        &[
            "run",
            "--deny-file",
            "stockade",
            "--",
            "touch",
            "/tmp/stockade-test-must-not-exist",
        ],
    ] {
        let output = program.run(args);
        ends(&output, 40, "refused by the kernel");
        assert!(
            stderr(&output).contains("hint: run as root"),
            "{}",
            stderr(&output)
        );
    }
    assert!(!std::path::Path::new("/tmp/stockade-test-must-not-exist").exists());
}

#[test]
fn the_doctor_tells_missing_rights_without_failing() {
    let program = Program::new();
    let output = program.run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(40), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(found["can_fence"], false);
    let rights = found["checks"]
        .as_array()
        .and_then(|c| c.iter().find(|c| c["name"] == "rights"))
        .expect("a check of the rights");
    assert_eq!(
        (&rights["status"], &rights["fix"].is_string()),
        (&"failed".into(), &true)
    );
}

#[test]
fn help_names_every_exit_code() {
    let program = Program::new();
    let output = program.run(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for code in ["  0   ", "  1   ", "  2   ", "  40  "] {
        assert!(text.contains(code), "{code} is missing in: {text}");
    }
    for command in ["monitor", "run", "enforce", "doctor"] {
        let help = program.run(&[command, "--help"]);
        assert!(
            String::from_utf8_lossy(&help.stdout).contains("stockade"),
            "{command} has no example"
        );
    }
}

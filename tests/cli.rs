//! The program without privileges: usage, policy errors, and what it says when the rights are missing.
#![cfg(target_os = "linux")]

mod pages;

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
fn wrong_usage_of_the_kill_switch_ends_with_2_and_names_the_thing() {
    let program = Program::new();
    let capture = program.dir.path().join("capture");
    let capture = capture.to_str().expect("the tests' own names are UTF-8");
    for (args, says) in [
        (
            &["kill"][..],
            "there is nobody to kill: give --pid PID, --tree PID or --cgroup PATH",
        ),
        (&["kill", "--now"], "--pid PID, --tree PID or --cgroup PATH"),
        (&["kill", "--pid", "x"], "invalid value 'x'"),
        (&["kill", "--pid", "-1"], "unexpected argument '-1'"),
        (
            &["kill", "--grace", "5", "--tree", "1"],
            "a number with its unit: ns, us, ms or s, such as 5ms",
        ),
        (
            &["kill", "--now", "--grace", "5s", "--tree", "1"],
            "cannot be used with",
        ),
        (
            &["kill", "--dry-run", "--capture", capture, "--tree", "1"],
            "cannot be used with",
        ),
        (&["kill", "--host"], "unexpected argument '--host'"),
        (&["kill", "--uid", "0"], "unexpected argument '--uid'"),
        // Refused, and the capture not begun.
        (
            &["kill", "--capture", capture, "--pid", "1"],
            "is not killed: it is the first process of this system",
        ),
    ] {
        ends(&program.run(args), 2, says);
    }
    assert!(!std::path::Path::new(capture).exists());
    ends(
        &program.run(&["kill", "--pid", "0"]),
        40,
        "there is no process 0",
    );
    ends(
        &program.run(&["kill", "--cgroup", "/no/such/cgroup"]),
        40,
        "cgroup /no/such/cgroup cannot be resolved",
    );
}

#[test]
fn a_dry_run_of_the_kill_switch_lists_a_tree_and_signals_nobody() {
    let program = Program::new();
    let mut command = Command::new("sh");
    command
        .args(["-c", "sleep 1000 & echo $!; wait"])
        .stdout(Stdio::piped());
    let mut shell = command.spawn().expect("a shell");
    let mut child = String::new();
    let out = shell.stdout.as_mut().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut child).expect("a line");
    let pid = shell.id().to_string();
    let planned = program.run(&["kill", "--dry-run", "--tree", &pid]);
    let listed = String::from_utf8_lossy(&planned.stdout).into_owned();
    let stat = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        stat.rsplit_once(") ").expect("a state").1.as_bytes()[0]
    };
    let states = [stat(&pid), stat(child.trim())];
    // Whoever runs these tests can end its own.
    let end = rustix::process::Pid::from_raw(child.trim().parse().expect("a pid")).expect("a pid");
    rustix::process::kill_process(end, rustix::process::Signal::KILL).expect("it runs");
    shell.wait().expect("it ends with its child");
    assert_eq!(planned.status.code(), Some(0), "{}", stderr(&planned));
    let line = |pid: &str, name: &str| format!("{pid:<8}{name:<16}would be killed\n");
    assert_eq!(listed, line(&pid, "sh") + &line(child.trim(), "sleep"));
    assert!(
        states.iter().all(|s| matches!(s, b'S' | b'R' | b'D')),
        "{states:?}"
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

/// The blocks of docs/POLICY.md behind this fence.
fn documented(fence: &str) -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/POLICY.md"));
    let page = page.expect("docs/POLICY.md");
    let blocks = pages::split(&page).1.into_iter();
    blocks
        .filter(|(words, _)| words == fence)
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn policies_are_checked_explained_tested_and_compared_as_the_page_says() {
    let program = Program::new();
    program.write("build.policy.yaml", &documented("yaml")[0]);
    program.write("build.cases.yaml", &documented("yaml cases")[0]);
    program.write(
        "looser.policy.yaml",
        "version: 1\nfiles:\n  - { id: keep, deny: [write], paths: [/etc/shadow] }\n\
         \x20 - { id: lock, deny: [write, delete, replace], paths: [Cargo.lock], mode: audit }\n\
         \x20 - { id: key, deny: all, paths: [\"~/.ssh/**\"] }\n",
    );
    let says = |code: i32, args: &[&str]| {
        let output = program.run(args);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let answers = documented("text");
    let policy = ["--policy", "build.policy.yaml"];
    assert_eq!(
        says(0, &["policy", "check", "build.policy.yaml"]),
        answers[0]
    );
    let explain = ["policy", "explain", policy[0], policy[1], "--access"];
    assert_eq!(
        says(0, &[&explain[..], &["read,link", "/etc/shadow"]].concat()),
        answers[1]
    );
    assert_eq!(
        says(
            0,
            &["policy", "diff", "build.policy.yaml", "looser.policy.yaml"]
        ),
        *answers
            .iter()
            .find(|a| a.starts_with("- "))
            .expect("the answer of diff")
    );
    for name in ["no-doors", "keys-for-ssh"] {
        let named = |text: &&String| text.contains(&format!("name: {name}"));
        let example = documented("yaml").iter().find(named).cloned();
        program.write(&format!("{name}.yaml"), &example.expect("an example"));
    }
    program.write(
        "no-drift.yaml",
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/policies/no-drift.yaml"
        )),
    );
    let asked = answers.iter();
    let asked: Vec<_> = asked
        .filter(|a| a.starts_with("$ stockade policy explain"))
        .collect();
    assert_eq!(asked.len(), 3);
    for answer in asked {
        let (command, told) = answer.split_once('\n').expect("a command and its output");
        let args: Vec<&str> = command.split(' ').skip(2).collect();
        assert_eq!(says(0, &args), told, "{command}");
    }
    assert_eq!(
        says(0, &["policy", "test", "build.cases.yaml"]),
        "3 passed, 0 failed\n"
    );
    // A link leads to the same answer.
    std::os::unix::fs::symlink("/etc/shadow", program.dir.path().join("link")).expect("a link");
    let args = [&explain[..], &["read", "--format", "json", "link"]].concat();
    let told: serde_json::Value = serde_json::from_str(&says(0, &args)).expect("one object");
    assert_eq!(
        (&told["path"], &told["verdict"], &told["rule.id"]),
        (&"/etc/shadow".into(), &"deny".into(), &"no-keys".into())
    );
}

#[test]
fn kinds_of_files_are_counted_and_looked_up() {
    use std::os::unix::fs::PermissionsExt as _;
    let program = Program::new();
    program.write(
        "p.yaml",
        "version: 1\nname: p\nexec: [{ id: kinds, deny: [setuid, fileless] }]\n",
    );
    let says = |args: &[&str]| {
        let output = program.run(args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let check = says(&["policy", "check", "p.yaml"]);
    assert_eq!(check, "p.yaml: p, 1 rule on 2 file kinds, enforce\n");
    for (mode, verdict) in [(0o755, "allow"), (0o4755, "deny"), (0o2755, "deny")] {
        program.write("tool", "");
        let tool = program.dir.path().join("tool");
        std::fs::set_permissions(tool, std::fs::Permissions::from_mode(mode)).expect("a mode");
        let told = says(&[
            "policy", "explain", "--policy", "p.yaml", "--access", "exec", "--format", "json",
            "tool",
        ]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("one object");
        assert_eq!(told["verdict"], verdict, "{mode:o}");
    }
    // What nobody can look up is told beside it, where it makes a difference.
    program.write(
        "drift.yaml",
        "version: 1\nexec:\n- { id: drift, deny: [written] }\n- { id: no-sh, deny: [/no/sh], priority: 1 }\n",
    );
    let about = ["policy", "explain", "--policy", "drift.yaml"];
    let drift = "once written: drift (line 3); without exec in that rule it is allowed";
    assert_eq!(
        says(&[&about[..], &["--access", "read,exec", "/no/tool", "/no/sh"]].concat()),
        format!(
            "/no/tool\n  read      allow  no rule is about it\n  exec      allow  no rule is about it\n  \
             exec      deny   {drift}\n\
             /no/sh\n  read      allow  no rule is about it\n  \
             exec      deny   no-sh (line 4); without exec in that rule it is allowed\n"
        )
    );
    let in_json = ["--access", "exec", "--format", "json", "/no/tool"];
    let told = says(&[&about[..], &in_json].concat());
    let told: Vec<serde_json::Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let said: Vec<_> = told
        .iter()
        .map(|line| (&line["of"], &line["verdict"]))
        .collect();
    assert_eq!(
        said,
        [
            (&serde_json::Value::Null, &"allow".into()),
            (&"written".into(), &"deny".into())
        ]
    );
}

#[test]
fn addresses_are_explained_tested_and_compared() {
    let program = Program::new();
    let network = "network:\n  - { id: only, allow: [connect, send], to: ['10.0.0.0/8:443'] }\n";
    program.write("p.yaml", &format!("version: 1\n{network}"));
    program.write(
        "q.yaml",
        "version: 1\nexec:\n  - { id: none, deny: [/a] }\n",
    );
    program.write(
        "cases.yaml",
        "version: 1\npolicy: p.yaml\ncases:\n\
         - { address: '10.1.2.3:443', access: [connect, send], expect: allow }\n\
         - { address: '[::1]:443', protocol: udp, access: send, expect: deny, rule: only }\n",
    );
    let says = |args: &[&str]| {
        let output = program.run(args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(
        says(&["policy", "check", "p.yaml"]),
        "p.yaml: p.yaml, 1 rule on 1 address, enforce\n"
    );
    let explain = [
        "policy",
        "explain",
        "--policy",
        "p.yaml",
        "--access",
        "connect,bind",
    ];
    assert_eq!(
        says(&[&explain[..], &["10.1.2.3:443", "192.0.2.1:443"]].concat()),
        "tcp:10.1.2.3:443\n  connect   allow  allowed by only (line 3)\n  bind      allow  no rule is about it\n\
         tcp:192.0.2.1:443\n  connect   deny   only (line 3); allows it elsewhere\n  bind      allow  no rule is about it\n"
    );
    let json = says(
        &[
            &explain[..],
            &["--format", "json", "--protocol", "udp", "[::1]:53"],
        ]
        .concat(),
    );
    assert_eq!(
        json.lines().next(),
        Some(
            r#"{"address":"[::1]:53","protocol":"udp","access":["connect"],"verdict":"deny","rule.id":"only","rule.line":3,"unlisted":true,"then":[]}"#
        )
    );
    assert_eq!(
        says(&["policy", "test", "cases.yaml"]),
        "2 passed, 0 failed\n"
    );
    program.write(
        "h.yaml",
        "version: 1\nnetwork:\n  - { id: only, allow: [connect, send], to: ['10.0.0.0/8:443', 'host:api.example.org:443'] }\n",
    );
    assert_eq!(
        says(&[
            "policy",
            "explain",
            "--policy",
            "h.yaml",
            "host:API.example.org:443",
            "host:example.org:443"
        ]),
        "tcp:host:API.example.org:443\n  connect   allow  allowed by only (line 3)\n  send      allow  allowed by only (line 3)\n\
         tcp:host:example.org:443\n  connect   deny   only (line 3); allows it elsewhere\n  send      deny   only (line 3); allows it elsewhere\n"
    );
    assert_eq!(
        says(&["policy", "diff", "p.yaml", "h.yaml"]),
        "- host:api.example.org:443: connect,send deny -> allow (only)\n"
    );
    program.write(
        "hosts.yaml",
        "version: 1\npolicy: h.yaml\ncases:\n\
         - { address: 'host:api.example.org:443', access: connect, expect: allow }\n\
         - { address: 'host:api.example.org:80', protocol: tcp, access: send, expect: deny, rule: only }\n",
    );
    assert_eq!(
        says(&["policy", "test", "hosts.yaml"]),
        "2 passed, 0 failed\n"
    );
    let output = program.run(&[
        "policy",
        "explain",
        "--policy",
        "h.yaml",
        "host:api.example.org",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output)
            .contains("\"host:api.example.org\" has no port; write one as host:example.org:443"),
        "{}",
        stderr(&output)
    );
    let told = says(&["policy", "diff", "q.yaml", "p.yaml"]);
    assert!(
        told.contains("+ 10.0.0.0/8:0-442: connect,send allow -> deny (only)\n"),
        "{told}"
    );
    assert!(told.contains("- /a: exec deny -> allow (none)\n"), "{told}");
    assert!(!told.contains("10.0.0.0/8:443"), "{told}");
}

#[test]
fn system_calls_are_explained_tested_and_compared() {
    let program = Program::new();
    let policy =
        |calls: &str| format!("version: 1\nsyscalls:\n  - {{ id: no, deny: [{calls}] }}\n");
    program.write("p.yaml", &policy("ptrace, mkdirat"));
    program.write("q.yaml", &policy("ptrace, setuid"));
    program.write(
        "cases.yaml",
        "version: 1\npolicy: p.yaml\ncases:\n\
         - { syscall: ptrace, expect: deny, rule: no }\n\
         - { syscall: io_uring_setup, expect: deny, rule: no }\n\
         - { syscall: read, expect: allow }\n",
    );
    let says = |code: i32, args: &[&str]| {
        let output = program.run(args);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
    };
    assert_eq!(
        says(0, &["policy", "check", "p.yaml"]),
        "p.yaml: p.yaml, 1 rule on 2 system calls, enforce\n"
    );
    let explain = ["policy", "explain", "--policy", "p.yaml"];
    assert_eq!(
        says(0, &[&explain[..], &["ptrace", "read"]].concat()),
        "syscall:ptrace (by seccomp)\n  call      deny   no (line 3); without that rule it is allowed\n\
         syscall:read (by seccomp)\n  call      allow  no rule is about it\n"
    );
    let or_else = "version: 1\nsyscalls: [{ id: no, deny: [ptrace], otherwise: kill }]\n";
    program.write("else.yaml", or_else);
    assert_eq!(
        says(0, &["policy", "explain", "--policy", "else.yaml", "ptrace"]),
        "syscall:ptrace (by seccomp)\n  \
         call      deny, otherwise kill no (line 2); without that rule it is allowed\n"
    );
    program.write("log.yaml", &or_else.replace("kill", "log"));
    assert_eq!(
        says(0, &["policy", "diff", "else.yaml", "log.yaml"]),
        "~ ptrace: call deny, otherwise kill -> deny, otherwise log (no)\n"
    );
    assert_eq!(
        says(
            0,
            &[&explain[..], &["--format", "json", "mkdirat"]].concat()
        ),
        "{\"syscall\":\"mkdirat\",\"mechanism\":\"seccomp\",\"access\":[\"call\"],\"verdict\":\"deny\",\
         \"rule.id\":\"no\",\"rule.line\":3,\"then\":[]}\n"
    );
    assert_eq!(
        says(0, &["policy", "test", "cases.yaml"]),
        "3 passed, 0 failed\n"
    );
    let told = says(0, &["policy", "diff", "p.yaml", "q.yaml"]);
    assert_eq!(
        told,
        "+ setuid: call allow -> deny (no)\n\
         - mkdirat,io_uring_setup,io_uring_enter,io_uring_register: call deny -> allow (no)\n"
    );
    program.write(
        "wrong.yaml",
        "version: 1\ncases:\n  - { syscall: ptrace, access: call, expect: deny }\n",
    );
    let refused = says(1, &["policy", "test", "wrong.yaml"]);
    assert!(
        refused.contains("wrong.yaml:3:32: a system call has no \"access\"; leave it out"),
        "{refused}"
    );
}

#[test]
fn values_of_variables_are_given_on_the_command_line() {
    let program = Program::new();
    program.write(
        "p.yaml",
        "version: 1\nvariables: { work: }\nfiles: [{ id: w, deny: [write], paths: ['${work}/**'] }]\n",
    );
    let explain = [
        "policy", "explain", "--policy", "p.yaml", "--access", "write", "/srv/x",
    ];
    for (given, code, said) in [
        (&["--var", "work=/srv"][..], 0, "deny   w (line 3)"),
        (&["--var=work=/opt"], 0, "allow  no rule is about it"),
        (
            &[],
            1,
            "the variable \"work\" has no value; give it one with --var work=VALUE",
        ),
        (&["--var", "wrk=/srv"], 1, "has no value"),
        (&["--var", "work"], 2, "it must be a name and a value"),
        (
            &["--var", "work=/a", "--var", "work=/b"],
            2,
            "--var gives work twice",
        ),
    ] {
        let output = program.run(&[&explain[..], given].concat());
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{given:?}: {told}");
        assert!(told.contains(said), "{given:?}: {told}");
    }
    let without = program.run(&[
        "run",
        "--var",
        "work=/srv",
        "--deny-file",
        "/x",
        "--",
        "true",
    ]);
    assert_eq!(without.status.code(), Some(2), "{}", stderr(&without));
}

#[test]
fn schema_of_policies_is_printed() {
    let output = Program::new().run(&["policy", "schema"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let kinds = &schema["$defs"]["limit"]["properties"]["per"]["enum"];
    assert_eq!(*kinds, serde_json::json!(["tree", "process"]));
}

#[test]
fn limits_are_explained_and_compared() {
    let program = Program::new();
    let policy = |burst: u32, rest: &str| {
        format!(
            "version: 1\nlimits:\n  - {{ id: few, limit: [forks, threads], per_second: 5, burst: {burst} }}\n{rest}"
        )
    };
    program.write(
        "p.yaml",
        &policy(
            9,
            "  - { id: net, limit: connections, per_minute: 6, per: process, action: kill }\n",
        ),
    );
    program.write(
        "q.yaml",
        &policy(7, "  - { id: sent, limit: bytes, per_second: 1 KiB }\n"),
    );
    let says = |args: &[&str]| {
        let output = program.run(args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(
        says(&["policy", "check", "p.yaml"]),
        "p.yaml: p.yaml, 2 rules on 2 limits, enforce\n"
    );
    let explain = ["policy", "explain", "--policy", "p.yaml"];
    assert_eq!(
        says(&[&explain[..], &["clone3", "--access", "call"]].concat()),
        "syscall:clone3\n  call      allow  no rule is about it\n  \
         limited by few (line 3), forks,threads: 5 per second, 9 at once, deny EAGAIN\n"
    );
    assert_eq!(
        says(&[&explain[..], &["10.0.0.1:443", "--access", "connect"]].concat()),
        "tcp:10.0.0.1:443\n  connect   allow  no rule is about it\n  \
         limited by net (line 4), connections: 6 per minute, 6 at once, of each process, kill\n"
    );
    let json = says(&[&explain[..], &["fork", "--format", "json"]].concat());
    assert!(json.contains(r#""limits":[{"id":"few","#), "{json}");
    assert_eq!(
        says(&["policy", "diff", "p.yaml", "q.yaml"]),
        "+ limit: forks,threads: 5 per second, 9 at once, deny EAGAIN -> forks,threads: 5 per second, 7 at once, deny EAGAIN (few)\n\
         - limit: connections: 6 per minute, 6 at once, of each process, kill -> no limit (net)\n\
         + limit: no limit -> bytes: 1024 per second, 1024 at once, deny (sent)\n"
    );
    assert_eq!(says(&["policy", "diff", "p.yaml", "p.yaml"]), "");
}

#[test]
fn how_an_access_is_refused_is_explained_and_compared() {
    let program = Program::new();
    let policy = |how: &str| {
        format!("version: 1\nfiles:\n  - {{ id: no, deny: [read], paths: [/a], {how} }}\n")
    };
    program.write("p.yaml", &policy("errno: ENOENT"));
    program.write("q.yaml", &policy("action: kill"));
    let says = |args: &[&str]| {
        let output = program.run(args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let explain = ["policy", "explain", "--access", "read", "/a", "--policy"];
    assert_eq!(
        says(&[&explain[..], &["p.yaml"]].concat()),
        "/a\n  read      deny ENOENT no (line 3); without read in that rule it is allowed\n"
    );
    assert_eq!(
        says(&[&explain[..], &["q.yaml"]].concat()),
        "/a\n  read      kill   no (line 3); without read in that rule it is allowed\n"
    );
    let json = says(&[&explain[..], &["q.yaml", "--format", "json"]].concat());
    assert!(
        json.contains(r#""verdict":"deny","answer":"kill""#),
        "{json}"
    );
    assert_eq!(
        says(&["policy", "diff", "p.yaml", "q.yaml"]),
        "~ /a: read deny ENOENT -> kill (no)\n"
    );
}

#[test]
fn policy_commands_end_with_1_where_something_is_wrong() {
    let program = Program::new();
    program.write(
        "good.yaml",
        "version: 1\nfiles:\n  - { id: a, deny: all, paths: [/a] }\n",
    );
    program.write(
        "bad.yaml",
        "version: 1\nfiles:\n  - { id: a, deny: al, paths: [/a] }\n",
    );
    // What comes after the wrong one is checked all the same.
    let output = program.run(&["policy", "check", "bad.yaml", "good.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("did you mean \"all\"?"),
        "{}",
        stderr(&output)
    );
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told, "good.yaml: good.yaml, 1 rule on 1 path, enforce\n");
    program.write(
        "cases.yaml",
        "version: 1\ncases:\n  - { path: /a, access: read, expect: allow }\n  - { path: /a, access: read, expect: deny }\n",
    );
    let output = program.run(&["policy", "test", "--policy", "good.yaml", "cases.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "cases.yaml:3: read of /a is deny by a, expected allow\n1 passed, 1 failed\n"
    );
    ends(
        &program.run(&["policy", "test", "cases.yaml"]),
        2,
        "cases.yaml names no policy",
    );
    ends(
        &program.run(&["policy", "diff", "good.yaml", "missing.yaml"]),
        1,
        "missing.yaml cannot be read",
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
    for command in ["monitor", "run", "enforce", "kill", "policy", "doctor"] {
        let help = program.run(&[command, "--help"]);
        assert!(
            String::from_utf8_lossy(&help.stdout).contains("stockade"),
            "{command} has no example"
        );
    }
}

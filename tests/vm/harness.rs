//! The tests' own harness: libtest can neither skip at run time nor count what it skipped.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take: emulated machines are twenty times slower than real ones.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// What a test needs of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    Watch,
    Fence,
    /// A loop device.
    Disk,
    /// Modules that can be loaded.
    Modules,
    /// CPUs that can be stopped.
    Cpus,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    /// The reason.
    Skipped(String),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) run: fn(&Ctx) -> Outcome,
}

impl Test {
    pub(crate) const fn new(name: &'static str, needs: Needs, run: fn(&Ctx) -> Outcome) -> Self {
        Test { name, needs, run }
    }
}

/// What a test gets.
#[derive(Debug)]
pub(crate) struct Ctx {
    /// The program under test.
    pub(crate) bin: PathBuf,
    /// This program, which is also the tests' helper.
    pub(crate) helper: PathBuf,
    /// A directory of the test's own.
    pub(crate) dir: PathBuf,
    /// How a fence must work here: `lsm` or `fmod_ret`.
    pub(crate) mechanism: String,
    /// The running kernel, which no table knows: weaker probes are all right there.
    pub(crate) host: bool,
}

impl Ctx {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn has_lsm(&self) -> bool {
        self.mechanism == "lsm"
    }
}

/// What the table says about a kernel.
#[derive(Debug)]
struct Row {
    name: String,
    mechanism: String,
    /// Tests that only watch are left to another row.
    fence_only: bool,
    expected_skips: Vec<String>,
    /// What the kernel refuses, for the running kernel alone, with the reason.
    refuses: Vec<(Needs, String)>,
    host: bool,
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The tests of the fence spread among the others, each kind in its order. The kernel takes seconds to detach the hooks of
/// a fence, a tenth of one for each (it waits for a grace period of RCU tasks), and the next fence waits for it; what others
/// do meanwhile costs nothing.
pub(crate) fn mixed(tests: Vec<Test>) -> Vec<Test> {
    let (fence, others): (Vec<_>, Vec<_>) =
        tests.into_iter().partition(|t| t.needs == Needs::Fence);
    let place = |at: usize, of: usize| (2 * at + 1) as f64 / (2 * of) as f64;
    let placed = |tests: Vec<Test>| {
        let of = tests.len();
        let at = move |(n, test)| (place(n, of), test);
        tests.into_iter().enumerate().map(at).collect::<Vec<_>>()
    };
    let mut all = placed(fence);
    all.extend(placed(others));
    all.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    all.into_iter().map(|(_, test)| test).collect()
}

pub(crate) fn main(tests: &[Test]) -> i32 {
    let mut table = None;
    let mut row = None;
    let mut filter = String::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--kernel-table" => table = args.next(),
            "--row" => row = args.next(),
            "--list" => {
                for test in tests {
                    println!("{}", test.name);
                }
                return 0;
            }
            _ => filter = arg,
        }
    }
    let (Some(row), Some(bin)) = (row, std::env::var_os("STOCKADE_BIN")) else {
        eprintln!("usage: STOCKADE_BIN=PROGRAM vm [--kernel-table FILE] --row ROW [FILTER]");
        return 2;
    };
    let bin = PathBuf::from(bin);
    let row = if row == "host" {
        running_kernel(&bin)
    } else {
        read_row(Path::new(&table.expect("--kernel-table FILE")), &row)
    };
    for skip in &row.expected_skips {
        assert!(
            tests.iter().any(|t| t.name == skip),
            "the table expects {skip} to be skipped, and there is no such test"
        );
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map(|l| format!(" ({}:{})", l.file(), l.line()))
            .unwrap_or_default();
        let text = info
            .payload()
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| {
                info.payload()
                    .downcast_ref::<&str>()
                    .map(|s| (*s).to_owned())
            })
            .unwrap_or_default();
        PANIC.with(|p| *p.borrow_mut() = format!("{text}{place}"));
    }));
    let helper = std::env::current_exe().expect("our own path");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let chosen = tests
        .iter()
        .filter(|t| !row.fence_only || matches!(t.needs, Needs::Fence | Needs::Nothing));
    for test in chosen.filter(|t| t.name.contains(&filter)) {
        let start = Instant::now();
        let result = run_one(test, &row, &bin, &helper);
        let seconds = start.elapsed().as_secs_f64();
        let expected = row.expected_skips.iter().any(|s| s == test.name);
        match result {
            Ok(Outcome::Passed) if expected => {
                failed += 1;
                println!(
                    "FAILED {}: the table expects it to be skipped on {}, and it ran",
                    test.name, row.name
                );
            }
            Ok(Outcome::Passed) => {
                passed += 1;
                for line in crate::bypass::take() {
                    println!("bypass\t{}\t{line}", test.name);
                }
                println!("ok {} ({seconds:.1} s)", test.name);
            }
            Ok(Outcome::Skipped(why)) if expected || row.refuses.iter().any(|(_, r)| *r == why) => {
                skipped += 1;
                println!("SKIP {}: {why}", test.name);
            }
            Ok(Outcome::Skipped(why)) => {
                failed += 1;
                println!(
                    "FAILED {}: skipped, which the table does not expect on {}: {why}",
                    test.name, row.name
                );
            }
            Err(message) => {
                failed += 1;
                println!("FAILED {} ({seconds:.1} s): {message}", test.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    i32::from(failed > 0 || passed + skipped == 0)
}

fn run_one(test: &Test, row: &Row, bin: &Path, helper: &Path) -> Result<Outcome, String> {
    if let Some((_, why)) = row.refuses.iter().find(|(needs, _)| *needs == test.needs) {
        return Ok(Outcome::Skipped(why.clone()));
    }
    // Of a test before that has failed.
    drop(crate::bypass::take());
    let dir = tempfile::tempdir().map_err(|e| format!("no temporary directory: {e}"))?;
    let ctx = Ctx {
        bin: bin.to_owned(),
        helper: helper.to_owned(),
        // As the kernel will report it.
        dir: dir.path().canonicalize().map_err(|e| e.to_string())?,
        mechanism: row.mechanism.clone(),
        host: row.host,
    };
    catch_unwind(AssertUnwindSafe(|| (test.run)(&ctx)))
        .map_err(|_| PANIC.with(|p| p.borrow().clone()))
}

fn read_row(table: &Path, name: &str) -> Row {
    let text = fs::read_to_string(table).expect("the kernel table");
    let table: toml::Table = text.parse().expect("the kernel table is TOML");
    let row = table
        .get(name)
        .unwrap_or_else(|| panic!("the kernel table has no row {name}"));
    let lsm = row["bpf_lsm"].as_bool().expect("bpf_lsm is a boolean");
    Row {
        name: name.to_owned(),
        mechanism: if lsm { "lsm" } else { "fmod_ret" }.to_owned(),
        fence_only: row
            .get("fence_only")
            .is_some_and(|v| v.as_bool().expect("fence_only is a boolean")),
        expected_skips: row["expected_skips"]
            .as_array()
            .expect("expected_skips is a list")
            .iter()
            .map(|v| v.as_str().expect("the name of a test").to_owned())
            .collect(),
        refuses: Vec::new(),
        host: false,
    }
}

/// No table knows this machine: `doctor` says what may be skipped, and nothing else may.
fn running_kernel(bin: &Path) -> Row {
    let found = doctor(bin);
    let mut refuses = Vec::new();
    let why = |what: &str| {
        let failed: Vec<&str> = found["checks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|c| c["status"] != "ok")
            .filter_map(|c| c["found"].as_str())
            .collect();
        format!("this kernel refuses to {what}: {}", failed.join("; "))
    };
    if found["can_watch"] != true {
        refuses.push((Needs::Watch, why("watch")));
    }
    if let Some(why) = crate::disk::refusal() {
        refuses.push((Needs::Disk, why));
    }
    let modules = "the tests load no modules into the running kernel";
    refuses.push((Needs::Modules, modules.to_owned()));
    let cpus = "the tests stop no CPU of the running machine";
    refuses.push((Needs::Cpus, cpus.to_owned()));
    if found["can_fence"] != true {
        refuses.push((Needs::Fence, why("fence")));
    }
    Row {
        name: "host".to_owned(),
        mechanism: found["fence"]["mechanism"]
            .as_str()
            .unwrap_or("none")
            .to_owned(),
        fence_only: false,
        expected_skips: Vec::new(),
        refuses,
        host: true,
    }
}

/// What `stockade doctor --json` says.
pub(crate) fn doctor(bin: &Path) -> Value {
    let output = Command::new(bin)
        .args(["doctor", "--json"])
        .output()
        .expect("the program under test can be started");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!(
            "doctor --json is no JSON ({e}): {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// Polls until there is an answer; less and less often, because an emulated machine has better things to do.
pub(crate) fn poll<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(
            Instant::now() < end,
            "{what} did not happen within {DEADLINE:?}"
        );
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(Duration::from_millis(50));
    }
}

/// A process that does not survive its test.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its exit code, 128+n for signal n.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("a child of ours").is_some()
    }

    pub(crate) fn wait(&mut self) -> i32 {
        poll("the end of a process", || {
            let status = self.0.try_wait().expect("a child of ours")?;
            Some(
                status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            )
        })
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal)
            .expect("our child can be signalled");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program under test at work.
#[derive(Debug)]
pub(crate) struct Stockade {
    pub(crate) process: Process,
    pub(crate) out: PathBuf,
    err: PathBuf,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) events: Vec<Value>,
    pub(crate) stderr: String,
}

impl Stockade {
    pub(crate) fn start<I, S>(ctx: &Ctx, args: I) -> Stockade
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let count = fs::read_dir(&ctx.dir).map_or(0, Iterator::count);
        let out = ctx.path(&format!("stockade-{count}.out"));
        let err = ctx.path(&format!("stockade-{count}.err"));
        let child = Command::new(&ctx.bin)
            .args(args)
            .current_dir(&ctx.dir)
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file for the output"))
            .stderr(File::create(&err).expect("a file for the errors"))
            .spawn()
            .expect("the program under test can be started");
        Stockade {
            process: Process(child),
            out,
            err,
        }
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        let text = fs::read(&self.out).unwrap_or_default();
        // The last line may be half written.
        let whole = text
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        text[..whole]
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line).unwrap_or_else(|e| {
                    panic!("no JSON line ({e}): {}", String::from_utf8_lossy(line))
                })
            })
            .collect()
    }

    /// Waits for a line on stderr; fails when the program ends before.
    pub(crate) fn until_stderr(&mut self, text: &str) {
        poll(text, || {
            if self.stderr().contains(text) {
                return Some(());
            }
            if let Some(status) = self.process.0.try_wait().expect("a child of ours") {
                panic!(
                    "ended with {status} before it said '{text}': {}",
                    self.stderr()
                );
            }
            None
        });
    }

    pub(crate) fn wait(mut self) -> Ended {
        let code = self.process.wait();
        Ended {
            code,
            events: self.events(),
            stderr: self.stderr(),
        }
    }
}

/// Runs the program under test to its end.
pub(crate) fn stockade<I, S>(ctx: &Ctx, args: I) -> Ended
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    Stockade::start(ctx, args).wait()
}

impl Ended {
    pub(crate) fn of<'a>(&'a self, action: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events
            .iter()
            .filter(move |e| e["event.action"] == action)
    }

    /// The end record, which must be the last line and say that nothing is missing. But for what the file summary's
    /// fexit programs may have missed on a kernel that preempts them (docs/KERNELS.md, "Skipped programs"): the test
    /// that looks for an event fails by itself when it is not there.
    pub(crate) fn complete(&self) -> &Value {
        let last = self
            .events
            .last()
            .unwrap_or_else(|| panic!("no events at all: {}", self.stderr));
        assert_eq!(
            last["event.action"], "end",
            "the last line is no end record: {last}"
        );
        let reasons = last["stockade.incomplete_reasons"].as_array();
        let missing = reasons
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|reason| !reason.starts_with("the kernel skipped file_count_"))
            .count();
        assert_eq!(missing, 0, "not complete: {last}");
        assert_eq!(
            last["stockade.complete"],
            reasons.is_some_and(Vec::is_empty),
            "{last}"
        );
        last
    }
}

/// A number out of an event; a failure shows the event.
pub(crate) fn number(event: &Value, key: &str) -> u64 {
    event[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} is no number: {event}"))
}

pub(crate) fn word<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is no string: {event}"))
}

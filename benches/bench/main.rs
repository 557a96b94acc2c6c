//! `make bench`: what stockade costs, and what it can bear. docs/BENCHMARKS.md says what each figure means.
//!
//! Everything is compared within one run, in pairs that alternate: without, with, without, with. The work is done by
//! processes of their own, so that a scope can hold one and leave another out.

mod child;
mod consumer;
mod peers;
mod preflight;
mod report;
mod stats;
mod workloads;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use stockade::event::{Kind, sample};
use stockade::policy::{Environment, RuleSet};
use stockade::session::SessionBuilder;
use stockade::sink::Sink;
use stockade::{Filter, Monitor, Scope, Session, Watch};

use child::{Done, Generator};
use consumer::{Consumer, To};
use report::{Aim, Report};
use stats::Pairs;

/// Measure what stockade costs; as root, on a quiet machine
#[derive(Debug, Parser)]
struct Args {
    /// Comparisons per figure
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Events before the memory of the program is looked at again
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Ten million events, three times the rounds, and whole programs as well
    #[arg(long)]
    full: bool,
    /// Do not run on a machine that would falsify the figures
    #[arg(long)]
    strict: bool,
    /// Only these parts: serialise, file, process, monitors, fence, reload, profile, storm, paced, start,
    /// memory, peers, workloads
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the report goes
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|flag| flag == child::FLAG) {
        child::main(words.get(1).and_then(|c| c.parse().ok()).unwrap_or(0));
        return ExitCode::SUCCESS;
    }
    if let Some(ended) = workloads::main(&words) {
        return ended;
    }
    let args = Args::parse();
    if !rustix::process::geteuid().is_root() {
        eprintln!("bench: the benchmarks attach programs to the kernel and need root");
        return ExitCode::FAILURE;
    }
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// What every part needs.
struct Bench {
    rounds: usize,
    events: u64,
    /// How long one measurement takes, against a fast machine.
    stretch: u64,
    cpus: usize,
    dir: tempfile::TempDir,
    inside: Generator,
    outside: Generator,
    report: Report,
}

type Part = (&'static str, fn(&mut Bench) -> anyhow::Result<()>);

const PARTS: &[Part] = &[
    ("serialise", serialise),
    ("file", file),
    ("process", process),
    ("monitors", monitors),
    ("fence", fence),
    ("limits", limits),
    ("contacts", contacts),
    ("reload", reload),
    ("profile", profile),
    ("storm", storm),
    ("paced", paced),
    ("start", start),
    ("memory", memory),
    (PEERS, peers::part),
    (WORKLOADS, workloads::part),
];

const PEERS: &str = "peers";
const WORKLOADS: &str = "workloads";
/// Too long to be measured each time: only where it is named, or with `--full`.
const LONG: [&str; 2] = [PEERS, WORKLOADS];

fn run(mut args: Args) -> anyhow::Result<()> {
    if args.full {
        args.rounds *= 3;
        args.events = args.events.max(10_000_000);
    }
    let begin = Instant::now();
    let mut inside = Generator::start(0)?;
    let outside = Generator::start(0)?;
    let machine = preflight::look(&mut inside)?;
    if args.strict && !machine.poisoned.is_empty() {
        anyhow::bail!("{}", machine.poisoned.join("; "));
    }
    let mut bench = Bench {
        rounds: args.rounds.max(3),
        events: args.events,
        stretch: if machine.emulated && !machine.counted {
            5
        } else {
            1
        },
        cpus: machine.cpus,
        dir: tempfile::tempdir()?,
        inside,
        outside,
        report: Report::new(machine),
    };
    std::fs::write(bench.path("open"), "opened")?;
    std::fs::write(bench.path("denied"), "denied")?;
    for (name, part) in PARTS {
        let chosen = match &args.only[..] {
            [] => !LONG.contains(name) || args.full,
            only => only.iter().any(|o| o == name),
        };
        if !chosen {
            continue;
        }
        if let Err(e) = part(&mut bench) {
            bench.report.skip(name, format!("{e:#}"));
            // One that was left in the middle of something answers the wrong question.
            bench.inside = Generator::start(0)?;
            bench.outside = Generator::start(0)?;
        }
    }
    bench.report.write(&args.out)?;
    println!("took {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

impl Bench {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn ms(&self, ms: u64) -> u64 {
        ms * self.stretch
    }

    /// A session on `inside`, not started.
    fn session(&self, monitors: &[Monitor]) -> SessionBuilder {
        let mut builder = Session::builder().scope(Scope::new().tree(self.inside.pid()));
        for monitor in monitors {
            builder = builder.monitor(*monitor);
        }
        builder
    }

    fn getppid(&mut self, outside: bool) -> anyhow::Result<f64> {
        let ms = self.ms(15);
        let who = if outside {
            &mut self.outside
        } else {
            &mut self.inside
        };
        Ok(who.run("getppid", ms, "", 0)?.ns_each)
    }

    fn open(&mut self, outside: bool) -> anyhow::Result<f64> {
        let (ms, path) = (self.ms(40), self.path("open"));
        let who = if outside {
            &mut self.outside
        } else {
            &mut self.inside
        };
        Ok(who.run("open", ms, &path, 0)?.ns_each)
    }

    fn exec(&mut self, outside: bool, path: &str) -> anyhow::Result<f64> {
        let ms = self.ms(150);
        let who = if outside {
            &mut self.outside
        } else {
            &mut self.inside
        };
        Ok(who.run("exec", ms, path, 0)?.ns_each)
    }
}

/// Which variants are attached, for the note of a figure.
fn variants(outcome: &consumer::Outcome) -> String {
    let mut names: Vec<&str> = outcome
        .certificate
        .probes
        .iter()
        .filter(|p| !p.name.starts_with("scope"))
        .filter_map(|p| p.variant.as_deref())
        .collect();
    names.dedup();
    names.join(", ")
}

fn serialise(b: &mut Bench) -> anyhow::Result<()> {
    let clock = sample::clock();
    let events: Vec<_> = sample::samples()
        .into_iter()
        .filter(|e| matches!(&e.kind, Kind::Open(o) if o.file.is_some() && o.errno == 0))
        .take(1)
        .collect();
    anyhow::ensure!(!events.is_empty(), "there is no sample of an open");
    let mut sink = Sink::json();
    let mut out = Vec::with_capacity(128 * 1024);
    let mut lines = Vec::new();
    for _ in 0..=b.rounds {
        let begin = Instant::now();
        for _ in 0..400_000 / b.stretch {
            for event in &events {
                sink.write(std::hint::black_box(event), &clock, &mut out);
            }
            if out.len() > 64 * 1024 {
                std::hint::black_box(&out);
                out.clear();
            }
        }
        lines.push(
            (400_000 / b.stretch) as f64 * events.len() as f64 / begin.elapsed().as_secs_f64(),
        );
    }
    // The first one warms up.
    b.report.value(
        "JSON lines of an open, one core",
        "lines/s",
        &lines[1..],
        Some(Aim::AtLeast(3e6)),
        None,
    );
    Ok(())
}

fn file(b: &mut Bench) -> anyhow::Result<()> {
    let (mut tax, mut tax_in) = (Pairs::default(), Pairs::default());
    let (mut unscoped, mut null, mut disk) = (Pairs::default(), Pairs::default(), Pairs::default());
    let lines = To::File(b.dir.path().join("events.json"));
    let mut how = String::new();
    let mut lost = 0;
    for round in 0..=b.rounds {
        // Each process has a baseline of its own: where its memory lies makes some per cent.
        let open = b.open(false)?;
        tax.base.push(b.getppid(true)?);
        tax_in.base.push(b.getppid(false)?);
        unscoped.base.push(b.open(true)?);
        null.base.push(open);
        disk.base.push(open);
        if round == b.rounds {
            break;
        }
        let session = Consumer::start(b.session(&[Monitor::File]), &To::Null)?;
        tax.with.push(b.getppid(true)?);
        tax_in.with.push(b.getppid(false)?);
        unscoped.with.push(b.open(true)?);
        null.with.push(b.open(false)?);
        let outcome = session.end()?;
        how = variants(&outcome);
        lost += outcome.lost();
        let session = Consumer::start(b.session(&[Monitor::File]), &lines)?;
        disk.with.push(b.open(false)?);
        lost += session.end()?.lost();
    }
    let tracepoints = how.contains("tracepoint");
    let r = &mut b.report;
    // By functions of the file system there is nothing to pay for.
    let limit = tracepoints.then_some(Aim::AtMost(40.0));
    r.added(
        format!("file monitor ({how}): getppid, out of scope"),
        &tax,
        limit,
    );
    r.added("file monitor: getppid, in scope", &tax_in, limit);
    r.added("file monitor: open+close, out of scope", &unscoped, None);
    r.added(
        "file monitor, JSON to /dev/null: open+close",
        &null,
        Some(Aim::AtMost(800.0)),
    );
    r.added(
        "file monitor, JSON to a file: open+close",
        &disk,
        Some(Aim::AtMost(800.0)),
    );
    r.value(
        "file monitor: lost meanwhile",
        "events",
        &[lost as f64],
        Some(Aim::AtMost(0.0)),
        None,
    );
    Ok(())
}

fn process(b: &mut Bench) -> anyhow::Result<()> {
    let tiny = b.path("tiny");
    let mut programs = vec![("/bin/true".to_owned(), "/bin/true")];
    if tiny_program(Path::new(&tiny))? {
        programs.insert(0, (tiny, "a static program"));
    }
    let mut tax = Pairs::default();
    for (path, name) in programs {
        let (mut scoped, mut unscoped) = (Pairs::default(), Pairs::default());
        let mut lost = 0;
        // The effect is small against the noise of fork.
        for round in 0..=b.rounds * 2 {
            scoped.base.push(b.exec(false, &path)?);
            unscoped.base.push(b.exec(true, &path)?);
            tax.base.push(b.getppid(false)?);
            if round == b.rounds * 2 {
                break;
            }
            let session = Consumer::start(b.session(&[Monitor::Process]), &To::Null)?;
            tax.with.push(b.getppid(false)?);
            // Whoever comes first has the colder caches.
            if round % 2 == 0 {
                scoped.with.push(b.exec(false, &path)?);
                unscoped.with.push(b.exec(true, &path)?);
            } else {
                unscoped.with.push(b.exec(true, &path)?);
                scoped.with.push(b.exec(false, &path)?);
            }
            lost += session.end()?.lost();
        }
        let r = &mut b.report;
        r.percent(
            format!("process monitor, JSON: fork+exec+wait of {name}"),
            &scoped,
            Some(Aim::AtMost(1.0)),
        );
        r.added(
            format!("process monitor, JSON: fork+exec+wait of {name}"),
            &scoped,
            None,
        );
        r.percent(
            format!("process monitor: the same out of scope, {name}"),
            &unscoped,
            None,
        );
        r.value(
            "process monitor: lost meanwhile",
            "events",
            &[lost as f64],
            Some(Aim::AtMost(0.0)),
            None,
        );
        tax.base.truncate(tax.with.len());
    }
    b.report
        .added("process monitor: getppid, in scope", &tax, None);
    Ok(())
}

/// What a monitor costs the operations that it watches: with a process in its scope, and with another one.
const WATCHED: &[(&str, &str, &str)] = &[
    ("syscall", "getppid", "getppid"),
    ("syscall=events", "getppid", "getppid"),
    ("file=summary", "pread", "pread of 4 KiB"),
    ("memory", "map", "mmap, touch, munmap"),
    ("memory=events", "map", "mmap, touch, munmap"),
    ("network", "tcp", "TCP connect, accept, close"),
    ("network", "udp", "UDP send, receive"),
    ("network=summary", "tcp", "TCP connect, accept, close"),
    ("network=summary", "udp", "UDP send, receive"),
    ("disk", "direct", "O_DIRECT read of 4 KiB"),
    ("disk=events", "direct", "O_DIRECT read of 4 KiB"),
    ("profile", "spin", "20 us of arithmetic"),
    (
        "profile=off-cpu",
        "pipe",
        "a byte to another process and back",
    ),
];

fn monitors(b: &mut Bench) -> anyhow::Result<()> {
    let path = b.path("open");
    std::fs::write(&path, vec![b'x'; 4096])?;
    for (watch, operation, what) in WATCHED {
        if let Err(e) = monitor(b, watch, operation, what, &path) {
            b.report.skip(&format!("{watch}: {what}"), format!("{e:#}"));
            b.inside = Generator::start(0)?;
            b.outside = Generator::start(0)?;
        }
    }
    Ok(())
}

fn monitor(b: &mut Bench, watch: &str, op: &str, what: &str, path: &str) -> anyhow::Result<()> {
    let ms = b.ms(40);
    let (mut scoped, mut unscoped) = (Pairs::default(), Pairs::default());
    let mut lost = 0;
    // A clock that ticks now and then is not in the median slice.
    let each = |done: Done| match op {
        "spin" => done.ns / done.count as f64,
        _ => done.ns_each,
    };
    for round in 0..=b.rounds {
        scoped.base.push(each(b.inside.run(op, ms, path, 0)?));
        unscoped.base.push(each(b.outside.run(op, ms, path, 0)?));
        if round == b.rounds {
            break;
        }
        let filter = Filter::new().syscall("getppid")?;
        let builder = b
            .session(&[])
            .monitor(watch.parse::<Watch>()?)
            .filter(filter);
        let session = Consumer::start(builder, &To::Null)?;
        scoped.with.push(each(b.inside.run(op, ms, path, 0)?));
        unscoped.with.push(each(b.outside.run(op, ms, path, 0)?));
        lost += session.end()?.lost();
    }
    let r = &mut b.report;
    r.added(format!("{watch}: {what}, in scope"), &scoped, None);
    r.added(format!("{watch}: {what}, out of scope"), &unscoped, None);
    if lost > 0 {
        r.value(
            format!("{watch}: lost meanwhile"),
            "events",
            &[lost as f64],
            None,
            None,
        );
    }
    Ok(())
}

/// A static program of 130 bytes that ends at once: no C library, no dynamic linker.
fn tiny_program(path: &Path) -> anyhow::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;

    #[cfg(target_arch = "x86_64")]
    // xor edi, edi; mov eax, 60 (exit); syscall
    let (machine, code): (u16, &[u8]) = (62, &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    #[cfg(target_arch = "aarch64")]
    // mov x0, 0; mov x8, 93 (exit); svc 0
    let (machine, code): (u16, &[u8]) = (
        183,
        &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4],
    );
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Ok(false);
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        const BASE: u64 = 0x40_0000;
        const HEADERS: u64 = 64 + 56;
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        elf.extend(2u16.to_le_bytes()); // ET_EXEC
        elf.extend(machine.to_le_bytes());
        elf.extend(1u32.to_le_bytes());
        elf.extend((BASE + HEADERS).to_le_bytes()); // entry
        elf.extend(64u64.to_le_bytes()); // program headers
        elf.extend([0; 12]); // no section headers, no flags
        for n in [64u16, 56, 1, 64, 0, 0] {
            elf.extend(n.to_le_bytes());
        }
        elf.extend(1u32.to_le_bytes()); // PT_LOAD
        elf.extend(5u32.to_le_bytes()); // readable, executable
        let len = HEADERS + code.len() as u64;
        for n in [0, BASE, BASE, len, len, 4096] {
            elf.extend(n.to_le_bytes());
        }
        elf.extend(code);
        std::fs::write(path, elf)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        // A temporary directory may be mounted noexec.
        Ok(Command::new(path).status().is_ok_and(|s| s.success()))
    }
}

fn fence(b: &mut Bench) -> anyhow::Result<()> {
    let env = Environment::new(None, b.dir.path().to_owned());
    let denied = b.path("denied");
    let (mut miss, mut unscoped) = (Pairs::default(), Pairs::default());
    let (mut hit, mut tax) = (Pairs::default(), Pairs::default());
    let mut how = String::new();
    for round in 0..=b.rounds {
        let open = b.open(false)?;
        miss.base.push(open);
        hit.base.push(open);
        unscoped.base.push(b.open(true)?);
        tax.base.push(b.getppid(false)?);
        if round == b.rounds {
            break;
        }
        let rules = RuleSet::deny_files([PathBuf::from(&denied)], &env)?;
        let session = Consumer::start(b.session(&[]).policy(rules), &To::Null)?;
        tax.with.push(b.getppid(false)?);
        miss.with.push(b.open(false)?);
        unscoped.with.push(b.open(true)?);
        let ms = b.ms(40);
        hit.with
            .push(b.inside.run("refused", ms, &denied, 0)?.ns_each);
        if let Some(f) = session.end()?.certificate.fence {
            how = format!("{}, {}", f.mechanism, f.identity);
        }
    }
    let r = &mut b.report;
    r.added("fence: getppid, in scope", &tax, None);
    r.percent(
        format!("fence ({how}): open+close of another file, in scope"),
        &miss,
        None,
    );
    r.added("fence: the same in ns", &miss, None);
    r.percent("fence: the same out of scope", &unscoped, None);
    r.percent(
        "fence: a refused open with its event, against open+close",
        &hit,
        None,
    );
    Ok(())
}

/// What it costs to be counted, where nothing is refused.
fn limits(b: &mut Bench) -> anyhow::Result<()> {
    let limit =
        |per: &str| format!("limits: [{{ id: l, limit: bytes, per_second: 8 GiB, per: {per} }}]");
    let policies = [
        ("counted for each process", limit("process")),
        ("counted for all together", limit("tree")),
    ];
    messages(b, "limits", &policies, "out of scope")
}

/// What rules about the network cost where nothing is refused: at an address that is allowed as one, to this user alone, and
/// at one that a host has.
fn contacts(b: &mut Bench) -> anyhow::Result<()> {
    // Where a program has an identity of its own, which it has not everywhere.
    let dir = tempfile::tempdir_in("/run")?;
    let program = dir.path().join("program");
    std::fs::write(&program, "")?;
    let allow = |to: &str, whom: &str| {
        format!("network: [{{ id: n, allow: [connect, send], to: ['{to}']{whom} }}]")
    };
    let us = format!(
        ", by: {{ uid: 0 }}, not_by: {{ exe: {} }}",
        program.display()
    );
    let policies = [
        ("to an address that is allowed", allow("127.0.0.0/8", "")),
        (
            "to an address that is allowed to some",
            allow("127.0.0.0/8", &us),
        ),
        ("to a host that is allowed", allow("host:localhost", "")),
    ];
    let unscoped = "out of scope, where a host is allowed";
    messages(b, "network rules", &policies, unscoped)
}

/// What policies add to a message of 64 bytes to oneself; the last of them also to one that is out of scope.
fn messages(
    b: &mut Bench,
    what: &str,
    policies: &[(&str, String)],
    unscoped_by: &str,
) -> anyhow::Result<()> {
    let env = Environment::new(None, b.dir.path().to_owned());
    let ms = b.ms(40);
    let mut by: Vec<Pairs> = policies.iter().map(|_| Pairs::default()).collect();
    let mut unscoped = Pairs::default();
    for round in 0..=b.rounds {
        let udp = b.inside.run("udp", ms, "", 0)?.ns_each;
        for pairs in &mut by {
            pairs.base.push(udp);
        }
        unscoped.base.push(b.outside.run("udp", ms, "", 0)?.ns_each);
        if round == b.rounds {
            break;
        }
        for (n, (_, rules)) in policies.iter().enumerate() {
            let rules = RuleSet::parse(&format!("version: 1\n{rules}\n"), what, &env)?;
            let session = Consumer::start(b.session(&[]).policy(rules), &To::Null)?;
            by[n].with.push(b.inside.run("udp", ms, "", 0)?.ns_each);
            if n + 1 == policies.len() {
                let ns = b.outside.run("udp", ms, "", 0)?.ns_each;
                unscoped.with.push(ns);
            }
            session.end()?;
        }
    }
    let r = &mut b.report;
    let what = format!("{what}: send+recv of 64 bytes by UDP");
    let of = policies.iter().map(|(of, _)| *of).chain([unscoped_by]);
    for (pairs, of) in by.iter().chain([&unscoped]).zip(of) {
        r.percent(format!("{what}, {of}"), pairs, None);
        r.added(format!("{what}, {of}, in ns"), pairs, None);
    }
    Ok(())
}

/// How long a policy of so many files takes until it is in force: at first, and in the place of another one.
fn reload(b: &mut Bench) -> anyhow::Result<()> {
    const FILES: usize = 1000;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let env = Environment::new(None, b.dir.path().to_owned());
    // Each file of a policy is open while it is made out which one it is.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum.or(Some(1 << 16));
    setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    let dir = b.dir.path().join("many");
    std::fs::create_dir(&dir)?;
    let mut files = Vec::new();
    for n in 0..2 * FILES {
        let file = dir.join(n.to_string());
        std::fs::write(&file, "")?;
        files.push(file);
    }
    // None of the files of one is in the other.
    let policies = [&files[..FILES], &files[FILES..]]
        .map(|some| RuleSet::deny_files(some.iter().cloned(), &env));
    let [one, other] = policies;
    let (one, other) = (one?, other?);
    let begin = Instant::now();
    let mut session = b.session(&[]).policy(one.clone()).start()?;
    let armed = begin.elapsed().as_secs_f64() * 1e3;
    let mut reloaded = Vec::new();
    for round in 0..b.rounds {
        let policy = if round % 2 == 0 { &other } else { &one };
        let begin = Instant::now();
        session.reload(policy, &mut |_| {})?;
        reloaded.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    session.end(&mut |_| {})?;
    let what = |how| format!("fence: a policy of {FILES} rules for as many files, {how}");
    b.report.value(what("armed"), "ms", &[armed], None, None);
    let aim = Some(Aim::AtMost(10.0));
    b.report
        .value(what("in the place of another"), "ms", &reloaded, aim, None);
    Ok(())
}

fn storm(b: &mut Bench) -> anyhow::Result<()> {
    let path = b.path("open");
    let lines = To::File(b.dir.path().join("events.json"));
    let ms = b.ms(700);
    for (to, name) in [(&To::Null, "/dev/null"), (&lines, "a file")] {
        for cpus in if b.cpus > 1 { vec![1, b.cpus] } else { vec![1] } {
            let (mut rates, mut cpu, mut lost, mut total, mut wrong) = (vec![], vec![], 0, 0, 0);
            for _ in 0..3 {
                let mut storms = (0..cpus)
                    .map(Generator::start)
                    .collect::<Result<Vec<_>, _>>()?;
                let scope = storms.iter().fold(Scope::new(), |s, g| s.tree(g.pid()));
                let session =
                    Consumer::start(Session::builder().scope(scope).monitor(Monitor::File), to)?;
                let used = session.cpu();
                for g in &mut storms {
                    g.order("open", ms, &path, 0)?;
                }
                let (mut made, mut rate) = (0, 0.0);
                for g in &mut storms {
                    let done = g.answer()?;
                    made += done.count;
                    rate += done.per_second();
                }
                cpu.push((session.cpu() - used).as_nanos() as f64 / made as f64);
                let outcome = session.end()?;
                rates.push(rate);
                lost += outcome.lost();
                total += made;
                // The end record's loss events count as events.
                wrong += outcome
                    .certificate
                    .events
                    .abs_diff(made - outcome.lost().min(made));
            }
            let who = if cpus == 1 {
                "one CPU".to_owned()
            } else {
                format!("all {cpus} CPUs")
            };
            b.report.value(
                format!("storm of opens on {who}, JSON to {name}"),
                "events/s",
                &rates,
                None,
                None,
            );
            b.report.value(
                "  lost of it",
                "%",
                &[lost as f64 / total as f64 * 100.0],
                Some(Aim::AtMost(0.0)),
                Some(format!("{lost} of {total}")),
            );
            b.report.value(
                "  neither delivered nor counted as lost",
                "events",
                &[wrong as f64],
                Some(Aim::AtMost(0.0)),
                None,
            );
            b.report
                .value("  CPU of the tool", "ns/event", &cpu, None, None);
        }
    }
    Ok(())
}

fn paced(b: &mut Bench) -> anyhow::Result<()> {
    for (to, what) in [(To::Null, "JSON"), (To::Callback, "in a callback")] {
        paced_to(b, &to, what)?;
    }
    let session = Consumer::start(b.session(&[Monitor::File]), &To::Null)?;
    std::thread::sleep(Duration::from_millis(300));
    let used = session.cpu();
    std::thread::sleep(Duration::from_secs(1));
    let idle = (session.cpu() - used).as_secs_f64() * 100.0;
    session.end()?;
    b.report.value(
        "CPU of the tool, nothing to do",
        "% of a core",
        &[idle],
        None,
        None,
    );
    Ok(())
}

/// The same at three rates, and the last one against the first.
fn paced_to(b: &mut Bench, to: &To, what: &str) -> anyhow::Result<()> {
    let path = b.path("open");
    let mut slow = 0.0;
    for rate in [1_000, 10_000, 100_000] {
        let (mut shares, mut made, mut lost) = (vec![], 0, 0);
        for _ in 0..3 {
            let session = Consumer::start(b.session(&[Monitor::File]), to)?;
            let (used, begin) = (session.cpu(), Instant::now());
            made += b.inside.run("paced", 1500, &path, rate)?.count;
            shares
                .push((session.cpu() - used).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0);
            lost += session.end()?.lost();
        }
        let note = format!("{made} events in 4.5 s, {lost} lost");
        let now = stats::median(&shares);
        b.report.value(
            format!("CPU of the tool at {rate} events/s, {what}"),
            "% of a core",
            &shares,
            None,
            Some(note),
        );
        if rate == 1_000 {
            slow = now;
        } else if rate == 100_000 {
            b.report.value(
                format!("  100,000 against 1,000 events/s, {what}"),
                "times",
                &[now / slow],
                Some(Aim::AtMost(2.0)),
                None,
            );
        }
    }
    Ok(())
}

/// The program itself, built by cargo beside this one.
const PROGRAM: &str = env!("CARGO_BIN_EXE_stockade");

fn start(b: &mut Bench) -> anyhow::Result<()> {
    let path = b.path("open");
    for (monitor, what, program) in [
        (Monitor::Process, "exec", "/bin/true"),
        (Monitor::File, "paced", &path),
    ] {
        let (mut attached, mut first) = (vec![], vec![]);
        for _ in 0..b.rounds {
            // Something happens all the time.
            let ms = b.ms(400);
            b.inside.order(what, ms, program, 20_000)?;
            std::thread::sleep(Duration::from_millis(20));
            let session = Consumer::start(b.session(&[monitor]), &To::Null)?;
            attached.push(session.started.as_secs_f64() * 1e3);
            b.inside.answer()?;
            if let Some(f) = session.end()?.first {
                first.push(f.as_secs_f64() * 1e3);
            }
        }
        b.report.value(
            format!("{monitor} monitor: start to attached"),
            "ms",
            &attached,
            None,
            None,
        );
        b.report.value(
            format!("{monitor} monitor: start to first event"),
            "ms",
            &first,
            Some(Aim::AtMost(30.0)),
            None,
        );
    }
    let mut attached = vec![];
    for _ in 0..b.rounds {
        let session = Consumer::start(b.session(Monitor::ALL), &To::Null)?;
        attached.push(session.started.as_secs_f64() * 1e3);
        session.end()?;
    }
    b.report.value(
        "all seven monitors: start to attached",
        "ms",
        &attached,
        Some(Aim::AtMost(80.0)),
        None,
    );
    let mut first = vec![];
    for _ in 0..b.rounds {
        let begin = Instant::now();
        let mut child = Command::new(PROGRAM)
            .args([
                "run",
                "--monitor",
                "process",
                "--format",
                "json",
                "--",
                "true",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            let mut out = BufReader::new(out);
            out.read_line(&mut line)?;
            first.push(begin.elapsed().as_secs_f64() * 1e3);
            std::io::copy(&mut out, &mut std::io::sink())?;
        }
        child.wait()?;
        anyhow::ensure!(line.starts_with('{'), "stockade run gave no event");
    }
    b.report.value(
        "stockade run --monitor process: program start to first line",
        "ms",
        &first,
        None,
        None,
    );
    Ok(())
}

/// What the program itself takes to sample the whole host while every CPU is busy, symbols and all.
fn profile(b: &mut Bench) -> anyhow::Result<()> {
    let mut busy = (0..b.cpus)
        .map(Generator::start)
        .collect::<Result<Vec<_>, _>>()?;
    let mut shares = vec![];
    for _ in 0..3 {
        let mut running = Running(
            Command::new(PROGRAM)
                .args(["monitor", "profile", "--host", "--format", "json"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?,
        );
        let ms = b.ms(5000);
        for generator in &mut busy {
            generator.order("open", ms, &b.path("open"), 0)?;
        }
        // It has begun by then, and found the symbols of the kernel.
        std::thread::sleep(Duration::from_millis(ms / 2));
        let (used, begin) = (cpu_time(running.0.id())?, Instant::now());
        for generator in &mut busy {
            generator.answer()?;
        }
        anyhow::ensure!(running.0.try_wait()?.is_none(), "stockade monitor ended");
        let took = begin.elapsed().as_secs_f64() * b.cpus as f64;
        shares.push((cpu_time(running.0.id())? - used) / took * 100.0);
    }
    b.report.value(
        "profile of the whole host at 99 Hz, busy: CPU of the program",
        "% of the machine",
        &shares,
        Some(Aim::AtMost(0.2)),
        None,
    );
    Ok(())
}

/// Seconds of CPU that a process has used.
fn cpu_time(pid: u32) -> anyhow::Result<f64> {
    // Finer than the ticks of `stat`: nanoseconds per thread.
    let mut ns = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let line = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        ns += line
            .split(' ')
            .next()
            .and_then(|n| n.parse::<f64>().ok())
            .unwrap_or(0.0);
    }
    Ok(ns / 1e9)
}

/// Kills what a failed part leaves behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn memory(b: &mut Bench) -> anyhow::Result<()> {
    let path = b.path("open");
    let mut running = Running(
        Command::new(PROGRAM)
            .args(["monitor", "file", "process", "--format", "json", "--tree"])
            .arg(b.inside.pid().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?,
    );
    std::thread::sleep(Duration::from_millis(b.ms(700)));
    let anon = |running: &mut Running| -> anyhow::Result<f64> {
        anyhow::ensure!(running.0.try_wait()?.is_none(), "stockade monitor ended");
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id()))?;
        let kib: f64 = status
            .lines()
            .find_map(|l| l.strip_prefix("RssAnon:"))
            .and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or(0.0);
        Ok(kib / 1024.0)
    };
    let idle = anon(&mut running)?;
    let mut after = Vec::new();
    for _ in 0..4 {
        b.inside.run("opens", b.events / 4, &path, 0)?;
        std::thread::sleep(Duration::from_millis(100));
        after.push(anon(&mut running)?);
    }
    let limit = Some(Aim::AtMost(10.0));
    b.report.value(
        "anonymous memory of the program, idle",
        "MiB",
        &[idle],
        limit,
        None,
    );
    b.report.value(
        format!("  after {} events", b.events),
        "MiB",
        &after[3..],
        limit,
        None,
    );
    b.report.value(
        "  growth from a quarter of them to all",
        "MiB",
        &[after[3] - after[0]],
        None,
        None,
    );
    Ok(())
}

//! The same opens, watched by us and by what else the machine has: what each adds to an open, and how many it tells.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::child::Done;
use crate::report::Aim;
use crate::stats::Pairs;
use crate::{Bench, PROGRAM, Running, preflight};

/// How long one may take to begin, and to write down what it has.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that tells opens, a line each.
struct Peer {
    name: &'static str,
    /// `PID` stands for the process that is watched.
    words: &'static [&'static str],
    /// How much more it should cost than stockade.
    aim: Option<f64>,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "stockade monitor",
        words: &[
            PROGRAM, "monitor", "--events", "open", "--format", "json", "--pid", "PID",
        ],
        aim: None,
    },
    Peer {
        name: "opensnoop",
        words: &["opensnoop", "-p", "PID"],
        aim: Some(5.0),
    },
    Peer {
        name: "bpftrace, opens printed",
        words: &[
            "bpftrace",
            "-e",
            "tracepoint:syscalls:sys_enter_openat /pid == PID/ { printf(\"%d %s %s\\n\", pid, comm, str(args->filename)); }",
        ],
        aim: Some(10.0),
    },
];

/// A peer that runs, and its lines.
struct Telling {
    running: Running,
    lines: String,
    /// Programs of others.
    before: usize,
}

impl Telling {
    /// Starts it and waits until it tells opens.
    fn start(peer: &Peer, b: &mut Bench) -> anyhow::Result<Self> {
        let before = preflight::programs();
        let (lines, marker) = (b.path("lines"), b.path("marker"));
        fs::write(&marker, "")?;
        let pid = b.inside.pid().to_string();
        let words = peer.words.iter().map(|word| word.replace("PID", &pid));
        // The others look for tracefs where a machine usually has it; in a mount namespace it is there, and gone with them.
        let mounts = "mount -t debugfs none /sys/kernel/debug; mount -t tracefs none /sys/kernel/tracing; exec \"$@\"";
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", mounts, "sh"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(File::create(&lines)?)
            .stderr(File::create(b.path("said"))?)
            .spawn()
            .context("unshare cannot be started")?;
        let mut telling = Telling {
            running: Running(child),
            lines,
            before,
        };
        let begin = Instant::now();
        while telling.told(&marker)? == 0 {
            if telling.running.0.try_wait()?.is_some() || begin.elapsed() > PATIENCE {
                let said = fs::read_to_string(b.path("said"))?;
                anyhow::bail!("it tells nothing: {}", said.lines().last().unwrap_or(""));
            }
            // So many that they come through whatever buffer it writes with.
            b.inside.run("opens", 1000, &marker, 0)?;
            std::thread::sleep(Duration::from_millis(50));
        }
        telling.settle()?;
        Ok(telling)
    }

    /// Lines that name this file.
    fn told(&self, path: &str) -> anyhow::Result<u64> {
        let mut count = 0;
        for line in BufReader::new(File::open(&self.lines)?).split(b'\n') {
            let line = line?;
            count += u64::from(line.windows(path.len()).any(|w| w == path.as_bytes()));
        }
        Ok(count)
    }

    /// Waits until it writes no more.
    fn settle(&mut self) -> anyhow::Result<()> {
        let (begin, mut len) = (Instant::now(), u64::MAX);
        while begin.elapsed() < PATIENCE {
            let now = fs::metadata(&self.lines)?.len();
            if now == len {
                break;
            }
            len = now;
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    /// Ends it as Ctrl-C does: it writes what it still has.
    fn end(mut self, path: &str) -> anyhow::Result<u64> {
        self.settle()?;
        let pid = Pid::from_raw(self.running.0.id().cast_signed()).context("a process id")?;
        kill_process(pid, Signal::INT)?;
        let begin = Instant::now();
        while self.running.0.try_wait()?.is_none() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let told = self.told(path)?;
        drop(self.running);
        preflight::wait_for_programs(self.before)?;
        Ok(told)
    }
}

/// What it adds to an open, and how many of how many it told.
#[derive(Default)]
struct Found {
    pairs: Pairs,
    opens: u64,
    told: u64,
}

pub(crate) fn part(b: &mut Bench) -> anyhow::Result<()> {
    let (ms, path) = (b.ms(150), b.path("open"));
    // Of all slices, not of the median one: that somebody is woken now and then belongs to it.
    let each = |done: Done| done.ns / done.count as f64;
    let mut found: Vec<(&Peer, Found)> = Vec::new();
    for peer in PEERS {
        match Telling::start(peer, b).and_then(|telling| telling.end(&path)) {
            Ok(_) => found.push((peer, Found::default())),
            Err(e) => b.report.skip(peer.name, format!("{e:#}")),
        }
    }
    for round in 0..=b.rounds {
        let base = each(b.inside.run("open", ms, &path, 0)?);
        for (peer, found) in &mut found {
            found.pairs.base.push(base);
            if round == b.rounds {
                continue;
            }
            let telling = Telling::start(peer, b)?;
            let done = b.inside.run("open", ms, &path, 0)?;
            found.pairs.with.push(each(done));
            found.opens += done.count;
            found.told += telling.end(&path)?;
        }
    }
    let ours = found
        .iter()
        .find(|(peer, _)| peer.words[0] == PROGRAM)
        .map(|(_, ours)| ours.pairs.added().median)
        .context("stockade itself was not measured")?;
    for (peer, found) in &found {
        let what = format!("a storm of opens on one CPU, {}", peer.name);
        b.report.added(what, &found.pairs, None);
        let missing = 100.0 * (1.0 - found.told as f64 / found.opens as f64);
        let aim = (peer.words[0] == PROGRAM).then_some(Aim::AtMost(0.0));
        let note = format!("{} told of {}", found.told, found.opens);
        b.report
            .value("  of them not told", "%", &[missing], aim, Some(note));
        if let Some(times) = peer.aim {
            let more = found.pairs.added().median / ours;
            let aim = Some(Aim::AtLeast(times));
            b.report
                .value("  against stockade", "times", &[more], aim, None);
        }
    }
    Ok(())
}

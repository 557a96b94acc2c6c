//! Whole programs, and what watching them costs: with stockade, and with what else the machine has.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;

use crate::report::Aim;
use crate::stats::Pairs;
use crate::{Bench, PROGRAM};

/// `--timed FILE COMMAND…`: runs it and writes down how long it took. Whoever watches has begun by then.
pub(crate) const TIMED: &str = "--timed";
/// `--http N`: a server, and a client with so many requests.
pub(crate) const HTTP: &str = "--http";

/// Of the C build.
const SOURCES: usize = 200;
const REQUESTS: &str = "20000";

/// A program to watch.
struct Workload {
    name: &'static str,
    words: Vec<String>,
    dir: PathBuf,
    /// The status that it may have besides 0.
    may_end_with: i32,
    /// What the usual monitors may cost, in per cent; all together twice that.
    aim: f64,
}

/// Something to watch it with.
struct Way {
    name: &'static str,
    /// Before the command.
    words: &'static [&'static str],
    /// How often the aim of the workload it may cost.
    aim: Option<f64>,
}

const WAYS: &[Way] = &[
    Way {
        name: "stockade run",
        words: &[PROGRAM, "run"],
        aim: Some(1.0),
    },
    Way {
        name: "stockade run with all seven monitors",
        words: &[
            PROGRAM,
            "run",
            "--process",
            "--file",
            "--network",
            "--syscall",
            "--memory",
            "--disk",
            "--profile",
        ],
        aim: Some(2.0),
    },
    Way {
        name: "strace -f",
        words: &["strace", "-f", "-o", "/dev/null"],
        aim: None,
    },
    Way {
        name: "perf trace",
        words: &["perf", "trace", "-o", "/dev/null", "--"],
        aim: None,
    },
    Way {
        name: "bpftrace, opens printed",
        words: &[
            "bpftrace",
            "-o",
            "/dev/null",
            "-e",
            "tracepoint:syscalls:sys_enter_openat { printf(\"%d %s %s\\n\", pid, comm, str(args->filename)); }",
            "-c",
        ],
        aim: None,
    },
];

impl Way {
    fn is_ours(&self) -> bool {
        self.words[0] == PROGRAM
    }

    fn is_there(&self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(self.words[0]).is_file())
    }
}

/// Before anything else: what a command of this program is for itself. `None`: it is the benchmark.
pub(crate) fn main(words: &[String]) -> Option<ExitCode> {
    let done = match words {
        [flag, file, command @ ..] if flag == TIMED && !command.is_empty() => timed(file, command),
        [flag, requests] if flag == HTTP => http(requests),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    })
}

fn timed(file: &str, command: &[String]) -> anyhow::Result<()> {
    let begin = Instant::now();
    let status = Command::new(&command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("{} cannot be started", command[0]))?;
    let ns = begin.elapsed().as_nanos();
    let code = status.code().unwrap_or(-1);
    fs::write(file, format!("{ns} {code}")).with_context(|| format!("{file} cannot be written"))
}

/// Requests one after the other, each with a connection of its own.
fn http(requests: &str) -> anyhow::Result<()> {
    let requests: usize = requests.parse().context("a number of requests")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        let mut answer = b"HTTP/1.0 200 OK\r\nContent-Length: 4096\r\n\r\n".to_vec();
        answer.resize(answer.len() + 4096, b'x');
        for _ in 0..requests {
            let (mut stream, _) = listener.accept()?;
            let mut request = [0; 512];
            let mut read = 0;
            while !request[..read].ends_with(b"\r\n\r\n") {
                match stream.read(&mut request[read..])? {
                    0 => break,
                    n => read += n,
                }
            }
            stream.write_all(&answer)?;
        }
        Ok(())
    });
    let mut answer = Vec::new();
    for _ in 0..requests {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        answer.clear();
        stream.read_to_end(&mut answer)?;
        anyhow::ensure!(answer.ends_with(b"xxxx"), "an answer is not whole");
    }
    match server.join() {
        Ok(ended) => Ok(ended?),
        Err(_) => anyhow::bail!("the server has panicked"),
    }
}

/// Sources that take a compiler some milliseconds each.
fn sources(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir(dir)?;
    for n in 0..SOURCES {
        let mut text =
            String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
        for f in 0..8 {
            text.push_str(&format!(
                "int f{n}_{f}(const char *s) {{ return printf(\"%s %zu\\n\", s, strlen(s)) + atoi(s) * {f}; }}\n"
            ));
        }
        fs::write(dir.join(format!("f{n}.c")), text)?;
    }
    let make = "all: $(patsubst %.c,%.o,$(wildcard *.c))\n";
    fs::write(dir.join("Makefile"), make)?;
    Ok(())
}

fn workloads(b: &Bench) -> anyhow::Result<Vec<Workload>> {
    let dir = b.dir.path().join("sources");
    sources(&dir)?;
    let words = |of: &[&str]| of.iter().map(|&word| word.to_owned()).collect();
    let jobs = format!("-j{}", b.cpus);
    let this = std::env::current_exe()?;
    Ok(vec![
        Workload {
            name: "a C build of 200 files",
            words: words(&["make", "-s", "-B", &jobs]),
            dir,
            may_end_with: 0,
            aim: 2.0,
        },
        Workload {
            name: "find / -xdev",
            words: words(&["find", "/", "-xdev"]),
            dir: "/".into(),
            // Something was removed meanwhile.
            may_end_with: 1,
            aim: 6.0,
        },
        Workload {
            name: "20,000 HTTP requests over loopback",
            words: words(&[&this.to_string_lossy(), HTTP, REQUESTS]),
            dir: "/".into(),
            may_end_with: 0,
            aim: 2.0,
        },
    ])
}

/// Nanoseconds, and what stockade has lost.
fn measure(b: &Bench, workload: &Workload, way: Option<&Way>) -> anyhow::Result<(f64, u64)> {
    let (took, certificate) = (b.path("took"), b.path("certificate"));
    let this = std::env::current_exe()?.to_string_lossy().into_owned();
    let inner = [&[this, TIMED.to_owned(), took.clone()], &workload.words[..]].concat();
    let mut words: Vec<String> = Vec::new();
    if let Some(way) = way {
        words.extend(way.words.iter().map(|&word| word.to_owned()));
        if way.is_ours() {
            let options = ["--format", "json", "--output", "/dev/null"];
            words.extend(options.map(str::to_owned));
            words.extend(["--certificate", &certificate, "--"].map(str::to_owned));
        }
    }
    // It takes the command as one word.
    if words.last().is_some_and(|last| last == "-c") {
        words.push(inner.join(" "));
    } else {
        words.extend(inner);
    }
    let _ = fs::remove_file(&took);
    let out = Command::new(&words[0])
        .args(&words[1..])
        .current_dir(&workload.dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("{} cannot be started", words[0]))?;
    let text = fs::read_to_string(&took).with_context(|| {
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        format!("it was not run: {}", said.lines().last().unwrap_or(""))
    })?;
    let (ns, code) = text.split_once(' ').context("half a measurement")?;
    let code: i32 = code.parse()?;
    anyhow::ensure!(
        code == 0 || code == workload.may_end_with,
        "{} ended with {code}",
        workload.words[0]
    );
    let lost = if way.is_some_and(Way::is_ours) {
        let said: Value = serde_json::from_str(&fs::read_to_string(&certificate)?)?;
        let losses = said["stockade.losses"].as_array().context("no losses")?;
        losses.iter().filter_map(|l| l["count"].as_u64()).sum()
    } else {
        0
    };
    Ok((ns.parse()?, lost))
}

pub(crate) fn part(b: &mut Bench) -> anyhow::Result<()> {
    let mut ways = Vec::new();
    for way in WAYS {
        if way.is_ours() || way.is_there() {
            ways.push(way);
        } else {
            b.report.skip(way.name, "it is not installed");
        }
    }
    for workload in workloads(b)? {
        // Fills the caches, and finds who cannot do it here.
        measure(b, &workload, None)?;
        let mut able = Vec::new();
        for way in &ways {
            match measure(b, &workload, Some(way)) {
                Ok(_) => able.push((*way, Pairs::default(), 0)),
                Err(e) => b.report.skip(
                    &format!("{}: {}", workload.name, way.name),
                    format!("{e:#}"),
                ),
            }
        }
        for round in 0..=b.rounds {
            let (base, _) = measure(b, &workload, None)?;
            for (way, pairs, lost) in &mut able {
                pairs.base.push(base);
                if round < b.rounds {
                    let (with, meanwhile) = measure(b, &workload, Some(way))?;
                    pairs.with.push(with);
                    *lost += meanwhile;
                }
            }
        }
        for (way, pairs, lost) in able {
            let what = format!("{}: {}", workload.name, way.name);
            let aim = way.aim.map(|times| Aim::AtMost(workload.aim * times));
            b.report.percent(what.as_str(), &pairs, aim);
            if way.is_ours() {
                let what = format!("{what}: lost meanwhile");
                b.report
                    .value(what, "events", &[lost as f64], Some(Aim::AtMost(0.0)), None);
            }
        }
    }
    Ok(())
}

//! `stockade flame`: where processes spend their time, as a picture.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use inferno::flamegraph::color::{BasicPalette, MultiPalette, Palette};
use inferno::flamegraph::{self, Options};
use stockade::event::{Kind, ProfileMode};
use stockade::launch::Held;
use stockade::sink::Folded;
use stockade::{Event, Filter, Form, Monitor, Scope, Session, Watch};

use super::pprof::Pprof;
use super::run::Run;
use super::stop::Stop;
use super::watch::time;
use super::{Outcome, ScopeArgs, usage};

/// Show where processes spend their time, as a flame graph
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade flame -o build.svg -- make               where does this build spend its time?
  stockade flame --tree 1234 --duration 30s -o service.svg
  stockade flame --off-cpu --pid 1234 -o waits.svg  what does it wait for? until Ctrl-C
  stockade flame --host --duration 10s --format folded
  stockade flame --format pprof -o build.pb.gz -- make, and then: go tool pprof -http : build.pb.gz

Open the picture in a browser: a click zooms in, Ctrl-F searches. Functions of the kernel end in _[k], inlined ones in
_[i]. The stacks of a program are as deep as its frame pointers reach: build with -fno-omit-frame-pointer, or with
-C force-frame-pointers=yes. The exit code is 0 also when the command fails; 127 or 126 when it cannot be started.")]
pub(super) struct FlameArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Not where time is spent, but where it is waited for
    #[arg(long)]
    off_cpu: bool,
    /// How often to look at each CPU, in samples a second
    #[arg(long, value_name = "HZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "off_cpu")]
    freq: u32,
    /// Leave out shorter waits, such as 1ms
    #[arg(long, value_name = "TIME", value_parser = time, requires = "off_cpu")]
    min_latency: Option<Duration>,
    /// End after this time, such as 10s, and not with Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "command")]
    duration: Option<Duration>,
    /// A picture; one line for each stack with its weight, samples or microseconds off the CPU; or what `pprof` reads
    #[arg(long, value_name = "FORMAT", default_value = "svg")]
    format: FlameFormat,
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A command to start and to follow with all that it starts
    #[arg(last = true, value_name = "COMMAND", help_heading = "Arguments")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FlameFormat {
    Svg,
    Folded,
    Pprof,
}

pub(super) fn main(args: FlameArgs) -> Outcome {
    if args.format != FlameFormat::Folded && args.output.is_none() && io::stdout().is_terminal() {
        usage(
            "this format is not for the terminal: name a file with --output, or choose --format folded",
        );
    }
    let stop = Stop::listen()?;
    let file = args
        .output
        .as_ref()
        .map(|path| {
            File::create(path).with_context(|| format!("{} cannot be written", path.display()))
        })
        .transpose()?;
    let mut gathered = Gathered::new(args.format);
    // Waits are all measured, not sampled.
    let rate = (!args.off_cpu).then_some(args.freq);
    let watch = watch(&args)?;
    let filter = Filter::new()
        .frequency(args.freq)?
        .min_latency(args.min_latency.unwrap_or_default());
    let builder = Session::builder().monitor(watch).filter(filter);
    let code = match args.command.split_first() {
        None => {
            let session = builder.scope(args.scope.scope()).start()?;
            let end = args.duration.map(|duration| Instant::now() + duration);
            let over =
                |_: &Session| Ok(stop.asked() || end.is_some_and(|end| Instant::now() >= end));
            gathered.gather(session, over)?;
            0
        }
        Some((program, words)) => {
            let mut command = Command::new(program);
            command.args(words);
            let held = Held::spawn(command)?;
            let scope = Scope::new().tree(held.pid());
            // On failure `held` is dropped: the command has not run.
            let session = builder.scope(scope).start()?;
            match held.release()? {
                Ok(child) => {
                    gathered.follow(session, child, &stop)?;
                    0
                }
                Err(e) => {
                    eprintln!(
                        "stockade: {} cannot be executed: {e}",
                        program.to_string_lossy()
                    );
                    if e.kind() == io::ErrorKind::NotFound {
                        127
                    } else {
                        126
                    }
                }
            }
        }
    };
    if code == 0 {
        gathered.tell(args.off_cpu);
        gathered.write(args.format, rate, file)?;
    }
    Ok(code)
}

fn watch(args: &FlameArgs) -> stockade::Result<Watch> {
    if args.off_cpu {
        Monitor::Profile.form(Form::OffCpu)
    } else {
        Ok(Monitor::Profile.into())
    }
}

/// Stacks with their weights, for one of the formats.
#[derive(Debug)]
enum Stacks {
    Folded(Folded),
    Pprof(Box<Pprof>),
}

impl Stacks {
    fn count(&self) -> usize {
        match self {
            Stacks::Folded(folded) => folded.lines().count(),
            Stacks::Pprof(pprof) => pprof.stacks(),
        }
    }
}

/// Profiles, added up.
#[derive(Debug)]
struct Gathered {
    stacks: Stacks,
    began: SystemTime,
    since: Instant,
    /// Samples, or waits.
    samples: u64,
    /// Those with stacks that go on further out than the kernel unwinds.
    truncated: u64,
    /// Those in the program itself, in a place that has no name.
    nameless: u64,
}

impl Gathered {
    fn new(format: FlameFormat) -> Self {
        Gathered {
            stacks: match format {
                FlameFormat::Svg | FlameFormat::Folded => Stacks::Folded(Folded::new()),
                FlameFormat::Pprof => Stacks::Pprof(Box::new(Pprof::new())),
            },
            began: SystemTime::now(),
            since: Instant::now(),
            samples: 0,
            truncated: 0,
            nameless: 0,
        }
    }

    fn follow(&mut self, session: Session, mut child: Child, stop: &Stop) -> anyhow::Result<()> {
        let mut run = Run::watched(&mut child, stop);
        self.gather(session, |session| run.is_over(session))
    }

    /// Adds profiles up until it is over.
    fn gather(
        &mut self,
        mut session: Session,
        mut is_over: impl FnMut(&Session) -> stockade::Result<bool>,
    ) -> anyhow::Result<()> {
        while !is_over(&session)? {
            session.poll(Duration::from_millis(50), &mut |event| self.add(event))?;
        }
        let certificate = session.end(&mut |event: &Event| self.add(event))?;
        for reason in &certificate.incomplete_reasons {
            eprintln!("stockade: the profile is incomplete: {reason}");
        }
        Ok(())
    }

    fn add(&mut self, event: &Event) {
        match &mut self.stacks {
            Stacks::Folded(folded) => folded.add(event),
            Stacks::Pprof(pprof) => pprof.add(event),
        }
        if let Kind::Profile(profile) = &event.kind {
            let innermost = profile.user.first().filter(|_| profile.kernel.is_empty());
            self.samples += profile.samples;
            if profile.truncated {
                self.truncated += profile.samples;
            }
            if innermost.is_some_and(|frame| frame.function.is_none()) {
                self.nameless += profile.samples;
            }
        }
    }

    /// How much it is, and what is missing in it.
    fn tell(&self, off_cpu: bool) {
        let stacks = self.stacks.count();
        let what = if off_cpu { "waits" } else { "samples" };
        let mut line = format!("{} {what} in {stacks} stacks", self.samples);
        if self.truncated > 0 {
            let _ = write!(line, ", {} without their outer functions", self.truncated);
        }
        if self.nameless > 0 {
            let _ = write!(line, ", {} in functions without a name", self.nameless);
        }
        eprintln!("stockade: {line}");
    }

    /// In the format that was asked for, to a file or to standard output.
    fn write(
        self,
        format: FlameFormat,
        rate: Option<u32>,
        file: Option<File>,
    ) -> anyhow::Result<()> {
        let mut out = Vec::new();
        let took = self.since.elapsed();
        match self.stacks {
            Stacks::Folded(folded) if folded.is_empty() => nothing(),
            Stacks::Folded(folded) if format == FlameFormat::Svg => {
                picture(rate.is_none(), &folded, &mut out)
                    .context("the flame graph cannot be drawn")?;
            }
            Stacks::Folded(folded) => {
                for line in folded.lines() {
                    writeln!(out, "{line}")?;
                }
            }
            Stacks::Pprof(pprof) => {
                if pprof.stacks() == 0 {
                    nothing();
                }
                let (mode, period) = match rate {
                    None => (ProfileMode::OffCpu, Duration::ZERO),
                    Some(rate) => (ProfileMode::Cpu, Duration::from_secs(1) / rate),
                };
                let began = self.began.duration_since(SystemTime::UNIX_EPOCH);
                pprof.write(mode, period, began.unwrap_or_default(), took, &mut out)?;
            }
        }
        let written = match file {
            Some(mut file) => file.write_all(&out),
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&out).and_then(|()| stdout.flush())
            }
        };
        match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("the profile cannot be written"),
        }
    }
}

fn nothing() {
    eprintln!("stockade: there is nothing to show: nobody in scope was seen");
}

fn picture(off_cpu: bool, folded: &Folded, out: &mut Vec<u8>) -> io::Result<()> {
    let mut options = Options::default();
    // The same name has the same colour in every picture.
    options.hash = true;
    if off_cpu {
        options.title = "Time off the CPU".to_owned();
        options.count_name = "us".to_owned();
        options.colors = Palette::Basic(BasicPalette::Blue);
    } else {
        options.title = "Time on the CPU".to_owned();
        // This one knows the endings for the kernel and for inlined functions.
        options.colors = Palette::Multi(MultiPalette::Java);
    }
    let lines: Vec<String> = folded.lines().collect();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out)
}

#[cfg(test)]
mod tests {
    use stockade::event::{Profile, ProfileMode, sample};

    use super::*;

    #[test]
    fn picture_has_every_function_with_its_share() {
        let mut folded = Folded::new();
        for event in sample::samples() {
            let on_cpu = |profile: &Profile| profile.mode == ProfileMode::Cpu;
            if matches!(&event.kind, Kind::Profile(profile) if on_cpu(profile)) {
                folded.add(&event);
            }
        }
        let mut out = Vec::new();
        picture(false, &folded, &mut out).expect("a picture");
        let svg = String::from_utf8(out).expect("SVG is UTF-8");
        assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
        // What the name ends in became the colour.
        assert!(svg.contains("<title>vfs_read (12 samples, 100.00%)</title>"));
        assert!(svg.contains("Time on the CPU"));
        // It can be searched and zoomed without anything from elsewhere.
        assert!(svg.contains("<script") && !svg.contains("src=\"http"));
    }
}

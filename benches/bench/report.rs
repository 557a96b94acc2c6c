//! The figures, as lines while they come and as two files at the end.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::preflight::Machine;
use crate::stats::{Pairs, Summary, distinguishable};

/// What a figure is meant to reach.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Aim {
    /// Whether an effect of this size would show in the verdict.
    fn above(self, noise: f64) -> bool {
        match self {
            Aim::AtMost(limit) | Aim::AtLeast(limit) => limit >= noise,
        }
    }

    fn met(self, value: f64) -> bool {
        match self {
            Aim::AtMost(limit) => value <= limit,
            Aim::AtLeast(limit) => value >= limit,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    what: String,
    unit: &'static str,
    value: Summary,
    /// The same without stockade, where this is a comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distinguishable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<Aim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: &'static str,
    machine: Machine,
    figures: Vec<Figure>,
    /// What could not be measured here, and why.
    not_measured: Vec<String>,
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        let this = Report {
            version: env!("CARGO_PKG_VERSION"),
            machine,
            figures: Vec::new(),
            not_measured: Vec::new(),
        };
        print!("{}", this.head());
        this
    }

    /// Something that was measured by itself.
    pub(crate) fn value(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        values: &[f64],
        aim: Option<Aim>,
        note: Option<String>,
    ) {
        self.push(what.into(), unit, Summary::of(values), None, aim, note);
    }

    /// Nanoseconds that were added.
    pub(crate) fn added(&mut self, what: impl Into<String>, pairs: &Pairs, aim: Option<Aim>) {
        let base = Summary::of(&pairs.base);
        self.push(what.into(), "ns", pairs.added(), Some(base), aim, None);
    }

    /// The same in per cent of the baseline.
    pub(crate) fn percent(&mut self, what: impl Into<String>, pairs: &Pairs, aim: Option<Aim>) {
        let base = Summary::of(&pairs.base);
        self.push(what.into(), "%", pairs.percent(), Some(base), aim, None);
    }

    fn push(
        &mut self,
        what: String,
        unit: &'static str,
        value: Summary,
        base: Option<Summary>,
        aim: Option<Aim>,
        note: Option<String>,
    ) {
        let figure = Figure {
            what,
            unit,
            value,
            base,
            distinguishable: base.map(|_| distinguishable(&value)),
            // The aims are for real machines.
            met: aim
                .filter(|_| !self.machine.emulated)
                // Where the noise is larger than the aim, the median says nothing about it.
                .filter(|a| {
                    base.is_none() || distinguishable(&value) || a.above(2.0 * value.spread)
                })
                .map(|a| a.met(value.median)),
            aim,
            note,
        };
        println!("{}", line(&figure));
        self.figures.push(figure);
    }

    pub(crate) fn skip(&mut self, what: &str, why: impl std::fmt::Display) {
        // The verifier's lines are for the doctor.
        let why = why.to_string();
        let why = why.lines().next().unwrap_or_default();
        println!("{what}: not measured: {why}");
        self.not_measured.push(format!("{what}: {why}"));
    }

    fn head(&self) -> String {
        let m = &self.machine;
        let mut out = format!(
            "stockade {} on Linux {} {}, {} CPUs, {} MiB\n{}, clock {}, getppid {:.1} ns, load {}\n",
            self.version,
            m.kernel,
            m.machine,
            m.cpus,
            m.memory_mib,
            m.cpu,
            m.clocksource,
            m.getppid_ns,
            m.load
        );
        if m.counted {
            out.push_str("emulated: a nanosecond is an instruction\n");
        } else if m.emulated {
            out.push_str("emulated: only the ratios mean anything\n");
        }
        for reason in &m.poisoned {
            let _ = writeln!(out, "poisoned: {reason}");
        }
        out
    }

    /// Writes REPORT-KERNEL.json and .md.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir)?;
        let stem = format!("REPORT-{}", self.machine.kernel);
        let json = dir.join(format!("{stem}.json"));
        std::fs::write(&json, serde_json::to_string_pretty(self)? + "\n")?;
        let mut md = String::from("# Benchmark\n\n");
        for l in self.head().lines() {
            let _ = writeln!(md, "{l}  ");
        }
        md.push_str("\n| what | median | min | max | spread | rounds | base | aim | |\n|---|---|---|---|---|---|---|---|---|\n");
        for f in &self.figures {
            let v = &f.value;
            let _ = writeln!(
                md,
                "| {} | {} {} | {} | {} | {} | {} | {} | {} | {} |",
                f.what,
                short(v.median),
                f.unit,
                short(v.min),
                short(v.max),
                short(v.spread),
                v.rounds,
                f.base
                    .map_or(String::new(), |b| format!("{} ns", short(b.median))),
                f.aim.map_or(String::new(), |a| aim(a, f.unit)),
                verdict(f),
            );
        }
        if !self.not_measured.is_empty() {
            md.push_str("\nNot measured:\n\n");
            for s in &self.not_measured {
                let _ = writeln!(md, "- {s}");
            }
        }
        std::fs::write(dir.join(format!("{stem}.md")), md)?;
        println!("written to {}", json.display());
        Ok(())
    }
}

fn short(n: f64) -> String {
    match n.abs() {
        a if a >= 1e6 => format!("{:.2} M", n / 1e6),
        a if a >= 1e4 => format!("{:.1} k", n / 1e3),
        a if a >= 100.0 => format!("{n:.0}"),
        a if a >= 10.0 => format!("{n:.1}"),
        _ => format!("{n:.2}"),
    }
}

fn aim(aim: Aim, unit: &str) -> String {
    match aim {
        Aim::AtMost(n) => format!("≤ {} {unit}", short(n)),
        Aim::AtLeast(n) => format!("≥ {} {unit}", short(n)),
    }
}

fn verdict(f: &Figure) -> String {
    let mut words = Vec::new();
    if f.distinguishable == Some(false) {
        words.push("not distinguishable".to_owned());
    }
    match f.met {
        Some(true) => words.push("met".to_owned()),
        Some(false) => words.push("MISSED".to_owned()),
        None => {}
    }
    words.extend(f.note.clone());
    words.join("; ")
}

fn line(f: &Figure) -> String {
    let v = &f.value;
    let mut out = format!(
        "{}: {} {} (min {}, max {}, spread {}",
        f.what,
        short(v.median),
        f.unit,
        short(v.min),
        short(v.max),
        short(v.spread)
    );
    if let Some(base) = f.base {
        let _ = write!(out, ", base {} ns", short(base.median));
    }
    out.push(')');
    if let Some(a) = f.aim {
        let _ = write!(out, " aim {}", aim(a, f.unit));
    }
    let verdict = verdict(f);
    if !verdict.is_empty() {
        let _ = write!(out, ": {verdict}");
    }
    out
}

//! Loads an object, attaches its programs one at a time and says of each probe what became of it.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use libbpf_rs::{Link, MapCore as _, MapHandle};

use super::attached::{Attached, Attachments};
use super::btf::KernelBtf;
use super::drops::Drops;
use super::log::Capture;
use super::pins::PinDirectory;
use super::ring::Rings;
use super::table::{OwnTable, Table};
use super::tracefs::{Tracefs, give_away};
use super::{perf, preemptible_tracepoints, refused, skel, trial};
use crate::error::{Error, ErrorKind, Result};
use crate::wire;

/// Registers the compiled objects, each `src/bpf/NAME.bpf.c`.
macro_rules! objects {
    ($($variant:ident, $compiled:ident;)+) => {
        /// Which compiled object.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Object {
            $($variant,)+
        }

        impl Object {
            #[cfg(test)]
            pub(crate) const ALL: &'static [Object] = &[$(Object::$variant),+];

            fn compiled(self) -> &'static skel::Compiled {
                match self {
                    $(Object::$variant => &skel::$compiled,)+
                }
            }
        }
    };
}

objects! {
    Scope, SCOPE;
    Process, PROCESS;
    ProcessSummary, PROCESS_SUMMARY;
    File, FILE;
    FileSummary, FILE_SUMMARY;
    Fence, FENCE;
    FenceNetwork, FENCE_NETWORK;
    FenceSyscall, FENCE_SYSCALL;
    FenceLimit, FENCE_LIMIT;
    FenceGuard, FENCE_GUARD;
    FenceSubject, FENCE_SUBJECT;
    FenceWritten, FENCE_WRITTEN;
    FenceHost, FENCE_HOST;
    Syscall, SYSCALL;
    Network, NETWORK;
    Memory, MEMORY;
    Allocation, ALLOCATION;
    Disk, DISK;
    Profile, PROFILE;
}

/// What an object holds, as it was compiled.
#[cfg(test)]
pub(crate) fn program_names(object: Object) -> Vec<String> {
    object.compiled().programs()
}

/// One thing to observe or to guard, and the ways to do it, best first.
#[derive(Debug)]
pub(crate) struct Probe {
    /// As in the report: `file.open`.
    pub(crate) name: &'static str,
    /// Best first.
    pub(crate) variants: &'static [Variant],
    /// What is missing without it.
    pub(crate) without: &'static str,
    /// Nothing is missing where the kernel lacks this function: it cannot do what the probe is for.
    pub(crate) excused_without: Option<&'static str>,
}

/// One way: programs that make sense together only.
#[derive(Debug)]
pub(crate) struct Variant {
    /// As in the report: `fexit`.
    pub(crate) name: &'static str,
    /// Attached in this order; one that fails takes the variant with it.
    pub(crate) programs: &'static [Program],
    /// What the kernel must have.
    pub(crate) needs: &'static [Needs],
    /// What this way does not see, where it is less than the probe promises.
    pub(crate) blind: Option<&'static str>,
}

/// A variant where fexit programs are preempted, and skipped for whoever runs meanwhile: programs that are not, see
/// session.bpf.h.
macro_rules! session {
    ([$($program:expr),+], $($need:expr),+) => {
        $crate::kernel::Variant {
            name: "session",
            programs: &[$($crate::kernel::Program::Auto($program)),+],
            needs: &[
                $crate::kernel::Needs::PreemptibleTracepoints,
                $crate::kernel::Needs::Function("bpf_session_cookie"),
                $crate::kernel::Needs::Function("bpf_rdonly_cast"),
                $($need),+
            ],
            blind: None,
        }
    };
}
pub(crate) use session;

/// A probe on a kernel tracepoint. Raw first: typed arguments make libbpf parse the kernel's whole BTF for the object,
/// 4 to 10 ms, and our programs relocate what they read in any case. Where tracepoints can be preempted, at the named
/// function beside it before all.
macro_rules! tracepoint {
    ($name:literal, $program:literal, $missing:literal $(, $function:literal)?) => {
        $crate::kernel::Probe {
            name: $name,
            variants: &[
                $($crate::kernel::Variant {
                    name: "kprobe",
                    programs: &[$crate::kernel::Program::Auto(concat!($program, "__kprobe"))],
                    needs: &[
                        $crate::kernel::Needs::PreemptibleTracepoints,
                        $crate::kernel::Needs::Function($function),
                    ],
                    blind: None,
                },)?
                $crate::kernel::Variant {
                    name: "raw_tp",
                    programs: &[$crate::kernel::Program::Auto(concat!($program, "__raw_tp"))],
                    needs: &[],
                    blind: None,
                },
                $crate::kernel::Variant {
                    name: "tp_btf",
                    programs: &[$crate::kernel::Program::Auto(concat!($program, "__tp_btf"))],
                    needs: &[],
                    blind: None,
                },
            ],
            without: $missing,
            excused_without: None,
        }
    };
}
pub(crate) use tracepoint;

/// A condition on the kernel's functions.
#[derive(Debug)]
pub(crate) enum Needs {
    /// It has this function.
    Function(&'static str),
    /// It has this function with so many parameters.
    Params(&'static str, usize),
    /// It takes fentry and fexit programs.
    Fentry,
    /// It does not: then one program on the system calls' exits stands for several probes, and must not stand beside
    /// theirs. That is a choice and no ability: whoever tries every variant passes over it.
    NoFentry,
    /// Its tracepoints can be preempted. Where they cannot, it is no shortcoming and not reported.
    PreemptibleTracepoints,
}

/// What a program needs that reads the arguments of a system call in a classic tracepoint at its end (5.15).
pub(crate) const PT_REGS: &[Needs] = &[Needs::Function("bpf_task_pt_regs")];

/// A program of an object.
#[derive(Debug)]
pub(crate) enum Program {
    /// Its section says where it goes.
    Auto(&'static str),
    /// The same, and the one after it sees what this one is skipped for: then nothing is lost.
    Backed(&'static str),
    /// It goes to a classic tracepoint: group and name.
    Tracepoint(&'static str, &'static str, &'static str),
    /// A clock on every CPU calls it, as often as the loader was told.
    Clock(&'static str),
    /// It goes to the cgroup that all others are in, as far as anybody can see from here.
    Cgroup(&'static str),
    /// It goes nowhere, and is called by [`Attached::call`].
    Called(&'static str),
}

impl Program {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Program::Auto(name)
            | Program::Backed(name)
            | Program::Tracepoint(name, ..)
            | Program::Clock(name)
            | Program::Cgroup(name)
            | Program::Called(name) => name,
        }
    }
}

/// What became of a probe.
#[derive(Debug, Clone)]
pub(crate) struct ProbeReport {
    pub(crate) name: &'static str,
    /// The variant that is attached.
    pub(crate) variant: Option<&'static str>,
    /// Why better variants are not, with libbpf's and the verifier's lines.
    pub(crate) reasons: Vec<String>,
    /// What is missing, if it is not attached.
    pub(crate) missing: Option<&'static str>,
    /// What the attached variant does not see.
    pub(crate) blind: Option<&'static str>,
}

impl ProbeReport {
    /// Why better variants are not attached, without the verifier's lines.
    pub(crate) fn brief(&self) -> String {
        let first: Vec<&str> = self
            .reasons
            .iter()
            .filter_map(|r| r.lines().next())
            .collect();
        first.join("; ")
    }
}

/// What became of one variant when it was loaded by itself.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) probe: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) verdict: Verdict,
}

/// What a kernel says to a variant.
#[derive(Debug)]
pub(crate) enum Verdict {
    Loads,
    /// It lacks what the variant needs.
    NotApplicable(String),
    Refused(Error),
}

/// A need that is not met.
enum Unmet {
    /// And nothing is lost by it: the better variants are for other kernels.
    NoShortcoming(String),
    Shortcoming(String),
}

/// Sizes of maps by name, in entries (bytes for rings).
pub(crate) type MapSizes = BTreeMap<&'static str, u32>;

/// Loads objects that share their maps by name.
pub(crate) struct Loader {
    config: wire::Config,
    sizes: MapSizes,
    maps: BTreeMap<String, MapHandle>,
    btf: KernelBtf,
    /// Why the kernel refuses fentry programs, once somebody has asked.
    fentry: OnceCell<Option<String>>,
    tracefs: Tracefs,
    /// Whether inode tags may be created. Never by trial: 6.12 accepts the map without BPF LSM and would write into
    /// another module's memory.
    tags: bool,
    /// How often clocks tick, in a second.
    hz: u32,
    /// Where programs go that are for cgroups.
    cgroup: Option<PathBuf>,
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("config", &self.config)
            .field("maps", &self.maps.keys())
            .finish_non_exhaustive()
    }
}

impl Loader {
    pub(crate) fn new(btf: KernelBtf, config: wire::Config, sizes: MapSizes, tags: bool) -> Self {
        Loader {
            config,
            sizes,
            maps: BTreeMap::new(),
            btf,
            fentry: OnceCell::new(),
            tracefs: Tracefs::default(),
            tags,
            hz: 0,
            cgroup: None,
        }
    }

    /// Who is in scope: bits of [`scope_bit`](wire::scope_bit).
    pub(crate) fn scope(&self) -> u32 {
        self.config.scope
    }

    /// This process, as the kernel's programs know it.
    pub(crate) fn self_tgid(&self) -> u32 {
        self.config.self_tgid
    }

    /// How often the clocks are to tick that call programs, in a second.
    pub(crate) fn set_frequency(&mut self, hz: u32) {
        self.hz = hz;
    }

    /// Where the cgroup is that all others are in, as far as anybody can see from here.
    pub(crate) fn set_cgroup(&mut self, at: Option<PathBuf>) {
        self.cgroup = at;
    }

    fn open_cgroup(&self) -> Result<File> {
        let at = self.cgroup.as_ref().ok_or_else(|| {
            let why = "no cgroup2 file system is mounted";
            Error::new(ErrorKind::Load, why)
        })?;
        File::open(at).map_err(|e| Error::new(ErrorKind::Load, format!("{}: {e}", at.display())))
    }

    /// As it was set.
    pub(crate) fn frequency(&self) -> u32 {
        self.hz
    }

    /// A map that an object brought along.
    pub(crate) fn map(&self, name: &'static str) -> Result<Table<&MapHandle>> {
        Ok(Table::new(name, self.handle(name)?))
    }

    /// The same for another thread.
    pub(crate) fn own_map(&self, name: &'static str) -> Result<OwnTable> {
        let map = MapHandle::try_from(self.handle(name)?)
            .map_err(|e| refused(&format!("the map {name}"), &e, &[]))?;
        Ok(Table::new(name, map))
    }

    /// The consumer of the rings that the objects brought along.
    pub(crate) fn rings(&self) -> Result<Rings> {
        Rings::new(self.handle("stk_events")?, self.handle("stk_denials")?)
    }

    /// The counters of what is lost on the way to the rings.
    pub(crate) fn drops(&self) -> Result<Drops> {
        Drops::new(self.handle("stk_counts")?)
    }

    /// The numbers of the maps that the objects brought along.
    pub(crate) fn map_ids(&self) -> Result<Vec<u32>> {
        let ids = self.maps.iter().map(|(name, map)| match map.info() {
            Ok(info) => Ok(info.info.id),
            Err(e) => Err(refused(&format!("asking for the map {name}"), &e, &[])),
        });
        ids.collect()
    }

    /// Gives the maps that the objects brought along their own names in a directory, but for those that have one already.
    pub(crate) fn pin(
        &self,
        directory: &PinDirectory,
        pinned: &mut BTreeSet<String>,
    ) -> Result<()> {
        for (name, map) in &self.maps {
            if !pinned.contains(name) {
                directory.pin(map.as_fd(), name)?;
                pinned.insert(name.clone());
            }
        }
        Ok(())
    }

    fn handle(&self, name: &str) -> Result<&MapHandle> {
        self.maps.get(name).ok_or_else(|| {
            Error::new(
                ErrorKind::Load,
                format!("map {name} is not loaded; this is a defect"),
            )
        })
    }

    /// What this kernel's types are.
    pub(crate) fn btf(&self) -> &KernelBtf {
        &self.btf
    }

    /// Whether this kernel has a function.
    pub(crate) fn has_function(&self, name: &str) -> Result<bool> {
        Ok(self.btf.function(name)?.is_some())
    }

    /// Attaches each probe by the best variant that this kernel takes. A probe that none fits is reported, not an error:
    /// the caller knows which ones it cannot do without. Nothing of a variant stays behind when a part of it fails.
    pub(crate) fn attach(
        &mut self,
        object: Object,
        probes: impl IntoIterator<Item = &'static Probe>,
    ) -> Result<(Attachments, Vec<ProbeReport>)> {
        let probes: Vec<&'static Probe> = probes.into_iter().collect();
        let mut attached = Attachments::default();
        let mut reports: Vec<ProbeReport> = probes
            .iter()
            .map(|p| ProbeReport {
                name: p.name,
                variant: None,
                reasons: Vec::new(),
                missing: None,
                blind: None,
            })
            .collect();
        // The variant that each probe tries next; probes that are done or out of variants are not in it.
        let mut next: Vec<(usize, usize)> = Vec::new();
        for (index, report) in reports.iter_mut().enumerate() {
            if let Some(variant) = self.applicable(probes[index], 0, report)? {
                next.push((index, variant));
            }
        }
        // The first round tries all in one load, which is the normal case: each load parses the kernel's BTF (8 ms).
        let mut together = true;
        while !next.is_empty() {
            let rounds: Vec<Vec<(usize, usize)>> = if together {
                vec![std::mem::take(&mut next)]
            } else {
                std::mem::take(&mut next)
                    .into_iter()
                    .map(|one| vec![one])
                    .collect()
            };
            for round in rounds {
                let variants: Vec<&'static Variant> =
                    round.iter().map(|&(p, v)| &probes[p].variants[v]).collect();
                let tried = self.load(object, &variants, |loader, loaded, capture| {
                    loader.attach_loaded(loaded, capture, &variants, &mut attached)
                });
                let failures = match tried {
                    Ok(results) => results,
                    Err(e) if e.kind() == ErrorKind::Permission && !together => return Err(e),
                    // One bad program refuses the whole object: find it by loading each variant by itself.
                    Err(_) if round.len() > 1 => {
                        next.extend(round);
                        continue;
                    }
                    Err(e) => vec![Some(e)],
                };
                for ((probe, variant), failure) in round.into_iter().zip(failures) {
                    let report = &mut reports[probe];
                    match failure {
                        None => {
                            report.variant = Some(probes[probe].variants[variant].name);
                            report.blind = probes[probe].variants[variant].blind;
                        }
                        Some(e) => {
                            report
                                .reasons
                                .push(format!("{}: {e}", probes[probe].variants[variant].name));
                            if let Some(v) = self.applicable(probes[probe], variant + 1, report)? {
                                next.push((probe, v));
                            }
                        }
                    }
                }
            }
            together = false;
        }
        for (report, probe) in reports.iter_mut().zip(probes) {
            if report.variant.is_some() {
                continue;
            }
            let excused = match probe.excused_without {
                Some(function) => self.btf.function(function)?.is_none(),
                None => false,
            };
            report.missing = (!excused).then_some(probe.without);
        }
        Ok((attached, reports))
    }

    /// The first variant from `from` on whose needs this kernel meets.
    fn applicable(
        &self,
        probe: &Probe,
        from: usize,
        report: &mut ProbeReport,
    ) -> Result<Option<usize>> {
        for (index, variant) in probe.variants.iter().enumerate().skip(from) {
            match self.unmet(variant.needs)? {
                None => return Ok(Some(index)),
                Some(Unmet::NoShortcoming(_)) => {}
                Some(Unmet::Shortcoming(why)) => {
                    report.reasons.push(format!("{}: {why}", variant.name));
                }
            }
        }
        Ok(None)
    }

    /// Which of these needs of a variant this kernel does not meet, the first of them.
    fn unmet<'n>(&self, needs: impl IntoIterator<Item = &'n Needs>) -> Result<Option<Unmet>> {
        for need in needs {
            let why = match need {
                Needs::PreemptibleTracepoints if preemptible_tracepoints() => None,
                Needs::PreemptibleTracepoints => {
                    return Ok(Some(Unmet::NoShortcoming(
                        "tracepoints are not preempted here".into(),
                    )));
                }
                Needs::Fentry => self.refuses_fentry()?,
                Needs::NoFentry => match self.refuses_fentry()? {
                    Some(_) => None,
                    None => {
                        return Ok(Some(Unmet::NoShortcoming(
                            "this kernel takes fentry and fexit programs".into(),
                        )));
                    }
                },
                Needs::Function(name) => self.unfit(name, None)?,
                Needs::Params(name, wanted) => self.unfit(name, Some(*wanted))?,
            };
            if let Some(why) = why {
                return Ok(Some(Unmet::Shortcoming(why)));
            }
        }
        Ok(None)
    }

    /// Loads each variant of each probe and lets it go: what this kernel takes, whether it would be chosen or not. Nothing
    /// is attached. All at once first, which takes half of the time; only where that is refused each by itself.
    pub(crate) fn try_every(
        &mut self,
        object: Object,
        probes: &'static [Probe],
    ) -> Result<Vec<Trial>> {
        let mut trials = Vec::new();
        let mut able = Vec::new();
        for probe in probes {
            // Those without programs are seen by another probe's.
            for variant in probe.variants.iter().filter(|v| !v.programs.is_empty()) {
                let needs = variant
                    .needs
                    .iter()
                    .filter(|n| !matches!(n, Needs::NoFentry));
                let verdict = match self.unmet(needs)? {
                    Some(Unmet::NoShortcoming(why) | Unmet::Shortcoming(why)) => {
                        Verdict::NotApplicable(why)
                    }
                    None => {
                        able.push((trials.len(), variant));
                        Verdict::Loads
                    }
                };
                trials.push(Trial {
                    probe: probe.name,
                    variant: variant.name,
                    verdict,
                });
            }
        }
        let all: Vec<&Variant> = able.iter().map(|(_, variant)| *variant).collect();
        if all.is_empty() || self.load(object, &all, |_, _, _| ()).is_ok() {
            return Ok(trials);
        }
        for (index, variant) in able {
            if let (Err(e), Some(trial)) = (
                self.load(object, &[variant], |_, _, _| ()),
                trials.get_mut(index),
            ) {
                trial.verdict = Verdict::Refused(e);
            }
        }
        Ok(trials)
    }

    /// Why this kernel has no such function; `None` when it has it.
    fn unfit(&self, name: &str, wanted: Option<usize>) -> Result<Option<String>> {
        let found = self.btf.function(name)?.map(|f| f.params);
        Ok(match (found, wanted) {
            (None, _) => Some(format!("this kernel has no {name}")),
            (Some(found), Some(wanted)) if found != wanted => {
                Some(format!("{name} has {found} parameters here, not {wanted}"))
            }
            _ => None,
        })
    }

    /// Why this kernel takes no fentry and fexit programs at all. Asked once, with a program that does nothing: a
    /// refusal found by loading costs a load for each probe.
    fn refuses_fentry(&self) -> Result<Option<String>> {
        if let Some(known) = self.fentry.get() {
            return Ok(known.clone());
        }
        let refusal = match self.btf.function("vfs_unlink")? {
            Some(function) => trial::fentry(function.id)
                .err()
                .map(|e| format!("this kernel refuses fentry and fexit programs: {e}")),
            None => None,
        };
        Ok(self.fentry.get_or_init(|| refusal).clone())
    }

    /// Loads the programs of `variants` from an object, lets `then` do something with them, and drops what it does not
    /// keep.
    fn load<T>(
        &mut self,
        object: Object,
        variants: &[&'static Variant],
        then: impl FnOnce(&mut Self, &libbpf_rs::Object, &Capture) -> T,
    ) -> Result<T> {
        let capture = Capture::start();
        let names: Vec<&str> = variants
            .iter()
            .flat_map(|v| v.programs)
            .map(Program::name)
            .collect();
        let what = || format!("BPF program {}", names.join(", "));
        let mut open = object
            .compiled()
            .open(&self.btf)?
            .map_err(|e| refused(&what(), &e, &capture.take()))?;
        for mut program in open.progs_mut() {
            program.set_autoload(names.iter().any(|n| program.name() == *n));
        }
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            self.prepare(&mut map, &name)
                .map_err(|e| refused(&format!("map {name}"), &e, &capture.take()))?;
        }
        let loaded = open
            .load()
            .map_err(|e| refused(&what(), &e, &capture.take()))?;
        for map in loaded.maps() {
            let name = map.name().to_string_lossy().into_owned();
            if name.starts_with("stk_") && map.autocreate() && !self.maps.contains_key(&name) {
                let handle = MapHandle::try_from(&map)
                    .map_err(|e| refused(&format!("map {name}"), &e, &[]))?;
                self.maps.insert(name, handle);
            }
        }
        Ok(then(self, &loaded, &capture))
    }

    /// Attaches the programs of each variant; `None` where that went well.
    fn attach_loaded(
        &mut self,
        loaded: &libbpf_rs::Object,
        capture: &Capture,
        variants: &[&'static Variant],
        attached: &mut Attachments,
    ) -> Vec<Option<Error>> {
        let mut results = Vec::with_capacity(variants.len());
        for variant in variants {
            // A variant's programs stand or fall together: dropping `own` detaches what was attached of it.
            let mut own = Attachments::default();
            let mut failure = None;
            for wanted in variant.programs {
                match self.attach_program(loaded, capture, wanted) {
                    Ok(one) => own.push(one),
                    Err(e) => {
                        failure = Some(e);
                        break;
                    }
                }
            }
            if failure.is_none() {
                attached.append(own);
            }
            results.push(failure);
        }
        results
    }

    fn attach_program(
        &mut self,
        loaded: &libbpf_rs::Object,
        capture: &Capture,
        wanted: &Program,
    ) -> Result<Attached> {
        let name = wanted.name();
        let program = loaded.progs_mut().find(|p| p.name() == name);
        let program = program.ok_or_else(|| {
            Error::new(
                ErrorKind::Load,
                format!("no program {name}; this is a defect"),
            )
        })?;
        let links = match wanted {
            Program::Auto(_) | Program::Backed(_) => vec![
                program
                    .attach()
                    .map_err(|e| refused(name, &e, &capture.take()))?,
            ],
            Program::Tracepoint(_, group, event) => {
                let event = self.tracefs.perf_event(group, event)?;
                on_perf_events(&program, vec![event], capture)?
            }
            Program::Clock(_) => on_perf_events(&program, perf::clocks(self.hz)?, capture)?,
            Program::Called(_) => Vec::new(),
            Program::Cgroup(_) => {
                let root = self.open_cgroup()?;
                let link = program.attach_cgroup(root.as_raw_fd());
                vec![link.map_err(|e| refused(name, &e, &capture.take()))?]
            }
        };
        let is_backed = matches!(wanted, Program::Backed(_));
        Attached::new(name, links, program.as_fd(), is_backed)
    }

    /// Settings of one map before load: content, size, or the map that is already there.
    fn prepare(&self, map: &mut libbpf_rs::OpenMapMut<'_>, name: &str) -> libbpf_rs::Result<()> {
        if name.ends_with(".rodata") {
            let bytes = wire::bytes_of(&self.config);
            if map.initial_value().map(<[u8]>::len) != Some(bytes.len()) {
                // Something besides stk_config got into .rodata; a wrong write here would be silent.
                return Err(libbpf_rs::Error::from(std::io::Error::other(
                    "constants are not stk_config alone",
                )));
            }
            return map.set_initial_value(bytes);
        }
        if name.starts_with("stk_tags_") && !self.tags {
            return map.set_autocreate(false);
        }
        if name.ends_with("_calls_begun") && !preemptible_tracepoints() {
            return map.set_autocreate(false);
        }
        if let Some(shared) = self.maps.get(name) {
            return map.reuse_fd(shared.as_fd());
        }
        if name == "stk_counts" || name.ends_with("_buf") {
            // One per CPU, or all but the first would lose their records, and their counts of that.
            map.set_max_entries(self.config.cpus)?;
        } else if let Some(&size) = self.sizes.get(name) {
            map.set_max_entries(size)?;
        }
        Ok(())
    }
}

/// Hangs a program on perf events, which its links own from then on.
fn on_perf_events(
    program: &libbpf_rs::ProgramMut<'_>,
    events: Vec<OwnedFd>,
    capture: &Capture,
) -> Result<Vec<Link>> {
    let attach = |event: OwnedFd| {
        let link = program
            .attach_perf_event(event.as_raw_fd())
            .map_err(|e| refused(&program.name().to_string_lossy(), &e, &capture.take()))?;
        // libbpf closes the descriptor with the link; when attaching fails, nobody does.
        give_away(event);
        Ok(link)
    };
    events.into_iter().map(attach).collect()
}

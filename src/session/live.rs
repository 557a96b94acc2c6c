//! A session on Linux.

mod hosts;
mod inspect;
mod standing;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use self::hosts::Hosts;
use super::left_out::{self, LeftOut, is_left_out, kind_name};
use super::summaries::Summaries;
use super::{Sampling, SessionBuilder};
use crate::delivery::Delivery;
use crate::enrich::{MANY, Processes};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{
    Certificate, Clock, Event, FenceState, Kind, KindCount, Loss, LossCount, NAMESPACE_NAMES,
    ProbeState, Process, ProcessId,
};
use crate::fence::record::Record;
use crate::fence::{self, CallsBy, Fence, is_canary};
use crate::inference::{Lost, Settings};
use crate::kernel::{
    Asker, Attached, Attachments, Drops, KernelBtf, Loader, Losses, MapSizes, Object, ProbeReport,
    Records, Rings, Statistics as Counting, boot_ns, page_bytes, possible_cpus,
    real_time_offset_ns, release, securityfs_lsm, skipped,
};
use crate::monitor::{TRACK, Watch, profile_sizes};
use crate::policy::{RuleSet, place};
use crate::recording::{Opening, Recorder, Rules};
use crate::scope::{FOLLOW, Resolved, max_processes};
use crate::wire::{
    Config, MARKS, NAMESPACES, Ports, Range, TASK_ENDED, TaskEntry, TaskKey, env_choice,
    filter_bit, kind, loss, read, scope_bit,
};

/// Denials are rare and 4.5 KiB each: 900 of them fit while the consumer is busy.
const DENIAL_RING_BYTES: u32 = 1 << 22;
/// Where there is no fence there are none.
const NO_DENIALS_BYTES: u32 = 1 << 20;
/// So many followed processes have room where nobody is fenced: 25 MB.
const WATCHED: u32 = 1 << 18;
/// So often rings are read before numbers of rules are used again: what is in the ring for denials takes 16 times, even if
/// more keeps coming.
const RELOAD_ROUNDS: u32 = 17;
/// How often losses are looked for and told in the stream.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);
/// How often wall-clock time is compared with boot time again: it can be set, and drifts.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);

/// A program that ran on another CPU when it was detached may send its record a little later. Rounds, because nothing
/// may keep an end from coming to an end.
const GRACE: Duration = Duration::from_millis(5);
const GRACE_ROUNDS: u32 = 10;

#[derive(Debug)]
pub(super) struct Live {
    // Order is the order of dropping: programs first, then what they write to.
    attached: Attachments,
    /// What keeps the set of followed processes, which a fence needs as long as it stands.
    following: Attachments,
    fence: Option<Fence>,
    rings: Rings,
    loader: Loader,
    /// Came while the fence was being proved.
    early: Records,
    resolved: Resolved,
    /// Nobody needs to be asked whom a policy locks out.
    spares_operators: bool,
    calls_by: CallsBy,
    prove_every: Duration,
    proved: Instant,
    delivery: Delivery<Processes>,
    clock: Clock,
    boot_id: String,
    clock_checked: Instant,
    drops: Drops,
    losses: Losses,
    losses_checked: Instant,
    left_out: LeftOut,
    summaries: Summaries,
    asker: Asker,
    /// The kernel counts runs of programs, and their time.
    counting: Option<Counting>,
    /// What was lost in reading what was said, as it was told.
    unread: Lost,
    /// Calls that the kernel kept from a program, by program.
    skipped: BTreeMap<&'static str, u64>,
    own_key: TaskKey,
    /// What is said of the fence to others.
    about: Option<Record>,
    /// Those that rules are about.
    hosts: Option<Hosts>,
    certificate: Certificate,
}

impl Live {
    pub(super) fn start(builder: SessionBuilder) -> Result<Self> {
        let SessionBuilder {
            scope,
            monitors,
            filter,
            interval,
            policy,
            ring_bytes,
            record,
            sampling,
            process_limit,
            command,
            lockout_allowed,
            room,
            prove_every,
            guard,
        } = builder;
        if monitors.is_empty() && policy.is_none() {
            return Err(Error::new(
                ErrorKind::Usage,
                "there is nothing to do: no monitor and no policy",
            ));
        }
        if !ring_bytes.is_power_of_two() || u64::from(ring_bytes) < page_bytes() {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "a ring of {ring_bytes} bytes is not possible: its size is a power of two and at least a page"
                ),
            ));
        }
        filter.check(&monitors)?;
        let is_of_command = command.as_ref().is_some_and(|(_, tree)| *tree == scope);
        let calls_by = if is_of_command {
            CallsBy::Filter
        } else {
            CallsBy::Tracepoint
        };
        let policy = match policy {
            Some(rules) if !is_of_command => Some(of_running(rules)?),
            policy => policy,
        };
        let recorder = record.as_deref().map(Recorder::create).transpose()?;
        let btf = KernelBtf::read()?;
        let asker = Asker::new(&btf)?;
        let words = scope.to_string();
        let resolved = Resolved::new(scope, &asker)?;
        // A command that we hold is below us.
        let spares_operators = lockout_allowed || is_of_command;
        let mut hosts = None;
        let plan = match &policy {
            Some(rules) => {
                let operators = operators(rules, spares_operators, &resolved, &asker)?;
                let mut plan = fence::Plan::new(rules, calls_by, &operators, &asker, &btf)?;
                plan.guards_itself = guard;
                (hosts, plan.resolved) = Hosts::of(rules)?;
                Some(plan)
            }
            None => None,
        };
        if guard {
            guardable(&resolved, plan.is_some(), spares_operators, &asker)?;
        }
        let modules = plan.as_ref().and_then(|_| securityfs_lsm());
        // Who has asked about files knows already.
        let own_key = match plan.as_ref().and_then(|plan| plan.own_key) {
            Some(key) => key,
            None => asker.own_key()?,
        };
        let cpus = possible_cpus()?;
        let selection = resolved.selection();
        let config = Config {
            self_start_ns: own_key.start_ns,
            self_tgid: u32::try_from(own_key.tgid).unwrap_or(0),
            scope: selection.bits,
            cgroups: selection.cgroups,
            cpus,
            ring_bytes,
            filter: if filter.errors_only {
                filter_bit::ERRORS
            } else {
                0
            },
            min_latency_ns: u64::try_from(filter.min_latency.as_nanos()).unwrap_or(u64::MAX),
            min_bytes: filter.min_bytes,
            sample: sampling.processes(),
            thin: u32::from(sampling != Sampling::All),
            process_limit,
            env: match (filter.env.is_empty(), filter.env_values) {
                (true, _) => 0,
                (false, false) => env_choice::NAMES,
                (false, true) => env_choice::VALUES,
            },
            kinds: filter.kinds.records(),
            ranges: count(filter.addresses.len()),
            ports: count(filter.ports.len()),
            prefixes: count(filter.paths.len()),
            pad: 0,
            range: table(&filter.addresses, Range::new(Ipv6Addr::UNSPECIFIED, 0)),
            port: table(&filter.ports, Ports { first: 0, last: 0 }),
        };
        let mut sizes = MapSizes::from([
            ("stk_events", ring_bytes),
            (
                "stk_denials",
                match plan {
                    Some(_) => DENIAL_RING_BYTES,
                    None => NO_DENIALS_BYTES,
                },
            ),
            ("stk_uids", size(resolved.uids())),
            ("stk_comms", size(resolved.comms())),
        ]);
        if resolved.follows_tasks() {
            let all = max_processes();
            // A fence has room for every process that can be, or a full set would let one out. Who only watches is told
            // (`scope`), and spared 500 MB where pid_max is 4 million.
            let room = if plan.is_some() {
                all
            } else {
                all.min(WATCHED)
            };
            sizes.insert("stk_tasks", room);
            sizes.insert("stk_marks", MARKS);
        }
        if process_limit > 0 {
            sizes.insert("stk_rates", left_out::PROCESSES);
        }
        sizes.extend(profile_sizes(&filter, cpus));
        let plan = plan.map(|plan| {
            let room = plan.entries().room(room);
            sizes.extend(room.sizes());
            (plan, room)
        });
        let tags = fence::has_tags(modules.as_deref());
        let mut loader = Loader::new(btf, config, sizes, tags);
        loader.set_frequency(filter.frequency);
        loader.set_cgroup(crate::enrich::mounts::cgroup2());
        let boot_id =
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut certificate = Certificate {
            started_ns: boot_ns(),
            monitors: monitors.iter().map(Watch::to_string).collect(),
            ..Certificate::default()
        };

        // First of all children are followed; then those that run are entered; then anything may look at the set.
        let mut attached = Attachments::default();
        let mut following = Attachments::default();
        if resolved.follows_tasks() {
            let (links, reports) = loader.attach(Object::Scope, FOLLOW)?;
            following.append(links);
            require_all(&reports)?;
            note(&mut certificate, &reports);
            resolved.seed(&loader, &asker)?;
        }
        // Who has which executable is known from forks and execs, whoever asked for them.
        let told = monitors.iter().any(|watch| watch.tells("exec"));
        if !told {
            let (links, reports) = loader.attach(Object::Process, TRACK)?;
            attached.append(links);
            note(&mut certificate, &reports);
        }
        let mut summaries = Vec::new();
        for watch in &monitors {
            for parts in watch.parts(&filter) {
                let probes = parts.probes_for(&filter.kinds);
                if probes.is_empty() {
                    continue;
                }
                let (links, reports) = loader.attach(parts.object, probes)?;
                attached.append(links);
                if reports.iter().all(|r| r.variant.is_none()) {
                    if !watch.is_optional() {
                        return Err(none_attached(watch.monitor().name(), &reports));
                    }
                    note(&mut certificate, &reports);
                    continue;
                }
                (parts.fill)(&loader, &filter)?;
                summaries.extend(parts.summary);
                note(&mut certificate, &reports);
            }
        }
        let mut early = Records::default();
        let (mut fence, rings) = match plan {
            Some((plan, room)) => {
                // The scope's maps exist once any object is loaded; without monitors the fence brings them.
                let (fence, rings) = Fence::arm(
                    plan,
                    room,
                    modules.as_deref(),
                    &asker,
                    &mut loader,
                    |loader| resolved.fill(loader),
                    &mut early,
                )?;
                note(&mut certificate, &fence.reports);
                (Some(fence), rings)
            }
            None => {
                resolved.fill(&loader)?;
                let rings = loader.rings()?;
                (None, rings)
            }
        };
        for summary in &mut summaries {
            summary.start(&loader, &attached)?;
        }
        let mut about = None;
        if let (Some(fence), Some(rules)) = (&fence, &policy) {
            let state = state(fence, rules, 0);
            about = Some(standing::about(words, own_key, &state, rules, &loader)?);
            certificate.fence = Some(state);
        }
        let drops = loader.drops()?;
        let clock = clock(&boot_id);
        let (rules, lines) = policy.as_ref().map(RuleSet::numbered).unwrap_or_default();
        let opening = Opening {
            kernel: release(),
            arch: std::env::consts::ARCH.to_owned(),
            page_bytes: page_bytes(),
            namespaces: own_namespaces(),
            tell_processes: told,
            inference: Settings::new(&filter),
            kinds: filter.kinds,
            paths: filter.paths,
            rules,
            lines,
            hosts: fence.as_ref().map(Fence::hosts).unwrap_or_default(),
            mechanism: fence.as_ref().map_or("", Fence::hooks).into(),
        };
        let mut delivery = Delivery::new(Processes::new(), &opening);
        delivery.recorder = recorder.map(|mut recorder| {
            recorder.open(&opening, &clock);
            recorder
        });
        let given = fence.as_mut().and_then(|fence| fence.filter.take());
        let mut live = Live {
            attached,
            following,
            fence,
            rings,
            loader,
            early,
            resolved,
            spares_operators,
            calls_by,
            prove_every,
            proved: Instant::now(),
            delivery,
            clock,
            boot_id,
            clock_checked: Instant::now(),
            drops,
            losses: Losses::new(),
            losses_checked: Instant::now(),
            left_out: LeftOut::new(process_limit),
            summaries: Summaries::new(summaries, interval),
            asker,
            counting: None,
            unread: Lost::new(),
            skipped: BTreeMap::new(),
            own_key,
            about,
            hosts,
            certificate,
        };
        live.publish()?;
        // Nothing else fails any more: the command gets what stands.
        if let (Some((confinement, _)), Some(filter)) = (command, given) {
            confinement.set(filter)?;
        }
        Ok(live)
    }

    pub(super) fn poll(&mut self, at_most: Duration, on: &mut dyn FnMut(&Event)) -> Result<usize> {
        // Before and not after the delivery: the caller gets to write what it was given.
        if !at_most.is_zero() {
            self.rings.sleep(at_most)?;
        }
        let now = Instant::now();
        if !self.prove_every.is_zero() && now.duration_since(self.proved) >= self.prove_every {
            self.prove()?;
        }
        self.look_up()?;
        let mut roll_call = now.duration_since(self.losses_checked) >= LOSS_INTERVAL
            && self.delivery.surroundings.len() > MANY;
        if now.duration_since(self.clock_checked) >= CLOCK_INTERVAL {
            self.clock = clock(&self.boot_id);
            if let Some(recorder) = &mut self.delivery.recorder {
                recorder.clock(&self.clock);
            }
            self.clock_checked = now;
            roll_call = true;
        }
        // Called before the delivery: whoever is not there any more has nothing in the rings after it.
        let (at_ns, running) = (boot_ns(), roll_call.then(|| self.asker.processes()));
        let mut delivered = self.deliver(on)?;
        if let Some(running) = running.transpose()? {
            let alive = running
                .iter()
                .map(|seed| ProcessId::new(seed.start_ns, seed.tgid));
            self.delivery.surroundings.keep(&alive.collect(), at_ns);
        }
        if now.duration_since(self.losses_checked) >= LOSS_INTERVAL {
            delivered += self.tell_losses(on)? + self.tell_skips(on);
            self.losses_checked = now;
            self.beat()?;
        }
        if self.summaries.is_due(now, &self.drops) {
            delivered += self.summaries.tell(
                &self.loader,
                &self.asker,
                &self.drops,
                &mut self.delivery,
                false,
                on,
            )?;
        }
        if delivered > 0
            && let Some(recorder) = &mut self.delivery.recorder
        {
            recorder.flush();
        }
        Ok(delivered)
    }

    /// Tells the fence which addresses hosts have now.
    fn look_up(&mut self) -> Result<()> {
        if let (Some(hosts), Some(fence)) = (&mut self.hosts, &mut self.fence) {
            let found: Vec<_> = std::iter::from_fn(|| hosts.next()).collect();
            fence.learn(&found, &self.loader)?;
        }
        Ok(())
    }

    /// Proves the fence anew, where there is one.
    fn prove(&mut self) -> Result<()> {
        let (Some(fence), Some(state)) = (&mut self.fence, &mut self.certificate.fence) else {
            return Ok(());
        };
        let proved = fence.prove(&mut self.rings, &mut self.early);
        self.proved = Instant::now();
        state.canary_proofs = fence.about.proofs;
        if let Err(e) = &proved {
            let reasons = &mut self.certificate.incomplete_reasons;
            reasons.push(e.to_string());
        }
        proved
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn probes(&self) -> &[ProbeState] {
        &self.certificate.probes
    }

    pub(super) fn fence(&self) -> Option<&FenceState> {
        self.certificate.fence.as_ref()
    }

    pub(super) fn reload(&mut self, rules: &RuleSet, on: &mut dyn FnMut(&Event)) -> Result<()> {
        let Some(now) = &self.certificate.fence else {
            return Err(no_fence("no other policy can take its place"));
        };
        let rules = &match self.calls_by {
            CallsBy::Filter => rules.clone(),
            CallsBy::Tracepoint => of_running(rules.clone())?,
        };
        let by_filter = self.calls_by == CallsBy::Filter;
        if let Some(rule) = rules.syscalls.first().filter(|_| by_filter) {
            return Err(Error::new(
                ErrorKind::NotEnforced,
                format!(
                    "the rule {} (line {}) is about system calls, whose rules are given to a command when it starts and are its own from then on",
                    rule.id, rule.line
                ),
            )
            .with_hint("start it anew with 'stockade run'"));
        }
        if now.syscalls > 0 && by_filter {
            return Err(Error::new(
                ErrorKind::NotEnforced,
                "the policy that is in force has rules about system calls, which cannot be taken back from who has them",
            )
            .with_hint("start the command anew with 'stockade run'"));
        }
        let operators = operators(rules, self.spares_operators, &self.resolved, &self.asker)?;
        let mut plan = fence::Plan::new(
            rules,
            self.calls_by,
            &operators,
            &self.asker,
            self.loader.btf(),
        )?;
        let (hosts, resolved) = Hosts::of(rules)?;
        plan.resolved = resolved;
        // Numbers of rules are used again by the next policy but one. What the one before has told by them is read first.
        self.deliver_some(on)?;
        let (Some(fence), Some(now)) = (&mut self.fence, &mut self.certificate.fence) else {
            return Err(no_fence("no other policy can take its place"));
        };
        let reports = fence.reload(plan, &mut self.loader, &mut self.rings, &mut self.early)?;
        self.proved = Instant::now();
        let (names, lines) = rules.numbered();
        self.delivery.set_rules(Rules {
            first: fence.first_rule(),
            names,
            lines,
            hosts: fence.hosts(),
        });
        self.hosts = hosts;
        *now = state(fence, rules, now.reloads + 1);
        let now = now.clone();
        note(&mut self.certificate, &reports);
        self.publish_policy(&now, rules)?;
        let told = Kind::Reload(Box::new(now));
        self.remark(told, on);
        Ok(())
    }

    pub(super) fn followed(&self) -> Result<usize> {
        let map = self.loader.map("stk_tasks")?;
        let alive = |(_, value): &(Vec<u8>, Vec<u8>)| {
            read::<TaskEntry>(value).is_some_and(|e| e.flags & TASK_ENDED == 0)
        };
        Ok(map.entries()?.iter().filter(|e| alive(e)).count())
    }

    pub(super) fn end(mut self, on: &mut dyn FnMut(&Event)) -> Result<Certificate> {
        // While there are programs to ask.
        self.summaries.settle(&self.loader)?;
        self.tell_skips(on);
        if let Some(fence) = &self.fence {
            let why = fence.shortcomings(&self.loader)?;
            let of_hosts = self.hosts.iter().flat_map(Hosts::shortcomings);
            let reasons = &mut self.certificate.incomplete_reasons;
            reasons.extend(why.into_iter().chain(of_hosts));
        }
        // Detached first: then what is in the rings is nearly all there will be.
        self.attached = Attachments::default();
        if self.fence.as_ref().is_some_and(Fence::outlives_us) {
            // It goes on telling, and what is not read now is kept for the next one.
            self.deliver_some(on)?;
        } else {
            self.fence = None;
            self.following = Attachments::default();
            self.deliver_rest(on)?;
        }
        self.summaries.tell(
            &self.loader,
            &self.asker,
            &self.drops,
            &mut self.delivery,
            true,
            on,
        )?;
        self.tell_losses(on)?;
        // Of one that stands on: when it was last looked after, and what is known of its losses.
        self.beat()?;
        let mut certificate = self.certificate;
        certificate.ended_ns = boot_ns();
        certificate.events = self.delivery.events;
        certificate.denials = self.delivery.denials;
        certificate.kinds = self.delivery.kinds();
        left_out::enter(&self.losses, &mut certificate.kinds);
        certificate.losses = loss_counts(&self.losses);
        for (&(of, cause), &count) in &self.unread {
            certificate.losses.push(loss_count(of, cause, None, count));
        }
        certificate.skipped_programs = self.skipped.values().sum();
        for (name, count) in self.skipped {
            certificate.incomplete_reasons.push(format!(
                "the kernel skipped {name} {count} times: it was already running on that CPU"
            ));
        }
        for (name, count) in ["short", "long", "unknown"]
            .iter()
            .zip(self.delivery.malformed)
        {
            if count > 0 {
                certificate
                    .losses
                    .push(loss_count(name, "decode", None, count));
            }
        }
        certificate
            .incomplete_reasons
            .extend(self.summaries.shortcomings());
        let lost: u64 = certificate.losses.iter().map(|l| l.count).sum();
        if lost > 0 {
            certificate
                .incomplete_reasons
                .push(format!("{lost} records were lost"));
        }
        let sampled: u64 = certificate.kinds.iter().map(|k| k.sampled).sum();
        if sampled > 0 {
            certificate
                .incomplete_reasons
                .push(format!("{sampled} events were left out by sampling"));
        }
        let (denials, others): (Vec<_>, Vec<_>) = certificate
            .kinds
            .iter()
            .partition(|k| k.kind == kind_name(kind::DENIAL));
        let sum = |kinds: &[&KindCount]| kinds.iter().map(|k| k.suppressed).sum::<u64>();
        let (untold, suppressed) = (sum(&denials), sum(&others));
        if untold > 0 {
            certificate.incomplete_reasons.push(format!(
                "{untold} denials were counted and not told, because limits refused more than 16 of one kind in a second"
            ));
        }
        if suppressed > 0 {
            certificate.incomplete_reasons.push(format!(
                "{suppressed} events were left out by the limit of {} a second for a process",
                self.left_out.limit()
            ));
        }
        certificate.complete = certificate.incomplete_reasons.is_empty();
        if let Some(recorder) = self.delivery.recorder {
            recorder.end(&certificate)?;
        }
        Ok(certificate)
    }

    /// Takes from the rings once; returns how many records that were, whatever became of them.
    fn deliver(&mut self, on: &mut dyn FnMut(&Event)) -> Result<usize> {
        let early = std::mem::take(&mut self.early);
        let records = self.rings.drain()?;
        for record in early.iter().chain(records.iter()) {
            if !is_canary(record) {
                self.delivery.deliver(record, on);
            }
        }
        Ok(early.len() + records.len())
    }

    /// Takes from the rings what is there, even if more keeps coming.
    fn deliver_some(&mut self, on: &mut dyn FnMut(&Event)) -> Result<()> {
        for _ in 0..RELOAD_ROUNDS {
            self.deliver(on)?;
            if !self.rings.has_more() {
                break;
            }
        }
        Ok(())
    }

    /// Empties the rings for good: until nothing has come for [`GRACE`].
    fn deliver_rest(&mut self, on: &mut dyn FnMut(&Event)) -> Result<()> {
        for _ in 0..GRACE_ROUNDS {
            while self.deliver(on)? > 0 {}
            std::thread::sleep(GRACE);
            if self.deliver(on)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Reports losses since the last time, summed over CPUs.
    fn tell_losses(&mut self, on: &mut dyn FnMut(&Event)) -> Result<usize> {
        let now = self.drops.read();
        let mut news: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for ((kind, cause, cpu), count) in &now {
            let before = self
                .losses
                .get(&(*kind, *cause, *cpu))
                .copied()
                .unwrap_or(0);
            *news.entry((*kind, *cause)).or_default() += count - before.min(*count);
        }
        self.losses = now;
        news.retain(|_, count| *count > 0);
        let window = self.losses_checked.elapsed().as_nanos();
        let at = (boot_ns(), u64::try_from(window).unwrap_or(u64::MAX));
        for (&(kind, cause), &count) in &news {
            match cause {
                // Told by process, but for denials of limits.
                loss::LIMITED if kind != kind::DENIAL => {}
                _ if is_left_out(cause) => {
                    self.left_out
                        .tell_sampled((kind, cause), count, at, &mut self.delivery, on);
                }
                _ => self.tell_loss(kind_name(kind), cause_name(cause), count, on),
            }
        }
        let unread = self.delivery.lost().clone();
        let mut told = news.len();
        for (&(of, cause), &count) in &unread {
            let before = self.unread.get(&(of, cause)).copied().unwrap_or(0);
            if count > before {
                self.tell_loss(of, cause, count - before, on);
                told += 1;
            }
        }
        self.unread = unread;
        told +=
            self.left_out
                .tell_suppressed(&self.loader, &self.asker, at, &mut self.delivery, on)?;
        Ok(told)
    }

    fn programs_in_use(&self) -> impl Iterator<Item = &Attached> {
        let fence = self.fence.iter().flat_map(|f| f.attached.iter());
        self.attached
            .iter()
            .chain(self.following.iter())
            .chain(fence)
    }

    /// Reports what the kernel has kept from programs since the last time.
    fn tell_skips(&mut self, on: &mut dyn FnMut(&Event)) -> usize {
        let now = skipped(self.programs_in_use());
        let mut told = 0;
        for (name, count) in &now {
            let before = self.skipped.get(name).copied().unwrap_or(0);
            if *count > before {
                self.tell_loss(name, "skipped", count - before, on);
                told += 1;
            }
        }
        self.skipped = now;
        told
    }

    fn tell_loss(&mut self, of: &str, cause: &str, count: u64, on: &mut dyn FnMut(&Event)) {
        self.remark(Kind::Loss(Loss::new(of, cause, count)), on);
    }

    /// Tells something about the session itself.
    fn remark(&mut self, kind: Kind, on: &mut dyn FnMut(&Event)) {
        let own = Process::own(ProcessId::new(
            0,
            u32::try_from(self.own_key.tgid).unwrap_or(0),
        ));
        self.delivery.remark(&Event::new(boot_ns(), own, kind), on);
    }
}

/// Who among those that the scope holds must not be locked out by a policy.
fn operators(
    rules: &RuleSet,
    spared: bool,
    resolved: &Resolved,
    asker: &Asker,
) -> Result<Vec<u32>> {
    if spared || (rules.rules.is_empty() && rules.limits.is_empty() && rules.syscalls.is_empty()) {
        return Ok(Vec::new());
    }
    resolved.operators(asker)
}

/// What a policy says to processes to which nobody can refuse system calls.
fn of_running(mut rules: RuleSet) -> Result<RuleSet> {
    for rule in &mut rules.syscalls {
        *rule = rule.of_running().ok_or_else(|| {
            Error::new(
                ErrorKind::NotEnforced,
                format!(
                    "the {} is about system calls, which can only be refused to a command that is started with the fence",
                    place(rule)
                ),
            )
            .with_hint("start it with 'stockade run', or hand it over with SessionBuilder::command; or say in the rule what is done instead: \"otherwise\" is kill or log")
        })?;
    }
    Ok(rules)
}

/// Whether a fence can keep itself from those whom it holds, and leaves somebody who can take it down.
fn guardable(resolved: &Resolved, fenced: bool, spared: bool, asker: &Asker) -> Result<()> {
    if !fenced {
        return Err(no_fence("there is nothing to guard"));
    }
    if resolved.selection().bits == scope_bit::HOST {
        return Err(Error::new(
            ErrorKind::Usage,
            "a fence that holds the whole host cannot be guarded: nobody would be left who can take it down",
        )
        .with_hint("name who is to be kept from it: cgroups, trees or users"));
    }
    if spared || resolved.operators(asker)?.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Policy,
        "the fence holds the session that arms it, which could not take it down again; nothing is armed",
    )
    .with_hint("leave that session out of the scope; --i-know arms it all the same"))
}

fn no_fence(so: &str) -> Error {
    Error::new(
        ErrorKind::Usage,
        format!("this session has no fence, so {so}"),
    )
    .with_hint("start it with a policy")
}

/// The fence after so many reloads.
fn state(fence: &Fence, rules: &RuleSet, reloads: u32) -> FenceState {
    FenceState {
        policy: rules.name.clone(),
        mode: rules.mode.name().into(),
        mechanism: fence.mechanism(),
        identity: fence.identity().into(),
        rules: size(rules.len()),
        files: fence.about.files,
        addresses: fence.about.addresses,
        syscalls: fence.about.syscalls,
        limits: fence.about.limits,
        canary_proofs: fence.about.proofs,
        reloads,
        pinned: fence.pinned().map(str::to_owned),
    }
}

/// What was lost, without what was left out on purpose.
fn loss_counts(losses: &Losses) -> Vec<LossCount> {
    losses
        .iter()
        .filter(|((_, cause, _), _)| !is_left_out(*cause))
        .map(|(&(kind, cause, cpu), &count)| {
            loss_count(kind_name(kind), cause_name(cause), Some(cpu), count)
        })
        .collect()
}

fn loss_count(of: &str, cause: &str, cpu: Option<u32>, count: u64) -> LossCount {
    LossCount {
        of: of.into(),
        cause: cause.into(),
        cpu,
        count,
    }
}

fn cause_name(cause: u32) -> &'static str {
    loss::NAMES
        .get(cause as usize)
        .copied()
        .unwrap_or("unknown")
}

/// A map has at least one entry.
fn size(n: usize) -> u32 {
    count(n).max(1)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A table of the kernel half, with `unused` behind what is in it.
fn table<T: Copy, const N: usize>(of: &[T], unused: T) -> [T; N] {
    std::array::from_fn(|n| of.get(n).copied().unwrap_or(unused))
}

/// Inode numbers of our own namespaces; 0 for a kind that this kernel does not have.
fn own_namespaces() -> [u32; NAMESPACES] {
    use std::os::unix::fs::MetadataExt as _;
    NAMESPACE_NAMES.map(|name| {
        let found = std::fs::metadata(format!("/proc/self/ns/{name}"));
        found.map_or(0, |ns| u32::try_from(ns.ino()).unwrap_or(0))
    })
}

/// The clock of events, as of now.
fn clock(boot_id: &str) -> Clock {
    Clock::new(real_time_offset_ns(), boot_id)
}

fn note(certificate: &mut Certificate, reports: &[ProbeReport]) {
    for report in reports {
        let reason = (!report.reasons.is_empty()).then(|| report.brief());
        match report.variant {
            Some(variant) => {
                if let Some(blind) = report.blind {
                    let reason = format!("{} by {variant}: {blind}", report.name);
                    certificate.incomplete_reasons.push(reason);
                }
                let mut state = ProbeState::attached(report.name, variant);
                state.reason = reason;
                certificate.probes.push(state);
            }
            None => {
                if let Some(missing) = report.missing {
                    certificate.incomplete_reasons.push(format!(
                        "{} is unavailable: {missing} are not seen",
                        report.name
                    ));
                    certificate.probes.push(ProbeState::unavailable(
                        report.name,
                        reason.unwrap_or_default(),
                    ));
                }
            }
        }
    }
}

/// The scope without one of its programs would lose processes in silence.
fn require_all(reports: &[ProbeReport]) -> Result<()> {
    match reports.iter().find(|r| r.missing.is_some()) {
        None => Ok(()),
        Some(report) => Err(none_attached("scope", std::slice::from_ref(report))),
    }
}

fn none_attached(name: &str, reports: &[ProbeReport]) -> Error {
    let reasons: Vec<String> = reports
        .iter()
        .map(|r| format!("{}: {}", r.name, r.reasons.join("; ")))
        .collect();
    Error::new(
        ErrorKind::Load,
        format!(
            "the {name} monitor cannot be attached: {}",
            reasons.join("; ")
        ),
    )
    .with_hint("run 'stockade doctor' to see what this kernel can do")
}

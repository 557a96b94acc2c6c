//! Events as JSON lines: flat, dotted names of the Elastic Common Schema.
//!
//! Written by hand, because one core has to keep up with what all others can open (serde_json: 3 to 4 million lines per
//! second). The fields of a process are kept from one event to the next: most come from the same few.

use super::day::Day;
use crate::event::{
    Certificate, ChangeOperation, Clock, Denial, Denied, Event, Gap, Kind, Loss, Process, Sampled,
    Suppressed, Syscall, SyscallSummary, names,
};

/// `,"name":`
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

mod change;
mod memory;
mod network;

/// What is the same in all events of a kind, up to the outcome.
macro_rules! class {
    ($action:literal, $kind:literal, $category:literal, $type:literal) => {
        concat!(
            ",\"v\":1,\"event.action\":\"",
            $action,
            "\",\"event.kind\":\"",
            $kind,
            "\",\"event.category\":[\"",
            $category,
            "\"],\"event.type\":[\"",
            $type,
            "\"]"
        )
        .as_bytes()
    };
}

mod disk;
mod file;
mod line;
mod process;
mod profile;

use line::Line;

/// How many processes are kept: the events of several CPUs come mixed. About 500 bytes each.
const KEPT: usize = 64;

/// Writes events as JSON, one object a line.
#[derive(Debug)]
pub struct Json {
    today: Day,
    /// By the lowest bits of the thread's id; the next one with the same bits takes the place.
    processes: Vec<ProcessText>,
    /// The id that is being written.
    id: String,
}

impl Default for Json {
    fn default() -> Self {
        Json::new()
    }
}

impl Json {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        Json {
            today: Day::default(),
            processes: (0..KEPT).map(|_| ProcessText::default()).collect(),
            id: String::new(),
        }
    }

    /// Appends one event, with its newline.
    pub fn write(&mut self, event: &Event, clock: &Clock, out: &mut Vec<u8>) {
        // A usual line: one growth at most.
        out.reserve(1024);
        let mut line = Line { out };
        line.raw(b"{\"@timestamp\":\"");
        self.today.write(clock.unix_ns(event.time_ns), line.out);
        line.raw(b"\"");
        line.raw(class_of(&event.kind));
        match event.succeeded() {
            Some(true) => line.raw(b",\"event.outcome\":\"success\""),
            Some(false) => line.raw(b",\"event.outcome\":\"failure\""),
            None => {}
        }
        if !event.kind.is_remark() {
            let kept = &mut self.processes[event.process.tid as usize % KEPT];
            line.raw(kept.of(&event.process, clock, &mut self.id));
            // An exec says itself what is executed now.
            if let Some(about) = &event.process.about
                && let Some(executable) = &about.executable
                && !matches!(event.kind, Kind::Exec(_))
            {
                line.string(key!("process.executable"), executable);
            }
        }
        match &event.kind {
            Kind::Exec(e) => line.exec(e, &event.process),
            Kind::Fork(e) => line.fork(e, clock, &mut self.id),
            Kind::Exit(e) => line.exit(e),
            Kind::ProcessSummary(e) => line.process_summary(e),
            Kind::Open(e) | Kind::Create(e) => line.open(e),
            Kind::Unlink(e) => line.unlink(e),
            Kind::Rename(e) => line.rename(e),
            Kind::Change(e) => line.change(e, &mut self.today),
            Kind::Mount(e) => line.mount(e),
            Kind::Umount(e) => line.umount(e),
            Kind::FileSummary(e) => line.file_summary(e),
            Kind::Denial(e) => line.denial(e),
            Kind::Syscall(e) => line.syscall(e),
            Kind::SyscallSummary(e) => line.syscall_summary(e),
            Kind::Connect(e) => line.connect(e),
            Kind::Accept(e) => line.accept(e),
            Kind::Close(e) => line.close(e),
            Kind::Bind(e) => line.bind(e),
            Kind::Listen(e) => line.listen(e),
            Kind::TcpState(e) => line.tcp_state(e),
            Kind::Retransmit(e) => line.retransmit(e),
            Kind::UnixConnect(e) => line.unix_connect(e),
            Kind::DnsQuery(e) => line.dns_query(e),
            Kind::DnsAnswer(e) => line.dns_answer(e),
            Kind::Tls(e) => line.tls(e),
            Kind::RawSocket(e) => line.raw_socket(e),
            Kind::PortScan(e) => line.port_scan(e),
            Kind::NetworkSummary(e) => line.network_summary(e),
            Kind::Memory(e) => line.memory(e),
            Kind::MemorySummary(e) => line.memory_summary(e),
            Kind::MemoryAllocations(e) => line.memory_allocations(e),
            Kind::MemoryOutstanding(e) => line.memory_outstanding(e),
            Kind::Oom(e) => line.oom_kill(e, clock, &mut self.id),
            Kind::Disk(e) => line.disk(e),
            Kind::DiskSummary(e) => line.disk_summary(e),
            Kind::Profile(e) => line.profile(e),
            Kind::Loss(e) => line.loss(e),
            Kind::Sampled(e) => line.sampled(e),
            Kind::Suppressed(e) => line.suppressed(e),
            Kind::Reload(e) => line.value(key!("stockade.fence"), e),
            Kind::Gap(e) => line.gap(e),
        }
        line.raw(b"}\n");
    }

    /// Appends the end record, with its newline.
    pub fn certificate(&mut self, certificate: &Certificate, clock: &Clock, out: &mut Vec<u8>) {
        let mut line = Line { out };
        line.raw(b"{\"@timestamp\":\"");
        self.today
            .write(clock.unix_ns(certificate.ended_ns), line.out);
        line.raw(b"\",\"v\":1,\"event.action\":\"end\",\"event.kind\":\"state\"");
        for (key, time_ns) in [
            (key!("event.start"), certificate.started_ns),
            (key!("event.end"), certificate.ended_ns),
        ] {
            line.raw(key);
            line.raw(b"\"");
            self.today.write(clock.unix_ns(time_ns), line.out);
            line.raw(b"\"");
        }
        line.number(key!("event.duration"), certificate.duration_ns());
        line.boolean(key!("stockade.complete"), certificate.is_complete());
        line.value(
            key!("stockade.incomplete_reasons"),
            &certificate.incomplete_reasons,
        );
        line.number(key!("stockade.events"), certificate.events);
        line.number(key!("stockade.denials"), certificate.denials);
        line.value(key!("stockade.kinds"), &certificate.kinds);
        line.number(
            key!("stockade.skipped_programs"),
            certificate.skipped_programs,
        );
        line.value(key!("stockade.losses"), &certificate.losses);
        line.value(key!("stockade.monitors"), &certificate.monitors);
        line.value(key!("stockade.probes"), &certificate.probes);
        if let Some(fence) = &certificate.fence {
            line.value(key!("stockade.fence"), fence);
        }
        line.raw(b"}\n");
    }
}

fn class_of(kind: &Kind) -> &'static [u8] {
    match kind {
        Kind::Exec(_) => class!("exec", "event", "process", "start"),
        Kind::Fork(_) => class!("fork", "event", "process", "start"),
        Kind::Exit(_) => class!("exit", "event", "process", "end"),
        Kind::ProcessSummary(_) => class!("process_summary", "metric", "process", "info"),
        Kind::Open(_) => class!("open", "event", "file", "access"),
        Kind::Unlink(_) => class!("unlink", "event", "file", "deletion"),
        Kind::Rename(_) => class!("rename", "event", "file", "change"),
        Kind::Create(_) => class!("create", "event", "file", "creation"),
        Kind::Change(e) => match e.operation {
            ChangeOperation::Link => class!("link", "event", "file", "creation"),
            ChangeOperation::Symlink => class!("symlink", "event", "file", "creation"),
            ChangeOperation::Mkdir => class!("mkdir", "event", "file", "creation"),
            ChangeOperation::Rmdir => class!("rmdir", "event", "file", "deletion"),
            ChangeOperation::Mknod => class!("mknod", "event", "file", "creation"),
            ChangeOperation::Chmod => class!("chmod", "event", "file", "change"),
            ChangeOperation::Chown => class!("chown", "event", "file", "change"),
            ChangeOperation::Utimes => class!("utimes", "event", "file", "change"),
            ChangeOperation::Truncate => class!("truncate", "event", "file", "change"),
            ChangeOperation::Setxattr => class!("setxattr", "event", "file", "change"),
            ChangeOperation::Removexattr => class!("removexattr", "event", "file", "change"),
        },
        Kind::Mount(_) => class!("mount", "event", "host", "change"),
        Kind::Umount(_) => class!("umount", "event", "host", "change"),
        Kind::FileSummary(_) => class!("file_summary", "metric", "file", "info"),
        Kind::Denial(e) => match (&e.object, e.refused) {
            (Denied::File { .. }, true) => class!("denial", "alert", "file", "denied"),
            (Denied::File { .. }, false) => class!("denial", "alert", "file", "allowed"),
            (Denied::Limit { counted, .. }, refused) if !is_of_network(counted) => match refused {
                true => class!("denial", "alert", "process", "denied"),
                false => class!("denial", "alert", "process", "allowed"),
            },
            (Denied::Guarded { .. }, _) => class!("denial", "alert", "process", "denied"),
            (Denied::Syscall { .. }, true) => class!("denial", "alert", "process", "denied"),
            (Denied::Syscall { .. }, false) => class!("denial", "alert", "process", "allowed"),
            (_, true) => class!("denial", "alert", "network", "denied"),
            (_, false) => class!("denial", "alert", "network", "allowed"),
        },
        Kind::Syscall(_) => class!("syscall", "event", "process", "info"),
        Kind::SyscallSummary(_) => class!("syscall_summary", "metric", "process", "info"),
        Kind::Connect(_) => class!("connect", "event", "network", "start"),
        Kind::Accept(_) => class!("accept", "event", "network", "start"),
        Kind::Close(_) => class!("close", "event", "network", "end"),
        Kind::Bind(_) => class!("bind", "event", "network", "info"),
        Kind::Listen(_) => class!("listen", "event", "network", "info"),
        Kind::TcpState(_) => class!("tcp_state", "event", "network", "change"),
        Kind::Retransmit(_) => class!("retransmit", "event", "network", "info"),
        Kind::UnixConnect(_) => class!("unix_connect", "event", "network", "start"),
        Kind::DnsQuery(_) => class!("dns_query", "event", "network", "protocol"),
        Kind::DnsAnswer(_) => class!("dns_answer", "event", "network", "protocol"),
        Kind::Tls(_) => class!("tls", "event", "network", "protocol"),
        Kind::RawSocket(_) => class!("raw_socket", "event", "network", "info"),
        Kind::PortScan(_) => class!("port_scan", "alert", "network", "info"),
        Kind::NetworkSummary(_) => class!("network_summary", "metric", "network", "info"),
        Kind::Memory(_) => class!("memory", "event", "process", "change"),
        Kind::MemorySummary(_) => class!("memory_summary", "metric", "process", "info"),
        Kind::MemoryAllocations(_) => class!("memory_allocations", "metric", "process", "info"),
        Kind::MemoryOutstanding(_) => class!("memory_outstanding", "metric", "process", "info"),
        Kind::Oom(_) => class!("oom", "event", "process", "info"),
        Kind::Disk(_) => class!("disk", "event", "host", "access"),
        Kind::DiskSummary(_) => class!("disk_summary", "metric", "host", "info"),
        Kind::Profile(_) => class!("profile", "metric", "process", "info"),
        // The schema's word for "events are missing here"; they belong to no category.
        Kind::Loss(_) => b",\"v\":1,\"event.action\":\"loss\",\"event.kind\":\"pipeline_error\"",
        Kind::Sampled(_) => {
            b",\"v\":1,\"event.action\":\"sampled\",\"event.kind\":\"pipeline_error\""
        }
        Kind::Suppressed(_) => class!("suppressed", "pipeline_error", "process", "info"),
        Kind::Reload(_) => b",\"v\":1,\"event.action\":\"reload\",\"event.kind\":\"event\"",
        Kind::Gap(_) => b",\"v\":1,\"event.action\":\"gap\",\"event.kind\":\"event\"",
    }
}

/// Whether what a limit counts is done on a network.
fn is_of_network(counted: &str) -> bool {
    matches!(counted, "connections" | "bytes")
}

/// The fields of one process, as text.
#[derive(Debug, Default)]
struct ProcessText {
    /// Whose they are; the clock, because it names the boot and may be set meanwhile.
    of: Option<(Process, Clock)>,
    text: Vec<u8>,
    start_day: Day,
}

impl ProcessText {
    fn of(&mut self, process: &Process, clock: &Clock, id: &mut String) -> &[u8] {
        match &mut self.of {
            Some((p, c)) if p == process && c == clock => return &self.text,
            Some((p, c)) => {
                // Keeps the strings' memory: on a busy machine this happens all the time.
                let mut comm = std::mem::take(&mut p.comm);
                comm.clone_from(&process.comm);
                *p = Process {
                    comm,
                    about: process.about.clone(),
                    ..*process
                };
                if c != clock {
                    c.clone_from(clock);
                }
            }
            None => self.of = Some((process.clone(), clock.clone())),
        }
        self.text.clear();
        let mut line = Line {
            out: &mut self.text,
        };
        line.number(key!("process.pid"), process.id.pid);
        line.number(key!("process.thread.id"), process.tid);
        line.entity(key!("process.entity_id"), process.id, clock, id);
        line.raw(key!("process.start"));
        line.raw(b"\"");
        self.start_day
            .write(clock.unix_ns(process.id.start_ns), line.out);
        line.raw(b"\"");
        line.string(key!("process.name"), &process.comm);
        line.number(key!("process.parent.pid"), process.parent.pid);
        line.entity(key!("process.parent.entity_id"), process.parent, clock, id);
        line.quoted(key!("user.id"), process.uid);
        line.quoted(key!("user.group.id"), process.gid);
        line.number(key!("stockade.cgroup.id"), process.cgroup_id);
        if let Some(about) = &process.about {
            for (key, value) in [
                (key!("user.name"), &about.user),
                (key!("user.group.name"), &about.group),
                (key!("stockade.cgroup.path"), &about.cgroup),
                (key!("container.id"), &about.container),
                (key!("stockade.unit"), &about.unit),
            ] {
                if let Some(value) = value {
                    line.string(key, value);
                }
            }
        }
        &self.text
    }
}

impl Line<'_> {
    fn denial(&mut self, e: &Denial) {
        if !e.rule_id.is_empty() {
            self.string(key!("rule.id"), &e.rule_id);
        }
        self.number(key!("stockade.rule.number"), e.rule);
        if e.rule_line > 0 {
            self.number(key!("stockade.rule.line"), e.rule_line);
        }
        if !e.mechanism.is_empty() {
            self.string(key!("stockade.mechanism"), &e.mechanism);
        }
        if !e.ancestors.is_empty() {
            self.value(key!("stockade.ancestors"), &e.ancestors);
        }
        self.raw(key!("stockade.access"));
        self.list(e.access.split(',').filter(|name| !name.is_empty()));
        self.raw(key!("stockade.verdict"));
        self.raw(match (e.refused, e.killed) {
            (_, true) => b"\"kill\"",
            (true, false) => b"\"deny\"",
            (false, false) => b"\"audit\"",
        });
        self.flag(key!("stockade.unlisted"), e.unlisted);
        if let Some(host) = &e.host {
            self.string(key!("destination.domain"), host);
        }
        match &e.object {
            Denied::File {
                path,
                path_in_fs,
                file,
            } => {
                self.path(path);
                self.flag(key!("stockade.path_in_fs"), *path_in_fs);
                if file.inode != 0 {
                    self.file(file);
                }
            }
            Denied::Syscall {
                name,
                number,
                compat,
                args,
            } => {
                self.call(name, *number, *compat);
                self.call_args(args);
            }
            Denied::Guarded { of } => self.string(key!("stockade.guarded"), of),
            Denied::Limit {
                counted,
                amount,
                call,
            } => {
                self.string(key!("stockade.limit.counted"), counted);
                if let Some(amount) = amount {
                    self.number(key!("stockade.limit.amount"), *amount);
                }
                if let Some(call) = call {
                    self.call(&call.name, call.number, call.compat);
                }
            }
            other => self.denied_contact(other),
        }
        self.error(e.errno);
    }

    fn syscall(&mut self, e: &Syscall) {
        self.call(&e.name, e.number, e.compat);
        self.call_args(&e.args);
        self.number(key!("stockade.syscall.result"), e.result);
        self.number(key!("event.duration"), e.duration_ns);
        self.error(e.errno());
    }

    fn syscall_summary(&mut self, e: &SyscallSummary) {
        self.call(&e.name, e.number, e.compat);
        self.number(key!("stockade.syscall.calls"), e.calls);
        self.number(key!("stockade.syscall.errors"), e.errors);
        self.number(key!("stockade.syscall.time_ns"), e.time_ns);
        self.number(key!("stockade.window_ns"), e.window_ns);
    }

    fn call(&mut self, name: &str, number: u32, compat: bool) {
        if !name.is_empty() {
            self.string(key!("stockade.syscall.name"), name);
        }
        self.number(key!("stockade.syscall.number"), number);
        self.flag(key!("stockade.syscall.compat"), compat);
    }

    fn call_args(&mut self, args: &[u64; 6]) {
        self.raw(key!("stockade.syscall.args"));
        for (i, arg) in args.iter().enumerate() {
            // Arguments are addresses and flags as often as numbers.
            self.raw(if i == 0 { b"[\"" } else { b"\",\"" });
            self.hex(*arg);
        }
        self.raw(b"\"]");
    }

    fn loss(&mut self, e: &Loss) {
        self.string(key!("stockade.loss.of"), &e.of);
        self.string(key!("stockade.loss.cause"), &e.cause);
        self.number(key!("stockade.loss.count"), e.count);
    }

    fn sampled(&mut self, e: &Sampled) {
        self.string(key!("stockade.sampled.of"), &e.of);
        self.string(key!("stockade.sampled.reason"), &e.reason);
        self.number(key!("stockade.sampled.kept"), e.kept);
        self.number(key!("stockade.sampled.left_out"), e.left_out);
        self.value(key!("stockade.sampled.rate"), &e.rate());
        self.number(key!("stockade.window_ns"), e.window_ns);
    }

    fn gap(&mut self, e: &Gap) {
        self.string(key!("stockade.gap.fence"), &e.fence);
        self.number(key!("stockade.gap.duration_ns"), e.duration_ns);
        self.number(key!("stockade.gap.denials"), e.denials);
        self.number(key!("stockade.gap.lost"), e.lost);
    }

    fn suppressed(&mut self, e: &Suppressed) {
        self.number(key!("stockade.suppressed.count"), e.count);
        self.number(key!("stockade.suppressed.limit"), e.limit);
        self.number(key!("stockade.window_ns"), e.window_ns);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::line::escape_into;
    use super::*;
    use crate::event::{sample, text};

    fn line(event: &Event) -> String {
        let mut out = Vec::new();
        Json::new().write(event, &sample::clock(), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Parsed, after a check that no key stands there twice.
    fn parse(line: &str) -> Value {
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in value.as_object().unwrap().keys() {
            // As a key and not as a value: no string holds an unescaped quote.
            let quoted = format!(",\"{key}\":");
            let count = line.matches(&quoted).count()
                + usize::from(line.starts_with(&format!("{{{}", &quoted[1..])));
            assert_eq!(count, 1, "{key} in {line}");
        }
        value
    }

    fn first(action: &str) -> Event {
        sample::samples()
            .into_iter()
            .find(|e| e.kind.name() == action)
            .unwrap()
    }

    #[test]
    fn an_open_is_exactly_this_line() {
        let mut open = first("open");
        open.process.about = None;
        assert_eq!(
            line(&open),
            concat!(
                r#"{"@timestamp":"2026-03-01T10:00:00.005120774Z","v":1,"event.action":"open","event.kind":"event","#,
                r#""event.category":["file"],"event.type":["access"],"event.outcome":"success","process.pid":4711,"#,
                r#""process.thread.id":4711,"process.entity_id":"7c1f0a9e-34630cb011f-4711","#,
                r#""process.start":"2026-03-01T10:00:00.001204511Z","process.name":"sh","process.parent.pid":4520,"#,
                r#""process.parent.entity_id":"7c1f0a9e-33071a3e381-4520","user.id":"1000","user.group.id":"1000","#,
                r#""stockade.cgroup.id":5214,"file.path":"/etc/ld.so.cache","#,
                r#""stockade.open.flags":["O_RDONLY","O_CLOEXEC"],"file.inode":"1188103","file.mode":"0644","#,
                r#""file.type":"file","stockade.file.device":"259:2","stockade.file.generation":2914807061,"#,
                r#""stockade.file.fs_magic":"0xef53"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn every_sample_is_one_json_object() {
        let mut json = Json::new();
        for event in sample::samples() {
            let mut out = Vec::new();
            json.write(&event, &sample::clock(), &mut out);
            let value = parse(&String::from_utf8(out).unwrap());
            assert_eq!(value["event.action"], event.kind.name());
            assert_eq!(value["v"], 1);
            let process = value
                .as_object()
                .unwrap()
                .keys()
                .any(|key| key.starts_with("process.") || key == "user.id");
            assert_eq!(process, !event.kind.is_remark(), "{value}");
            // A sink that has seen other events writes the same as a fresh one.
            assert_eq!(value, parse(&line(&event)));
        }
    }

    #[test]
    fn a_kept_process_is_dropped_when_anything_about_it_changes() {
        let mut json = Json::new();
        let base = first("open");
        let clock = sample::clock();
        let changes: [fn(&mut Process); 9] = [
            |p| p.id.pid += 1,
            |p| p.id.start_ns += 1,
            |p| p.parent.pid += 1,
            |p| p.tid += 1,
            |p| p.tid += u32::try_from(KEPT).unwrap(),
            |p| p.uid += 1,
            |p| p.gid += 1,
            |p| p.cgroup_id += 1,
            |p| p.comm.push('x'),
        ];
        for change in changes {
            let mut other = base.clone();
            change(&mut other.process);
            for event in [&base, &other, &other, &base] {
                let mut out = Vec::new();
                json.write(event, &clock, &mut out);
                assert_eq!(String::from_utf8(out).unwrap(), line(event));
            }
        }
        let mut out = Vec::new();
        json.write(&base, &Clock::new(0, "ffffffff"), &mut out);
        let value = parse(std::str::from_utf8(&out).unwrap());
        assert_eq!(value["process.entity_id"], "ffffffff-34630cb011f-4711");
        assert_eq!(value["process.start"], "1970-01-01T01:00:00.001204511Z");
    }

    #[test]
    fn what_is_missing_has_no_key() {
        let samples: Vec<Value> = sample::samples().iter().map(|e| parse(&line(e))).collect();
        let of = |action: &str, n: usize| {
            samples
                .iter()
                .filter(|v| v["event.action"] == action)
                .nth(n)
                .unwrap()
        };
        assert_eq!(of("exec", 0).get("stockade.script"), None);
        assert_eq!(of("exec", 0).get("stockade.args_truncated"), None);
        assert_eq!(of("exec", 1)["stockade.args_truncated"], true);
        assert_eq!(of("exec", 2)["process.args"], serde_json::json!([]));
        assert_eq!(of("exec", 1)["file.mode"], "4755");
        assert_eq!(of("exec", 2).get("file.type"), None);
        assert_eq!(of("exec", 0).get("stockade.capabilities_gained"), None);
        assert_eq!(
            of("exec", 1)["stockade.capabilities_gained"],
            serde_json::json!(["CAP_NET_RAW", "0x8000000000000000"])
        );
        assert_eq!(of("exec", 0).get("user.effective.id"), None);
        assert_eq!(of("exec", 3)["user.effective.id"], "0");
        assert_eq!(of("exec", 0).get("stockade.gained_unknown"), None);
        assert_eq!(of("exec", 2)["stockade.gained_unknown"], true);
        assert_eq!(of("exit", 0)["process.exit_code"], 0);
        assert_eq!(of("exit", 0).get("stockade.signal"), None);
        assert_eq!(of("exit", 0).get("event.outcome"), None);
        assert_eq!(of("exit", 1).get("process.exit_code"), None);
        assert_eq!(of("exit", 1)["stockade.signal"], 11);
        assert_eq!(of("open", 0).get("error.code"), None);
        assert_eq!(of("open", 1)["error.code"], "ENOENT");
        assert_eq!(of("open", 1)["event.outcome"], "failure");
        assert_eq!(of("open", 1).get("file.inode"), None);
        assert_eq!(of("open", 3)["error.code"], "999");
        assert_eq!(
            of("open", 3)["stockade.open.flags"],
            serde_json::json!(["O_RDONLY", "0x20"])
        );
        assert_eq!(of("rename", 0)["stockade.replaced.inode"], "2228102");
        assert_eq!(
            of("rename", 1)["stockade.rename.flags"],
            serde_json::json!(["RENAME_NOREPLACE", "0x10"])
        );
        assert_eq!(
            of("denial", 0)["stockade.access"],
            serde_json::json!(["read", "write"])
        );
        assert_eq!(of("denial", 0)["event.kind"], "alert");
        assert_eq!(of("denial", 0)["event.outcome"], "failure");
        assert_eq!(of("denial", 0)["error.code"], "EPERM");
        assert_eq!(of("denial", 1)["event.outcome"], "success");
        assert_eq!(of("denial", 1)["stockade.verdict"], "audit");
        assert_eq!(of("denial", 1).get("error.code"), None);
        assert_eq!(of("denial", 1).get("rule.id"), None);
    }

    #[test]
    fn a_certificate_is_one_json_object() {
        let lines: Vec<Value> = sample::certificates()
            .iter()
            .map(|certificate| {
                let mut out = Vec::new();
                Json::new().certificate(certificate, &sample::clock(), &mut out);
                parse(std::str::from_utf8(&out).unwrap())
            })
            .collect();
        assert_eq!(lines[0]["stockade.complete"], true);
        assert_eq!(lines[0]["stockade.fence"]["mechanism"], "lsm");
        assert_eq!(lines[0]["stockade.losses"], serde_json::json!([]));
        assert_eq!(lines[0]["event.duration"], 12_480_033_210_u64);
        assert_eq!(lines[1]["stockade.complete"], false);
        assert_eq!(lines[1].get("stockade.fence"), None);
        assert_eq!(lines[1]["stockade.losses"][0]["cpu"], 3);
        assert_eq!(lines[1]["stockade.losses"][1].get("cpu"), None);
        assert_eq!(lines[1]["stockade.probes"][1]["state"], "unavailable");
    }

    fn with_strings(s: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for mut event in sample::samples() {
            event.process.comm = s.into();
            match &mut event.kind {
                Kind::Exec(e) => {
                    e.executable.path = s.into();
                    e.args = vec![s.into(), s.into()];
                    e.cwd.path = s.into();
                    e.script = Some(s.into());
                    e.interpreter = Some(s.into());
                }
                Kind::Open(e) => e.path.path = s.into(),
                Kind::Unlink(e) => e.path.path = s.into(),
                Kind::Create(e) => e.path.path = s.into(),
                Kind::Change(e) => {
                    e.path.path = s.into();
                    if let Some(from) = &mut e.from {
                        from.path = s.into();
                    }
                    for text in e.target.iter_mut().chain(&mut e.attribute) {
                        *text = s.into();
                    }
                }
                Kind::Mount(e) | Kind::Umount(e) => {
                    e.path.path = s.into();
                    for text in e.source.iter_mut().chain(&mut e.fs_type) {
                        *text = s.into();
                    }
                }
                Kind::Rename(e) => {
                    e.from.path = s.into();
                    e.to.path = s.into();
                }
                Kind::Denial(e) => {
                    if let Denied::File { path, .. } = &mut e.object {
                        path.path = s.into();
                    }
                    e.rule_id = format!("x{s}");
                }
                Kind::Loss(e) => {
                    e.of = s.into();
                    e.cause = s.into();
                }
                Kind::Sampled(e) => {
                    e.of = s.into();
                    e.reason = s.into();
                }
                Kind::Reload(e) => e.policy = s.into(),
                Kind::Gap(e) => e.fence = s.into(),
                Kind::UnixConnect(e) => e.path = s.into(),
                Kind::DnsQuery(e) => e.name = s.into(),
                Kind::DnsAnswer(e) => e.name = s.into(),
                Kind::Tls(e) => e.server_name = Some(s.into()),
                Kind::Oom(e) => e.trigger_comm = s.into(),
                Kind::Disk(e) => e.device.name = s.into(),
                Kind::DiskSummary(e) => e.device.name = s.into(),
                Kind::FileSummary(e) => {
                    if let Some(path) = &mut e.path {
                        path.path = s.into();
                    }
                }
                // The rest has no names.
                _ => {}
            }
            events.push(event);
        }
        events
    }

    fn survives(s: &str) {
        for event in with_strings(s) {
            let value = parse(&line(&event));
            let keys: &[&str] = match event.kind {
                Kind::Exec(_) => &[
                    "process.name",
                    "process.executable",
                    "process.working_directory",
                    "stockade.script",
                    "stockade.interpreter",
                ],
                Kind::Open(_)
                | Kind::Create(_)
                | Kind::Unlink(_)
                | Kind::Mount(_)
                | Kind::Umount(_)
                | Kind::Change(_) => &["process.name", "file.path"],
                Kind::Rename(_) => &["process.name", "file.path", "stockade.old_path"],
                Kind::UnixConnect(_) => &["process.name", "stockade.unix.path"],
                Kind::DnsQuery(_) | Kind::DnsAnswer(_) => &["process.name", "dns.question.name"],
                Kind::Tls(_) => &["process.name", "tls.client.server_name"],
                Kind::Oom(_) => &["process.name", "stockade.oom.trigger.name"],
                Kind::Disk(_) | Kind::DiskSummary(_) => &["process.name", "stockade.disk.name"],
                Kind::Loss(_) => &["stockade.loss.of", "stockade.loss.cause"],
                Kind::Sampled(_) => &["stockade.sampled.of", "stockade.sampled.reason"],
                Kind::Gap(_) => &["stockade.gap.fence"],
                Kind::Reload(_) => {
                    assert_eq!(value["stockade.fence"]["policy"], s);
                    continue;
                }
                _ => &["process.name"],
            };
            for key in keys {
                assert_eq!(value[*key], s, "{key}");
            }
            if let Kind::Exec(_) = event.kind {
                assert_eq!(value["process.args"], serde_json::json!([s, s]));
            }
            // Names that only some have.
            for key in [
                "file.path",
                "stockade.old_path",
                "file.target_path",
                "stockade.xattr.name",
                "stockade.mount.source",
                "stockade.mount.type",
            ] {
                assert!(value.get(key).is_none_or(|name| name == s), "{key}");
            }
            if let Kind::Denial(_) = event.kind {
                assert_eq!(value["rule.id"], format!("x{s}"));
            }
        }
    }

    #[test]
    fn names_with_quotes_backslashes_and_wide_characters_survive() {
        for name in [
            "",
            "\"",
            "\\",
            "a\\\\nb",
            "\\\"\\\"",
            "0123456789abcde\"",
            "0123456789abcdef\"",
            "gr\u{fc}n \u{1f9ea}",
            "\u{10ffff}\u{2028}\u{7f}",
            "\",\"event.outcome\":\"success",
            // Never from the kernel, but a policy may say so.
            "\0\u{1}\t\n\r\u{8}\u{c}\u{1b}",
        ] {
            survives(name);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            survives(&text::escape(&bytes));
        }

        #[test]
        fn any_text_is_escaped_as_serde_json_would_read_it(s in any::<String>()) {
            let mut out = vec![b'"'];
            escape_into(&mut out, &s);
            out.push(b'"');
            let back: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(back, s);
        }

        #[test]
        fn hex_is_hex(value in any::<u32>()) {
            let mut out = Vec::new();
            Line { out: &mut out }.hex(value);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{value:#x}"));
        }
    }

    /// Lines per second on one core: `cargo test --release --lib json_speed -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement, for release builds"]
    fn json_speed() {
        let clock = sample::clock();
        let same = vec![first("open")];
        let of_thread = |tid| {
            let mut event = first("open");
            event.process.tid = tid;
            event
        };
        let mixed: Vec<Event> = (1..=16).map(of_thread).collect();
        // All on one place of those that are kept.
        let crowded: Vec<Event> = (1..=16).map(|n| of_thread(n * 64)).collect();
        for (what, events) in [
            ("open, one thread", same),
            ("open, 16 threads", mixed),
            ("open, never the one that was kept", crowded),
            ("all samples", sample::samples()),
        ] {
            let mut json = Json::new();
            let mut out = Vec::with_capacity(1 << 20);
            let (mut best, mut bytes) = (f64::MAX, 0);
            for _ in 0..7 {
                let rounds = 2_000_000 / events.len();
                let start = std::time::Instant::now();
                bytes = 0;
                for _ in 0..rounds {
                    for event in &events {
                        json.write(std::hint::black_box(event), &clock, &mut out);
                    }
                    if out.len() > 1 << 16 {
                        bytes += out.len();
                        out.clear();
                    }
                }
                bytes += out.len();
                out.clear();
                let lines = rounds * events.len();
                best = best.min(start.elapsed().as_secs_f64() / lines as f64);
                bytes /= lines;
            }
            println!(
                "{what}: {:.2} M lines/s, {:.0} ns and {bytes} bytes a line",
                1e-6 / best,
                best * 1e9
            );
        }
    }
}

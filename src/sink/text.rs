//! Events as aligned lines for people.
//!
//! Names are quoted where they could pass for a field of their own ([`Event`]'s `Display`), so a line says what it says.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use super::day::Day;
use crate::event::{Attachment, Certificate, Clock, Event, Kind, Quoted};

const RED: &[u8] = b"\x1b[31m";
const YELLOW: &[u8] = b"\x1b[33m";
const BOLD: &[u8] = b"\x1b[1m";
const RESET: &[u8] = b"\x1b[0m";

/// Writes events as text, one line each.
#[derive(Debug)]
pub struct Text {
    color: bool,
    today: Day,
    comm: String,
}

impl Text {
    /// With colours or without: denials and port scans red, failures and losses yellow, execs bold.
    #[must_use]
    pub fn new(color: bool) -> Self {
        Text {
            color,
            today: Day::default(),
            comm: String::new(),
        }
    }

    /// Appends the column titles.
    pub fn header(&mut self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail, here and below.
        let _ = writeln!(
            out,
            "{:<12} {:<7} {:>7} {:>7} {:<15} DETAILS",
            "TIME (UTC)", "ACTION", "PID", "PPID", "COMM"
        );
    }

    /// Appends one event, with its newline.
    pub fn write(&mut self, event: &Event, clock: &Clock, out: &mut Vec<u8>) {
        let color = self.color_of(event);
        out.extend_from_slice(color);
        match self.today.split(clock.unix_ns(event.time_ns)) {
            Some((_, time)) => out.extend_from_slice(&time[..12]),
            None => out.extend_from_slice(b"--:--:--.---"),
        }
        let _ = match event.kind {
            Kind::Loss(_) => write!(out, " {:<7} {}", "LOST", event.kind),
            Kind::Sampled(_) => write!(out, " {:<7} {}", "SAMPLED", event.kind),
            _ => {
                let p = &event.process;
                self.comm.clear();
                let _ = write!(self.comm, "{}", Quoted(&p.comm));
                write!(
                    out,
                    " {:<7} {:>7} {:>7} {:<15} {}",
                    // The counters say what it is, and so does the path of a local socket.
                    event
                        .kind
                        .name()
                        .trim_end_matches("_summary")
                        .trim_end_matches("_allocations")
                        .trim_end_matches("_outstanding")
                        .trim_start_matches("unix_"),
                    p.id.pid,
                    p.parent.pid,
                    self.comm,
                    event.kind
                )
            }
        };
        if !color.is_empty() {
            out.extend_from_slice(RESET);
        }
        out.push(b'\n');
    }
    /// Appends the end record: what was watched and what became of it, the verdict last.
    pub fn certificate(&mut self, c: &Certificate, out: &mut Vec<u8>) {
        let _ = self.try_certificate(c, out);
    }

    fn try_certificate(&self, c: &Certificate, out: &mut Vec<u8>) -> std::io::Result<()> {
        let seconds = c.duration_ns() as f64 / 1e9;
        writeln!(
            out,
            "{} events, {} denials in {seconds:.1} s",
            c.events, c.denials
        )?;
        writeln!(out, "  watched  {}", OneLine(&c.monitors.join(", ")))?;
        for probe in &c.probes {
            let unavailable = probe.state == Attachment::Unavailable;
            self.paint(out, if unavailable { YELLOW } else { b"" }, |out| {
                write!(
                    out,
                    "  probe    {} {}",
                    OneLine(&probe.name),
                    probe.state.name()
                )?;
                if let Some(variant) = &probe.variant {
                    write!(out, " by {}", OneLine(variant))?;
                }
                match &probe.reason {
                    Some(reason) => write!(out, ": {}", OneLine(reason)),
                    None => Ok(()),
                }
            })?;
        }
        if let Some(fence) = &c.fence {
            writeln!(
                out,
                "  fence    {} ({}): {} on {} by {}{}; proved by {}{}{}",
                OneLine(&fence.policy),
                OneLine(&fence.mode),
                Counted(fence.rules, "rule", "rules"),
                OneLine(&fence.objects()),
                OneLine(&fence.mechanism),
                match fence.identity.as_str() {
                    "none" => String::new(),
                    identity => format!(", {}", OneLine(identity)),
                },
                Counted(fence.canary_proofs, "refused access", "refused accesses"),
                match fence.reloads {
                    0 => String::new(),
                    n => format!("; {} before it", Counted(n, "policy", "policies")),
                },
                match &fence.pinned {
                    None => String::new(),
                    Some(name) => format!("; pinned as {}, it stands on", OneLine(name)),
                }
            )?;
        }
        for loss in &c.losses {
            self.paint(out, YELLOW, |out| {
                write!(
                    out,
                    "  lost     {} {} ({}",
                    loss.count,
                    OneLine(&loss.of),
                    OneLine(&loss.cause)
                )?;
                match loss.cpu {
                    Some(cpu) => write!(out, ", CPU {cpu})"),
                    None => write!(out, ")"),
                }
            })?;
        }
        for kind in c.kinds.iter().filter(|k| k.sampled + k.suppressed > 0) {
            self.paint(out, YELLOW, |out| {
                write!(
                    out,
                    "  left out {} {}: {} by sampling, {} by the limit of a process",
                    kind.sampled + kind.suppressed,
                    OneLine(&kind.kind),
                    kind.sampled,
                    kind.suppressed
                )
            })?;
        }
        if c.skipped_programs > 0 {
            self.paint(out, YELLOW, |out| {
                write!(
                    out,
                    "  skipped  {} program runs, by the kernel's recursion guard",
                    c.skipped_programs
                )
            })?;
        }
        if c.is_complete() {
            return writeln!(out, "complete: nothing that was asked for went unseen");
        }
        self.paint(out, RED, |out| write!(out, "INCOMPLETE"))?;
        for reason in &c.incomplete_reasons {
            writeln!(out, "  because  {}", OneLine(reason))?;
        }
        Ok(())
    }

    /// One line in a colour, where colours are wanted and this line has one.
    fn paint(
        &self,
        out: &mut Vec<u8>,
        color: &[u8],
        line: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let painted = self.color && !color.is_empty();
        if painted {
            out.extend_from_slice(color);
        }
        line(out)?;
        if painted {
            out.extend_from_slice(RESET);
        }
        out.push(b'\n');
        Ok(())
    }

    fn color_of(&self, event: &Event) -> &'static [u8] {
        match (&event.kind, event.succeeded()) {
            _ if !self.color => b"",
            (Kind::Denial(_) | Kind::PortScan(_), _) => RED,
            (Kind::Loss(_) | Kind::Sampled(_) | Kind::Suppressed(_), _) | (_, Some(false)) => {
                YELLOW
            }
            (Kind::Exec(_), _) => BOLD,
            _ => b"",
        }
    }
}

/// Prose that may come from elsewhere, such as a verifier's message: one line, without control characters.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .0
            .split(['\n', '\r'])
            .map(str::trim)
            .filter(|line| !line.is_empty());
        for (i, line) in lines.enumerate() {
            if i > 0 {
                f.write_str(" / ")?;
            }
            for c in line.chars() {
                match c {
                    '\t' => f.write_str(" ")?,
                    c if c.is_control() => write!(f, "{}", c.escape_default())?,
                    c => f.write_char(c)?,
                }
            }
        }
        Ok(())
    }
}

/// A number of something, in words.
struct Counted(u32, &'static str, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.0 == 1 { self.1 } else { self.2 };
        write!(f, "{} {word}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Denied, sample, text};

    fn line(color: bool, event: &Event) -> String {
        let mut out = Vec::new();
        Text::new(color).write(event, &sample::clock(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn first(action: &str) -> Event {
        sample::samples()
            .into_iter()
            .find(|e| e.kind.name() == action)
            .unwrap()
    }

    /// Without the colours of this module; whatever other control character is left would be a name's.
    fn uncolored(text: &str) -> String {
        [RED, YELLOW, BOLD, RESET]
            .iter()
            .fold(text.to_owned(), |text, code| {
                text.replace(std::str::from_utf8(code).unwrap(), "")
            })
    }

    #[test]
    fn plain_events_read_as_columns() {
        let mut out = Vec::new();
        Text::new(false).header(&mut out);
        let mut lines = String::from_utf8(out).unwrap();
        for action in [
            "exec",
            "fork",
            "exit",
            "process_summary",
            "open",
            "unlink",
            "rename",
            "file_summary",
            "denial",
            "syscall",
            "syscall_summary",
            "connect",
            "accept",
            "close",
            "bind",
            "listen",
            "tcp_state",
            "retransmit",
            "unix_connect",
            "dns_query",
            "dns_answer",
            "tls",
            "raw_socket",
            "port_scan",
            "network_summary",
            "memory",
            "memory_summary",
            "memory_allocations",
            "memory_outstanding",
            "oom",
            "disk",
            "disk_summary",
            "profile",
            "loss",
        ] {
            lines.push_str(&line(false, &first(action)));
        }
        assert_eq!(
            lines,
            r#"TIME (UTC)   ACTION      PID    PPID COMM            DETAILS
10:00:00.001 exec       4711    4520 sh              exe=/usr/bin/dash args=[sh -c "make \"all\""] cwd=/srv/build tty=pts/3
10:00:00.004 fork       4711    4520 sh              child=4712
10:00:00.009 exit       4711    4520 sh              code=0 user=1.8ms system=2.4ms rss=3500KiB lived=8.2ms
10:00:00.008 process    4711    4520 sh              user=412.2ms system=38.1ms run_delay=96.4ms switches=118+47 threads=3 in=10.0s
10:00:00.005 open       4711    4520 sh              path=/etc/ld.so.cache flags=O_RDONLY|O_CLOEXEC
10:00:00.006 unlink     4711    4520 sh              path=/srv/build/main.o
10:00:00.007 rename     4711    4520 sh              from=/srv/build/out.tmp to=/srv/build/out
10:00:00.008 file       4711    4520 sh              path=/var/log/build.log opens=2 failures=1 read=12288/3 [4us:3] written=163840/40 [8us:40] in=10.0s
10:00:00.008 denial     4711    4520 sh              DENIED rule=no-keys access=read,write path=/home/ada/.ssh/id_ed25519
10:00:00.008 syscall    4711    4520 sh              ptrace(0x10, 0x1267, 0x0, 0x0, 0x7fff000000001000, 0x0) errno=EPERM took=4.1us
10:00:00.008 syscall    4711    4520 sh              read calls=1204 errors=3 time=8.400ms in=10.0s
10:00:00.008 connect    4711    4520 sh              tcp 10.0.0.7:51304->192.0.2.10:443 took=11.205ms
10:00:00.008 accept     4711    4520 sh              tcp [2001:db8::7]:8080<-[2001:db8::7]:8080
10:00:00.008 close      4711    4520 sh              tcp 10.0.0.7:51304->192.0.2.10:443 sent=517 received=14210 retransmits=0 lasted=84.121ms
10:00:00.008 bind       4711    4520 sh              tcp 0.0.0.0:8080
10:00:00.008 listen     4711    4520 sh              tcp 0.0.0.0:8080 backlog=128
10:00:00.008 tcp_state    4711    4520 sh              tcp 10.0.0.7:51304->192.0.2.10:443 fin_wait1->fin_wait2 after=0.212ms
10:00:00.008 retransmit    4711    4520 sh              tcp 10.0.0.7:51304->192.0.2.10:443
10:00:00.008 connect    4711    4520 sh              path=/run/dbus/system_bus_socket
10:00:00.008 dns_query    4711    4520 sh              udp 10.0.0.7:40113->192.0.2.53:53 name=www.example.org type=A id=4660
10:00:00.008 dns_answer    4711    4520 sh              udp 10.0.0.7:40113->192.0.2.53:53 name=www.example.org type=A id=4660 NOERROR [CNAME=web.example.org A=192.0.2.10] took=11.205ms
10:00:00.008 tls        4711    4520 sh              tcp 10.0.0.7:51304->192.0.2.10:443 name=www.example.org
10:00:00.008 raw_socket    4711    4520 sh              packet raw protocol=0x3
10:00:00.008 port_scan    4711    4520 sh              PORT SCAN refused=19 unanswered=1 among=[192.0.2.10:1 192.0.2.10:2] in=0.4s
10:00:00.008 network    4711    4520 sh              udp ->192.0.2.53:53 sent=1204/12 received=8021/14 connections=2 failures=1 retransmits=0 in=10.0s
10:00:00.008 memory     4711    4520 sh              mmap address=0x7f5c1c000000 bytes=+1048576 prot=PROT_READ|PROT_WRITE flags=MAP_PRIVATE|MAP_ANONYMOUS
10:00:00.008 memory     4711    4520 sh              faults=412+3 mmap=21 (+6512640) munmap=2 (-139264) brk=4 (+135168 -4096) mmap:ENOMEM=1 rss=5008KiB peak=5120KiB swap=0KiB virtual=8816KiB in=10.0s ended
10:00:00.008 memory     4711    4520 sh              pages=310 (+1282048) freed=285 (-1179648) slab=2204 (+431072 for 402118) freed=2150 (-418944 for 391006) in=10.0s
10:00:00.008 memory     4711    4520 sh              slab bytes=49152 (+16384) allocations=3 requested=30720 kernel=[do_syscall_64 pipe_resize_ring __kmalloc] in=10.0s
10:00:00.008 oom        4711    4520 sh              OUT OF MEMORY anon=16384KiB file=64KiB shmem=0KiB swap=8KiB virtual=69632KiB tables=72KiB score_adj=0 asked_by=4520 (make)
10:00:00.008 disk       4711    4520 sh              nvme0n1 write sector=8402944 bytes=4096 flags=sync queue=6.1us device=212.4us
10:00:00.008 disk       4711    4520 sh              nvme0n1 write ios=12 bytes=49152 errors=1 queue=[4us:9 8us:3] device=[128us:11 4.2s:1] in=10.0s
10:00:00.008 profile    4711    4520 sh              cpu samples=12 time=121.212ms user=[0x7ffd00001000 evaltree evalcommand libc.so.6+0xff2a4] kernel=[do_syscall_64 vfs_read] in=10.0s
10:00:00.009 LOST    412 open (ring)
"#
        );
    }

    #[test]
    fn colours_stand_for_denials_failures_and_execs_and_only_when_asked_for() {
        for event in sample::samples() {
            let (plain, colored) = (line(false, &event), line(true, &event));
            assert!(!plain.contains('\x1b'), "{plain:?}");
            assert_eq!(uncolored(&colored), plain);
            let expected: &[u8] = match (&event.kind, event.succeeded()) {
                (Kind::Denial(_) | Kind::PortScan(_), _) => RED,
                (Kind::Loss(_) | Kind::Sampled(_) | Kind::Suppressed(_), _) => YELLOW,
                (Kind::Exec(_), _) => BOLD,
                (_, Some(false)) => YELLOW,
                _ => b"1",
            };
            assert!(colored.as_bytes().starts_with(expected), "{colored:?}");
        }
    }

    #[test]
    fn a_complete_certificate_says_so_and_why_it_can() {
        let mut out = Vec::new();
        Text::new(false).certificate(&sample::certificates()[0], &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "48213 events, 2 denials in 12.5 s
  watched  process, file
  probe    process_exec attached by tp_btf
  probe    file_open attached by fexit
  fence    build-job (enforce): 4 rules on 17 paths and 2 addresses and 1 limit by lsm, tag+key; proved by 9 refused accesses; pinned as build-job, it stands on
complete: nothing that was asked for went unseen
"
        );
    }

    #[test]
    fn an_incomplete_certificate_gives_every_reason() {
        let mut out = Vec::new();
        Text::new(true).certificate(&sample::certificates()[1], &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            uncolored(&text),
            r#"903114 events, 0 denials in 3.0 s
  watched  file
  probe    file_open attached by tp: fexit/do_filp_open: not in this kernel's BTF
  probe    file_rename unavailable: refused by the verifier: / R1 is "invalid"\u{1b}[0m
  lost     412 open (ring, CPU 3)
  lost     1 exec (decode)
  left out 8047 open: 6144 by sampling, 1903 by the limit of a process
  skipped  7 program runs, by the kernel's recursion guard
INCOMPLETE
  because  413 events were lost
  because  file_rename is unavailable
"#
        );
        assert!(text.contains("\x1b[31mINCOMPLETE\x1b[0m\n"), "{text:?}");
    }

    proptest! {
        #[test]
        fn no_name_brings_a_control_character(bytes in prop::collection::vec(any::<u8>(), 0..40), raw in any::<String>()) {
            for name in [text::escape(&bytes), raw] {
                for mut event in sample::samples() {
                    event.process.comm = name.clone();
                    match &mut event.kind {
                        Kind::Exec(e) => {
                            e.executable.path = name.clone();
                            e.args = vec![name.clone()];
                            e.script = Some(name.clone());
                            e.interpreter = Some(name.clone());
                            e.cwd.path = name.clone();
                        }
                        Kind::Open(e) => e.path.path = name.clone(),
                        Kind::Unlink(e) => e.path.path = name.clone(),
                        Kind::Create(e) => e.path.path = name.clone(),
                        Kind::Change(e) => {
                            e.path.path = name.clone();
                            if let Some(from) = &mut e.from {
                                from.path = name.clone();
                            }
                            for text in e.target.iter_mut().chain(&mut e.attribute) {
                                *text = name.clone();
                            }
                        }
                        Kind::Mount(e) | Kind::Umount(e) => {
                            e.path.path = name.clone();
                            for text in e.source.iter_mut().chain(&mut e.fs_type) {
                                *text = name.clone();
                            }
                        }
                        Kind::Rename(e) => {
                            e.from.path = name.clone();
                            e.to.path = name.clone();
                        }
                        Kind::Denial(e) => {
                            e.rule_id = name.clone();
                            e.access = name.clone();
                            if let Denied::File { path, .. } = &mut e.object {
                                path.path = name.clone();
                            }
                        }
                        Kind::Loss(e) => {
                            e.of = name.clone();
                            e.cause = name.clone();
                        }
                        Kind::Sampled(e) => {
                            e.of = name.clone();
                            e.reason = name.clone();
                        }
                        Kind::UnixConnect(e) => e.path = name.clone(),
                        Kind::DnsQuery(e) => e.name = name.clone(),
                        Kind::DnsAnswer(e) => {
                            e.name = name.clone();
                            for record in &mut e.answers {
                                record.data = name.clone();
                            }
                        }
                        Kind::Tls(e) => e.server_name = Some(name.clone()),
                        Kind::Oom(e) => e.trigger_comm = name.clone(),
                        Kind::Disk(e) => e.device.name = name.clone(),
                        Kind::DiskSummary(e) => e.device.name = name.clone(),
                        Kind::FileSummary(e) => {
                            if let Some(path) = &mut e.path {
                                path.path = name.clone();
                            }
                        }
                        Kind::MemoryOutstanding(e) => {
                            for frame in &mut e.kernel {
                                frame.function = Some(name.as_str().into());
                            }
                        }
                        Kind::Profile(e) => {
                            for frame in e.user.iter_mut().chain(&mut e.kernel) {
                                frame.function = Some(name.as_str().into());
                            }
                        }
                        // The rest has no names.
                        _ => {}
                    }
                    let colored = line(true, &event);
                    let plain = uncolored(&colored);
                    prop_assert_eq!(plain.find(char::is_control), Some(plain.len() - 1), "{:?}", colored);
                }
            }
        }
    }
}

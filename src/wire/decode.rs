//! Records to events.

use std::mem::offset_of;
use std::sync::Arc;

use super::{
    ABI_COMPAT, ACCESS_NAMES, COUNTED_KINDS, CallDenialRecord, DenialRecord, ExecRecord,
    ExitRecord, FileRecord, ForkRecord, GuardDenialRecord, Header, LimitDenialRecord, MemoryRecord,
    NAMESPACES, NO_LOGIN, NetDenialRecord, OomRecord, RawFileId, RawNamespaces, RenameRecord,
    SyscallRecord, VERDICT_DENY, VERDICT_KILL, change, flag, kind, memory_call, network, read,
};
use crate::event::mechanism::TRACEPOINT;
use crate::event::{
    Denial, Denied, Event, Exec, Exit, FileId, FilePath, Fileless, Fork, Gained, Kind, LimitedCall,
    Memory, Namespaces, OomKill, Open, Process, ProcessId, Rename, Syscall, Terminal, Unlink,
    names, text,
};

/// Why a record is not an event. Each is a defect: of the kernel half, or of who wrote the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Shorter than its kind or its own lengths need.
    Short,
    /// Longer than its header says.
    Long,
    /// Of a kind that this version does not know.
    Unknown,
}

/// Decodes records; holds what one machine has in common, and the memory of events that are no longer needed.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Bytes per page, for sizes that the kernel counts in pages.
    page_bytes: u64,
    /// Of who watches: they are not worth a word.
    own_namespaces: [u32; NAMESPACES],
    spare: Spare,
}

impl Decoder {
    pub(crate) fn new(page_bytes: u64, own_namespaces: [u32; NAMESPACES]) -> Self {
        Decoder {
            page_bytes,
            own_namespaces,
            spare: Spare::default(),
        }
    }

    /// Decodes one record. Give the event back with [`Decoder::recycle`], and the next ones allocate nothing.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Result<Event, Malformed> {
        let hdr: Header = read(bytes).ok_or(Malformed::Short)?;
        // The ring rounds up to eight bytes and reports what was reserved: the header has the exact length.
        let len = usize::try_from(hdr.len).map_err(|_| Malformed::Short)?;
        if len > bytes.len() {
            return Err(Malformed::Short);
        }
        if len < bytes.len() {
            return Err(Malformed::Long);
        }
        let spare = &mut self.spare;
        let kind = match hdr.kind {
            kind::EXEC => exec(bytes, &self.own_namespaces, spare)?,
            kind::FORK => fork(bytes, &self.own_namespaces)?,
            kind::EXIT => exit(bytes, self.page_bytes)?,
            kind::OPEN => Kind::Open(open(bytes, spare)?),
            kind::CREATE => Kind::Create(open(bytes, spare)?),
            kind::UNLINK => unlink(bytes, spare)?,
            kind::RENAME => rename(bytes, spare)?,
            kind::LINK..=kind::MOUNT => change::change(bytes, spare)?,
            kind::DENIAL => denial(bytes, spare)?,
            kind::NET_DENIAL => net_denial(bytes, spare)?,
            kind::CALL_DENIAL => call_denial(bytes, spare)?,
            kind::LIMIT_DENIAL => limit_denial(bytes, spare)?,
            kind::GUARD_DENIAL => guard_denial(bytes, spare)?,
            kind::SYSCALL => syscall(bytes)?,
            kind::CONNECT..=kind::RETRANSMIT => network::net(bytes)?,
            kind::UNIX_CONNECT => network::unix(bytes, spare)?,
            kind::RAW_SOCKET => network::raw_socket(bytes)?,
            kind::TCP_STATE => network::tcp_state(bytes)?,
            kind::MEMORY => memory(bytes)?,
            kind::OOM => oom(bytes, self.page_bytes, spare)?,
            kind::DISK => Kind::Disk(super::disk::disk(&fixed(bytes)?, spare.string())),
            _ => return Err(Malformed::Unknown),
        };
        Ok(Event {
            time_ns: hdr.time_ns,
            process: process(&hdr, spare.escaped(until_nul(&hdr.comm))),
            kind,
        })
    }

    /// Takes the memory of an event that nobody needs any more.
    pub(crate) fn recycle(&mut self, event: Event) {
        let spare = &mut self.spare;
        match event.kind {
            Kind::Exec(e) => {
                spare.put(e.executable.path);
                spare.put(e.cwd.path);
                spare.put_list(e.args);
                spare.put_list(e.env);
                let terminal = e.terminal.map(|terminal| terminal.name);
                for name in e.script.into_iter().chain(e.interpreter).chain(terminal) {
                    spare.put(name);
                }
            }
            Kind::Open(e) | Kind::Create(e) => spare.put(e.path.path),
            Kind::Change(e) => {
                spare.put(e.path.path);
                let from = e.from.map(|from| from.path);
                for name in from.into_iter().chain(e.target).chain(e.attribute) {
                    spare.put(name);
                }
            }
            Kind::Mount(e) | Kind::Umount(e) => {
                spare.put(e.path.path);
                for name in e.source.into_iter().chain(e.fs_type) {
                    spare.put(name);
                }
            }
            Kind::Unlink(e) => spare.put(e.path.path),
            Kind::UnixConnect(e) => spare.put(e.path),
            Kind::Rename(e) => {
                spare.put(e.from.path);
                spare.put(e.to.path);
            }
            Kind::Denial(e) => {
                spare.put(e.rule_id);
                spare.put(e.access);
                if let Denied::File { path, .. } = e.object {
                    spare.put(path.path);
                }
            }
            Kind::Disk(e) => spare.put(e.device.name),
            Kind::DiskSummary(e) => spare.put(e.device.name),
            Kind::FileSummary(e) => {
                if let Some(path) = e.path {
                    spare.put(path.path);
                }
            }
            Kind::Fork(_)
            | Kind::Exit(_)
            | Kind::ProcessSummary(_)
            | Kind::Syscall(_)
            | Kind::SyscallSummary(_)
            | Kind::Connect(_)
            | Kind::Accept(_)
            | Kind::Close(_)
            | Kind::Bind(_)
            | Kind::Listen(_)
            | Kind::Retransmit(_)
            | Kind::RawSocket(_)
            | Kind::TcpState(_)
            | Kind::PortScan(_)
            | Kind::DnsQuery(_)
            | Kind::DnsAnswer(_)
            | Kind::Tls(_)
            | Kind::NetworkSummary(_)
            | Kind::Memory(_)
            | Kind::MemorySummary(_)
            | Kind::MemoryAllocations(_)
            | Kind::MemoryOutstanding(_)
            | Kind::Profile(_)
            | Kind::Loss(_)
            | Kind::Sampled(_)
            | Kind::Suppressed(_)
            | Kind::Reload(_)
            | Kind::Gap(_) => {}
            Kind::Oom(e) => spare.put(e.trigger_comm),
        }
        spare.put(event.process.comm);
    }
}

/// Strings of former events, emptied. An event is built anew from its record, so nothing but capacity can get from one
/// to the next.
#[derive(Debug, Default)]
pub(super) struct Spare {
    strings: Vec<String>,
    /// For arguments, and for environment variables.
    lists: Vec<Vec<String>>,
}

impl Spare {
    /// Enough for an exec with many arguments. What is above these bounds is freed: one event must not pin its memory.
    const STRINGS: usize = 128;
    const STRING_BYTES: usize = 16 * 1024;
    const LIST: usize = 1024;
    const LISTS: usize = 2;

    /// An empty string.
    fn string(&mut self) -> String {
        self.strings.pop().unwrap_or_default()
    }

    pub(super) fn escaped(&mut self, bytes: &[u8]) -> String {
        let mut out = self.string();
        text::escape_into(&mut out, bytes);
        out
    }

    fn put(&mut self, mut string: String) {
        let worth = 1..=Self::STRING_BYTES;
        if worth.contains(&string.capacity()) && self.strings.len() < Self::STRINGS {
            string.clear();
            self.strings.push(string);
        }
    }

    fn put_list(&mut self, mut list: Vec<String>) {
        for string in list.drain(..) {
            self.put(string);
        }
        if (1..=Self::LIST).contains(&list.capacity()) && self.lists.len() < Self::LISTS {
            self.lists.push(list);
        }
    }
}

/// How a process ended, as wait4(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitStatus {
    pub(crate) code: Option<u8>,
    pub(crate) signal: Option<u8>,
    pub(crate) core_dumped: bool,
}

impl WaitStatus {
    pub(crate) fn new(status: u32) -> Self {
        let signal = u8::try_from(status & 0x7f).unwrap_or(0);
        WaitStatus {
            code: (signal == 0).then_some(((status >> 8) & 0xff) as u8),
            signal: (signal != 0).then_some(signal),
            core_dumped: status & 0x80 != 0,
        }
    }
}

/// Splits the exact run time by the ratio of the sampled ones, as wait4(2) does (cputime_adjust, kernel/sched/cputime.c).
pub(crate) fn scale_cpu_time(utime: u64, stime: u64, rtime: u64) -> (u64, u64) {
    if stime == 0 {
        return (rtime, 0);
    }
    if utime == 0 {
        return (0, rtime);
    }
    let total = u128::from(stime) + u128::from(utime);
    let system = u128::from(stime) * u128::from(rtime) / total;
    // The quotient is at most rtime.
    let system = u64::try_from(system).unwrap_or(rtime);
    (rtime - system, system)
}

/// A record without variable part: its size is its type's.
pub(super) fn fixed<T: plain::Plain + Copy>(bytes: &[u8]) -> Result<T, Malformed> {
    match bytes.len().cmp(&size_of::<T>()) {
        std::cmp::Ordering::Less => Err(Malformed::Short),
        std::cmp::Ordering::Equal => read(bytes).ok_or(Malformed::Short),
        std::cmp::Ordering::Greater => Err(Malformed::Long),
    }
}

/// Takes the variable parts of a record one by one.
pub(super) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    pub(super) fn take(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed::Short)?;
        let (part, rest) = self.0.split_at_checked(len).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(part)
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Long)
        }
    }
}

pub(super) fn variable<T: plain::Plain + Copy>(bytes: &[u8]) -> Result<(T, Parts<'_>), Malformed> {
    let rec = read(bytes).ok_or(Malformed::Short)?;
    Ok((rec, Parts(&bytes[size_of::<T>()..])))
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// From components, leaf first and each with its NUL, to a path.
fn join(parts: &[u8], truncated: bool, mut out: String) -> String {
    out.reserve(parts.len() + 1);
    let parts = parts.strip_suffix(&[0]).unwrap_or(parts);
    // Nearly every path is plain: one scan for all components.
    match text::plain(parts, 0) {
        Some(parts) => join_plain(parts, &mut out),
        None => {
            for part in parts.rsplit(|b| *b == 0) {
                out.push('/');
                text::escape_into(&mut out, part);
            }
        }
    }
    // A cut path starts at a component in the middle.
    if truncated && !parts.is_empty() {
        out.remove(0);
    }
    out
}

/// By hand: the general search of `rsplit` takes longer than a short name is.
fn join_plain(parts: &str, out: &mut String) {
    let mut end = parts.len();
    for (at, byte) in parts.bytes().enumerate().rev() {
        if byte == 0 {
            out.push('/');
            out.push_str(&parts[at + 1..end]);
            end = at;
        }
    }
    out.push('/');
    out.push_str(&parts[..end]);
}

pub(super) fn path(parts: &[u8], truncated: bool, flags: u32, spare: &mut Spare) -> FilePath {
    FilePath {
        path: join(parts, truncated, spare.string()),
        truncated,
        deleted: flags & flag::DELETED != 0,
        as_given: false,
    }
}

/// A string of the caller, after the directory it starts from.
pub(super) fn given(bytes: &[u8], base: &[u8], flags: u32, spare: &mut Spare) -> FilePath {
    let mut out = spare.string();
    if !base.is_empty() {
        out = join(base, flags & flag::CWD_CUT != 0, out);
        if !out.ends_with('/') {
            out.push('/');
        }
    }
    text::escape_into(&mut out, until_nul(bytes));
    FilePath {
        path: out,
        truncated: flags & flag::PATH_CUT != 0 || (!base.is_empty() && flags & flag::CWD_CUT != 0),
        deleted: false,
        as_given: true,
    }
}

fn file_id(raw: RawFileId) -> FileId {
    FileId {
        inode: raw.ino,
        device: raw.dev,
        generation: raw.generation,
        fs_magic: raw.fs_magic,
        mode: raw.mode,
    }
}

/// An identity that is all zero stands for "none": no file system has magic 0.
pub(super) fn optional_file_id(raw: RawFileId) -> Option<FileId> {
    (raw.fs_magic != 0).then(|| file_id(raw))
}

pub(super) fn errno(result: i32) -> u16 {
    if result < 0 {
        u16::try_from(result.unsigned_abs()).unwrap_or(u16::MAX)
    } else {
        0
    }
}

fn exec(bytes: &[u8], own: &[u32; NAMESPACES], spare: &mut Spare) -> Result<Kind, Malformed> {
    let (rec, mut parts) = variable::<ExecRecord>(bytes)?;
    let flags = rec.hdr.flags;
    let exe = parts.take(rec.exe_len)?;
    let cwd = parts.take(rec.cwd_len)?;
    let filename = parts.take(rec.filename_len)?;
    let interp = parts.take(rec.interp_len)?;
    let args = parts.take(rec.args_len)?;
    let env = parts.take(rec.env_len)?;
    parts.end()?;
    let is_script = flags & flag::SCRIPT != 0;
    let args_truncated = flags & (flag::ARGS_CUT | flag::ARGS_UNREAD) != 0;
    Ok(Kind::Exec(Exec {
        executable: path(exe, flags & flag::PATH_CUT != 0, flags, spare),
        file: file_id(rec.exe),
        args: split(args, spare),
        args_truncated,
        args_bytes: rec.args_total,
        env: split(env, spare),
        env_truncated: flags & flag::ENV_CUT != 0,
        cwd: path(cwd, flags & flag::CWD_CUT != 0, 0, spare),
        script: is_script.then(|| spare.escaped(until_nul(filename))),
        interpreter: is_script.then(|| spare.escaped(until_nul(interp))),
        fileless: match (flags & flag::UNLINKED != 0, flags & flag::MEMFD != 0) {
            (false, _) => None,
            (true, true) => Some(Fileless::Memfd),
            (true, false) => Some(Fileless::Deleted),
        },
        terminal: (rec.tty != 0).then(|| terminal(rec.tty, until_nul(&rec.tty_name), spare)),
        login_uid: (rec.login_uid != NO_LOGIN).then_some(rec.login_uid),
        effective_uid: rec.now.euid,
        effective_gid: rec.now.egid,
        gained: (flags & flag::BEFORE != 0).then_some(Gained {
            user: rec.now.euid != rec.before.euid,
            group: rec.now.egid != rec.before.egid,
            capabilities: rec.now.caps & !rec.before.caps,
        }),
        namespaces: namespaces(&rec.namespaces, own),
    }))
}

/// Those that are others than `own`.
fn namespaces(raw: &RawNamespaces, own: &[u32; NAMESPACES]) -> Namespaces {
    let mut other = [None; NAMESPACES];
    for ((other, inum), own) in other.iter_mut().zip(raw.inum).zip(own) {
        *other = (inum != 0 && inum != *own).then_some(inum);
    }
    let [cgroup, ipc, mnt, net, pid, time, user, uts] = other;
    Namespaces {
        cgroup,
        ipc,
        mnt,
        net,
        pid,
        time,
        user,
        uts,
    }
}

/// The kernel calls a pseudo terminal `pts3` and its file is `/dev/pts/3`.
fn terminal(device: u32, name: &[u8], spare: &mut Spare) -> Terminal {
    let mut out = spare.string();
    match name.strip_prefix(b"pts") {
        Some(number) => {
            out.push_str("pts/");
            text::escape_into(&mut out, number);
        }
        None => text::escape_into(&mut out, name),
    }
    Terminal {
        name: out,
        major: device >> 20,
        minor: device & 0xf_ffff,
    }
}

fn split(bytes: &[u8], spare: &mut Spare) -> Vec<String> {
    let mut out = spare.lists.pop().unwrap_or_default();
    if !bytes.is_empty() {
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        out.extend(bytes.split(|b| *b == 0).map(|arg| spare.escaped(arg)));
    }
    out
}

fn exit(bytes: &[u8], page_bytes: u64) -> Result<Kind, Malformed> {
    let rec: ExitRecord = fixed(bytes)?;
    let status = WaitStatus::new(rec.code);
    let (user_ns, system_ns) = scale_cpu_time(rec.utime_ns, rec.stime_ns, rec.rtime_ns);
    Ok(Kind::Exit(Exit {
        code: status.code,
        signal: status.signal,
        core_dumped: status.core_dumped,
        user_ns,
        system_ns,
        max_rss_bytes: rec.maxrss_pages.saturating_mul(page_bytes),
        lifetime_ns: rec.hdr.time_ns.saturating_sub(rec.hdr.start_ns),
    }))
}

fn fork(bytes: &[u8], own: &[u32; NAMESPACES]) -> Result<Kind, Malformed> {
    let rec: ForkRecord = fixed(bytes)?;
    Ok(Kind::Fork(Fork {
        child: ProcessId::new(rec.child_start_ns, rec.child_tgid),
        child_parent: ProcessId::new(rec.child_parent_start_ns, rec.child_ppid),
        namespaces: namespaces(&rec.namespaces, own),
    }))
}

fn open(bytes: &[u8], spare: &mut Spare) -> Result<Open, Malformed> {
    let (rec, parts) = variable::<FileRecord>(bytes)?;
    Ok(Open {
        path: file_path(&rec, parts, spare)?,
        file: optional_file_id(rec.file),
        flags: rec.open_flags,
        errno: errno(rec.result),
    })
}

fn unlink(bytes: &[u8], spare: &mut Spare) -> Result<Kind, Malformed> {
    let (rec, parts) = variable::<FileRecord>(bytes)?;
    Ok(Kind::Unlink(Unlink {
        path: file_path(&rec, parts, spare)?,
        file: optional_file_id(rec.file),
        errno: errno(rec.result),
    }))
}

fn file_path(
    rec: &FileRecord,
    mut parts: Parts<'_>,
    spare: &mut Spare,
) -> Result<FilePath, Malformed> {
    let name = parts.take(rec.path_len)?;
    let base = parts.take(rec.base_len)?;
    parts.end()?;
    let flags = rec.hdr.flags;
    if flags & flag::AS_GIVEN != 0 {
        Ok(given(name, base, flags, spare))
    } else if base.is_empty() {
        Ok(path(name, flags & flag::PATH_CUT != 0, flags, spare))
    } else {
        Err(Malformed::Long)
    }
}

fn rename(bytes: &[u8], spare: &mut Spare) -> Result<Kind, Malformed> {
    let (rec, mut parts) = variable::<RenameRecord>(bytes)?;
    let from = parts.take(rec.old_len)?;
    let to = parts.take(rec.new_len)?;
    parts.end()?;
    let flags = rec.hdr.flags;
    let (from, to) = if flags & flag::AS_GIVEN != 0 {
        (given(from, &[], flags, spare), given(to, &[], flags, spare))
    } else {
        (
            path(from, flags & flag::PATH_CUT != 0, 0, spare),
            path(to, flags & flag::PATH2_CUT != 0, 0, spare),
        )
    };
    Ok(Kind::Rename(Rename {
        from,
        to,
        file: optional_file_id(rec.file),
        replaced: optional_file_id(rec.replaced),
        flags: rec.rename_flags,
        errno: errno(rec.result),
    }))
}

fn syscall(bytes: &[u8]) -> Result<Kind, Malformed> {
    let rec: SyscallRecord = fixed(bytes)?;
    Ok(Kind::Syscall(Syscall {
        name: names::syscall(rec.abi, rec.nr).into(),
        number: rec.nr,
        compat: rec.abi == ABI_COMPAT,
        args: rec.args,
        result: rec.result,
        duration_ns: rec.duration_ns,
    }))
}

fn memory(bytes: &[u8]) -> Result<Kind, Malformed> {
    let rec: MemoryRecord = fixed(bytes)?;
    let size = i64::try_from(rec.bytes).unwrap_or(i64::MAX);
    let (call, bytes) = match rec.call {
        memory_call::MMAP => ("mmap", size),
        memory_call::MUNMAP => ("munmap", -size),
        memory_call::BRK => ("brk", size),
        memory_call::BRK_SHRINK => ("brk", -size),
        _ => return Err(Malformed::Unknown),
    };
    Ok(Kind::Memory(Memory {
        call: call.into(),
        address: rec.address,
        bytes,
        protection: rec.prot,
        flags: rec.flags,
        errno: u16::try_from(rec.errnum).unwrap_or(u16::MAX),
    }))
}

fn oom(bytes: &[u8], page_bytes: u64, spare: &mut Spare) -> Result<Kind, Malformed> {
    let rec: OomRecord = fixed(bytes)?;
    let size = |pages: u64| pages.saturating_mul(page_bytes);
    Ok(Kind::Oom(OomKill {
        trigger: ProcessId::new(rec.trigger_start_ns, rec.trigger_tgid),
        trigger_comm: spare.escaped(until_nul(&rec.trigger_comm)),
        anon_bytes: size(rec.anon),
        file_bytes: size(rec.file),
        shmem_bytes: size(rec.shmem),
        swap_bytes: size(rec.swap),
        virtual_bytes: size(rec.total_vm),
        table_bytes: rec.table_bytes,
        score_adj: rec.score_adj,
    }))
}

/// The process that a header is of.
pub(crate) fn process_of(hdr: &Header) -> Process {
    process(hdr, text::escape(until_nul(&hdr.comm)))
}

fn process(hdr: &Header, comm: String) -> Process {
    Process {
        id: ProcessId::new(hdr.start_ns, hdr.tgid),
        parent: ProcessId::new(hdr.parent_start_ns, hdr.ppid),
        tid: hdr.tid,
        uid: hdr.uid,
        gid: hdr.gid,
        cgroup_id: hdr.cgroup_id,
        comm,
        about: None,
    }
}

fn access_names(bits: u32, mut out: String) -> String {
    for (bit, name) in (0..).zip(ACCESS_NAMES) {
        if bits & (1u32 << bit) != 0 {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(name);
        }
    }
    out
}

fn denial(bytes: &[u8], spare: &mut Spare) -> Result<Kind, Malformed> {
    let rec: DenialRecord = fixed(bytes)?;
    let flags = rec.hdr.flags;
    let len = usize::try_from(rec.path_len).map_err(|_| Malformed::Short)?;
    let parts = rec.path.get(..len).ok_or(Malformed::Short)?;
    let object = Denied::File {
        path: path(parts, flags & flag::PATH_CUT != 0, flags, spare),
        path_in_fs: flags & flag::NO_MOUNT != 0,
        file: file_id(rec.file),
    };
    let verdict = (rec.verdict, rec.error);
    let access = access_names(rec.access, spare.string());
    Ok(refusal(flags, rec.rule, access, verdict, object, spare))
}

fn net_denial(bytes: &[u8], spare: &mut Spare) -> Result<Kind, Malformed> {
    let rec: NetDenialRecord = fixed(bytes)?;
    let (flags, verdict) = (rec.hdr.flags, (rec.verdict, rec.error));
    let object = network::denied(&rec);
    let access = access_names(rec.access, spare.string());
    let mut kind = refusal(flags, rec.rule, access, verdict, object, spare);
    if let Kind::Denial(denial) = &mut kind {
        denial.host_number = rec.host;
    }
    Ok(kind)
}

fn call_denial(bytes: &[u8], spare: &mut Spare) -> Result<Kind, Malformed> {
    let rec: CallDenialRecord = fixed(bytes)?;
    let (flags, verdict) = (rec.hdr.flags, (rec.verdict, rec.error));
    let abi = u32::from(rec.abi);
    // What the call was to stand for is the better name.
    let name = names::syscall(abi, rec.nr);
    let asked = names::asked_of(abi, name).and_then(|(names, mask)| {
        let which = usize::try_from(rec.args[0] & mask).ok()?;
        names.get(which).copied().filter(|name| !name.is_empty())
    });
    let object = Denied::Syscall {
        name: asked.unwrap_or(name).into(),
        number: rec.nr,
        compat: abi == ABI_COMPAT,
        args: rec.args,
    };
    let mut access = spare.string();
    access.push_str("call");
    let mut denied = refusal(flags, rec.rule, access, verdict, object, spare);
    if let (Kind::Denial(denial), true) = (&mut denied, rec.traced != 0) {
        denial.mechanism = TRACEPOINT.into();
    }
    Ok(denied)
}

/// What limits count, by number: the name, and what is done that is counted.
const COUNTED: [(&str, &str); COUNTED_KINDS + 1] = [
    ("forks", "fork"),
    ("threads", "thread"),
    ("connections", "connect"),
    ("bytes", "send"),
    ("syscalls", "call"),
];

fn limit_denial(bytes: &[u8], spare: &mut Spare) -> Result<Kind, Malformed> {
    let rec: LimitDenialRecord = fixed(bytes)?;
    let (flags, verdict) = (rec.hdr.flags, (rec.verdict, rec.error));
    let counted = usize::from(rec.counted);
    let &(name, asked) = COUNTED.get(counted).ok_or(Malformed::Unknown)?;
    let abi = u32::from(rec.abi);
    let call = || LimitedCall {
        name: names::syscall(abi, rec.nr).into(),
        number: rec.nr,
        compat: abi == ABI_COMPAT,
    };
    let object = Denied::Limit {
        counted: name.into(),
        amount: Some(rec.amount).filter(|amount| *amount != u64::MAX),
        call: (counted == COUNTED_KINDS).then(call),
    };
    let mut access = spare.string();
    access.push_str(asked);
    Ok(refusal(flags, rec.rule, access, verdict, object, spare))
}

/// What a fence keeps to itself, by number: the name, and what is done to it.
const GUARDED: [(&str, &str); 8] = [
    ("map", "write"),
    ("pin", "delete"),
    ("mount", "umount"),
    ("monitor", "signal"),
    ("monitor", "trace"),
    ("program", "trace"),
    ("program", "exec"),
    ("program", "claim"),
];

/// What denials of it name as their rule, which is in no policy.
pub(crate) const GUARD: &str = "guard";

fn guard_denial(bytes: &[u8], spare: &mut Spare) -> Result<Kind, Malformed> {
    let rec: GuardDenialRecord = fixed(bytes)?;
    let (flags, verdict) = (rec.hdr.flags, (rec.verdict, rec.error));
    let guarded = usize::try_from(rec.at).ok().and_then(|at| GUARDED.get(at));
    let &(of, asked) = guarded.ok_or(Malformed::Unknown)?;
    let mut access = spare.string();
    access.push_str(asked);
    let object = Denied::Guarded { of: of.into() };
    let mut kind = refusal(flags, rec.rule, access, verdict, object, spare);
    if let Kind::Denial(denial) = &mut kind {
        denial.rule_id.push_str(GUARD);
    }
    Ok(kind)
}

/// What every denial says.
fn refusal(
    flags: u32,
    rule: u32,
    access: String,
    (verdict, errno): (u16, u16),
    object: Denied,
    spare: &mut Spare,
) -> Kind {
    Kind::Denial(Denial {
        rule,
        rule_id: spare.string(),
        rule_line: 0,
        mechanism: Arc::default(),
        ancestors: Arc::default(),
        access,
        refused: verdict >= VERDICT_DENY,
        killed: verdict == VERDICT_KILL,
        errno,
        unlisted: flags & flag::UNLISTED != 0,
        host: None,
        host_number: 0,
        object,
    })
}

/// The rule that a denial names, without decoding the rest; `None` for every other record.
pub(crate) fn denied_rule(bytes: &[u8]) -> Option<u32> {
    let hdr: Header = read(bytes)?;
    let at = match hdr.kind {
        kind::DENIAL => offset_of!(DenialRecord, rule),
        kind::NET_DENIAL => offset_of!(NetDenialRecord, rule),
        kind::CALL_DENIAL => offset_of!(CallDenialRecord, rule),
        kind::LIMIT_DENIAL => offset_of!(LimitDenialRecord, rule),
        kind::GUARD_DENIAL => offset_of!(GuardDenialRecord, rule),
        _ => return None,
    };
    read(bytes.get(at..)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::sample::{self, KINDS, file_id, header, privileges, record};
    use crate::wire::{ACCESS_KINDS, RULE_CANARY, bytes_of};

    const OWN: [u32; NAMESPACES] = [7, 1, 2, 3, 4, 5, 6, 7];

    fn decode(bytes: &[u8]) -> Result<Event, Malformed> {
        Decoder::new(4096, OWN).decode(bytes)
    }

    fn exec_bytes(flags: u32, exe: &[u8], cwd: &[u8], args: &[u8]) -> Vec<u8> {
        let len = size_of::<ExecRecord>() + exe.len() + cwd.len() + args.len();
        let record = ExecRecord {
            hdr: header(kind::EXEC, flags, len),
            exe: file_id(),
            exe_len: u32::try_from(exe.len()).unwrap(),
            cwd_len: u32::try_from(cwd.len()).unwrap(),
            filename_len: 0,
            interp_len: 0,
            args_len: u32::try_from(args.len()).unwrap(),
            args_total: u32::try_from(args.len()).unwrap(),
            env_len: 0,
            pad: 0,
            now: privileges(1 << 13 | 1 << 10, 0),
            before: privileges(1 << 10, 1000),
            login_uid: NO_LOGIN,
            tty: 136 << 20 | 300,
            tty_name: *b"pts300\0left-over",
            namespaces: sample::namespaces(9),
        };
        [bytes_of(&record), exe, cwd, args].concat()
    }

    #[test]
    fn components_come_leaf_first_and_become_a_path() {
        let bytes = exec_bytes(0, b"cat\0bin\0usr\0", b"", b"cat\0a b\0\0");
        let event = decode(&bytes).unwrap();
        assert_eq!(event.process.comm, "sh");
        assert_eq!((event.process.id.pid, event.process.parent.pid), (42, 1));
        let Kind::Exec(exec) = event.kind else {
            panic!("{event:?}")
        };
        assert_eq!(exec.executable.path, "/usr/bin/cat");
        assert_eq!(exec.cwd.path, "/");
        assert_eq!(exec.args, ["cat", "a b", ""]);
        assert_eq!((exec.file.major(), exec.file.minor()), (254, 1));
    }

    #[test]
    fn an_exec_tells_what_it_brought_and_not_what_is_unknown() {
        let exec = |flags| match decode(&exec_bytes(flags, b"cat\0", b"", b"")).unwrap().kind {
            Kind::Exec(exec) => exec,
            other => panic!("{other}"),
        };
        let unknown = exec(0);
        assert_eq!((unknown.gained, unknown.effective_uid), (None, 0));
        assert_eq!((unknown.login_uid, unknown.fileless), (None, None));
        let terminal = unknown.terminal.expect("a terminal");
        assert_eq!(
            (terminal.name.as_str(), terminal.major, terminal.minor),
            ("pts/300", 136, 300)
        );
        // The first is not known, and the others are those of who watches.
        let namespaces = Namespaces {
            user: Some(9),
            uts: Some(u32::MAX),
            ..Namespaces::default()
        };
        assert_eq!(unknown.namespaces, namespaces);
        let gained = exec(flag::BEFORE).gained.expect("known");
        assert!(gained.user && gained.group);
        assert_eq!(gained.capabilities, 1 << 13);
        assert_eq!(exec(flag::UNLINKED).fileless, Some(Fileless::Deleted));
        let memfd = exec(flag::UNLINKED | flag::MEMFD).fileless;
        assert_eq!(memfd, Some(Fileless::Memfd));
    }

    #[test]
    fn a_cut_path_has_no_leading_slash() {
        let bytes = exec_bytes(flag::PATH_CUT, b"c\0b\0", b"", b"");
        let Kind::Exec(exec) = decode(&bytes).unwrap().kind else {
            panic!()
        };
        assert_eq!(
            (exec.executable.path.as_str(), exec.executable.truncated),
            ("b/c", true)
        );
    }

    #[test]
    fn short_long_and_unknown_records_are_told_apart() {
        let bytes = exec_bytes(0, b"cat\0", b"", b"cat\0");
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Err(Malformed::Short), "cut at {cut}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode(&longer), Err(Malformed::Long));
        let unknown = header(999, 0, size_of::<Header>());
        assert_eq!(decode(bytes_of(&unknown)), Err(Malformed::Unknown));
        let none = header(0, 0, size_of::<Header>());
        assert_eq!(decode(bytes_of(&none)), Err(Malformed::Unknown));
    }

    #[test]
    fn exit_status_and_cpu_time_are_what_wait4_says() {
        let mut record = ExitRecord {
            hdr: header(kind::EXIT, 0, size_of::<ExitRecord>()),
            utime_ns: 4_000_000,
            stime_ns: 4_000_000,
            rtime_ns: 10_000_000,
            maxrss_pages: 2,
            code: 3 << 8,
            pad: 0,
        };
        let Kind::Exit(exit) = decode(bytes_of(&record)).unwrap().kind else {
            panic!()
        };
        assert_eq!((exit.code, exit.signal), (Some(3), None));
        assert_eq!((exit.user_ns, exit.system_ns), (5_000_000, 5_000_000));
        assert_eq!((exit.max_rss_bytes, exit.lifetime_ns), (8192, 1_500));
        record.code = 11 | 0x80;
        let Kind::Exit(exit) = decode(bytes_of(&record)).unwrap().kind else {
            panic!()
        };
        assert_eq!(
            (exit.code, exit.signal, exit.core_dumped),
            (None, Some(11), true)
        );
    }

    #[test]
    fn a_relative_name_is_joined_to_where_it_starts() {
        let (name, base) = (b"x/y\0".as_slice(), b"tmp\0".as_slice());
        let record = FileRecord {
            hdr: header(
                kind::OPEN,
                flag::AS_GIVEN,
                size_of::<FileRecord>() + name.len() + base.len(),
            ),
            file: RawFileId {
                ino: 0,
                dev: 0,
                generation: 0,
                fs_magic: 0,
                mode: 0,
            },
            result: -2,
            open_flags: 0,
            path_len: u32::try_from(name.len()).unwrap(),
            base_len: u32::try_from(base.len()).unwrap(),
        };
        let bytes = [bytes_of(&record), name, base].concat();
        let Kind::Open(open) = decode(&bytes).unwrap().kind else {
            panic!()
        };
        assert_eq!(
            (open.path.path.as_str(), open.path.as_given),
            ("/tmp/x/y", true)
        );
        assert_eq!((open.errno, open.file), (2, None));
    }

    #[test]
    fn a_denial_names_what_was_asked() {
        let mut record = DenialRecord {
            hdr: header(kind::DENIAL, flag::NO_MOUNT, size_of::<DenialRecord>()),
            file: file_id(),
            rule: 1,
            access: 0b11,
            verdict: VERDICT_DENY,
            error: 1,
            path_len: 2,
            path: [0; crate::wire::PATH_BUF],
        };
        record.path[0] = b'f';
        let Kind::Denial(denial) = decode(bytes_of(&record)).unwrap().kind else {
            panic!()
        };
        assert_eq!(
            (denial.access.as_str(), denial.refused),
            ("read,write", true)
        );
        let Denied::File {
            path, path_in_fs, ..
        } = denial.object
        else {
            panic!()
        };
        assert_eq!((path.path.as_str(), path_in_fs), ("/f", true));
        record.path_len = 1 << 20;
        assert_eq!(decode(bytes_of(&record)), Err(Malformed::Short));
    }

    #[test]
    fn access_bits_mean_the_same_in_a_policy_and_in_the_kernel() {
        use crate::policy::Access;
        for (bit, name) in (0u32..).zip(ACCESS_NAMES) {
            assert_eq!(
                Access::from_name(name).map(Access::bits),
                Some(1 << bit),
                "{name}"
            );
        }
        assert_eq!(ACCESS_NAMES.len(), ACCESS_KINDS);
    }

    #[test]
    fn only_a_denial_names_a_rule() {
        for kind in KINDS {
            let bytes = record(kind, 0, [b"f\0", b"", b""], RULE_CANARY);
            let is_denial = kind == kind::DENIAL;
            let rule = is_denial.then_some(RULE_CANARY);
            assert_eq!(denied_rule(&bytes), rule, "{kind}");
        }
        let bytes = record(kind::DENIAL, 0, [b"f\0", b"", b""], RULE_CANARY);
        assert_eq!(denied_rule(&bytes[..size_of::<Header>()]), None);
        assert_eq!(denied_rule(b""), None);
    }

    #[test]
    fn a_long_event_does_not_pin_its_memory() {
        let mut decoder = Decoder::new(4096, OWN);
        let long = vec![b'a'; 32 * 1024];
        let many = b"a\0".repeat(16 * 1024);
        for args in [&long, &many] {
            let event = decoder
                .decode(&record(kind::EXEC, flag::SCRIPT, [&long, &long, args], 0))
                .unwrap();
            decoder.recycle(event);
            let strings = &decoder.spare.strings;
            assert!(strings.len() <= Spare::STRINGS);
            assert!(strings.iter().all(|s| s.capacity() <= Spare::STRING_BYTES));
            let lists = &decoder.spare.lists;
            assert!(lists.len() <= Spare::LISTS);
            assert!(lists.iter().all(|l| l.capacity() <= Spare::LIST));
        }
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        // Names of components, and anything.
        prop_oneof![
            proptest::collection::vec(prop_oneof![Just(0u8), b'a'..=b'f'], 0..60),
            proptest::collection::vec(any::<u8>(), 0..60),
        ]
    }

    proptest! {
        #[test]
        fn a_used_decoder_decodes_as_a_fresh_one(
            records in proptest::collection::vec(
                (0..KINDS.len(), any::<u32>(), [name(), name(), name()], any::<u32>(), 0..4usize), 1..20,
            ),
        ) {
            let mut used = Decoder::new(4096, OWN);
            for (kind, flags, [a, b, c], number, cut) in records {
                let mut bytes = record(KINDS[kind], flags, [&a, &b, &c], number);
                prop_assert!(decode(&bytes).is_ok());
                // Some are whole, the others too short: those must not spoil the next one either.
                bytes.truncate(bytes.len() - cut);
                let decoded = used.decode(&bytes);
                prop_assert_eq!(&decoded, &decode(&bytes));
                let Ok(mut event) = decoded else { continue };
                // As the session does.
                if let Kind::Denial(denial) = &mut event.kind {
                    denial.rule_id.push_str("a rule");
                }
                used.recycle(event);
            }
        }

        #[test]
        fn a_path_is_its_components_from_the_root_on(
            components in proptest::collection::vec(
                prop_oneof!["[a-z ]{1,20}", Just("gr\u{fc}n".to_owned()), Just("a\\b".to_owned())], 1..8,
            ),
            truncated in any::<bool>(),
        ) {
            let mut parts = Vec::new();
            let mut path = String::new();
            for component in &components {
                parts.extend(component.as_bytes());
                parts.push(0);
                path.insert_str(0, &format!("/{}", text::escape(component.as_bytes())));
            }
            if truncated {
                path.remove(0);
            }
            prop_assert_eq!(join(&parts, truncated, String::new()), path);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn random_lengths_and_flags_in_a_plausible_record_never_panic(
            kind in 0u32..kind::MAX + 2, flags in any::<u32>(), lengths in any::<[u16; 6]>(),
            tail in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut bytes = vec![0u8; size_of::<Header>() + size_of::<RawFileId>()];
            for n in lengths {
                bytes.extend(u32::from(n % 128).to_ne_bytes());
            }
            bytes.extend(tail);
            let hdr = header(kind, flags, bytes.len());
            bytes[..size_of::<Header>()].copy_from_slice(bytes_of(&hdr));
            let _ = decode(&bytes);
        }
    }
}

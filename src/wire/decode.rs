//! Records to events.

use super::{
    ACCESS_NAMES, DenialRecord, ExecRecord, ExitRecord, FileRecord, ForkRecord, Header, RawFileId,
    RenameRecord, VERDICT_DENY, flag, kind, read,
};
use crate::event::{
    Denial, Event, Exec, Exit, FileId, FilePath, Fork, Kind, Open, Process, ProcessId, Rename,
    Unlink, text,
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

/// Decodes records; holds what one machine has in common.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    /// Bytes per page, for sizes that the kernel counts in pages.
    pub(crate) page_bytes: u64,
}

impl Decoder {
    /// Decodes one record.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Event, Malformed> {
        let hdr: Header = read(bytes).ok_or(Malformed::Short)?;
        // The ring rounds up to eight bytes and reports what was reserved: the header has the exact length.
        let len = usize::try_from(hdr.len).map_err(|_| Malformed::Short)?;
        if len > bytes.len() {
            return Err(Malformed::Short);
        }
        if len < bytes.len() {
            return Err(Malformed::Long);
        }
        let kind = match hdr.kind {
            kind::EXEC => exec(bytes)?,
            kind::FORK => fork(bytes)?,
            kind::EXIT => self.exit(bytes)?,
            kind::OPEN => open(bytes)?,
            kind::UNLINK => unlink(bytes)?,
            kind::RENAME => rename(bytes)?,
            kind::DENIAL => denial(bytes)?,
            _ => return Err(Malformed::Unknown),
        };
        Ok(Event {
            time_ns: hdr.time_ns,
            process: Process {
                id: ProcessId::new(hdr.start_ns, hdr.tgid),
                parent: ProcessId::new(hdr.parent_start_ns, hdr.ppid),
                tid: hdr.tid,
                uid: hdr.uid,
                gid: hdr.gid,
                cgroup_id: hdr.cgroup_id,
                comm: text::escape(until_nul(&hdr.comm)),
            },
            kind,
        })
    }

    fn exit(&self, bytes: &[u8]) -> Result<Kind, Malformed> {
        let rec: ExitRecord = fixed(bytes)?;
        let signal = u8::try_from(rec.code & 0x7f).unwrap_or(0);
        let (user_ns, system_ns) = scale_cpu_time(rec.utime_ns, rec.stime_ns, rec.rtime_ns);
        Ok(Kind::Exit(Exit {
            code: (signal == 0).then(|| ((rec.code >> 8) & 0xff) as u8),
            signal: (signal != 0).then_some(signal),
            core_dumped: rec.code & 0x80 != 0,
            user_ns,
            system_ns,
            max_rss_bytes: rec.maxrss_pages.saturating_mul(self.page_bytes),
            lifetime_ns: rec.hdr.time_ns.saturating_sub(rec.hdr.start_ns),
        }))
    }
}

/// Splits the exact run time by the ratio of the sampled ones, as wait4(2) does (cputime_adjust, kernel/sched/cputime.c).
fn scale_cpu_time(utime: u64, stime: u64, rtime: u64) -> (u64, u64) {
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
fn fixed<T: plain::Plain + Copy>(bytes: &[u8]) -> Result<T, Malformed> {
    match bytes.len().cmp(&size_of::<T>()) {
        std::cmp::Ordering::Less => Err(Malformed::Short),
        std::cmp::Ordering::Equal => read(bytes).ok_or(Malformed::Short),
        std::cmp::Ordering::Greater => Err(Malformed::Long),
    }
}

/// Takes the variable parts of a record one by one.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed::Short)?;
        let (part, rest) = self.0.split_at_checked(len).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(part)
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Long)
        }
    }
}

fn variable<T: plain::Plain + Copy>(bytes: &[u8]) -> Result<(T, Parts<'_>), Malformed> {
    let rec = read(bytes).ok_or(Malformed::Short)?;
    Ok((rec, Parts(&bytes[size_of::<T>()..])))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// From components, leaf first and each with its NUL, to a path.
fn join(parts: &[u8], truncated: bool) -> String {
    let mut out = String::with_capacity(parts.len() + 1);
    let parts = parts.strip_suffix(&[0]).unwrap_or(parts);
    if parts.is_empty() {
        out.push('/');
        return out;
    }
    for (i, part) in parts.rsplit(|b| *b == 0).enumerate() {
        // A cut path starts at a component in the middle.
        if !(truncated && i == 0) {
            out.push('/');
        }
        text::escape_into(&mut out, part);
    }
    out
}

fn path(parts: &[u8], truncated: bool, flags: u32) -> FilePath {
    FilePath {
        path: join(parts, truncated),
        truncated,
        deleted: flags & flag::DELETED != 0,
        as_given: false,
    }
}

/// A string of the caller, after the directory it starts from.
fn given(bytes: &[u8], base: &[u8], flags: u32) -> FilePath {
    let mut out = String::new();
    if !base.is_empty() {
        out = join(base, flags & flag::CWD_CUT != 0);
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
fn optional_file_id(raw: RawFileId) -> Option<FileId> {
    (raw.fs_magic != 0).then(|| file_id(raw))
}

fn errno(result: i32) -> u16 {
    if result < 0 {
        u16::try_from(result.unsigned_abs()).unwrap_or(u16::MAX)
    } else {
        0
    }
}

fn exec(bytes: &[u8]) -> Result<Kind, Malformed> {
    let (rec, mut parts) = variable::<ExecRecord>(bytes)?;
    let flags = rec.hdr.flags;
    let exe = parts.take(rec.exe_len)?;
    let cwd = parts.take(rec.cwd_len)?;
    let filename = parts.take(rec.filename_len)?;
    let interp = parts.take(rec.interp_len)?;
    let args = parts.take(rec.args_len)?;
    parts.end()?;
    let is_script = flags & flag::SCRIPT != 0;
    let args_truncated = flags & (flag::ARGS_CUT | flag::ARGS_UNREAD) != 0;
    Ok(Kind::Exec(Exec {
        executable: path(exe, flags & flag::PATH_CUT != 0, flags),
        file: file_id(rec.exe),
        args: split_args(args),
        args_truncated,
        args_bytes: rec.args_total,
        cwd: path(cwd, flags & flag::CWD_CUT != 0, 0),
        script: is_script.then(|| text::escape(until_nul(filename))),
        interpreter: is_script.then(|| text::escape(until_nul(interp))),
    }))
}

fn split_args(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|b| *b == 0).map(text::escape).collect()
}

fn fork(bytes: &[u8]) -> Result<Kind, Malformed> {
    let rec: ForkRecord = fixed(bytes)?;
    Ok(Kind::Fork(Fork {
        child: ProcessId::new(rec.child_start_ns, rec.child_tgid),
        child_parent: ProcessId::new(rec.child_parent_start_ns, rec.child_ppid),
    }))
}

fn open(bytes: &[u8]) -> Result<Kind, Malformed> {
    let (rec, parts) = variable::<FileRecord>(bytes)?;
    Ok(Kind::Open(Open {
        path: file_path(&rec, parts)?,
        file: optional_file_id(rec.file),
        flags: rec.open_flags,
        errno: errno(rec.result),
    }))
}

fn unlink(bytes: &[u8]) -> Result<Kind, Malformed> {
    let (rec, parts) = variable::<FileRecord>(bytes)?;
    Ok(Kind::Unlink(Unlink {
        path: file_path(&rec, parts)?,
        file: optional_file_id(rec.file),
        errno: errno(rec.result),
    }))
}

fn file_path(rec: &FileRecord, mut parts: Parts<'_>) -> Result<FilePath, Malformed> {
    let name = parts.take(rec.path_len)?;
    let base = parts.take(rec.base_len)?;
    parts.end()?;
    let flags = rec.hdr.flags;
    if flags & flag::AS_GIVEN != 0 {
        Ok(given(name, base, flags))
    } else if base.is_empty() {
        Ok(path(name, flags & flag::PATH_CUT != 0, flags))
    } else {
        Err(Malformed::Long)
    }
}

fn rename(bytes: &[u8]) -> Result<Kind, Malformed> {
    let (rec, mut parts) = variable::<RenameRecord>(bytes)?;
    let from = parts.take(rec.old_len)?;
    let to = parts.take(rec.new_len)?;
    parts.end()?;
    let flags = rec.hdr.flags;
    let (from, to) = if flags & flag::AS_GIVEN != 0 {
        (given(from, &[], flags), given(to, &[], flags))
    } else {
        (
            path(from, flags & flag::PATH_CUT != 0, 0),
            path(to, flags & flag::PATH2_CUT != 0, 0),
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

fn access_names(bits: u32) -> String {
    let names: Vec<&str> = (0..)
        .zip(ACCESS_NAMES)
        .filter(|(bit, _)| bits & (1u32 << bit) != 0)
        .map(|(_, name)| name)
        .collect();
    names.join(",")
}

fn denial(bytes: &[u8]) -> Result<Kind, Malformed> {
    let rec: DenialRecord = fixed(bytes)?;
    let flags = rec.hdr.flags;
    let len = usize::try_from(rec.path_len).map_err(|_| Malformed::Short)?;
    let parts = rec.path.get(..len).ok_or(Malformed::Short)?;
    Ok(Kind::Denial(Denial {
        rule: rec.rule,
        rule_id: String::new(),
        access: access_names(rec.access),
        refused: rec.verdict == VERDICT_DENY,
        path: path(parts, flags & flag::PATH_CUT != 0, flags),
        path_in_fs: flags & flag::NO_MOUNT != 0,
        file: file_id(rec.file),
    }))
}

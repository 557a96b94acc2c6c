//! What processes were before they were signalled: one JSON object a line.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::member::Member;
use super::sockets::{self, Socket, Sockets};
use crate::enrich::{MapLine, TICK_NS, ids, unified};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Clock, NAMESPACE_NAMES, names, text};
use crate::kernel::{boot_ns, real_time_offset_ns};

/// A new file, for its owner alone.
#[derive(Debug)]
pub(super) struct Capture {
    path: PathBuf,
    file: File,
}

impl Capture {
    /// # Errors
    ///
    /// `Io`: it cannot be made, or there is something of that name, be it a symbolic link.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| {
                let failed = failed(path, &e);
                match e.kind() {
                    io::ErrorKind::AlreadyExists => {
                        failed.with_hint("name a file that does not exist yet")
                    }
                    _ => failed,
                }
            })?;
        let path = path.to_owned();
        Ok(Capture { path, file })
    }

    /// Writes all of it to the disk.
    pub(super) fn write(self, members: &[Member]) -> Result<()> {
        let clock = Clock::new(real_time_offset_ns(), "");
        let mut spaces = HashMap::new();
        let mut out = BufWriter::new(&self.file);
        let mut write = || {
            for member in members {
                let record = Record::of(member, &clock, &mut spaces);
                serde_json::to_writer(&mut out, &record)?;
                out.write_all(b"\n")?;
            }
            out.flush()?;
            self.file.sync_data()
        };
        write().map_err(|e| failed(&self.path, &e))
    }
}

fn failed(path: &Path, e: &io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        format!(
            "the capture cannot be written to {}, so nobody was killed: {e}",
            path.display()
        ),
    )
}

/// A process. What could not be read is named in `errors`; docs/KILL.md lists the fields.
#[derive(Debug, Default, Serialize)]
struct Record {
    v: u8,
    #[serde(rename = "@timestamp")]
    at: String,
    #[serde(rename = "event.action")]
    action: &'static str,
    #[serde(rename = "process.pid")]
    pid: u32,
    #[serde(rename = "process.start")]
    start: String,
    #[serde(rename = "process.name")]
    name: String,
    #[serde(rename = "process.parent.pid")]
    parent: u32,
    #[serde(rename = "process.executable", skip_serializing_if = "Option::is_none")]
    executable: Option<String>,
    #[serde(
        rename = "stockade.executable.device",
        skip_serializing_if = "Option::is_none"
    )]
    device: Option<String>,
    #[serde(
        rename = "stockade.executable.inode",
        skip_serializing_if = "Option::is_none"
    )]
    inode: Option<String>,
    #[serde(rename = "process.args", skip_serializing_if = "Option::is_none")]
    args: Option<Vec<String>>,
    #[serde(
        rename = "process.working_directory",
        skip_serializing_if = "Option::is_none"
    )]
    directory: Option<String>,
    #[serde(rename = "user.id", skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(rename = "user.effective.id", skip_serializing_if = "Option::is_none")]
    euid: Option<String>,
    #[serde(rename = "user.group.id", skip_serializing_if = "Option::is_none")]
    gid: Option<String>,
    #[serde(
        rename = "user.effective.group.id",
        skip_serializing_if = "Option::is_none"
    )]
    egid: Option<String>,
    #[serde(
        rename = "stockade.cgroup.path",
        skip_serializing_if = "Option::is_none"
    )]
    cgroup: Option<String>,
    #[serde(rename = "stockade.namespaces")]
    namespaces: BTreeMap<&'static str, u64>,
    #[serde(
        rename = "stockade.environment_keys",
        skip_serializing_if = "Option::is_none"
    )]
    environment: Option<Vec<String>>,
    #[serde(
        rename = "stockade.descriptors",
        skip_serializing_if = "Option::is_none"
    )]
    descriptors: Option<Vec<Descriptor>>,
    #[serde(
        rename = "stockade.connections",
        skip_serializing_if = "Option::is_none"
    )]
    connections: Option<Vec<Connection>>,
    #[serde(rename = "stockade.maps", skip_serializing_if = "Option::is_none")]
    maps: Option<Vec<Mapping>>,
    #[serde(
        rename = "stockade.capture.errors",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    errors: BTreeMap<&'static str, String>,
    #[serde(
        rename = "stockade.capture.gone",
        skip_serializing_if = "std::ops::Not::not"
    )]
    gone: bool,
}

#[derive(Debug, Serialize)]
struct Descriptor {
    fd: u32,
    target: String,
}

#[derive(Debug, Serialize)]
struct Connection {
    fd: u32,
    #[serde(flatten)]
    socket: Socket,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Mapping {
    start: String,
    end: String,
    permissions: String,
    offset: String,
    device: String,
    inode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

impl Record {
    fn of(member: &Member, clock: &Clock, spaces: &mut HashMap<u64, Sockets>) -> Self {
        let mut errors = BTreeMap::new();
        let date = |ns| {
            let mut out = String::new();
            clock.write_rfc3339(&mut out, ns);
            out
        };
        let now = member.now();
        let stat = now.as_ref().unwrap_or(&member.stat);
        let mut record = Record {
            v: 1,
            at: date(boot_ns()),
            action: "capture",
            pid: member.pid,
            start: date(stat.start_ticks.saturating_mul(TICK_NS)),
            name: stat.name.clone(),
            parent: stat.parent,
            ..Record::default()
        };
        let read = |name: &str| fs::read(member.path(name));
        let link = |name: &str| Ok(escaped(fs::read_link(member.path(name))?.as_os_str()));
        let mut note = Note(&mut errors);
        record.executable = note.of("executable", link("exe"));
        if let Some(file) = note.of("executable", fs::metadata(member.path("exe"))) {
            let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
            record.device = Some(format!("{major}:{minor}"));
            record.inode = Some(file.ino().to_string());
        }
        record.args = note.of("args", read("cmdline").map(|bytes| strings(&bytes)));
        record.directory = note.of("working_directory", link("cwd"));
        if let Some(status) = note.of("ids", read("status")) {
            let told = |key| ids(&status, key).map(|id| id.map(|id| id.to_string()));
            [record.uid, record.euid] = told("Uid:");
            [record.gid, record.egid] = told("Gid:");
        }
        record.cgroup = note
            .of("cgroup", read("cgroup"))
            .and_then(|text| unified(&text).map(text::escape));
        for name in NAMESPACE_NAMES {
            match fs::metadata(member.path(&format!("ns/{name}"))) {
                Ok(space) => {
                    record.namespaces.insert(name, space.ino());
                }
                // A kernel without this kind.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    note.of::<()>("namespaces", Err(e));
                }
            }
        }
        record.environment = note.of("environment_keys", read("environ").map(|b| keys(&b)));
        record.descriptors = note.of("descriptors", descriptors(member));
        if let Some(open) = &record.descriptors {
            let space = record.namespaces.get("net").copied();
            record.connections = note.of("connections", connections(member, open, space, spaces));
        }
        record.maps = note.of("maps", read("maps").map(|text| maps(&text)));
        record.gone = member.has_ended();
        record.errors = errors;
        record
    }
}

/// Which parts could not be read, and why.
struct Note<'a>(&'a mut BTreeMap<&'static str, String>);

impl Note<'_> {
    fn of<T>(&mut self, part: &'static str, read: io::Result<T>) -> Option<T> {
        read.map_err(|e| {
            let number = e.raw_os_error().and_then(|n| u16::try_from(n).ok());
            let name = number.and_then(names::errno).map(str::to_owned);
            self.0.insert(part, name.unwrap_or_else(|| e.to_string()));
        })
        .ok()
    }
}

fn escaped(name: &OsStr) -> String {
    text::escape(name.as_bytes())
}

/// Strings that each end with NUL.
fn strings(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    match bytes {
        b"" => Vec::new(),
        _ => bytes.split(|b| *b == 0).map(text::escape).collect(),
    }
}

/// Of `NAME=value` the name. What has no `=` is something that the program wrote there, and no name.
fn keys(bytes: &[u8]) -> Vec<String> {
    bytes
        .split(|b| *b == 0)
        .filter_map(|entry| {
            Some(text::escape(
                &entry[..entry.iter().position(|b| *b == b'=')?],
            ))
        })
        .collect()
}

fn descriptors(member: &Member) -> io::Result<Vec<Descriptor>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(member.path("fd"))? {
        let entry = entry?;
        let fd = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        // Closed meanwhile, where it could not be held.
        if let (Some(fd), Ok(target)) = (fd, fs::read_link(entry.path())) {
            let target = escaped(target.as_os_str());
            found.push(Descriptor { fd, target });
        }
    }
    found.sort_by_key(|descriptor| descriptor.fd);
    Ok(found)
}

fn connections(
    member: &Member,
    open: &[Descriptor],
    space: Option<u64>,
    spaces: &mut HashMap<u64, Sockets>,
) -> io::Result<Vec<Connection>> {
    let inode = |d: &Descriptor| -> Option<u64> {
        let number = d.target.strip_prefix("socket:[")?.strip_suffix(']')?;
        number.parse().ok()
    };
    if !open.iter().any(|d| inode(d).is_some()) {
        return Ok(Vec::new());
    }
    // Each namespace once: on a busy machine its tables are long.
    let own;
    let sockets = match space {
        Some(space) => match spaces.entry(space) {
            std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => free.insert(sockets::read(member)?),
        },
        None => {
            own = sockets::read(member)?;
            &own
        }
    };
    let of = |d: &Descriptor| {
        let socket = sockets.get(&inode(d)?)?.clone();
        Some(Connection { fd: d.fd, socket })
    };
    Ok(open.iter().filter_map(of).collect())
}

fn maps(text: &[u8]) -> Vec<Mapping> {
    let own = |line: MapLine<'_>| Mapping {
        start: line.start.to_owned(),
        end: line.end.to_owned(),
        permissions: line.permissions.to_owned(),
        offset: line.offset.to_owned(),
        device: line.device.to_owned(),
        inode: line.inode.to_owned(),
        path: (!line.path.is_empty()).then(|| text::escape(line.path)),
    };
    MapLine::all(text).map(own).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn values_of_variables_are_never_told() {
        let environment = b"PATH=/bin\0API_KEY=31415=9\0EMPTY=\0\0no name but text\0A B=c";
        assert_eq!(keys(environment), ["PATH", "API_KEY", "EMPTY", "A B"]);
    }

    #[test]
    fn arguments_are_told_with_the_empty_ones() {
        assert_eq!(strings(b"sh\0-c\0\0a\nb\0"), ["sh", "-c", "", "a\\nb"]);
        assert!(strings(b"").is_empty());
        assert_eq!(strings(b"title without an end"), ["title without an end"]);
    }

    #[test]
    fn mappings_have_any_path_or_none() {
        let text = b"55e0-55e1 r-xp 00001000 fe:00 1234      /a b\xff (deleted)\n\
            7ffe-7fff rw-p 00000000 00:00 0 \nnonsense\n";
        let maps = maps(text);
        assert_eq!(maps.len(), 2);
        assert_eq!(maps[0].path.as_deref(), Some("/a b\\xff (deleted)"));
        assert_eq!(
            (maps[0].start.as_str(), maps[0].inode.as_str()),
            ("55e0", "1234")
        );
        assert_eq!(maps[1].path, None);
    }

    #[test]
    fn a_capture_is_for_its_owner_and_replaces_and_follows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("capture");
        let capture = Capture::create(&path).unwrap();
        let own = Member::open(std::process::id()).unwrap().unwrap();
        capture.write(&[own]).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let line = fs::read_to_string(&path).unwrap();
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["process.pid"], std::process::id());
        assert_eq!(record.get("stockade.capture.errors"), None, "{record}");
        let refused = Capture::create(&path).unwrap_err();
        assert!(refused.to_string().contains("nobody was killed"));
        assert_eq!(refused.hint(), Some("name a file that does not exist yet"));
        assert_eq!(fs::read_to_string(&path).unwrap(), line);
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(Capture::create(&link).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn one_that_is_gone_is_told_to_be() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let member = Member::open(child.id()).unwrap().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let record = Record::of(&member, &Clock::new(0, ""), &mut HashMap::new());
        assert!(record.gone);
        assert_eq!(record.pid, child.id());
        assert!(record.errors.contains_key("maps"), "{:?}", record.errors);
    }
}

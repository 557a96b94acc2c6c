//! What a rule is about: whatever is at a path, the file that is there now, or all that is in a directory.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Serialize, Serializer};

use super::fault::{did_you_mean, quoted};
use super::{Effect, Environment};

/// Behind a directory: all that is in it.
const BELOW: &str = "**";

/// Characters that will have a meaning in patterns, refused so that no document changes its meaning then.
const KEPT: [char; 5] = ['*', '?', '[', '{', '\\'];

/// Files that are meant wherever they are, by what they are when they are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FileKind {
    /// No name leads to it: made by memfd_create(2) or with `O_TMPFILE`, or removed. Its inode has no link.
    Fileless,
    /// It runs with the rights of the user or the group that it belongs to: set-user-ID, or set-group-ID where its group
    /// may run it.
    Setuid,
    /// Who is fenced has opened it to be written, or could write it by what somebody else had opened, since the fence was
    /// armed; whatever is in it now.
    Written,
}

impl FileKind {
    /// What the permissions of a file make it, as stat(2) has them.
    #[must_use]
    pub const fn of_mode(mode: u32) -> Option<FileKind> {
        // Where its group may not run it, the set-group-ID bit is about locks.
        let runs_as_owner = mode & 0o4000 != 0 || mode & 0o2010 == 0o2010;
        if runs_as_owner {
            Some(FileKind::Setuid)
        } else {
            None
        }
    }

    /// Every kind.
    pub const ALL: [FileKind; 3] = [FileKind::Fileless, FileKind::Setuid, FileKind::Written];

    /// The word for it in a policy document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FileKind::Fileless => "fileless",
            FileKind::Setuid => "setuid",
            FileKind::Written => "written",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        FileKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        FileKind::ALL.into_iter().map(FileKind::name)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One path of a rule, or a kind of file. Absolute, without `.` and `..`; links in it are not resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Pattern {
    /// Whatever is at this path.
    File(PathBuf),
    /// All that is in this directory, however deep; not the directory itself. Written `DIRECTORY/**`.
    Below(PathBuf),
    /// The file that is at this path when the policy is armed, wherever it is later, and nothing that takes its place.
    Inode(PathBuf),
    /// All files of this kind.
    Kind(FileKind),
}

impl Pattern {
    /// As it is written in a policy; the error is a sentence.
    pub(super) fn parse(written: &str, env: &Environment) -> Result<Self, String> {
        let directory = match written.strip_suffix(BELOW) {
            Some("") => Some("."),
            Some("/") => Some("/"),
            Some(before) => before.strip_suffix('/'),
            None => None,
        };
        if let Some(what) = kept(directory.unwrap_or(written)) {
            return Err(format!(
                "{what} in {} is not supported by this version",
                quoted(written)
            ));
        }
        match directory {
            Some(directory) => Ok(Pattern::Below(expand(Path::new(directory), env)?.0)),
            None => Ok(Pattern::File(absolute(Path::new(written), env)?)),
        }
    }

    /// As it is written where a rule names inodes; the error is a sentence.
    pub(super) fn parse_inode(written: &str, env: &Environment) -> Result<Self, String> {
        match Pattern::parse(written, env)? {
            Pattern::File(path) => Ok(Pattern::Inode(path)),
            Pattern::Below(_) | Pattern::Inode(_) | Pattern::Kind(_) => Err(format!(
                "{} is no single file; it can stand in \"paths\"",
                quoted(written)
            )),
        }
    }

    /// As it is written in an exec rule, where a word can be a kind of file; the error is a sentence.
    pub(super) fn parse_program(
        written: &str,
        effect: Effect,
        env: &Environment,
    ) -> Result<Self, String> {
        if let Some(kind) = FileKind::from_name(written) {
            if kind == FileKind::Setuid && effect == Effect::Allow {
                return Err(format!(
                    "{} can only be denied; allow such programs by their paths",
                    quoted(written)
                ));
            }
            return Ok(Pattern::Kind(kind));
        }
        let meant = did_you_mean(written, FileKind::names());
        if !written.contains('/') && !meant.is_empty() {
            return Err(format!(
                "unknown kind of file {}{meant} A file of this name is written {}",
                quoted(written),
                quoted(&format!("./{written}"))
            ));
        }
        Pattern::parse(written, env)
    }

    /// The path of the file, or of the directory; empty for a kind of file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Pattern::File(path) | Pattern::Below(path) | Pattern::Inode(path) => path,
            Pattern::Kind(_) => Path::new(""),
        }
    }

    /// The same pattern with another path; a kind of file has none.
    #[must_use]
    pub fn at(&self, path: PathBuf) -> Self {
        match self {
            Pattern::File(_) => Pattern::File(path),
            Pattern::Below(_) => Pattern::Below(path),
            Pattern::Inode(_) => Pattern::Inode(path),
            Pattern::Kind(kind) => Pattern::Kind(*kind),
        }
    }

    /// Whether the file that is at this path now is meant.
    #[must_use]
    pub fn names(&self, path: &Path) -> bool {
        match self {
            Pattern::File(file) | Pattern::Inode(file) => file == path,
            Pattern::Below(directory) => path != directory && path.starts_with(directory),
            Pattern::Kind(_) => false,
        }
    }

    /// Whether only the file counts, and not its name.
    pub(super) fn is_inode(&self) -> bool {
        matches!(self, Pattern::Inode(_))
    }

    /// Whether this path is a directory that one has to go through to come to what is meant: where it is moved away,
    /// what is meant has another name.
    #[must_use]
    pub fn leads_through(&self, path: &Path) -> bool {
        match self {
            Pattern::File(file) => file != path && file.starts_with(path),
            Pattern::Below(directory) => directory.starts_with(path),
            // Moved, it is the same.
            Pattern::Inode(_) | Pattern::Kind(_) => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::File(path) => path.display().fmt(f),
            Pattern::Below(path) => path.join(BELOW).display().fmt(f),
            Pattern::Inode(path) => write!(f, "inode of {}", path.display()),
            Pattern::Kind(kind) => kind.fmt(f),
        }
    }
}

impl Serialize for Pattern {
    /// As it is written, absolute; an inode as `inode of PATH`, a kind of file as its word.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What in this path will mean something else than itself in a later version.
fn kept(path: &str) -> Option<String> {
    if path.contains(BELOW) {
        return Some("the pattern \"**\", but as the last part of a path,".to_owned());
    }
    if let Some(c) = path.chars().find(|c| KEPT.contains(c)) {
        // A brace after a dollar sign is a variable to the reader.
        return Some(if c == '{' && path.contains("${") {
            "a variable".to_owned()
        } else {
            format!(
                "the pattern character {}",
                quoted(c.encode_utf8(&mut [0; 4]))
            )
        });
    }
    path.contains('$').then(|| "a variable".to_owned())
}

/// The path of a file: as [`expand`] has it, and no directory by its looks.
pub(super) fn absolute(path: &Path, env: &Environment) -> Result<PathBuf, String> {
    let (out, named) = expand(path, env)?;
    let bytes = path.as_os_str().as_encoded_bytes();
    if !named || bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
        let shown = path.to_string_lossy();
        return Err(format!(
            "{} names a directory; a policy says {} for all that is in it",
            quoted(&shown),
            quoted(&format!("{}/{BELOW}", shown.trim_end_matches(['/'])))
        ));
    }
    Ok(out)
}

/// The path with `~`, the working directory, `.` and leading `..` worked out, and whether it holds a name of its own; the
/// error is a sentence.
///
/// Links are not followed, because nothing is read here. So `..` after a name is refused: behind a link it leads
/// elsewhere than the text says. The working directory is free of links, as the kernel reports it.
fn expand(path: &Path, env: &Environment) -> Result<(PathBuf, bool), String> {
    let shown = quoted(&path.to_string_lossy());
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Err("an empty path".to_owned());
    }
    if bytes.contains(&0) {
        return Err(format!("the path {shown} holds a NUL character"));
    }

    let mut components = path.components().peekable();
    let mut out = match components.peek() {
        Some(Component::RootDir | Component::Prefix(_)) => PathBuf::from("/"),
        Some(Component::Normal(first)) if first.as_encoded_bytes() == b"~" => {
            components.next();
            let home = env.home.as_deref().filter(|home| home.has_root());
            home.ok_or_else(|| format!("the home directory for {shown} is not known"))?
                .to_path_buf()
        }
        Some(Component::Normal(first)) if first.as_encoded_bytes().starts_with(b"~") => {
            return Err(format!(
                "{shown} asks for another user's home directory, which is not supported; write it out, or \"./~…\" for \
                 a file of that name"
            ));
        }
        _ if env.cwd.has_root() => env.cwd.clone(),
        _ => {
            return Err(format!(
                "the working directory for the relative path {shown} is not known"
            ));
        }
    };

    let mut named = false;
    let from_home = bytes.starts_with(b"~");
    for component in components {
        match component {
            Component::Normal(name) => {
                named = true;
                out.push(name);
            }
            Component::ParentDir if named || from_home => {
                return Err(format!(
                    "\"..\" behind a name in {shown} is not supported, because the name can be a link; write the path \
                     without it"
                ));
            }
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok((out, named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        Environment::new(Some("/home/kim".into()), "/work/job".into())
    }

    #[track_caller]
    fn path(text: &str) -> String {
        let path = absolute(Path::new(text), &env()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn refused(text: &str) -> String {
        absolute(Path::new(text), &env()).unwrap_err()
    }

    #[test]
    fn home_and_working_directory_are_expanded() {
        assert_eq!(path("/etc/shadow"), "/etc/shadow");
        assert_eq!(path("~/.ssh/id"), "/home/kim/.ssh/id");
        assert_eq!(path("key"), "/work/job/key");
        assert_eq!(path("./a/b"), "/work/job/a/b");
        assert_eq!(path("./~"), "/work/job/~");
        assert_eq!(path("a/~/b"), "/work/job/a/~/b");
    }

    #[test]
    fn dots_and_double_slashes_are_worked_out_where_no_link_can_be() {
        assert_eq!(path("//etc/.//shadow"), "/etc/shadow");
        assert_eq!(path("../key"), "/work/key");
        assert_eq!(path("./.././../../../key"), "/key");
        assert_eq!(path("/../etc/shadow"), "/etc/shadow");
        assert_eq!(path("..."), "/work/job/...");
    }

    #[test]
    fn parent_of_a_name_is_refused_because_the_name_can_be_a_link() {
        for text in ["/a/../b", "a/../b", "~/../b", "../a/../b"] {
            assert!(refused(text).starts_with("\"..\" behind a name"), "{text}");
        }
    }

    #[test]
    fn what_can_only_be_a_directory_is_no_file() {
        for text in ["/", ".", "..", "~", "~/", "/etc/", "a/.", "./", "../.."] {
            assert!(refused(text).contains("names a directory"), "{text}");
        }
    }

    #[test]
    fn home_of_another_user_is_refused() {
        assert!(refused("~root/x").contains("another user's home"));
    }

    #[test]
    fn unknown_home_or_working_directory_is_refused_only_when_needed() {
        let env = Environment::new(None, PathBuf::new());
        assert!(absolute(Path::new("/a"), &env).is_ok());
        assert!(absolute(Path::new("~/a"), &env).is_err());
        assert!(absolute(Path::new("a"), &env).is_err());
        let env = Environment::new(Some("home".into()), PathBuf::from("work"));
        assert!(absolute(Path::new("~/a"), &env).is_err());
        assert!(absolute(Path::new("a"), &env).is_err());
    }

    #[test]
    fn nul_is_refused_and_shown_escaped() {
        assert_eq!(
            refused("a\0b"),
            "the path \"a\\u{0}b\" holds a NUL character"
        );
    }
}

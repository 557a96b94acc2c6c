//! From document to rule set: every meaning is checked here, and every path made absolute.
//!
//! A document is refused as a whole at its first fault; what compiles is complete, with nothing left out.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde_saphyr::{Location, Spanned};

use super::access::Access;
use super::document::{self, Document, FileEntry, Value};
use super::fault::{Fault, Place, did_you_mean, quoted, unknown};
use super::{Environment, FileRule, Mode, RuleSet};

/// The access kinds of a `deny` list, besides `all`.
const ACCESS_NOW: &str = "read, write, exec, delete, replace, link, metadata";

/// Characters that will have a meaning in patterns, refused so that no document changes its meaning then.
const PATTERN_CHARACTERS: [char; 5] = ['*', '?', '[', '{', '\\'];

/// The rule set of a document.
pub(super) fn compile(text: &str, source_name: &str, env: &Environment) -> Result<RuleSet, Fault> {
    let document = document::read(text)?;
    // What is missing has no place of its own; the first key stands for it.
    let start = document.referenced;
    let Document {
        version,
        name,
        mode,
        files,
    } = document.value;

    if version.is_none() && name.is_none() && mode.is_none() && files.is_none() {
        return Err(Fault::new(
            start,
            "the policy is empty; it needs \"version\" and \"files\"",
        ));
    }
    document::require_version(version.as_ref(), start)?;
    let name = match name {
        Some(name) => label(&name, "name")?,
        None => source_name.to_owned(),
    };
    let mode = match &mode {
        Some(mode) => parse_mode(mode)?,
        None => Mode::default(),
    };

    let Some(files) = files else {
        return Err(Fault::new(
            start,
            "the policy has no rules; \"files\" is missing",
        ));
    };
    let entries = match files.value {
        Value::List(entries) if !entries.is_empty() => entries,
        Value::List(_) | Value::Nothing => {
            return Err(Fault::new(
                files.referenced,
                "the policy has no rules; \"files\" is empty",
            ));
        }
        Value::Word(_) | Value::Mapping => {
            return Err(Fault::new(
                files.referenced,
                "\"files\" must be a list of rules, each starting with \"- id:\"",
            ));
        }
    };

    let mut rules: Vec<FileRule> = Vec::with_capacity(entries.len());
    let mut lines_by_id: HashMap<String, u32> = HashMap::with_capacity(entries.len());
    for entry in entries {
        let (rule, id_place) = file_rule(entry, mode, env)?;
        if let Some(first) = lines_by_id.insert(rule.id.clone(), rule.line) {
            return Err(Fault::new(
                id_place,
                format!(
                    "the id {} is already used by the rule on line {first}",
                    quoted(&rule.id)
                ),
            ));
        }
        rules.push(rule);
    }
    Ok(RuleSet { name, mode, rules })
}

/// One rule, and where its id stands.
fn file_rule(
    entry: Spanned<FileEntry>,
    default_mode: Mode,
    env: &Environment,
) -> Result<(FileRule, Location), Fault> {
    let place = entry.referenced;
    let FileEntry {
        id,
        deny,
        paths,
        mode,
    } = entry.value;
    if id.is_none() && deny.is_none() && paths.is_none() && mode.is_none() {
        return Err(Fault::new(
            place,
            "an empty file rule; it needs \"id\", \"deny\" and \"paths\"",
        ));
    }
    let Some(id) = id else {
        return Err(Fault::new(place, "this file rule has no \"id\""));
    };
    let id_place = id.referenced;
    let id = label(&id, "id")?;
    let Some(deny) = deny else {
        return Err(Fault::new(
            place,
            format!("the rule {} has no \"deny\"", quoted(&id)),
        ));
    };
    let access = parse_access(&deny, &id)?;
    let Some(paths) = paths else {
        return Err(Fault::new(
            place,
            format!("the rule {} has no \"paths\"", quoted(&id)),
        ));
    };
    let paths = parse_paths(paths, &id, env)?;
    let mode = match &mode {
        Some(mode) => parse_mode(mode)?,
        None => default_mode,
    };
    let rule = FileRule {
        id,
        access,
        paths,
        mode,
        line: Place::from(place).line,
    };
    Ok((rule, id_place))
}

/// A name or an id: visible text on one line.
pub(super) fn label(text: &Spanned<String>, key: &str) -> Result<String, Fault> {
    if text.value.trim().is_empty() {
        return Err(Fault::new(
            text.referenced,
            format!("{} is empty", quoted(key)),
        ));
    }
    if text.value.chars().any(char::is_control) {
        return Err(Fault::new(
            text.referenced,
            format!(
                "{} holds a control character: {}",
                quoted(key),
                quoted(&text.value)
            ),
        ));
    }
    Ok(text.value.clone())
}

fn parse_mode(mode: &Spanned<String>) -> Result<Mode, Fault> {
    Mode::from_name(&mode.value).ok_or_else(|| {
        let known = [Mode::Enforce.name(), Mode::Audit.name()];
        let sentence = unknown("mode", &mode.value, known, "; it is enforce or audit");
        Fault::new(mode.referenced, sentence)
    })
}

fn parse_access(deny: &Spanned<Value<Spanned<String>>>, id: &str) -> Result<Access, Fault> {
    match &deny.value {
        Value::Word(word) if word == "all" => Ok(Access::ALL_GUARDED),
        Value::List(kinds) if kinds.is_empty() => Err(Fault::new(
            deny.referenced,
            format!("the rule {} denies nothing", quoted(id)),
        )),
        Value::List(words) => kinds(words),
        Value::Word(word) => {
            let help = if Access::from_name(word).is_some() {
                format!("; write [{word}]")
            } else {
                did_you_mean(word, ["all"])
            };
            Err(Fault::new(
                deny.referenced,
                format!("\"deny\" must be a list of access kinds or the word all{help}"),
            ))
        }
        Value::Nothing | Value::Mapping => Err(Fault::new(
            deny.referenced,
            "\"deny\" must be a list of access kinds or the word all",
        )),
    }
}

/// The kinds that a list of words stands for.
pub(super) fn kinds(words: &[Spanned<String>]) -> Result<Access, Fault> {
    words.iter().try_fold(Access::default(), |all, word| {
        Ok(all | kind(&word.value, word.referenced)?)
    })
}

/// The kinds that a word stands for.
pub(super) fn kind(word: &str, place: Location) -> Result<Access, Fault> {
    if word == "all" {
        return Ok(Access::ALL_GUARDED);
    }
    match Access::from_name(word) {
        Some(access) if Access::ALL_GUARDED.contains(access) => Ok(access),
        Some(_) => Err(Fault::new(
            place,
            format!(
                "the access kind {} is not supported by this version",
                quoted(word)
            ),
        )),
        None => {
            let known = Access::ALL_GUARDED.names().chain(["all"]);
            let all = format!("; known are {ACCESS_NOW} and all");
            Err(Fault::new(place, unknown("access kind", word, known, &all)))
        }
    }
}

fn parse_paths(
    paths: Spanned<Value<Spanned<String>>>,
    id: &str,
    env: &Environment,
) -> Result<Vec<PathBuf>, Fault> {
    let entries = match paths.value {
        Value::List(entries) if !entries.is_empty() => entries,
        Value::List(_) => {
            return Err(Fault::new(
                paths.referenced,
                format!("\"paths\" of the rule {} is empty", quoted(id)),
            ));
        }
        Value::Word(_) | Value::Nothing | Value::Mapping => {
            return Err(Fault::new(
                paths.referenced,
                "\"paths\" must be a list of paths, as in [\"/etc/shadow\"]",
            ));
        }
    };
    let mut out = Vec::with_capacity(entries.len());
    for entry in entries {
        let written = entry.value.as_str();
        let path = match reserved(written) {
            Some(what) => Err(format!(
                "{what} in {} is not supported by this version",
                quoted(written)
            )),
            None => absolute(Path::new(written), env),
        };
        out.push(path.map_err(|sentence| Fault::new(entry.referenced, sentence))?);
    }
    Ok(out)
}

/// What in this path will mean something else than itself in a later version.
fn reserved(path: &str) -> Option<String> {
    if path.contains("**") {
        return Some("the pattern \"**\"".to_owned());
    }
    if let Some(c) = path.chars().find(|c| PATTERN_CHARACTERS.contains(c)) {
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

/// The path with `~`, the working directory, `.` and leading `..` worked out; the error is a sentence.
///
/// Links are not followed, because nothing is read here. So `..` after a name is refused: behind a link it leads
/// elsewhere than the text says. The working directory is free of links, as the kernel reports it.
pub(super) fn absolute(path: &Path, env: &Environment) -> Result<PathBuf, String> {
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
    if !named || bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
        return Err(format!(
            "{shown} names a directory; rules for what is in a directory are not supported by this version"
        ));
    }
    Ok(out)
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
    fn what_can_only_be_a_directory_is_refused() {
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

    #[test]
    fn the_list_of_kinds_in_messages_is_the_one_in_the_code() {
        let names: Vec<_> = Access::ALL_GUARDED.names().collect();
        assert_eq!(names.join(", "), ACCESS_NOW);
    }
}

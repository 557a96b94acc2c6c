//! The policy document as it is written: YAML to plain values, each with its place in the text.
//!
//! Nothing is optional to the reader of the document: every key that is not known is refused. Which keys must be there
//! and what their values mean is decided in `compile`, so that a slip in the indentation is reported as one.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, Error as YamlError, Location, MergeKeyPolicy, MessageFormatter, Options,
    Spanned, UserMessageFormatter,
};

use super::fault::{Fault, Place, did_you_mean, printable, quoted};

/// The version of the language that this crate reads.
pub(super) const VERSION: &str = "1";

/// A list of words, or what stands there instead.
pub(super) type List = Spanned<Value<Spanned<String>>>;

/// Variables by name, with what stands for them.
pub(super) type Declared = BTreeMap<String, Spanned<Value<IgnoredAny>>>;

/// A mapping of the document. No key of it needs to be there, and others may not.
macro_rules! mapping {
    ($(#[$about:meta])* $name:ident { $($key:ident: $value:ty,)+ }) => {
        $(#[$about])*
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $(
                #[serde(default, deserialize_with = "crate::policy::document::present")]
                pub(super) $key: Option<$value>,
            )+
        }
    };
}

pub(super) use mapping;

mapping! {
    /// A whole policy.
    Document {
        version: Spanned<Value<IgnoredAny>>,
        name: Spanned<String>,
        mode: Spanned<String>,
        files: Spanned<Value<Spanned<FileEntry>>>,
        exec: Spanned<Value<Spanned<ListEntry>>>,
        network: Spanned<Value<Spanned<NetworkEntry>>>,
        syscalls: Spanned<Value<Spanned<SyscallEntry>>>,
        limits: Spanned<Value<Spanned<LimitEntry>>>,
        variables: Spanned<Declared>,
    }
}

impl Document {
    /// Whether there is a section of rules, however it is written.
    pub(super) fn has_rules(&self) -> bool {
        self.files.is_some()
            || self.exec.is_some()
            || self.network.is_some()
            || self.syscalls.is_some()
            || self.limits.is_some()
    }

    /// Every list of paths, addresses, calls, programs and users.
    pub(super) fn lists(&mut self) -> impl Iterator<Item = &mut List> {
        fn of<T>(section: &mut Option<Spanned<Value<Spanned<T>>>>) -> &mut [Spanned<T>] {
            match section.as_mut().map(|section| &mut section.value) {
                Some(Value::List(entries)) => entries,
                _ => &mut [],
            }
        }
        fn of_rule<'a>(
            named: [&'a mut Option<List>; 2],
            subject: [&'a mut Option<Spanned<WhoEntry>>; 2],
        ) -> impl Iterator<Item = &'a mut List> {
            let subject = subject.into_iter().flatten().flat_map(|who| {
                let WhoEntry { exe, uid } = &mut who.value;
                [exe, uid]
            });
            named.into_iter().chain(subject).flatten()
        }
        let files = of(&mut self.files).iter_mut().flat_map(|entry| {
            let FileEntry {
                paths,
                inodes,
                by,
                not_by,
                ..
            } = &mut entry.value;
            of_rule([paths, inodes], [by, not_by])
        });
        let network = of(&mut self.network).iter_mut().flat_map(|entry| {
            let NetworkEntry {
                to, at, by, not_by, ..
            } = &mut entry.value;
            of_rule([to, at], [by, not_by])
        });
        let programs = of(&mut self.exec).iter_mut().flat_map(|entry| {
            let ListEntry {
                deny,
                allow,
                by,
                not_by,
                ..
            } = &mut entry.value;
            of_rule([deny, allow], [by, not_by])
        });
        let calls = of(&mut self.syscalls).iter_mut().flat_map(|entry| {
            let SyscallEntry { deny, allow, .. } = &mut entry.value;
            [deny, allow]
        });
        let limits = of(&mut self.limits).iter_mut();
        let limits = limits.map(|entry| &mut entry.value.syscall);
        let rules = files.chain(network).chain(programs);
        rules.chain(calls.chain(limits).flatten())
    }
}

mapping! {
    /// One entry of `files`.
    FileEntry {
        id: Spanned<String>,
        deny: List,
        allow: List,
        paths: List,
        inodes: List,
        by: Spanned<WhoEntry>,
        not_by: Spanned<WhoEntry>,
        mode: Spanned<String>,
        priority: List,
        action: Spanned<String>,
        errno: Spanned<String>,
    }
}

mapping! {
    /// One entry of `exec`.
    ListEntry {
        id: Spanned<String>,
        deny: List,
        allow: List,
        by: Spanned<WhoEntry>,
        not_by: Spanned<WhoEntry>,
        mode: Spanned<String>,
        priority: List,
        action: Spanned<String>,
        errno: Spanned<String>,
    }
}

mapping! {
    /// One entry of `syscalls`.
    SyscallEntry {
        id: Spanned<String>,
        deny: List,
        allow: List,
        mode: Spanned<String>,
        priority: List,
        action: Spanned<String>,
        errno: Spanned<String>,
        otherwise: Spanned<String>,
    }
}

mapping! {
    /// One entry of `network`.
    NetworkEntry {
        id: Spanned<String>,
        deny: List,
        allow: List,
        to: List,
        at: List,
        protocol: Spanned<String>,
        by: Spanned<WhoEntry>,
        not_by: Spanned<WhoEntry>,
        mode: Spanned<String>,
        priority: List,
        action: Spanned<String>,
        errno: Spanned<String>,
    }
}

mapping! {
    /// Whom a rule is about, or not.
    WhoEntry {
        exe: List,
        uid: List,
    }
}

mapping! {
    /// One entry of `limits`.
    LimitEntry {
        id: Spanned<String>,
        limit: List,
        syscall: List,
        per_second: List,
        per_minute: List,
        per_hour: List,
        burst: List,
        per: Spanned<String>,
        mode: Spanned<String>,
        action: Spanned<String>,
        errno: Spanned<String>,
    }
}

/// Keys that the language will have, and what they are for: refused by name, never taken for a slip.
const LATER_IN_DOCUMENT: [(&str, &str); 1] = [("include", "including other policies")];

/// The same inside a rule.
const LATER_IN_RULE: [(&str, &str); 1] = [("revoke", "revoking open files")];

/// The same where a rule says whom it is about.
const LATER_IN_WHO: [(&str, &str); 2] = [
    ("cgroup", "rules about a cgroup alone"),
    ("tree", "rules about a process tree alone"),
];

/// What says whom a rule is about, in the wrong place or by another word.
const OF_WHO: [&str; 8] = [
    "subject",
    "subjects",
    "exe",
    "executable",
    "uid",
    "user",
    "cgroup",
    "tree",
];

/// What stands where a list or a single word is expected, without refusing anything yet: the one who knows the key
/// writes the better sentence.
#[derive(Debug)]
pub(super) enum Value<T> {
    List(Vec<T>),
    Word(String),
    Nothing,
    Mapping,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for AnyValue<T> {
            type Value = Value<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_str<E>(self, word: &str) -> Result<Self::Value, E> {
                Ok(Value::Word(word.to_owned()))
            }

            fn visit_bool<E>(self, word: bool) -> Result<Self::Value, E> {
                Ok(Value::Word(word.to_string()))
            }

            fn visit_i64<E>(self, word: i64) -> Result<Self::Value, E> {
                Ok(Value::Word(word.to_string()))
            }

            fn visit_i128<E>(self, word: i128) -> Result<Self::Value, E> {
                Ok(Value::Word(word.to_string()))
            }

            fn visit_u64<E>(self, word: u64) -> Result<Self::Value, E> {
                Ok(Value::Word(word.to_string()))
            }

            fn visit_u128<E>(self, word: u128) -> Result<Self::Value, E> {
                Ok(Value::Word(word.to_string()))
            }

            fn visit_f64<E>(self, word: f64) -> Result<Self::Value, E> {
                // Debug keeps the point of 1.0, which is not the version 1.
                Ok(Value::Word(format!("{word:?}")))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Value::Nothing)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Mapping)
            }
        }

        deserializer.deserialize_any(AnyValue(PhantomData))
    }
}

/// A key that stands there with nothing behind it is not the same as a key that is missing.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads the document; the fault is the first one in reading order, except that a foreign version comes before all.
pub(super) fn read(text: &str) -> Result<Spanned<Document>, Fault> {
    read_as(text)
}

/// The same for another document of this language.
pub(super) fn read_as<T: for<'de> Deserialize<'de>>(text: &str) -> Result<Spanned<T>, Fault> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        // What a later version may say must not be reported as a slip of this one.
        foreign_version(text).unwrap_or_else(|| fault_from_yaml(&error))
    })
}

/// The fault of a document whose `version` is not ours, if that is its first trouble.
fn foreign_version(text: &str) -> Option<Fault> {
    #[derive(serde::Deserialize)]
    struct Head {
        version: Spanned<Value<IgnoredAny>>,
    }
    let head: Head = serde_saphyr::from_str_with_options(text, options()).ok()?;
    check_version(&head.version).err()
}

/// Refuses a document without a version, and every version but ours.
pub(super) fn require_version(
    version: Option<&Spanned<Value<IgnoredAny>>>,
    start: Location,
) -> Result<(), Fault> {
    match version {
        Some(version) => check_version(version),
        None => Err(Fault::new(
            start,
            format!("\"version\" is missing; start with \"version: {VERSION}\""),
        )),
    }
}

/// Refuses every version but ours.
fn check_version(version: &Spanned<Value<IgnoredAny>>) -> Result<(), Fault> {
    let found = match &version.value {
        Value::Word(word) if word == VERSION => return Ok(()),
        Value::Word(word) => printable(&word.chars().take(20).collect::<String>()),
        Value::List(_) | Value::Mapping | Value::Nothing => {
            return Err(Fault::new(
                version.referenced,
                format!("\"version\" must be the number {VERSION}"),
            ));
        }
    };
    Err(Fault::new(
        version.referenced,
        format!("version {found} is not supported; this program reads version {VERSION}"),
    ))
}

fn options() -> Options {
    serde_saphyr::options! {
        // The default stops at 250,000 nodes; a rule has about eight, and a million rules are meant to load.
        budget: serde_saphyr::budget! {
            max_nodes: 32_000_000,
            max_events: 64_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
    }
}

/// The parser's error in the words of the policy language.
fn fault_from_yaml(error: &YamlError) -> Fault {
    let place = error.location().unwrap_or(Location::UNKNOWN);
    let sentence = match root(error) {
        YamlError::SerdeUnknownField {
            field, expected, ..
        } => {
            return Fault {
                // The parser's span is that of the key; its length is not always known.
                place: Place {
                    length: u32::try_from(field.chars().count()).unwrap_or(1),
                    ..Place::from(place)
                },
                sentence: unknown_key(field, expected),
            };
        }
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {} is here twice", quoted(key))
        }
        YamlError::DuplicateMappingKey { key: None, .. } => "this key is here twice".to_owned(),
        YamlError::MultipleDocuments { .. } => {
            "a policy file holds one document; a second one starts here".to_owned()
        }
        YamlError::MergeKeyNotAllowed { .. } => {
            "merging with \"<<\" is not supported in a policy".to_owned()
        }
        YamlError::NullIntoString { .. } => {
            "text is missing here (an unquoted ~ or null means nothing; put it in quotes)"
                .to_owned()
        }
        YamlError::UnsupportedTag { tag, .. } => {
            format!("the tag {} is not supported in a policy", quoted(tag))
        }
        YamlError::Unexpected { expected, .. } => match *expected {
            "string scalar" => "a single text is expected here".to_owned(),
            "mapping start" => "keys with values (\"key: value\") are expected here".to_owned(),
            other => format!("{} is expected here", printable(other)),
        },
        other => printable(&UserMessageFormatter.format_message(other)),
    };
    Fault::new(place, sentence)
}

/// The error that an alias carried to the place of its use.
fn root(error: &YamlError) -> &YamlError {
    let mut error = error.without_snippet();
    while let YamlError::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    error
}

/// Says which key it is, whether it is one of a later version, and which known key it may be meant to be.
fn unknown_key(key: &str, known: &[&'static str]) -> String {
    // A key of each kind of mapping tells which one it is.
    let has = |key| known.contains(&key);
    let (place, later): (_, &[(&str, &str)]) = if has("id") && has("paths") {
        ("a file rule", &LATER_IN_RULE)
    } else if has("id") && has("to") {
        ("a network rule", &LATER_IN_RULE)
    } else if has("id") && has("burst") {
        ("a limit", &LATER_IN_RULE)
    } else if has("id") && has("otherwise") {
        ("a rule of syscalls", &LATER_IN_RULE)
    } else if has("id") {
        ("a rule of exec", &LATER_IN_RULE)
    } else if has("expect") {
        ("a case", &[])
    } else if has("cases") {
        ("the document of cases", &[])
    } else if has("exe") {
        ("\"by\" or \"not_by\"", &LATER_IN_WHO)
    } else {
        ("the policy", &LATER_IN_DOCUMENT)
    };
    if let Some((_, what)) = later.iter().find(|(name, _)| *name == key) {
        return format!("{} ({what}) is not supported by this version", quoted(key));
    }
    let of_who = has("id") && (OF_WHO.contains(&key) || key == "by" || key == "not_by");
    if of_who && !has("by") {
        return format!(
            "{} (rules of this kind about some programs or users alone) is not supported by this version",
            quoted(key)
        );
    }
    if of_who {
        return format!(
            "whom {place} is about stands in \"by\" or \"not_by\", as in by: {{ exe: [/usr/bin/ssh], uid: [0] }}"
        );
    }
    if key == "paths" || key == "inodes" {
        return if has("burst") {
            format!("{place} has no paths; it has what it counts in \"limit\" or \"syscall\"")
        } else if has("to") {
            format!("{place} has no paths; it has addresses in \"to\" or \"at\"")
        } else {
            format!("{place} has what it is about in \"deny\" or \"allow\"")
        };
    }
    format!(
        "unknown key {} in {place}{}",
        quoted(key),
        did_you_mean(key, known.iter().copied())
    )
}

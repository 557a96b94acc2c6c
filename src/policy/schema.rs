//! What a policy document may look like, for editors: a JSON Schema, made of the types that documents are read into.
//!
//! It is looser than the compiler, which also knows what words mean; what it refuses, the compiler refuses.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::{Map, Value, json};

use super::compile::{ERRNOS, FORK_ERRNOS, PRIORITIES, SEND_ERRNOS};
use super::document::{
    Document, FileEntry, LimitEntry, ListEntry, NetworkEntry, SyscallEntry, WhoEntry,
};
use super::{Access, FileKind, Mode, Otherwise, Thing};
use crate::event::Transport;

/// The schema of the language that this version reads, as JSON Schema (draft 2020-12) has it.
///
/// ```
/// let schema = stockade::policy::schema();
/// assert_eq!(schema["properties"]["version"]["const"], 1);
/// ```
#[must_use]
pub fn schema() -> Value {
    let mut root = object::<Document>(document_key);
    let about = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stockade policy",
        "required": ["version"],
        "anyOf": one_each(&["files", "exec", "network", "syscalls", "limits"]),
        "$defs": {
            "file": rule::<FileEntry>(file_key, &["paths", "inodes"]),
            "exec": rule::<ListEntry>(exec_key, &[]),
            "network": rule::<NetworkEntry>(network_key, &["to", "at"]),
            "syscall": rule::<SyscallEntry>(syscall_key, &[]),
            "limit": limit(),
            "who": who(),
        },
    });
    root.extend(entries(about));
    Value::Object(root)
}

/// The keys of a mapping, each with what may stand there.
fn object<T: for<'de> Deserialize<'de>>(key: fn(&str) -> Value) -> Map<String, Value> {
    let keys = fields::<T>().iter();
    let properties: Map<String, Value> = keys.map(|name| ((*name).to_owned(), key(name))).collect();
    entries(json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    }))
}

/// A rule that denies or allows; one of `objects` must be there, if there are any.
fn rule<T: for<'de> Deserialize<'de>>(key: fn(&str) -> Value, objects: &[&str]) -> Value {
    let mut rule = object::<T>(key);
    rule.extend(entries(json!({
        "required": ["id"],
        "oneOf": one_each(&["deny", "allow"]),
    })));
    if !objects.is_empty() {
        rule.extend(entries(json!({ "anyOf": one_each(objects) })));
    }
    Value::Object(rule)
}

fn limit() -> Value {
    let mut limit = object::<LimitEntry>(limit_key);
    limit.extend(entries(json!({
        "required": ["id"],
        "allOf": [
            { "oneOf": one_each(&["limit", "syscall"]) },
            { "oneOf": one_each(&["per_second", "per_minute", "per_hour"]) },
        ],
    })));
    Value::Object(limit)
}

fn who() -> Value {
    let mut who = object::<WhoEntry>(who_key);
    who.extend(entries(json!({ "anyOf": one_each(&["exe", "uid"]) })));
    Value::Object(who)
}

/// That a key is there, for each of them.
fn one_each(keys: &[&str]) -> Value {
    keys.iter()
        .map(|key| json!({ "required": [key] }))
        .collect()
}

fn entries(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(entries) => entries,
        _ => Map::new(),
    }
}

fn document_key(key: &str) -> Value {
    let rules = |of: &str| json!({ "type": "array", "minItems": 1, "items": { "$ref": format!("#/$defs/{of}") } });
    match key {
        "version" => json!({ "const": 1, "description": "the version of the language" }),
        "name" => text("what the policy is called in events and messages"),
        "variables" => json!({
            "description": "names, and what stands for them: ${name}",
            "type": "object",
            "propertyNames": { "pattern": "^[a-z][a-z0-9_-]*$" },
            "additionalProperties": { "type": ["string", "number", "boolean", "null"] },
        }),
        "files" => rules("file"),
        "exec" => rules("exec"),
        "network" => rules("network"),
        "syscalls" => rules("syscall"),
        "limits" => rules("limit"),
        key => common_key(key),
    }
}

fn file_key(key: &str) -> Value {
    let paths = |about: &str| list(text("/etc/shadow, ~/.ssh/**, ./build/**"), about);
    match key {
        "deny" | "allow" => {
            let kinds = words(Access::ALL.names());
            json!({ "anyOf": [{ "const": "all" }, list(kinds, "kinds of access")] })
        }
        "paths" => paths("whatever is there, now and later"),
        "inodes" => {
            paths("the files that are there when the policy is armed, wherever they are later")
        }
        key => common_key(key),
    }
}

fn exec_key(key: &str) -> Value {
    let kinds: Vec<&str> = FileKind::names().collect();
    let about = format!("programs by their paths, or {}", kinds.join(" or "));
    match key {
        "deny" | "allow" => list(text("/bin/sh, /usr/**"), &about),
        key => common_key(key),
    }
}

fn network_key(key: &str) -> Value {
    let addresses = |named: &str, about: &str| list(text(named), about);
    match key {
        "deny" | "allow" => word_or_list(words(Access::NETWORK.names()), "kinds of access"),
        "to" => addresses(
            "10.0.0.0/8:443, [2001:db8::]/32, any:53, host:example.org:443",
            "whom connect and send reach",
        ),
        "at" => addresses(
            "127.0.0.0/8:443, [::1]:8000-8080, any:53",
            "where bind, listen and accept are",
        ),
        "protocol" => words([Transport::Tcp, Transport::Udp].map(Transport::name)),
        key => common_key(key),
    }
}

fn syscall_key(key: &str) -> Value {
    match key {
        "deny" | "allow" => list(call(), "system calls by name or number"),
        "otherwise" => words(Otherwise::ALL.map(Otherwise::name)),
        key => common_key(key),
    }
}

fn limit_key(key: &str) -> Value {
    let amount = || {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^[0-9]+ *([KMG]iB)?$" },
        ] })
    };
    match key {
        "limit" => word_or_list(words(Thing::ALL.map(Thing::name)), "what is counted"),
        "syscall" => word_or_list(call(), "system calls that are counted, by name or number"),
        "per_second" | "per_minute" | "per_hour" | "burst" => amount(),
        "per" => words(["tree", "process"]),
        "action" => words(["deny", "kill", "log"]),
        "errno" => {
            let all = FORK_ERRNOS.iter().chain(&SEND_ERRNOS).copied();
            let mut all: Vec<&str> = all.collect();
            all.sort_unstable();
            all.dedup();
            words(all)
        }
        key => common_key(key),
    }
}

fn who_key(key: &str) -> Value {
    match key {
        "exe" => word_or_list(
            text("/usr/bin/ssh, ~/.cargo/bin/cargo"),
            "programs that processes run, by their paths",
        ),
        "uid" => word_or_list(
            json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX - 1 }),
            "effective user ids",
        ),
        _ => Value::Bool(true),
    }
}

/// What several have. A key that nobody knows may hold anything, and a test says that there is none.
fn common_key(key: &str) -> Value {
    match key {
        "id" => text("what the rule is called in events and messages; used once in the policy"),
        "by" | "not_by" => json!({ "$ref": "#/$defs/who" }),
        "mode" => words([Mode::Enforce, Mode::Audit].map(Mode::name)),
        "priority" => json!({
            "description": "the rule with the higher one decides",
            "type": "integer",
            "minimum": PRIORITIES.start(),
            "maximum": PRIORITIES.end(),
        }),
        "action" => words(["deny", "kill"]),
        "errno" => words(ERRNOS),
        _ => Value::Bool(true),
    }
}

fn text(about: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "description": about })
}

fn call() -> Value {
    json!({ "type": ["string", "integer"] })
}

fn words<'a>(all: impl IntoIterator<Item = &'a str>) -> Value {
    json!({ "enum": all.into_iter().collect::<Vec<_>>() })
}

fn list(items: Value, about: &str) -> Value {
    json!({ "type": "array", "minItems": 1, "items": items, "description": about })
}

fn word_or_list(items: Value, about: &str) -> Value {
    json!({ "anyOf": [items.clone(), list(items, about)] })
}

/// The names of a struct's fields, as documents have them.
fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // It asks for its fields, and gets nothing.
    let _ = T::deserialize(Fields(&mut found));
    found
}

/// Notes what a struct asks for.
struct Fields<'a>(&'a mut &'static [&'static str]);

#[derive(Debug)]
struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is nothing to be read")
    }
}

impl std::error::Error for Nothing {}

impl de::Error for Nothing {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Nothing
    }
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Nothing;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
        Err(Nothing)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        *self.0 = fields;
        Err(Nothing)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_types_is_known() {
        let schema = schema();
        let defs = schema["$defs"].as_object().unwrap();
        let all = defs.iter().map(|(name, def)| (name.as_str(), def));
        for (name, def) in all.chain([("policy", &schema)]) {
            let properties = def["properties"].as_object().unwrap();
            let least = if name == "who" { 2 } else { 6 };
            assert!(properties.len() >= least, "{name}: {properties:?}");
            for (key, value) in properties {
                assert!(value.is_object(), "{name}: {key}");
            }
        }
    }
}

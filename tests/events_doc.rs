//! docs/EVENTS.md says exactly what the program writes: every field, its type, and which kinds carry it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stockade::event::{KINDS, sample};
use stockade::sink::Json;

const DOC: &str = include_str!("../docs/EVENTS.md");

/// Kinds with a process that acted; `who` in the table.
fn who() -> Vec<&'static str> {
    let mut kinds = KINDS.to_vec();
    kinds.retain(|kind| !["loss", "sampled", "reload", "gap"].contains(kind));
    kinds
}

/// `all` in the table.
fn all() -> Vec<&'static str> {
    [KINDS, &["end"]].concat()
}

/// All samples and certificates as the program writes them.
fn lines() -> Vec<Value> {
    let (mut json, clock, mut out) = (Json::new(), sample::clock(), Vec::new());
    for event in sample::samples() {
        json.write(&event, &clock, &mut out);
    }
    for certificate in sample::certificates() {
        json.certificate(&certificate, &clock, &mut out);
    }
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn action(line: &Value) -> &str {
    line["event.action"]
        .as_str()
        .expect("event.action is a string")
}

/// Every field of a line with its type. What is inside an object or an array of objects has the outer name and a dot.
fn fields(value: &Value, prefix: &str, found: &mut BTreeSet<(String, &'static str)>) {
    for (key, value) in value.as_object().expect("an object") {
        let name = format!("{prefix}{key}");
        let kind = match value {
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "double",
            Value::Number(_) => "long",
            Value::String(text) if text.len() == 30 && text.ends_with('Z') => "date",
            Value::String(_) => "keyword",
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for item in items {
                    fields(item, &format!("{name}."), found);
                }
                "object[]"
            }
            Value::Array(items) if items.iter().any(Value::is_number) => {
                assert!(items.iter().all(Value::is_number), "{name}: {value}");
                "long[]"
            }
            Value::Array(items) => {
                assert!(items.iter().all(Value::is_string), "{name}: {value}");
                // An empty one could be either.
                if items.is_empty() { "[]" } else { "keyword[]" }
            }
            Value::Object(_) => {
                fields(value, &format!("{name}."), found);
                "object"
            }
            Value::Null => panic!("{name} is null"),
        };
        found.insert((name, kind));
    }
}

struct Row {
    kind: String,
    carriers: BTreeSet<String>,
}

/// The rows of all tables whose first column is a field.
fn table() -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in DOC.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "name, type, kinds, source: {line}");
        let name = cells[0].trim_matches('`').to_owned();
        let kind = cells[1]
            .split([' ', ',', ':', ';'])
            .next()
            .unwrap_or_default()
            .to_owned();
        let carriers: BTreeSet<String> = match cells[2] {
            "all" => all().iter().map(ToString::to_string).collect(),
            "who" => who().iter().map(ToString::to_string).collect(),
            some => some.split(", ").map(str::to_owned).collect(),
        };
        assert!(!cells[3].is_empty(), "{name} has no source");
        assert!(
            rows.insert(name.clone(), Row { kind, carriers }).is_none(),
            "{name} is listed twice"
        );
    }
    rows
}

/// The blocks marked as JSON.
fn examples() -> Vec<Value> {
    DOC.split("```json\n")
        .skip(1)
        .map(|rest| {
            let block = rest.split("```").next().unwrap_or_default();
            serde_json::from_str(block).unwrap_or_else(|e| panic!("{e}: {block}"))
        })
        .collect()
}

#[test]
fn the_table_lists_exactly_the_fields_that_are_written_with_type_and_kinds() {
    let mut written: BTreeMap<String, (BTreeSet<&str>, BTreeSet<String>)> = BTreeMap::new();
    for line in &lines() {
        let mut found = BTreeSet::new();
        fields(line, "", &mut found);
        for (name, kind) in found {
            let (kinds, carriers) = written.entry(name).or_default();
            kinds.insert(kind);
            carriers.insert(action(line).to_owned());
        }
    }
    let table = table();
    let mut wrong = Vec::new();
    for (name, (kinds, carriers)) in &written {
        let Some(row) = table.get(name) else {
            wrong.push(format!("{name} is written and not in the table"));
            continue;
        };
        if !kinds
            .iter()
            .all(|kind| *kind == row.kind || (*kind == "[]" && row.kind.ends_with("[]")))
        {
            wrong.push(format!("{name} is {kinds:?}, the table says {}", row.kind));
        }
        if *carriers != row.carriers {
            wrong.push(format!(
                "{name} is carried by {carriers:?}, the table says {:?}",
                row.carriers
            ));
        }
    }
    for name in table.keys().filter(|name| !written.contains_key(*name)) {
        wrong.push(format!("{name} is in the table and never written"));
    }
    assert!(wrong.is_empty(), "docs/EVENTS.md:\n{}", wrong.join("\n"));
}

#[test]
fn each_kind_has_an_example_and_it_is_what_the_program_writes() {
    let lines = lines();
    let examples = examples();
    let shown: Vec<&str> = examples.iter().map(action).collect();
    assert_eq!(shown, all(), "one example per kind, in this order");
    for example in &examples {
        let first = lines
            .iter()
            .find(|line| action(line) == action(example))
            .expect("a sample of each kind");
        assert_eq!(example, first);
    }
}

#[test]
fn no_field_is_also_the_folder_of_another() {
    // A store that reads dots as nesting, as Elasticsearch does, refuses such a pair.
    let rows = table();
    for (name, row) in &rows {
        let folder = format!("{name}.");
        let holds = rows.keys().any(|other| other.starts_with(&folder));
        assert_eq!(
            holds,
            row.kind.starts_with("object"),
            "{name} is {} and has fields below it: {holds}",
            row.kind
        );
    }
}

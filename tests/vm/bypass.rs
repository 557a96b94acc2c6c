//! Ways around the fence: what came of each, for docs/BYPASSES.md.
//!
//! `tests/vm/bypasses.toml` lists the ways. A test that has tried one says so here once its own assertions have held; what
//! came of it is taken from what was seen, the errno of the step and the denials of its process, and not from the test. The
//! harness prints the lines of a test that has passed, and `scripts/bypasses.py` makes the page of them.

use std::cell::RefCell;
use std::sync::OnceLock;

use serde_json::Value;

use crate::harness::Ended;
use crate::helper::{Done, Step};

/// Where it does not matter on which file system, or to which kind of address.
pub(crate) const ANYWHERE: &str = "-";

thread_local! {
    static SHOWN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What the test that has just ended has shown, a line for each: way, place, outcome, by what.
pub(crate) fn take() -> Vec<String> {
    SHOWN.take()
}

fn classes() -> &'static toml::Table {
    static CLASSES: OnceLock<toml::Table> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let text = include_str!("bypasses.toml");
        text.parse().expect("the list of ways is TOML")
    })
}

/// The way that a step's label names: `CLASS/WAY`, and behind a colon what makes the step another one of the same way.
fn way_of(label: &str) -> Option<&str> {
    let way = label.split_once(": ").map_or(label, |(way, _)| way);
    let (class, _) = way.split_once('/')?;
    classes().contains_key(class).then_some(way)
}

/// What the list says about a way in one of its two tables, `ways` and `limits`.
fn listed(way: &str, table: &str) -> Option<&'static str> {
    let (class, name) = way.split_once('/')?;
    classes().get(class)?.get(table)?.get(name)?.as_str()
}

fn note(way: &str, place: &str, outcome: &str, by: &str) {
    assert!(
        listed(way, "ways").is_some(),
        "tests/vm/bypasses.toml does not list {way}"
    );
    let line = format!("{way}\t{place}\t{outcome}\t{by}");
    SHOWN.with_borrow_mut(|shown| shown.push(line));
}

/// What came of a way: the errno that it ended with, and the denial that was told of it.
pub(crate) fn observed(way: &str, place: &str, errno: i32, denial: Option<&Value>) {
    match (errno, denial) {
        (0, None) => {
            let why = listed(way, "limits");
            assert!(why.is_some(), "{way} is not refused on {place}");
            note(way, place, "passes", "");
        }
        (1.., Some(denial)) => {
            let kinds = denial["stockade.access"].as_array().into_iter().flatten();
            let kinds: Vec<&str> = kinds.filter_map(Value::as_str).collect();
            let mechanism = denial["stockade.mechanism"].as_str();
            let mechanism = mechanism.expect("a denial says what refuses");
            let by = format!("{mechanism} {}", kinds.join(","));
            note(way, place, "denied", &by);
        }
        other => panic!("{way} on {place}: {other:?}"),
    }
}

/// What was told of a step's process, and of one that it has started.
pub(crate) fn told_of<'a>(ended: &'a Ended, done: &Done) -> Vec<&'a Value> {
    let is = |event: &Value, key: &str| event[key].as_u64() == Some(done.pid);
    ended
        .of("denial")
        .filter(|event| is(event, "process.pid") || is(event, "process.parent.pid"))
        .collect()
}

/// The same of one step, whose process told no other denial.
pub(crate) fn one(way: &str, place: &str, ended: &Ended, done: &Done) {
    let mut denials = told_of(ended, done).into_iter();
    let denial = denials.find(|e| e["stockade.verdict"] != "audit");
    observed(way, place, done.errno, denial);
}

/// The same of all steps whose labels name a way.
pub(crate) fn all(place: &str, ended: &Ended, done: &[Done]) {
    let mut count = 0;
    for done in done {
        if let Some(way) = way_of(&done.label) {
            one(way, place, ended, done);
            count += 1;
        }
    }
    assert!(count > 0, "no step is named after a way");
}

/// A way that was refused without a word, by what the end record says the fence works with.
pub(crate) fn silent(way: &str, place: &str, ended: &Ended, done: &Done) {
    assert!(
        done.errno > 0 && told_of(ended, done).is_empty(),
        "{way} on {place}: errno {}",
        done.errno
    );
    let mechanism = &ended.complete()["stockade.fence"]["mechanism"];
    let mechanism = mechanism.as_str().expect("a fence has a mechanism");
    note(way, place, "denied", mechanism);
}

/// The fence could not be made for these steps, and their command has not run.
pub(crate) fn unarmed(place: &str, ended: &Ended, steps: &[Step]) {
    assert_eq!(ended.code, 40, "{}", ended.stderr);
    for way in steps.iter().filter_map(|step| way_of(&step.label)) {
        note(way, place, "unarmed", "");
    }
}

//! Variables of a document: what stands for them is put in before anything is made of the words.

use std::collections::BTreeMap;

use serde_saphyr::Location;

use super::document::{Declared, List, Value};
use super::fault::{Fault, did_you_mean, quoted};

/// What begins one.
const BEGIN: &str = "${";

/// What is declared.
#[derive(Debug)]
pub(super) struct Variables<'a>(BTreeMap<&'a str, Variable<'a>>);

#[derive(Debug)]
struct Variable<'a> {
    value: &'a str,
    place: Location,
    is_used: bool,
}

impl<'a> Variables<'a> {
    /// Those of a document, with the values that it declares or that are `given` from outside. `start` is where faults are
    /// that have no place of their own.
    pub(super) fn new(
        declared: Option<&'a Declared>,
        given: &'a BTreeMap<String, String>,
        start: Location,
    ) -> Result<Self, Fault> {
        let mut variables = BTreeMap::new();
        for (name, value) in declared.into_iter().flatten() {
            let place = value.referenced;
            if !is_name(name) {
                return Err(Fault::new(
                    place,
                    format!(
                        "{} is no name of a variable: it has lower-case letters, digits, - and _, and begins with a letter",
                        quoted(name)
                    ),
                ));
            }
            let value = match (given.get(name), &value.value) {
                (Some(given), _) => given.as_str(),
                (None, Value::Word(word)) => word,
                (None, Value::Nothing) => {
                    return Err(Fault::new(
                        place,
                        format!(
                            "the variable {} has no value; give it one with --var {name}=VALUE",
                            quoted(name)
                        ),
                    ));
                }
                (None, Value::List(_) | Value::Mapping) => {
                    return Err(Fault::new(
                        place,
                        format!("the variable {} must be a single text", quoted(name)),
                    ));
                }
            };
            if value.is_empty() || value.contains('$') {
                return Err(Fault::new(
                    place,
                    format!(
                        "the value of the variable {} is {}, and must be a text without \"$\"",
                        quoted(name),
                        quoted(value)
                    ),
                ));
            }
            let variable = Variable {
                value,
                place,
                is_used: false,
            };
            variables.insert(name.as_str(), variable);
        }
        match given
            .keys()
            .find(|name| !variables.contains_key(name.as_str()))
        {
            Some(name) => Err(Fault::new(
                start,
                format!(
                    "the policy declares no variable {}{}",
                    quoted(name),
                    did_you_mean(name, variables.keys().copied())
                ),
            )),
            None => Ok(Variables(variables)),
        }
    }

    /// Puts the values into a list.
    pub(super) fn expand(&mut self, list: &mut List) -> Result<(), Fault> {
        let place = list.referenced;
        match &mut list.value {
            Value::Word(word) => self.expand_word(word, place),
            Value::List(words) => words
                .iter_mut()
                .try_for_each(|word| self.expand_word(&mut word.value, word.referenced)),
            Value::Nothing | Value::Mapping => Ok(()),
        }
    }

    fn expand_word(&mut self, word: &mut String, place: Location) -> Result<(), Fault> {
        if !word.contains('$') {
            return Ok(());
        }
        let mut out = String::with_capacity(word.len());
        let mut rest = word.as_str();
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let named = rest[at..].strip_prefix(BEGIN);
            let Some((name, after)) = named.and_then(|named| named.split_once('}')) else {
                return Err(Fault::new(
                    place,
                    format!(
                        "\"$\" in {} begins a variable, as in ${{name}}; a file that has one in its name can be given to --deny-file",
                        quoted(word)
                    ),
                ));
            };
            let Some(variable) = self.0.get_mut(name) else {
                return Err(Fault::new(
                    place,
                    format!(
                        "{} names the variable {}, which is not declared{}",
                        quoted(word),
                        quoted(name),
                        did_you_mean(name, self.0.keys().copied())
                    ),
                ));
            };
            variable.is_used = true;
            out.push_str(variable.value);
            rest = after;
        }
        out.push_str(rest);
        *word = out;
        Ok(())
    }

    /// One that is declared and not used is a slip.
    pub(super) fn all_used(&self) -> Result<(), Fault> {
        let mut unused = self.0.iter().filter(|(_, variable)| !variable.is_used);
        match unused.next() {
            Some((name, variable)) => Err(Fault::new(
                variable.place,
                format!("the variable {} is not used", quoted(name)),
            )),
            None => Ok(()),
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

//! Limits: their words and numbers.

use serde_saphyr::{Location, Spanned};

use super::{label, parse_each, parse_errno, parse_mode};
use crate::policy::document::{LimitEntry, List, Value};
use crate::policy::fault::{Fault, Place, quoted, unknown};
use crate::policy::{Called, Counted, LimitRule, Mode, Period, Refusal, Thing};

/// What the kernel answers who has too many processes.
pub(in crate::policy) const FORK_ERRNOS: [&str; 3] = ["EAGAIN", "EPERM", "ENOMEM"];

/// What it answers who cannot send. Not EAGAIN: programs would wait until they can, and nobody tells them.
pub(in crate::policy) const SEND_ERRNOS: [&str; 8] = [
    "EPERM",
    "EIO",
    "EACCES",
    "ENETUNREACH",
    "ENOBUFS",
    "ETIMEDOUT",
    "ECONNREFUSED",
    "EHOSTUNREACH",
];

/// What may be counted, as messages have it.
const THINGS_NOW: &str = "forks, threads, connections or bytes";

/// One limit, and where its id stands.
pub(super) fn limit_rule(
    entry: Spanned<LimitEntry>,
    default_mode: Mode,
) -> Result<(LimitRule, Location), Fault> {
    let place = entry.referenced;
    let LimitEntry {
        id,
        limit,
        syscall,
        per_second,
        per_minute,
        per_hour,
        burst,
        per,
        mode,
        action,
        errno,
    } = entry.value;
    let Some(id) = id else {
        return Err(Fault::new(place, "this limit has no \"id\""));
    };
    let id_place = id.referenced;
    let id = label(&id, "id")?;
    let fault = |place, what: &str| Fault::new(place, format!("the limit {} {what}", quoted(&id)));
    let counted = match (limit, syscall) {
        (Some(things), None) => parse_things(&things, &id)?,
        (None, Some(calls)) => {
            let calls = match &calls.value {
                Value::Word(call) => vec![
                    Called::parse(call)
                        .map_err(|sentence| Fault::new(calls.referenced, sentence))?,
                ],
                _ => parse_each(
                    &calls,
                    "syscall",
                    &id,
                    "system calls",
                    "ptrace",
                    Called::parse,
                )?,
            };
            Counted::Syscall(calls)
        }
        (None, None) => {
            return Err(fault(place, "has neither \"limit\" nor \"syscall\""));
        }
        (Some(_), Some(calls)) => {
            let what = "has both \"limit\" and \"syscall\"; make it two limits";
            return Err(fault(calls.referenced, what));
        }
    };
    let of_bytes = matches!(&counted, Counted::Limit(things) if things.contains(&Thing::Bytes));
    let given = [
        ("per_second", Period::Second, per_second),
        ("per_minute", Period::Minute, per_minute),
        ("per_hour", Period::Hour, per_hour),
    ];
    let mut rates = given
        .into_iter()
        .filter_map(|(key, period, rate)| Some((key, period, rate?)));
    let Some((key, period, rate)) = rates.next() else {
        let what = "has no \"per_second\", \"per_minute\" or \"per_hour\"";
        return Err(fault(place, what));
    };
    if let Some((other, _, second)) = rates.next() {
        let what = format!(
            "has both {} and {}; make it two limits",
            quoted(key),
            quoted(other)
        );
        return Err(fault(second.referenced, &what));
    }
    let rate_place = rate.referenced;
    let rate = parse_amount(&rate, key, of_bytes, period)?;
    let burst = match &burst {
        None => rate,
        Some(burst) => parse_amount(burst, "burst", of_bytes, period)?,
    };
    let each = match &per {
        None => false,
        Some(per) => match per.value.as_str() {
            "tree" => false,
            "process" => true,
            word => {
                let sentence = unknown(
                    "owner",
                    word,
                    ["tree", "process"],
                    "; it is tree or process",
                );
                return Err(Fault::new(per.referenced, sentence));
            }
        },
    };
    let default = default_mode;
    let mut mode = mode.as_ref().map_or(Ok(default), parse_mode)?;
    let kill = match &action {
        None => false,
        Some(action) => match action.value.as_str() {
            "deny" => false,
            "kill" => true,
            "log" => {
                mode = Mode::Audit;
                false
            }
            word => {
                let known = ["log", "deny", "kill"];
                let sentence = unknown("action", word, known, "; it is log, deny or kill");
                return Err(Fault::new(action.referenced, sentence));
            }
        },
    };
    if matches!(counted, Counted::Syscall(_)) && !kill && mode == Mode::Enforce {
        let place = action
            .as_ref()
            .map_or(rate_place, |action| action.referenced);
        return Err(fault(
            place,
            "would refuse system calls, which nothing in the kernel does by their rate; write \"action: kill\" or \
             \"action: log\", or limit forks, threads, connections or bytes",
        ));
    }
    let errno = match errno {
        None => counted.errno(),
        Some(errno) if kill || matches!(counted, Counted::Syscall(_)) => {
            return Err(Fault::new(
                errno.referenced,
                "\"errno\" is for who is refused something and goes on",
            ));
        }
        Some(errno) if counted.is_of_network() => parse_errno(&errno, &SEND_ERRNOS)?,
        Some(errno) => parse_errno(&errno, &FORK_ERRNOS)?,
    };
    let rule = LimitRule {
        counted,
        rate,
        period,
        burst,
        each,
        mode,
        refusal: Refusal { errno, kill },
        line: Place::from(place).line,
        id,
    };
    Ok((rule, id_place))
}

fn parse_things(things: &List, id: &str) -> Result<Counted, Fault> {
    let thing = |word: &str, place| {
        Thing::from_name(word).ok_or_else(|| {
            let known = Thing::ALL.map(Thing::name);
            let instead = format!("; a limit counts {THINGS_NOW}, or \"syscall\" names calls");
            Fault::new(place, unknown("thing to count", word, known, &instead))
        })
    };
    let mut counted = match &things.value {
        Value::Word(word) => vec![thing(word, things.referenced)?],
        Value::List(words) if !words.is_empty() => words
            .iter()
            .map(|word| thing(&word.value, word.referenced))
            .collect::<Result<_, _>>()?,
        Value::List(_) => {
            let sentence = format!("the limit {} counts nothing", quoted(id));
            return Err(Fault::new(things.referenced, sentence));
        }
        Value::Nothing | Value::Mapping => {
            let sentence = format!("\"limit\" must be what is counted: {THINGS_NOW}");
            return Err(Fault::new(things.referenced, sentence));
        }
    };
    counted.sort_unstable();
    counted.dedup();
    if counted.contains(&Thing::Bytes) && counted.len() > 1 {
        return Err(Fault::new(
            things.referenced,
            format!(
                "the limit {} counts bytes together with something else; make it two limits",
                quoted(id)
            ),
        ));
    }
    Ok(Counted::Limit(counted))
}

/// Units of bytes.
const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn parse_amount(amount: &List, key: &str, of_bytes: bool, period: Period) -> Result<u64, Fault> {
    let most = period.most();
    let number = match &amount.value {
        Value::Word(word) => {
            let unit = UNITS
                .iter()
                .find(|(unit, _)| of_bytes && word.ends_with(unit));
            let (digits, by) = match unit {
                Some((unit, by)) => (word.trim_end_matches(unit).trim_end(), *by),
                None => (word.as_str(), 1),
            };
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number = is_number.then(|| digits.parse::<u64>().ok()).flatten();
            number.and_then(|n| n.checked_mul(by))
        }
        Value::List(_) | Value::Nothing | Value::Mapping => None,
    };
    number.filter(|n| (1..=most).contains(n)).ok_or_else(|| {
        let unit = if of_bytes {
            ", or of KiB, MiB or GiB, as in 64 KiB"
        } else {
            ""
        };
        Fault::new(
            amount.referenced,
            format!(
                "{} must be a whole number from 1 to {most}{unit}",
                quoted(key)
            ),
        )
    })
}

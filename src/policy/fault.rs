//! What is wrong with a policy document and where, as text with the source line and a caret.
//!
//! Nothing that comes from the document or its file name reaches the text with control characters in it.

use crate::error::{Error, ErrorKind};

/// Columns of the source line that are shown at most; the window moves so that the caret is in it.
const SHOWN_COLUMNS: usize = 100;

/// Characters of a quoted word that are shown at most.
const QUOTED_CHARS: usize = 60;

/// A stretch of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Counted from 1; 0 when the place is not known.
    pub(super) line: u32,
    /// In characters, counted from 1.
    pub(super) column: u32,
    /// In characters.
    pub(super) length: u32,
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Place {
            line: narrow(location.line()),
            column: narrow(location.column()),
            length: u32::try_from(location.span().len()).unwrap_or(1),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) sentence: String,
}

impl Fault {
    pub(super) fn new(place: impl Into<Place>, sentence: impl Into<String>) -> Self {
        Fault {
            place: place.into(),
            sentence: sentence.into(),
        }
    }

    /// The error for the user: `FILE:LINE:COL: sentence`, then the source line and a caret line.
    pub(super) fn into_error(self, source_name: &str, text: &str) -> Error {
        let Place {
            line,
            column,
            length,
        } = self.place;
        let file = printable(source_name);
        let sentence = self.sentence;
        if line == 0 {
            return Error::new(ErrorKind::Policy, format!("{file}: {sentence}"));
        }
        let mut message = format!("{file}:{line}:{column}: {sentence}");
        if let Some(source) = source_line(text, line) {
            message.push_str(&snippet(source, line, column, length));
        }
        Error::new(ErrorKind::Policy, message)
    }
}

/// The line with this number, without its end; YAML ends a line at CR, LF or both.
fn source_line(text: &str, line: u32) -> Option<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = text;
    for _ in 1..line {
        let end = rest.find(['\r', '\n'])?;
        let width = if rest[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + width..];
    }
    let end = rest.find(['\r', '\n']).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The source line and the caret line, each after a line end.
fn snippet(source: &str, line: u32, column: u32, length: u32) -> String {
    let chars: Vec<char> = source.trim_end().chars().collect();
    // The end of the document may lie behind the last character of its line.
    let column = (column as usize).saturating_sub(1).min(chars.len());
    let length = (length as usize).clamp(1, (chars.len() - column).max(1));
    let first = if column + length.min(SHOWN_COLUMNS / 2) > SHOWN_COLUMNS {
        column - SHOWN_COLUMNS / 2
    } else {
        0
    };
    let last = (first + SHOWN_COLUMNS).min(chars.len());
    let cut_before = if first > 0 { "…" } else { "" };
    let cut_after = if last < chars.len() { "…" } else { "" };

    let shown: String = chars[first..last].iter().map(|c| visible(*c)).collect();
    // A tab stays a tab so that the caret stands below its character at any tab width.
    let mut indent: String = " ".repeat(cut_before.chars().count());
    indent.extend(
        chars[first..column]
            .iter()
            .map(|c| if *c == '\t' { '\t' } else { ' ' }),
    );
    let carets = "^".repeat(length.min(last.saturating_sub(column)).max(1));
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    format!("\n{number} | {cut_before}{shown}{cut_after}\n{gutter} | {indent}{carets}")
}

/// The character, or a substitute of one column when a terminal would act on it.
fn visible(c: char) -> char {
    if c != '\t' && unsafe_to_print(c) {
        '\u{fffd}'
    } else {
        c
    }
}

/// Control characters, and the marks that make a terminal reorder or hide its neighbours.
fn unsafe_to_print(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text with everything escaped that a terminal would act on.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if unsafe_to_print(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The text in double quotes, printable, and cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (index, c) in text.chars().enumerate() {
        if index == QUOTED_CHARS {
            out.push('…');
            break;
        }
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if unsafe_to_print(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The sentence about a word that is none of those that are known: with the nearest of them, else with this instead.
pub(super) fn unknown<'a>(
    what: &str,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    instead: &str,
) -> String {
    let near = did_you_mean(word, known);
    let help = if near.is_empty() { instead } else { &near };
    format!("unknown {what} {}{help}", quoted(word))
}

/// `; did you mean "x"?` for the nearest of the known words, or nothing when none is near.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, known) {
        Some(near) => format!("; did you mean {}?", quoted(near)),
        None => String::new(),
    }
}

/// The known word that is fewest edits away, if that is few enough to be a slip.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No known word is longer than half of this, and the distance costs the product of both lengths.
    if word.len() > 32 {
        return None;
    }
    let word = word.to_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words, where swapping two neighbours is one edit (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let differ = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + differ);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = last;
        last = row;
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_a_swap_as_one_edit() {
        assert_eq!(distance("raed", "read"), 1);
        assert_eq!(distance("path", "paths"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("read", "read"), 0);
    }

    #[test]
    fn a_word_far_from_all_gets_no_suggestion() {
        let known = ["read", "write", "exec"];
        assert_eq!(nearest("raed", known), Some("read"));
        assert_eq!(nearest("Write", known), Some("write"));
        assert_eq!(nearest("chmod", known), None);
        assert_eq!(nearest(&"r".repeat(1 << 20), known), None);
    }

    #[test]
    fn caret_stands_below_the_word_after_tabs_and_wide_text() {
        assert_eq!(snippet("\tpäth: x", 3, 2, 4), "\n3 | \tpäth: x\n  | \t^^^^");
    }

    #[test]
    fn long_line_is_shown_around_the_caret() {
        let line = format!("{}bad{}", "a".repeat(500), "b".repeat(500));
        let text = snippet(&line, 1, 501, 3);
        let rows: Vec<Vec<char>> = text.lines().map(|l| l.chars().collect()).collect();
        assert!(rows[1].len() < 120, "{text}");
        let caret = rows[2].iter().position(|c| *c == '^').unwrap();
        assert_eq!(rows[1][caret..caret + 3], ['b', 'a', 'd']);
        assert_eq!(rows[2].len(), caret + 3);
    }

    #[test]
    fn escape_sequences_in_the_source_do_not_reach_the_terminal() {
        let fault = Fault::new(
            Place {
                line: 1,
                column: 1,
                length: 1,
            },
            "wrong",
        );
        let text = fault
            .into_error("a\n1:b\u{1b}[2J", "x\u{1b}[31m")
            .to_string();
        assert_eq!(
            text,
            "a\\n1:b\\u{1b}[2J:1:1: wrong\n1 | x\u{fffd}[31m\n  | ^"
        );
        assert_eq!(quoted("a\"\u{202e}"), "\"a\\\"\\u{202e}\"");
    }

    #[test]
    fn lines_end_at_cr_lf_or_both() {
        let text = "\u{feff}one\r\ntwo\rthree\nfour";
        let lines: Vec<_> = (1..=5).map(|n| source_line(text, n)).collect();
        assert_eq!(
            lines,
            [Some("one"), Some("two"), Some("three"), Some("four"), None]
        );
    }
}

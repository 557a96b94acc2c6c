//! The pages say what is so: tables, links, names of files and quoted output are held against the code. No privileges.

mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pages::split;
use stockade::{ErrorKind, Monitor};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every page for readers.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    for entry in fs::read_dir(root().join("docs")).expect("docs/ is there") {
        let name = entry.expect("docs/ can be read").file_name();
        if name.to_string_lossy().ends_with(".md") {
            pages.push(Path::new("docs").join(name));
        }
    }
    pages.sort();
    pages
}

/// The rows of the table under a heading, without its title and ruler.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let (_, after) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("{page} has no heading \"{heading}\""));
    let rows: Vec<Vec<String>> = after
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split(" | ");
            cells.map(|c| c.trim().to_owned()).collect()
        })
        .collect();
    assert!(rows.len() > 2, "{page}: no table under \"{heading}\"");
    rows[2..].to_vec()
}

/// What stands between backticks.
fn code_spans(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

/// As web sites make them from headings.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn the_exit_codes_of_the_readme_are_those_of_the_error_kinds() {
    let kinds = [
        ErrorKind::Policy,
        ErrorKind::Recording,
        ErrorKind::Scope,
        ErrorKind::Load,
        ErrorKind::NotEnforced,
        ErrorKind::Permission,
        ErrorKind::Unsupported,
        ErrorKind::Io,
        ErrorKind::Usage,
    ];
    // The enum is open for outsiders like this test: its source says whether the list above is all.
    let source = read("src/error.rs");
    let (_, body) = source
        .split_once("pub enum ErrorKind {")
        .expect("ErrorKind is in src/error.rs");
    let declared: BTreeSet<String> = body
        .lines()
        .take_while(|line| !line.starts_with('}'))
        .filter_map(|line| line.trim().strip_suffix(','))
        .map(str::to_owned)
        .collect();
    let listed: BTreeSet<String> = kinds.iter().map(|k| format!("{k:?}")).collect();
    assert_eq!(listed, declared, "this test does not know all kinds");

    let mut documented: BTreeMap<String, u8> = BTreeMap::new();
    for row in table("README.md", "Exit codes") {
        let code = row[0].trim_matches('`');
        for kind in code_spans(&row[2]) {
            let code = code.parse().expect("a kind's exit code is one number");
            assert_eq!(documented.insert(kind.to_owned(), code), None, "{kind}");
        }
    }
    let real: BTreeMap<String, u8> = kinds
        .iter()
        .map(|k| (format!("{k:?}"), k.exit_code()))
        .collect();
    assert_eq!(documented, real);
}

/// The README's table of monitors, as the list of them has it.
fn monitors_table() -> String {
    let mut table =
        String::from("| monitor | as | events | seen through |\n| --- | --- | --- | --- |\n");
    for monitor in Monitor::ALL {
        let forms: Vec<&str> = monitor.forms().iter().map(|form| form.name()).collect();
        let (forms, events, through) = (forms.join(", "), monitor.events(), monitor.through());
        table.push_str(&format!(
            "| `{monitor}` | {forms} | {events} | {through} |\n"
        ));
    }
    table
}

/// With STOCKADE_BLESS set, the table is written instead of compared.
#[test]
fn the_monitors_of_the_readme_are_those_of_the_library() {
    let readme = read(Path::new("README.md"));
    let start = readme.find("| monitor |").expect("the table of monitors");
    let end = start + readme[start..].find("\n\n").expect("the end of the table") + 1;
    if std::env::var_os("STOCKADE_BLESS").is_some() {
        let new = format!("{}{}{}", &readme[..start], monitors_table(), &readme[end..]);
        std::fs::write(root().join("README.md"), new).expect("the README can be written");
        return;
    }
    assert_eq!(
        &readme[start..end],
        monitors_table(),
        "STOCKADE_BLESS=1 cargo test --test docs writes the table anew"
    );
}

#[test]
fn every_link_to_a_file_or_heading_of_ours_leads_there() {
    let mut broken = Vec::new();
    for page in pages() {
        let (prose, _) = split(&read(&page));
        for rest in prose.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let at = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap_or(Path::new("")).join(file)
            };
            if !root().join(&at).exists() {
                broken.push(format!("{}: {target}", page.display()));
                continue;
            }
            if heading.is_empty() {
                continue;
            }
            let (text, _) = split(&read(&at));
            let there = text
                .lines()
                .filter(|line| line.starts_with('#'))
                .any(|line| anchor(line.trim_start_matches('#')) == heading);
            if !there {
                broken.push(format!("{}: {target} (no such heading)", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_file_that_a_page_names_is_there() {
    // The tutorial is about a monitor that does not exist.
    let invented = ["src/bpf/signal.bpf.c", "src/monitor/signal.rs"];
    let mut missing = Vec::new();
    for page in pages() {
        let (prose, _) = split(&read(&page));
        for span in code_spans(&prose) {
            let ours = [
                "src/",
                "scripts/",
                "tests/",
                "docs/",
                "policies/",
                "examples/",
                "vmlinux/",
            ]
            .iter()
            .any(|room| span.starts_with(room));
            let plain = span
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if ours && plain && !invented.contains(&span) && !root().join(span).exists() {
                missing.push(format!("{}: {span}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "no such file:\n{}", missing.join("\n"));
}

/// Words of the text that begin with one of our prefixes.
fn our_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("stk_") || word.starts_with("STK_"))
}

#[test]
fn every_name_of_the_kernel_half_that_a_page_uses_is_in_its_code() {
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(root().join("src/bpf")).expect("src/bpf is there") {
        let source = fs::read_to_string(entry.expect("src/bpf can be read").path());
        let source = source.expect("C is text");
        known.extend(our_words(&source).map(str::to_owned));
    }
    let mut unknown = Vec::new();
    for page in pages() {
        let text = read(&page);
        // The tutorial's own monitor is about signals.
        let foreign = our_words(&text)
            .filter(|word| !word.to_lowercase().ends_with("_signal") && !known.contains(*word));
        unknown.extend(foreign.map(|word| format!("{}: {word}", page.display())));
    }
    assert!(
        unknown.is_empty(),
        "not in src/bpf:\n{}",
        unknown.join("\n")
    );
}

/// Every hook of the fence's LSM programs is in the page's table, and no other.
#[test]
fn the_hooks_that_refuse_are_those_of_the_kernel_half() {
    let mut told = BTreeSet::new();
    for row in table("docs/BYPASSES.md", "Hooks") {
        told.extend(code_spans(&row[1]).into_iter().map(str::to_owned));
    }
    // Of system calls there is no hook.
    told.remove("sys_enter");
    let mut hooks = BTreeSet::new();
    for part in [
        "fence",
        "fence_network",
        "fence_limit",
        "fence_guard",
        "fence_subject",
        "fence_written",
    ] {
        let source = read(format!("src/bpf/{part}.bpf.c"));
        let sections = source.split("SEC(\"?lsm/").skip(1);
        hooks.extend(sections.filter_map(|s| s.split('"').next().map(str::to_owned)));
    }
    assert_eq!(told, hooks);
}

/// Each way around the fence that the tests know is on the page that they write.
#[test]
fn every_way_around_the_fence_is_on_the_page() {
    let list: toml::Table = read("tests/vm/bypasses.toml").parse().expect("TOML");
    let page = read("docs/BYPASSES.md");
    let mut missing = Vec::new();
    for (class, about) in &list {
        let ways = about["ways"].as_table().expect("a table of ways");
        for (way, what) in ways {
            let what = what.as_str().expect("a sentence");
            if !page.contains(&format!("\n| {what} | ")) {
                missing.push(format!("{class}/{way}"));
            }
        }
    }
    assert!(missing.is_empty(), "make bypasses: {missing:?}");
}

/// A block that begins with `$ stockade ... --help` is what the program prints.
#[cfg(all(feature = "cli", target_os = "linux"))]
#[test]
fn help_in_the_readme_is_what_the_program_prints() {
    let (_, blocks) = split(&read("README.md"));
    let mut shown = 0;
    for (_, block) in blocks {
        let Some((command, expected)) = block.split_once('\n') else {
            continue;
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        let ["$", "stockade", args @ ..] = words.as_slice() else {
            continue;
        };
        if args.last() != Some(&"--help") {
            continue;
        }
        let output = assert_cmd::Command::new(env!("CARGO_BIN_EXE_stockade"))
            .args(args)
            .env_remove("COLUMNS")
            .output()
            .expect("the program runs");
        assert_eq!(
            expected,
            String::from_utf8_lossy(&output.stdout),
            "{command}"
        );
        shown += 1;
    }
    assert!(shown > 0, "the README shows no help text");
}

//! The policy language from outside: what is accepted, and every refusal with its exact place.

mod pages;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use stockade::policy::{
    Access, Actor, Cases, Contact, Effect, Environment, FileKind, Mode, Pattern, Request, RuleSet,
    SystemCall, Verdict, diff, edit, evaluate, evaluate_call, evaluate_contact,
};
use stockade::{Error, ErrorKind};

fn env() -> Environment {
    Environment::new(Some("/home/kim".into()), "/work/job".into())
}

fn parse(text: &str) -> Result<RuleSet, Error> {
    RuleSet::parse(text, "p.yaml", &env())
}

/// The text of the error that this document must give.
#[track_caller]
fn error(text: &str) -> String {
    let error = match parse(text) {
        Ok(set) => panic!("accepted: {set:?}"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Policy);
    error.to_string()
}

/// The document must be refused with this first line.
#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = error(text);
    assert_eq!(
        error.lines().next(),
        Some(expected),
        "whole error:\n{error}"
    );
}

/// A document with one rule, `id: a` on line 3, and these lines from line 4 on.
fn rule(lines: &[&str]) -> String {
    let mut text = String::from("version: 1\nfiles:\n  - id: a\n");
    for line in lines {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A rule that is right but for its paths, which stand at 5:12.
fn paths(written: &str) -> String {
    rule(&["deny: all", &format!("paths: {written}")])
}

/// A rule that is right but for its `deny`, whose value stands at 4:11.
fn deny(written: &str) -> String {
    rule(&[&format!("deny: {written}"), "paths: [/a]"])
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn whole_document_compiles_to_the_rules_it_says() {
    let set = parse(
        "# a comment\nversion: 1\nname: build-job\nmode: audit\nfiles:\n\
         \x20 - id: no-keys\n    deny: all\n    paths: ['~/.ssh/id', /etc/shadow]\n\
         \x20 - { id: 7, deny: [read, metadata], paths: [Cargo.lock, 1.0, no], mode: enforce }\n",
    )
    .unwrap();
    assert_eq!((set.name.as_str(), set.mode), ("build-job", Mode::Audit));
    let [keys, lock] = set.rules.as_slice() else {
        panic!("{set:?}");
    };
    assert_eq!(
        (keys.id.as_str(), keys.line, keys.mode),
        ("no-keys", 6, Mode::Audit)
    );
    assert_eq!(keys.access, Access::ALL);
    assert_eq!(
        keys.paths.iter().map(Pattern::path).collect::<Vec<_>>(),
        [
            PathBuf::from("/home/kim/.ssh/id"),
            PathBuf::from("/etc/shadow")
        ]
    );
    assert_eq!(
        (lock.id.as_str(), lock.line, lock.mode),
        ("7", 9, Mode::Enforce)
    );
    assert_eq!(lock.access, Access::READ | Access::METADATA);
    assert_eq!(
        lock.paths.iter().map(Pattern::path).collect::<Vec<_>>(),
        ["Cargo.lock", "1.0", "no"].map(|p| Path::new("/work/job").join(p))
    );
}

#[test]
fn name_and_mode_have_defaults() {
    let set = parse(&deny("[all]")).unwrap();
    assert_eq!((set.name.as_str(), set.mode), ("p.yaml", Mode::Enforce));
    assert_eq!(set.rules[0].access, Access::ALL);
    assert_eq!(set.rules[0].mode, Mode::Enforce);
}

#[test]
fn every_access_kind_of_this_version_can_be_named() {
    for name in Access::ALL.names() {
        let set = parse(&deny(&format!("[{name}]"))).unwrap();
        assert_eq!(Some(set.rules[0].access), Access::from_name(name));
    }
}

#[test]
fn error_shows_the_line_and_a_caret_below_the_word() {
    assert_eq!(
        error(&rule(&["deny: all", "path: [\"/etc/shadow\"]"])),
        "p.yaml:5:5: unknown key \"path\" in a file rule; did you mean \"paths\"?\n\
         5 |     path: [\"/etc/shadow\"]\n\
         \x20 |     ^^^^"
    );
}

#[test]
fn columns_count_characters_and_lines_end_in_any_way() {
    refused(
        "version: 1\r\nname: jöb\r\nfiles: [{ id: ä, deny: [raed] }]\r\n",
        "p.yaml:3:25: unknown access kind \"raed\"; did you mean \"read\"?",
    );
    assert!(error("version: 1\r\nfile: []\r\n").ends_with("\n2 | file: []\n  | ^^^^"));
    refused(
        "\u{feff}vershun: 1\n",
        "p.yaml:1:1: unknown key \"vershun\" in the policy; did you mean \"version\"?",
    );
}

#[test]
fn empty_documents_are_refused() {
    let sentence = "the policy is empty; it needs \"version\", and \"files\", \"exec\", \"network\", \"syscalls\" or \"limits\"";
    refused("", &format!("p.yaml:1:1: {sentence}"));
    refused("# only\n", &format!("p.yaml:2:1: {sentence}"));
    refused("{}\n", &format!("p.yaml:1:1: {sentence}"));
}

#[test]
fn foreign_versions_are_refused_before_anything_else() {
    let expected = "p.yaml:1:10: version 2 is not supported; this program reads version 1";
    refused(
        "version: 2\nfiles: [{ id: a, deny: all, paths: [/a] }]\n",
        expected,
    );
    refused("version: 2\nfuture: yes\n", expected);
    refused("version: 2\nfiles: nothing yet\n", expected);
    refused(
        "future: yes\nversion: 2\n",
        "p.yaml:2:10: version 2 is not supported; this program reads version 1",
    );
    refused(
        "version: 1.0\n",
        "p.yaml:1:10: version 1.0 is not supported; this program reads version 1",
    );
    refused(
        "version: [1]\n",
        "p.yaml:1:10: \"version\" must be the number 1",
    );
    refused("version:\n", "p.yaml:1:8: \"version\" must be the number 1");
    refused(
        "# c\nname: x\n",
        "p.yaml:2:1: \"version\" is missing; start with \"version: 1\"",
    );
}

#[test]
fn policies_without_rules_are_refused() {
    refused(
        "version: 1\n",
        "p.yaml:1:1: the policy has no rules; \"files\", \"exec\", \"network\", \"syscalls\" or \"limits\" is missing",
    );
    refused(
        "version: 1\nfiles:\n",
        "p.yaml:2:6: there are no rules in \"files\"; write some or leave it out",
    );
    refused(
        "version: 1\nfiles: []\n",
        "p.yaml:2:8: there are no rules in \"files\"; write some or leave it out",
    );
    for wrong in ["3", "{ a: b }", "text"] {
        refused(
            &format!("version: 1\nfiles: {wrong}\n"),
            "p.yaml:2:8: \"files\" must be a list of rules, each starting with \"- id:\"",
        );
    }
}

#[test]
fn empty_and_incomplete_rules_are_refused() {
    let empty = "an empty file rule; it needs \"id\", \"deny\" or \"allow\", and \"paths\"";
    refused(
        "version: 1\nfiles:\n  - {}\n",
        &format!("p.yaml:3:5: {empty}"),
    );
    refused("version: 1\nfiles:\n  -\n", &format!("p.yaml:3:4: {empty}"));
    refused(
        "version: 1\nfiles:\n  - deny: all\n    paths: [/a]\n",
        "p.yaml:3:5: this file rule has no \"id\"",
    );
    refused(
        &rule(&["paths: [/a]"]),
        "p.yaml:3:5: the rule \"a\" has neither \"deny\" nor \"allow\"",
    );
    refused(
        &rule(&["deny: all"]),
        "p.yaml:3:5: the rule \"a\" has neither \"paths\" nor \"inodes\"",
    );
    refused(
        "version: 1\nfiles: [a]\n",
        "p.yaml:2:9: keys with values (\"key: value\") are expected here",
    );
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_one() {
    refused(
        "version: 1\nfilez: []\n",
        "p.yaml:2:1: unknown key \"filez\" in the policy; did you mean \"files\"?",
    );
    refused(
        "version: 1\nowner: me\n",
        "p.yaml:2:1: unknown key \"owner\" in the policy",
    );
    refused(
        &rule(&["dney: all"]),
        "p.yaml:4:5: unknown key \"dney\" in a file rule; did you mean \"deny\"?",
    );
    refused(
        &rule(&["\"\\e[31m\": 1"]),
        "p.yaml:4:5: unknown key \"\\u{1b}[31m\" in a file rule",
    );
}

#[test]
fn keys_of_later_versions_are_refused_by_name() {
    refused(
        "version: 1\ninclude: []\n",
        "p.yaml:2:1: \"include\" (including other policies) is not supported by this version",
    );
    refused(
        &rule(&["deny: all", "revoke: 1", "paths: [/a]"]),
        "p.yaml:5:5: \"revoke\" (revoking open files) is not supported by this version",
    );
    refused(
        &rule(&["deny: all", "by: { tree: 1 }", "paths: [/a]"]),
        "p.yaml:5:11: \"tree\" (rules about a process tree alone) is not supported by this version",
    );
    for (section, column) in [
        ("syscalls: [{ id: a, deny: [ptrace], by: { uid: 0 } }]", 37),
        ("limits: [{ id: a, limit: forks, by: { uid: 0 } }]", 33),
    ] {
        refused(
            &format!("version: 1\n{section}\n"),
            &format!(
                "p.yaml:2:{column}: \"by\" (rules of this kind about some programs or users alone) is not supported by this version"
            ),
        );
    }
}

#[test]
fn rules_say_whom_they_are_about() {
    let set = parse(
        "version: 1\nvariables: { bin: /usr/bin }\nfiles:\n  - id: keys\n    deny: [read]\n    paths: [/key]\n    \
         not_by: { exe: ['${bin}/ssh', ~/bin/git], uid: 7 }\n\
         exec: [{ id: shells, deny: [/bin/sh], by: { uid: [0, 1000] } }]\n\
         network: [{ id: net, allow: connect, to: [any], by: { exe: /usr/bin/curl } }]\n",
    )
    .unwrap();
    let keys = set.rules[0].subject.not_by.as_ref().unwrap();
    assert_eq!(
        keys.exe,
        [Path::new("/usr/bin/ssh"), Path::new("/home/kim/bin/git")]
    );
    assert_eq!(keys.uid, [7]);
    assert_eq!(set.rules[1].subject.by.as_ref().unwrap().uid, [0, 1000]);
    // Everybody else reaches whomever he likes: what an allow closes, it closes for those it is about.
    let curl = Actor::ANYBODY.running(Path::new("/usr/bin/curl"));
    let contact = Contact::new("192.0.2.1:443".parse().unwrap(), None, Access::CONNECT);
    assert_eq!(evaluate_contact(&set, &contact).verdict, Verdict::Allow);
    assert_eq!(
        evaluate_contact(&set, &contact.by(curl)).verdict,
        Verdict::Allow
    );
    let key = Request::new(Path::new("/key"), Access::READ);
    let ssh = Actor::ANYBODY.running(Path::new("/usr/bin/ssh"));
    let said = [Actor::ANYBODY, ssh, ssh.user(7)].map(|who| evaluate(&set, &key.by(who)).verdict);
    assert_eq!(said, [Verdict::Deny, Verdict::Deny, Verdict::Allow]);
    // Anybody, three programs, three users, and the two programs as the user that has to be both.
    assert_eq!(set.actors().len(), 1 + 3 + 3 + 2);
}

#[test]
fn wrong_subjects_are_refused() {
    let by = |subject: &str| rule(&["deny: all", subject, "paths: [/a]"]);
    refused(
        &by("by: { exe: ssh }"),
        "p.yaml:5:16: \"ssh\" is no path of a program; write it as /usr/bin/ssh or ./ssh",
    );
    refused(
        &by("by: { exe: [/usr/**] }"),
        "p.yaml:5:17: \"/usr/**\" is no single program; write the path of each",
    );
    refused(
        &by("not_by: { uid: root }"),
        "p.yaml:5:20: \"root\" is no user id; write the number, as id -u NAME gives it",
    );
    refused(
        &by("not_by: { uid: 4294967295 }"),
        "p.yaml:5:20: \"4294967295\" is no user id; write the number, as id -u NAME gives it",
    );
    refused(
        &by("by: { }"),
        "p.yaml:5:9: \"by\" of the rule \"a\" names nobody; it has \"exe\", \"uid\" or both",
    );
    refused(
        &by("by: { uid: [] }"),
        "p.yaml:5:16: \"uid\" of the rule \"a\" is empty",
    );
    refused(
        &by("exe: /usr/bin/ssh"),
        "p.yaml:5:5: whom a file rule is about stands in \"by\" or \"not_by\", as in by: { exe: [/usr/bin/ssh], uid: [0] }",
    );
    refused(
        &by("by: { uid: 1 }\n    not_by: { uid: 1 }"),
        "p.yaml:6:13: the rule \"a\" is about nobody: who is in \"by\" is in \"not_by\"",
    );
    refused(
        &by("by: { exe: /b, uid: 1 }\n    not_by: { exe: [/a, /b] }"),
        "p.yaml:6:13: the rule \"a\" is about nobody: who is in \"by\" is in \"not_by\"",
    );
    let some = by("by: { exe: /b }\n    not_by: { exe: /b, uid: 1 }");
    assert!(parse(&some).is_ok());
}

#[test]
fn differences_are_told_of_those_whom_rules_name() {
    let set = |subject: &str| {
        let text =
            format!("version: 1\nfiles: [{{ id: keys, deny: [read], paths: [/key]{subject} }}]\n");
        parse(&text).unwrap()
    };
    let told = |before: &RuleSet, after: &RuleSet| -> Vec<(Verdict, Option<String>)> {
        let changes = stockade::policy::diff(before, after).into_iter();
        let told = changes.map(|c| (c.after.verdict, c.by.map(|by| by.to_string())));
        told.collect()
    };
    let (all, but_ssh) = (set(""), set(", not_by: { exe: /usr/bin/ssh }"));
    let ssh = Some("/usr/bin/ssh".to_owned());
    assert_eq!(told(&all, &but_ssh), [(Verdict::Allow, ssh.clone())]);
    assert_eq!(
        told(&but_ssh, &set(", by: { exe: /usr/bin/ssh }")),
        [(Verdict::Allow, None), (Verdict::Deny, ssh)]
    );
    assert!(told(&but_ssh, &but_ssh).is_empty());
}

#[test]
fn exec_rules_are_about_running_what_they_name() {
    let set = parse(
        "version: 1\nexec:\n  - id: no-shells\n    deny: [/bin/sh, \"/opt/**\"]\n    mode: audit\n    priority: 3\n\
         files: [{ id: read, deny: [read], paths: [/a] }]\n",
    )
    .unwrap();
    let [shells, read] = &set.rules[..] else {
        panic!("{:?}", set.rules)
    };
    assert_eq!(
        (shells.id.as_str(), read.id.as_str()),
        ("no-shells", "read")
    );
    assert_eq!((shells.access, shells.effect), (Access::EXEC, Effect::Deny));
    assert_eq!(
        (shells.mode, shells.priority, shells.line),
        (Mode::Audit, 3, 3)
    );
    assert_eq!(
        shells.paths,
        [
            Pattern::File("/bin/sh".into()),
            Pattern::Below("/opt".into())
        ]
    );
    let set = parse("version: 1\nexec:\n  - { id: system, allow: [\"/usr/**\"] }\n").unwrap();
    let verdict = |path: &str, access| evaluate(&set, &Request::new(Path::new(path), access));
    assert_eq!(verdict("/usr/bin/cc", Access::EXEC).verdict, Verdict::Allow);
    assert_eq!(
        verdict("/usr/bin/cc", Access::WRITE).verdict,
        Verdict::Allow
    );
    let decision = verdict("/tmp/x", Access::EXEC);
    assert_eq!((decision.verdict, decision.unlisted), (Verdict::Deny, true));
}

#[test]
fn words_in_exec_rules_are_kinds_of_files() {
    let text = "version: 1\nexec:\n  - { id: kinds, deny: [fileless, setuid, ./setuid] }\n\
        \x20 - { id: these, allow: [\"/usr/**\"] }\n\
        \x20 - { id: sudo, allow: [/usr/bin/sudo], priority: 1 }\n";
    let set = parse(text).unwrap();
    assert_eq!(
        set.rules[0].paths,
        [
            Pattern::Kind(FileKind::Fileless),
            Pattern::Kind(FileKind::Setuid),
            Pattern::File("/work/job/setuid".into())
        ]
    );
    let says = |set: &RuleSet, path: &str, of: &[FileKind], access| {
        let request = Request::new(Path::new(path), access).of(of);
        evaluate(set, &request).rule.map(|rule| rule.id.clone())
    };
    let is = |path: &str, of: &[FileKind]| says(&set, path, of, Access::EXEC);
    let denied = Some("kinds".to_owned());
    assert_eq!(is("/usr/bin/su", &[FileKind::Setuid]), denied);
    assert_eq!(is("/usr/bin/removed", &[FileKind::Fileless]), denied);
    assert_eq!(is("", &[FileKind::Fileless]), denied);
    assert_eq!(is("/usr/bin/sudo", &[FileKind::Setuid]), None);
    assert_eq!(is("/usr/bin/cc", &[]), None);
    let read = says(&set, "/usr/bin/su", &[FileKind::Setuid], Access::READ);
    assert_eq!(read, None);
    // What never was in a directory is in none that is allowed.
    let all = parse("version: 1\nexec: [{ id: all, allow: [\"/**\"] }]\n").unwrap();
    let memfd = |set: &RuleSet| says(set, "", &[FileKind::Fileless], Access::EXEC);
    assert_eq!(memfd(&all), Some("all".to_owned()));
    let but = "version: 1\nexec: [{ id: all, allow: [\"/**\", fileless] }]\n";
    assert_eq!(memfd(&parse(but).unwrap()), None);

    let none = parse("version: 1\nexec: [{ id: kinds, deny: [fileless] }]\n").unwrap();
    let only = parse("version: 1\nexec: [{ id: kinds, deny: [setuid] }]\n").unwrap();
    let told: Vec<_> = diff(&none, &only)
        .into_iter()
        .map(|c| (c.path.to_string(), c.access, c.after.verdict))
        .collect();
    assert_eq!(
        told,
        [
            ("fileless".to_owned(), Access::EXEC, Verdict::Allow),
            ("setuid".to_owned(), Access::EXEC, Verdict::Deny),
        ]
    );
    let cases = "version: 1\ncases:\n\
        - { path: /usr/bin/su, of: setuid, access: exec, expect: deny, rule: kinds }\n\
        - { path: /usr/bin/su, access: exec, expect: allow }\n";
    let cases = Cases::parse(cases, "c.yaml", &env()).unwrap();
    assert_eq!(cases.failures(&set), []);
    assert_eq!(cases.failures(&none).len(), 1);
}

#[test]
fn wrong_exec_rules_are_refused() {
    let exec = |rule: &str| format!("version: 1\nexec:\n  - {rule}\n");
    let empty = "an empty exec rule; it needs \"id\", and \"deny\" or \"allow\"";
    refused(&exec("{}"), &format!("p.yaml:3:5: {empty}"));
    refused(
        &exec("{ deny: [/a] }"),
        "p.yaml:3:5: this exec rule has no \"id\"",
    );
    refused(
        &exec("{ id: a }"),
        "p.yaml:3:5: the rule \"a\" has neither \"deny\" nor \"allow\"",
    );
    refused(
        &exec("{ id: a, deny: all }"),
        "p.yaml:3:20: \"deny\" must be a list of paths, as in [\"/etc/shadow\"]",
    );
    refused(
        &exec("{ id: a, allow: [] }"),
        "p.yaml:3:21: \"allow\" of the rule \"a\" is empty",
    );
    refused(
        &exec("{ id: a, deny: [setiud] }"),
        "p.yaml:3:21: unknown kind of file \"setiud\"; did you mean \"setuid\"? A file of this name is written \"./setiud\"",
    );
    refused(
        &exec("{ id: a, allow: [/a, setuid] }"),
        "p.yaml:3:26: \"setuid\" can only be denied; allow such programs by their paths",
    );
    refused(
        &exec("{ id: a, deny: [/a], paths: [/b] }"),
        "p.yaml:3:26: a rule of exec has what it is about in \"deny\" or \"allow\"",
    );
    refused(
        &exec("{ id: a, deny: [/a], revoke: true }"),
        "p.yaml:3:26: \"revoke\" (revoking open files) is not supported by this version",
    );
    refused(
        "version: 1\nexec: x\n",
        "p.yaml:2:7: \"exec\" must be a list of rules, each starting with \"- id:\"",
    );
    refused(
        "version: 1\nexec: [{ id: a, deny: [/a] }]\nfiles: [{ id: a, deny: all, paths: [/a] }]\n",
        "p.yaml:3:15: the id \"a\" is already used by the rule on line 2",
    );
}

#[test]
fn rules_say_how_they_refuse() {
    let set = parse(
        "version: 1\nfiles: [{ id: a, deny: all, paths: [/a], errno: ENOENT }]\n\
         exec: [{ id: b, deny: [/b], action: kill }]\n\
         network: [{ id: c, allow: connect, to: [any], action: deny }]\n",
    )
    .unwrap();
    let refusals: Vec<(u16, bool)> = set
        .rules
        .iter()
        .map(|rule| rule.refusal)
        .chain(set.network.iter().map(|rule| rule.refusal))
        .map(|refusal| (refusal.errno, refusal.kill))
        .collect();
    assert_eq!(refusals, [(2, false), (1, true), (1, false)]);
    let file =
        |more: &str| format!("version: 1\nfiles: [{{ id: a, deny: all, paths: [/a], {more} }}]\n");
    refused(
        &file("action: kil"),
        "p.yaml:2:50: unknown action \"kil\"; did you mean \"kill\"?",
    );
    refused(
        &file("action: kill, errno: EIO"),
        "p.yaml:2:63: \"errno\" is for who goes on; a process that is killed reads none",
    );
    refused(
        &file("errno: EACCESS"),
        "p.yaml:2:49: unknown errno \"EACCESS\"; did you mean \"EACCES\"?",
    );
    refused(
        &file("errno: 13"),
        "p.yaml:2:49: unknown errno \"13\"; known are EPERM, ENOENT, EIO, ENXIO, EACCES, EBUSY, ENODEV, EROFS, ENOSYS, \
         EAFNOSUPPORT, ENETUNREACH, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH",
    );
}

#[test]
fn wrong_network_rules_are_refused() {
    let network = |rule: &str| format!("version: 1\nnetwork:\n  - {rule}\n");
    for (rule, answer) in [
        (
            "{}",
            "5: an empty network rule; it needs \"id\", \"deny\" or \"allow\", and \"to\" or \"at\"",
        ),
        (
            "{ deny: connect, to: [any] }",
            "5: this network rule has no \"id\"",
        ),
        (
            "{ id: a, deny: connect }",
            "5: the rule \"a\" has no \"to\"; any stands for every address",
        ),
        (
            "{ id: a, deny: bind }",
            "5: the rule \"a\" has no \"at\"; any stands for every address",
        ),
        (
            "{ id: a, deny: bind, to: [any] }",
            "30: \"to\" has no meaning for bind in the rule \"a\"; write \"at\"",
        ),
        (
            "{ id: a, deny: [connect, bind], to: [any] }",
            "20: the rule \"a\" is about both ends; make it two rules: one of connect and send with \"to\", and one of bind, \
             listen and accept with \"at\"",
        ),
        (
            "{ id: a, deny: [], to: [any] }",
            "20: the rule \"a\" denies nothing",
        ),
        (
            "{ id: a, deny: conect, to: [any] }",
            "20: unknown kind of access \"conect\"; did you mean \"connect\"?",
        ),
        (
            "{ id: a, deny: read, to: [any] }",
            "20: \"read\" is done to files; on the network it is connect, send, bind, listen, accept",
        ),
        (
            "{ id: a, deny: connect, to: any }",
            "33: \"to\" must be a list of addresses, as in [\"10.0.0.0/8:443\"]",
        ),
        (
            "{ id: a, deny: connect, to: [] }",
            "33: \"to\" of the rule \"a\" is empty",
        ),
        (
            "{ id: a, deny: connect, to: [10.0.0.1/8] }",
            "34: \"10.0.0.1/8\": the address has bits beyond its prefix; the network is 10.0.0.0/8",
        ),
        (
            "{ id: a, deny: connect, to: ['host:*.example.org:443'] }",
            "34: \"*.example.org\" is no name of a host: one rule is about one name, and nobody can ask for all that a pattern stands for; write each",
        ),
        (
            "{ id: a, deny: bind, at: ['host:example.org'] }",
            "31: \"host:example.org\" names a host, and one is not at a host but at addresses of one's own; write these",
        ),
        (
            "{ id: a, deny: connect, to: ['10.0.0.1:x'] }",
            "34: \"x\" is no port, nor a range of them as 8000-8080, in \"10.0.0.1:x\"",
        ),
        (
            "{ id: a, deny: connect, to: [any], protocol: tpc }",
            "50: unknown protocol \"tpc\"; did you mean \"tcp\"?",
        ),
        (
            "{ id: a, deny: connect, paths: [/a] }",
            "29: a network rule has no paths; it has addresses in \"to\" or \"at\"",
        ),
        (
            "{ id: a, deny: connect, protocl: tcp, to: [any] }",
            "29: unknown key \"protocl\" in a network rule; did you mean \"protocol\"?",
        ),
    ] {
        refused(&network(rule), &format!("p.yaml:3:{answer}"));
    }
    refused(
        &rule(&["deny: [connect]", "paths: [/a]"]),
        "p.yaml:4:12: \"connect\" is done on the network; to files it is read, write, exec, create, delete, replace, link, \
         metadata, mount or all",
    );
    refused(
        "version: 1\nnetwork: [{ id: a, deny: connect, to: [any] }]\nfiles: [{ id: a, deny: all, paths: [/a] }]\n",
        "p.yaml:3:15: the id \"a\" is already used by the rule on line 2",
    );
}

#[test]
fn inodes_are_files_and_not_what_takes_their_place() {
    let text = |key: &str| {
        format!("version: 1\nfiles:\n  - {{ id: a, deny: [read, write], {key}: [/etc/key] }}\n")
    };
    let [inode, path] = ["inodes", "paths"].map(|key| parse(&text(key)).unwrap());
    assert_eq!(inode.rules[0].paths, [Pattern::Inode("/etc/key".into())]);
    assert_eq!(inode.rules[0].paths[0].to_string(), "inode of /etc/key");
    let key = Request::new(Path::new("/etc/key"), Access::READ);
    for (set, later) in [(&inode, Verdict::Allow), (&path, Verdict::Deny)] {
        assert_eq!(evaluate(set, &key).verdict, Verdict::Deny);
        assert_eq!(evaluate(set, &key.replaced()).verdict, later);
    }
    // Only what leads to a name is kept in its place.
    let above = Request::new(Path::new("/etc"), Access::DELETE);
    assert_eq!(evaluate(&inode, &above).verdict, Verdict::Allow);
    assert_eq!(evaluate(&path, &above).verdict, Verdict::Deny);
    let changes = diff(&path, &inode);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].path, Pattern::File("/etc/key".into()));
    assert_eq!(
        (changes[0].before.verdict, changes[0].after.verdict),
        (Verdict::Deny, Verdict::Allow)
    );
    let both = "version: 1\nfiles:\n  - { id: a, allow: [read], paths: [/a], inodes: [/b] }\n";
    let both = parse(both).unwrap();
    let b = Request::new(Path::new("/b"), Access::READ);
    assert_eq!(evaluate(&both, &b).verdict, Verdict::Allow);
    assert!(evaluate(&both, &b.replaced()).unlisted);
}

#[test]
fn wrong_inodes_are_refused() {
    refused(
        &rule(&["deny: all", "inodes: [\"/etc/**\"]"]),
        "p.yaml:5:14: \"/etc/**\" is no single file; it can stand in \"paths\"",
    );
    refused(
        &rule(&["deny: all", "inodes: []"]),
        "p.yaml:5:13: \"inodes\" of the rule \"a\" is empty",
    );
    refused(
        &rule(&["deny: all", "inode: [/a]"]),
        "p.yaml:5:5: unknown key \"inode\" in a file rule; did you mean \"inodes\"?",
    );
}

#[test]
fn wrong_ids_and_names_are_refused() {
    let nothing = "text is missing here (an unquoted ~ or null means nothing; put it in quotes)";
    refused("version: 1\nname:\n", &format!("p.yaml:2:5: {nothing}"));
    refused("version: 1\nname: ''\n", "p.yaml:2:7: \"name\" is empty");
    refused(
        "version: 1\nname: \"a\\nb\"\n",
        "p.yaml:2:7: \"name\" holds a control character: \"a\\nb\"",
    );
    refused(
        "version: 1\nfiles:\n  - id: [a]\n",
        "p.yaml:3:9: a single text is expected here",
    );
    refused(
        "version: 1\nfiles:\n  - { deny: all, paths: [/a], id: ' ' }\n",
        "p.yaml:3:35: \"id\" is empty",
    );
}

#[test]
fn duplicate_ids_are_refused_at_the_second_one() {
    refused(
        "version: 1\nfiles:\n  - { id: a, deny: all, paths: [/a] }\n\
         \x20 - { id: b, deny: all, paths: [/a] }\n  - { id: a, deny: all, paths: [/b] }\n",
        "p.yaml:5:11: the id \"a\" is already used by the rule on line 3",
    );
}

#[test]
fn duplicate_keys_are_refused_at_the_second_one() {
    refused(
        &rule(&["id: b"]),
        "p.yaml:4:5: the key \"id\" is here twice",
    );
    refused(
        "version: 1\nversion: 1\n",
        "p.yaml:2:1: the key \"version\" is here twice",
    );
}

#[test]
fn unknown_modes_are_refused() {
    refused(
        "version: 1\nmode: enfroce\n",
        "p.yaml:2:7: unknown mode \"enfroce\"; did you mean \"enforce\"?",
    );
    refused(
        &rule(&["mode: off", "deny: all", "paths: [/a]"]),
        "p.yaml:4:11: unknown mode \"off\"; it is enforce or audit",
    );
    refused(
        "version: 1\nmode: [audit]\n",
        "p.yaml:2:7: a single text is expected here",
    );
}

#[test]
fn wrong_deny_values_are_refused() {
    refused(&deny("[]"), "p.yaml:4:11: the rule \"a\" denies nothing");
    refused(
        &deny("[read, wirte]"),
        "p.yaml:4:18: unknown access kind \"wirte\"; did you mean \"write\"?",
    );
    refused(
        &deny("[chmod]"),
        "p.yaml:4:12: unknown access kind \"chmod\"; known are read, write, exec, create, delete, replace, link, \
         metadata, mount and all",
    );
    let shape = "\"deny\" must be a list of access kinds or the word all";
    refused(&deny(""), &format!("p.yaml:4:9: {shape}"));
    for wrong in ["no", "3", "-3", "1.5", "{ read: 1 }", "somewhat"] {
        refused(&deny(wrong), &format!("p.yaml:4:11: {shape}"));
    }
    refused(
        &deny("read"),
        &format!("p.yaml:4:11: {shape}; write [read]"),
    );
    refused(
        &deny("al"),
        &format!("p.yaml:4:11: {shape}; did you mean \"all\"?"),
    );
    refused(
        &deny("[[read]]"),
        "p.yaml:4:12: a single text is expected here",
    );
    refused(
        &deny("[null]"),
        "p.yaml:4:12: text is missing here (an unquoted ~ or null means nothing; put it in quotes)",
    );
}

#[test]
fn wrong_path_lists_are_refused() {
    refused(
        &paths("[]"),
        "p.yaml:5:12: \"paths\" of the rule \"a\" is empty",
    );
    let shape = "\"paths\" must be a list of paths, as in [\"/etc/shadow\"]";
    for wrong in ["/a", "{ a: b }", "7"] {
        refused(&paths(wrong), &format!("p.yaml:5:12: {shape}"));
    }
    refused(&paths(""), &format!("p.yaml:5:10: {shape}"));
    refused(
        &paths("[/a, ~]"),
        "p.yaml:5:17: text is missing here (an unquoted ~ or null means nothing; put it in quotes)",
    );
}

#[test]
fn wrong_paths_are_refused() {
    refused(&paths("[/a, '']"), "p.yaml:5:17: an empty path");
    refused(
        &paths("[\"/a\\0b\"]"),
        "p.yaml:5:13: the path \"/a\\u{0}b\" holds a NUL character",
    );
    refused(
        &paths("[/a/../b]"),
        "p.yaml:5:13: \"..\" behind a name in \"/a/../b\" is not supported, because the name can be a link; write the \
         path without it",
    );
    refused(
        &paths("[~kim/x]"),
        "p.yaml:5:13: \"~kim/x\" asks for another user's home directory, which is not supported; write it out, or \
         \"./~…\" for a file of that name",
    );
    for (directory, all) in [
        ("/etc/", "/etc/**"),
        ("/", "/**"),
        (".", "./**"),
        ("..", "../**"),
        ("~/", "~/**"),
        ("a/.", "a/./**"),
    ] {
        refused(
            &paths(&format!("['{directory}']")),
            &format!(
                "p.yaml:5:13: \"{directory}\" names a directory; a policy says \"{all}\" for all that is in it"
            ),
        );
    }
    refused(
        &paths("['/a/../b/**']"),
        "p.yaml:5:13: \"..\" behind a name in \"/a/../b\" is not supported, because the name can be a link; write the \
         path without it",
    );
}

#[test]
fn rules_allow_or_deny_and_have_a_priority() {
    let set = parse(&rule(&["allow: [write]", "paths: [/a]", "priority: -3"])).unwrap();
    let found = (set.rules[0].effect, set.rules[0].priority);
    assert_eq!(found, (Effect::Allow, -3));
    refused(
        &rule(&["deny: all", "allow: all", "paths: [/a]"]),
        "p.yaml:5:12: the rule \"a\" has both \"deny\" and \"allow\"; make it two rules",
    );
    refused(
        &rule(&["allow: []", "paths: [/a]"]),
        "p.yaml:4:12: the rule \"a\" allows nothing",
    );
    refused(
        &rule(&["allow: write", "paths: [/a]"]),
        "p.yaml:4:12: \"allow\" must be a list of access kinds or the word all; write [write]",
    );
    for wrong in ["high", "1.5", "1001", "[1]", "99999999999"] {
        refused(
            &rule(&["deny: all", &format!("priority: {wrong}"), "paths: [/a]"]),
            "p.yaml:5:15: \"priority\" must be a whole number from -1000 to 1000; without it, it is 0",
        );
    }
}

#[test]
fn two_stars_stand_for_all_that_is_in_a_directory() {
    let set = parse(&paths(
        "['/etc/**', '~/**', './**', '**', '/**', '../x/**']",
    ))
    .unwrap();
    let found: Vec<String> = set.rules[0].paths.iter().map(Pattern::to_string).collect();
    assert_eq!(
        found,
        [
            "/etc/**",
            "/home/kim/**",
            "/work/job/**",
            "/work/job/**",
            "/**",
            "/work/x/**"
        ]
    );
    let below = |p: &Pattern| matches!(p, Pattern::Below(_));
    assert!(set.rules[0].paths.iter().all(below));
}

#[test]
fn patterns_are_refused() {
    for (path, what) in [
        (
            "/a/**/b",
            "the pattern \"**\", but as the last part of a path,",
        ),
        (
            "/a**",
            "the pattern \"**\", but as the last part of a path,",
        ),
        ("/a/*.pem", "the pattern character \"*\""),
        ("/a/?", "the pattern character \"?\""),
        ("/a/[bc]", "the pattern character \"[\""),
        ("/a/{b,c}", "the pattern character \"{\""),
        ("/a/\\x", "the pattern character \"\\\\\""),
    ] {
        let shown = path.replace('\\', "\\\\");
        refused(
            &paths(&format!("['{path}']")),
            &format!("p.yaml:5:13: {what} in \"{shown}\" is not supported by this version"),
        );
    }
}

#[test]
fn unknown_home_or_working_directory_is_an_error_at_the_path() {
    let nowhere = Environment::new(None, PathBuf::new());
    for (path, expected) in [
        ("~/a", "the home directory for \"~/a\" is not known"),
        (
            "a",
            "the working directory for the relative path \"a\" is not known",
        ),
    ] {
        let error = RuleSet::parse(&paths(&format!("['{path}']")), "p.yaml", &nowhere).unwrap_err();
        let error = error.to_string();
        assert_eq!(
            error.lines().next(),
            Some(format!("p.yaml:5:13: {expected}").as_str())
        );
    }
}

#[test]
fn broken_yaml_is_refused_where_it_breaks() {
    refused(
        "version: 1\nname: a: b\n",
        "p.yaml:2:8: mapping values are not allowed in this context",
    );
    refused("version: 1\nfiles: [\n", "p.yaml:2:8: unclosed bracket '['");
    // A slip in the indentation is not reported as a missing key.
    refused(
        "version: 1\nfiles:\n  - id: a\n   deny: all\n",
        "p.yaml:4:4: while parsing a block collection, did not find expected '-' indicator",
    );
    refused(
        "hello",
        "p.yaml:1:1: keys with values (\"key: value\") are expected here",
    );
    assert!(error(&"[".repeat(100_000)).starts_with("p.yaml:1:"));
}

#[test]
fn yaml_that_hides_meaning_is_refused() {
    refused(
        "version: 1\n---\nversion: 1\n",
        "p.yaml:3:1: a policy file holds one document; a second one starts here",
    );
    refused(
        &rule(&["<<: { deny: all }"]),
        "p.yaml:4:5: merging with \"<<\" is not supported in a policy",
    );
    refused(
        &deny("!maybe all"),
        "p.yaml:4:18: the tag \"!maybe\" is not supported in a policy",
    );
}

#[test]
fn faults_behind_an_alias_are_reported_where_it_is_used() {
    refused(
        "version: 1\nfiles:\n  - { id: a, deny: all, paths: &p [/a] }\n  - { id: b, deny: *p, paths: *p }\n",
        "p.yaml:4:20: unknown access kind \"/a\"; known are read, write, exec, create, delete, replace, link, \
         metadata, mount and all",
    );
    let set = parse(
        "version: 1\nfiles:\n  - { id: a, deny: &d [read], paths: [/a] }\n  - { id: b, deny: *d, paths: [/b] }\n",
    )
    .unwrap();
    assert_eq!(set.rules[1].access, Access::READ);
}

#[test]
fn file_name_cannot_forge_a_line() {
    let error = RuleSet::parse("", "a\nb.yaml", &env()).unwrap_err();
    assert!(error.to_string().starts_with("a\\nb.yaml:1:1: "));
}

#[test]
fn deny_files_refuses_what_cannot_be_a_file() {
    for (path, expected) in [
        ("", "--deny-file: an empty path"),
        (
            "a\0",
            "--deny-file: the path \"a\\u{0}\" holds a NUL character",
        ),
        (
            "/etc/",
            "--deny-file: \"/etc/\" names a directory; a policy says \"/etc/**\" for all that is in it",
        ),
    ] {
        let error = RuleSet::deny_files([PathBuf::from("/a"), path.into()], &env()).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Policy, expected)
        );
    }
    let error = RuleSet::deny_files([], &env()).unwrap_err();
    assert_eq!(error.to_string(), "there is no file to deny");
}

#[test]
fn merge_refuses_an_id_that_both_have() {
    let one =
        parse("version: 1\nname: one\nfiles: [{ id: 'deny-file:/a', deny: all, paths: [/a] }]\n");
    let two = RuleSet::deny_files([PathBuf::from("/a")], &env()).unwrap();
    let error = one.unwrap().merge(two).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Policy);
    assert_eq!(
        error.to_string(),
        "the id \"deny-file:/a\" is used twice: in \"one\" (line 3) and in \"command-line\" (command line)"
    );
}

#[test]
fn audit_mode_reports_what_enforce_mode_denies() {
    let set = parse(&rule(&["deny: [read]", "paths: [/a]", "mode: enforce"])).unwrap();
    let request = Request::new(Path::new("/a"), Access::READ | Access::WRITE);
    assert_eq!(evaluate(&set, &request).verdict, Verdict::Deny);
    let set = set.with_mode(Mode::Audit);
    let decision = evaluate(&set, &request);
    assert_eq!(decision.verdict, Verdict::Audit);
    assert_eq!(decision.rule.map(|rule| rule.id.as_str()), Some("a"));
    assert_eq!(set.mode, Mode::Audit);
}

#[test]
fn rule_set_serializes_with_the_words_of_the_language() {
    let set = parse(&rule(&["deny: [read, link]", "paths: [/a]", "mode: audit"])).unwrap();
    assert_eq!(
        serde_json::to_string(&set).unwrap(),
        r#"{"name":"p.yaml","mode":"enforce","rules":[{"id":"a","effect":"deny","access":["read","link"],"paths":["/a"],"mode":"audit","priority":0,"refusal":{"errno":1,"kill":false},"line":3}],"network":[],"syscalls":[],"limits":[]}"#
    );
    let set = parse(
        "version: 1\nnetwork:\n  - { id: a, allow: connect, to: ['10.0.0.0/8:443', '::1'], protocol: tcp }\n",
    );
    assert_eq!(
        serde_json::to_string(&set.unwrap().network).unwrap(),
        r#"[{"id":"a","effect":"allow","access":["connect"],"addresses":["10.0.0.0/8:443","::1"],"transport":"tcp","mode":"enforce","priority":0,"refusal":{"errno":1,"kill":false},"line":3}]"#
    );
}

#[test]
fn rules_about_system_calls_name_them() {
    let set = parse(
        "version: 1\nsyscalls:\n  - { id: a, deny: [ptrace, 165], errno: ENOSYS, priority: 2 }\n  - { id: b, allow: [setuid32] }\n",
    )
    .unwrap();
    assert_eq!(
        serde_json::to_string(&set.syscalls).unwrap(),
        r#"[{"id":"a","effect":"deny","calls":["ptrace","165"],"mode":"enforce","priority":2,"refusal":{"errno":38,"kill":false},"line":3},{"id":"b","effect":"allow","calls":["setuid32"],"mode":"enforce","priority":0,"refusal":{"errno":1,"kill":false},"line":4}]"#
    );
    let verdict = |name: &str| {
        let decision = evaluate_call(&set, &SystemCall::named(name).unwrap());
        (decision.verdict, decision.unlisted)
    };
    assert_eq!(verdict("ptrace"), (Verdict::Deny, false));
    assert_eq!(verdict("read"), (Verdict::Deny, true));
}

#[test]
fn wrong_rules_about_system_calls_are_refused() {
    let calls = |rule: &str| format!("version: 1\nsyscalls:\n  - {rule}\n");
    for (rule, said) in [
        (
            "{}",
            "5: an empty syscall rule; it needs \"id\", and \"deny\" or \"allow\"",
        ),
        ("{ deny: [ptrace] }", "5: this syscall rule has no \"id\""),
        (
            "{ id: a, deny: ptrace }",
            "20: \"deny\" must be a list of system calls, as in [\"ptrace\"]",
        ),
        (
            "{ id: a, deny: [] }",
            "20: \"deny\" of the rule \"a\" is empty",
        ),
        (
            "{ id: a, deny: [ptrce] }",
            "21: unknown system call \"ptrce\"; did you mean \"ptrace\"?",
        ),
        (
            "{ id: a, deny: [960] }",
            "21: no system call has the number \"960\"; they are less than 960",
        ),
        (
            "{ id: a, deny: [ptrace], otherwise: kil }",
            "41: unknown choice \"kil\"; did you mean \"kill\"?",
        ),
        (
            "{ id: a, deny: [ptrace], action: log }",
            "38: unknown action \"log\"; it is deny or kill",
        ),
    ] {
        refused(&calls(rule), &format!("p.yaml:3:{said}"));
    }
    refused(
        "version: 1\nsyscalls: [{ id: a, deny: [mount] }]\nexec: [{ id: a, deny: [/a] }]\n",
        "p.yaml:3:14: the id \"a\" is already used by the rule on line 2",
    );
}

#[test]
fn variables_stand_for_what_is_given_or_declared() {
    let text = "version: 1\nvariables: { work: /srv/job, cache: , net: 10.0.0.0/8 }\n\
        files: [{ id: a, deny: all, paths: ['${work}/**', '${cache}/${cache}.db'], inodes: ['${work}/x'] }]\n\
        exec: [{ id: b, deny: ['${work}/bin'] }]\n\
        network: [{ id: c, deny: connect, to: ['${net}:443'] }]\n";
    let with = |given: &[(&str, &str)]| {
        let mut env = env();
        let given = given
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        env.variables.extend(given);
        RuleSet::parse(text, "p.yaml", &env)
    };
    let set = with(&[("cache", "/var/c"), ("net", "192.0.2.0/24")]).unwrap();
    let named: Vec<_> = set
        .rules
        .iter()
        .flat_map(|rule| &rule.paths)
        .map(ToString::to_string)
        .chain(set.network[0].addresses.iter().map(ToString::to_string))
        .collect();
    assert_eq!(
        named,
        [
            "/srv/job/**",
            "/var/c/var/c.db",
            "inode of /srv/job/x",
            "/srv/job/bin",
            "192.0.2.0/24:443"
        ]
    );
    let fault = |given: &[(&str, &str)]| {
        let text = with(given).unwrap_err().to_string();
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(
        fault(&[]),
        "p.yaml:2:35: the variable \"cache\" has no value; give it one with --var cache=VALUE"
    );
    assert_eq!(
        fault(&[("cache", "/c"), ("wrok", "/x")]),
        "p.yaml:1:1: the policy declares no variable \"wrok\"; did you mean \"work\"?"
    );
    assert_eq!(
        fault(&[("cache", "${work}")]),
        "p.yaml:2:35: the value of the variable \"cache\" is \"${work}\", and must be a text without \"$\""
    );
    // What is put in is a path like any other.
    assert_eq!(
        fault(&[("cache", "/c*")]),
        "p.yaml:3:51: the pattern character \"*\" in \"/c*//c*.db\" is not supported by this version"
    );
}

#[test]
fn wrong_variables_are_refused() {
    let with = |variables: &str, path: &str| {
        format!(
            "version: 1\nvariables: {variables}\nfiles: [{{ id: a, deny: all, paths: ['{path}'] }}]\n"
        )
    };
    for (variables, path, said) in [
        (
            "{ a: /x }",
            "${b}/y",
            "3:37: \"${b}/y\" names the variable \"b\", which is not declared; did you mean \"a\"?",
        ),
        ("{ a: /x }", "/y", "2:17: the variable \"a\" is not used"),
        (
            "{ a: /x }",
            "/y/$a",
            "3:37: \"$\" in \"/y/$a\" begins a variable, as in ${name}; a file that has one in its name can be given to --deny-file",
        ),
        (
            "{ A: /x }",
            "${A}",
            "2:17: \"A\" is no name of a variable: it has lower-case letters, digits, - and _, and begins with a letter",
        ),
        (
            "{ a: [/x] }",
            "${a}",
            "2:17: the variable \"a\" must be a single text",
        ),
        (
            "[a]",
            "${a}",
            "2:12: keys with values (\"key: value\") are expected here",
        ),
    ] {
        refused(&with(variables, path), &format!("p.yaml:{said}"));
    }
}

#[test]
fn limits_say_how_much_of_what_in_which_time() {
    let set = parse(
        "version: 1\nmode: audit\nlimits:\n\
         - { id: a, limit: [threads, forks], per_minute: 5, per: process, mode: enforce }\n\
         - { id: b, limit: bytes, per_second: 64 KiB, burst: 2MiB, errno: ENOBUFS }\n\
         - { id: c, syscall: [ptrace, 165], per_hour: 1, action: kill, mode: enforce }\n\
         - { id: d, syscall: mount, per_second: 3, burst: 9 }\n",
    )
    .unwrap();
    assert_eq!(
        serde_json::to_string(&set.limits).unwrap(),
        concat!(
            r#"[{"id":"a","counted":{"limit":["forks","threads"]},"rate":5,"period":"minute","burst":5,"each":true,"mode":"enforce","refusal":{"errno":11,"kill":false},"line":4},"#,
            r#"{"id":"b","counted":{"limit":["bytes"]},"rate":65536,"period":"second","burst":2097152,"each":false,"mode":"audit","refusal":{"errno":105,"kill":false},"line":5},"#,
            r#"{"id":"c","counted":{"syscall":["ptrace","165"]},"rate":1,"period":"hour","burst":1,"each":false,"mode":"enforce","refusal":{"errno":1,"kill":true},"line":6},"#,
            r#"{"id":"d","counted":{"syscall":["mount"]},"rate":3,"period":"second","burst":9,"each":false,"mode":"audit","refusal":{"errno":1,"kill":false},"line":7}]"#
        )
    );
    let shown: Vec<_> = set.limits.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "forks,threads: 5 per minute, 5 at once, of each process, deny EAGAIN",
            "bytes: 65536 per second, 2097152 at once, audit",
            "ptrace,165: 1 per hour, 1 at once, kill",
            "mount: 3 per second, 9 at once, audit",
        ]
    );
}

#[test]
fn wrong_limits_are_refused() {
    let limit = |rule: &str| format!("version: 1\nlimits:\n  - {rule}\n");
    for (rule, said) in [
        ("{}", "5: this limit has no \"id\""),
        (
            "{ id: a, per_second: 1 }",
            "5: the limit \"a\" has neither \"limit\" nor \"syscall\"",
        ),
        (
            "{ id: a, limit: forks, syscall: clone, per_second: 1 }",
            "37: the limit \"a\" has both \"limit\" and \"syscall\"; make it two limits",
        ),
        (
            "{ id: a, limit: fork, per_second: 1 }",
            "21: unknown thing to count \"fork\"; did you mean \"forks\"?",
        ),
        (
            "{ id: a, limit: [], per_second: 1 }",
            "21: the limit \"a\" counts nothing",
        ),
        (
            "{ id: a, limit: [bytes, forks], per_second: 1 }",
            "21: the limit \"a\" counts bytes together with something else; make it two limits",
        ),
        (
            "{ id: a, limit: forks }",
            "5: the limit \"a\" has no \"per_second\", \"per_minute\" or \"per_hour\"",
        ),
        (
            "{ id: a, limit: forks, per_second: 1, per_hour: 2 }",
            "53: the limit \"a\" has both \"per_second\" and \"per_hour\"; make it two limits",
        ),
        (
            "{ id: a, limit: forks, per_second: 0 }",
            "40: \"per_second\" must be a whole number from 1 to 9223372036",
        ),
        (
            "{ id: a, limit: forks, per_second: 1 KiB }",
            "40: \"per_second\" must be a whole number from 1 to 9223372036",
        ),
        (
            "{ id: a, limit: bytes, per_hour: 1, burst: 1 GiB }",
            "48: \"burst\" must be a whole number from 1 to 2562047, or of KiB, MiB or GiB, as in 64 KiB",
        ),
        (
            "{ id: a, limit: forks, per_second: 1, per: uid }",
            "48: unknown owner \"uid\"; it is tree or process",
        ),
        (
            "{ id: a, limit: forks, per_second: 1, action: stop }",
            "51: unknown action \"stop\"; it is log, deny or kill",
        ),
        (
            "{ id: a, syscall: ptrace, per_second: 1 }",
            "43: the limit \"a\" would refuse system calls, which nothing in the kernel does by their rate; write \"action: kill\" or \"action: log\", or limit forks, threads, connections or bytes",
        ),
        (
            "{ id: a, limit: bytes, per_second: 1, errno: EAGAIN }",
            "50: unknown errno \"EAGAIN\"; known are EPERM, EIO, EACCES, ENETUNREACH, ENOBUFS, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH",
        ),
        (
            "{ id: a, limit: forks, per_second: 1, action: kill, errno: EPERM }",
            "64: \"errno\" is for who is refused something and goes on",
        ),
        (
            "{ id: a, limit: forks, per_second: 1, paths: [/a] }",
            "43: a limit has no paths; it has what it counts in \"limit\" or \"syscall\"",
        ),
        (
            "{ id: a, limit: forks, per_second: 1, uid: 5 }",
            "43: \"uid\" (rules of this kind about some programs or users alone) is not supported by this version",
        ),
    ] {
        refused(&limit(rule), &format!("p.yaml:3:{said}"));
    }
    let rules: String = (0..9)
        .map(|n| format!("- {{ id: l{n}, limit: forks, per_second: 1 }}\n"))
        .collect();
    refused(
        &format!("version: 1\nlimits:\n{rules}"),
        "p.yaml:11:9: \"l8\" is one limit too many: a policy has room for 8 of all together, and for as many of each process",
    );
    refused(
        "version: 1\nlimits: [{ id: a, limit: forks, per_second: 1 }]\nexec: [{ id: a, deny: [/a] }]\n",
        "p.yaml:3:14: the id \"a\" is already used by the rule on line 2",
    );
}

/// The fenced blocks of the language's page: the words after the fence, and the text.
fn documented_blocks() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(file("docs/POLICY.md")).unwrap();
    pages::split(&page).1
}

/// What a JSON Schema has against a value, by the words that ours uses: a validator with all of them is forty crates.
fn objection(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let Value::Object(schema) = schema else {
        return (*schema == Value::Bool(false)).then(|| format!("{value} is not expected"));
    };
    schema.iter().find_map(|(word, wanted)| {
        let list = || wanted.as_array().into_iter().flatten();
        let fits = |schema: &&Value| objection(root, schema, value).is_none();
        let is_type = |name: &Value| match name.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("no type {other}"),
        };
        let text = value.as_str();
        let right = match word.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let target = root.pointer(wanted.as_str().unwrap().strip_prefix('#').unwrap());
                return objection(root, target.expect("a definition"), value);
            }
            "type" if wanted.is_array() => list().any(is_type),
            "type" => is_type(wanted),
            "const" => value == wanted,
            "enum" => list().any(|one| one == value),
            "anyOf" => list().any(|schema| fits(&schema)),
            "oneOf" => list().filter(fits).count() == 1,
            "allOf" => list().all(|schema| fits(&schema)),
            "required" => list().all(|key| value.get(key.as_str().unwrap()).is_some()),
            "minItems" => value
                .as_array()
                .is_none_or(|all| all.len() as u64 >= wanted.as_u64().unwrap()),
            "minLength" => text.is_none_or(|text| text.len() as u64 >= wanted.as_u64().unwrap()),
            "minimum" => value.as_i64().is_none_or(|n| n >= wanted.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|n| n <= wanted.as_i64().unwrap()),
            // Amounts, and names of variables: what they mean the compiler says.
            "pattern" | "propertyNames" => true,
            "items" => {
                let items = value.as_array().into_iter().flatten();
                return { items }.find_map(|item| objection(root, wanted, item));
            }
            "properties" => {
                let entries = value.as_object().into_iter().flatten();
                return { entries }
                    .find_map(|(key, value)| objection(root, wanted.get(key)?, value));
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                let entries = value.as_object().into_iter().flatten();
                let mut others =
                    entries.filter(|(key, _)| known.is_none_or(|all| all.get(key).is_none()));
                return others.find_map(|(_, value)| objection(root, wanted, value));
            }
            other => panic!("no word {other} in this validator"),
        };
        (!right).then(|| format!("{value}: {word} {wanted}"))
    })
}

#[test]
fn schema_takes_what_is_right_and_not_what_the_compiler_refuses() {
    let schema = stockade::policy::schema();
    let objection = |text: &str| {
        let value: Value =
            serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\nin\n{text}"));
        objection(&schema, &schema, &value)
    };
    let mut right: Vec<String> = documented_blocks()
        .into_iter()
        .filter(|(words, _)| words == "yaml")
        .map(|(_, text)| text)
        .collect();
    for entry in std::fs::read_dir(file("policies")).unwrap() {
        right.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    assert!(right.len() > 10);
    for text in &right {
        assert_eq!(objection(text), None, "{text}");
    }
    let rules = |section: &str, rule: &str| format!("version: 1\n{section}: [{rule}]\n");
    for wrong in [
        "version: 2\nfiles: [{ id: a, deny: all, paths: [/a] }]\n".to_owned(),
        "version: 1\n".to_owned(),
        "version: 1\nfiles: []\n".to_owned(),
        "version: 1\nfile: [{ id: a, deny: all, paths: [/a] }]\n".to_owned(),
        rules("files", "{ deny: all, paths: [/a] }"),
        rules("files", "{ id: a, deny: all }"),
        rules("files", "{ id: a, deny: all, allow: all, paths: [/a] }"),
        rules("files", "{ id: a, deny: [raed], paths: [/a] }"),
        rules("files", "{ id: a, deny: all, path: [/a] }"),
        rules("files", "{ id: a, deny: all, paths: /a }"),
        rules("files", "{ id: a, deny: all, paths: [/a], priority: 1001 }"),
        rules("files", "{ id: a, deny: all, paths: [/a], errno: EAGAIN }"),
        rules("exec", "{ id: a, deny: [] }"),
        rules("network", "{ id: a, deny: read, to: [any] }"),
        rules(
            "network",
            "{ id: a, deny: connect, to: [any], protocol: icmp }",
        ),
        rules("network", "{ id: a, deny: connect }"),
        rules("syscalls", "{ id: a, deny: [ptrace], paths: [/a] }"),
        rules("limits", "{ id: a, limit: files, per_second: 1 }"),
        rules("limits", "{ id: a, limit: forks }"),
        rules(
            "limits",
            "{ id: a, limit: forks, per_second: 1, per_hour: 2 }",
        ),
        rules("limits", "{ id: a, limit: forks, per_second: 0 }"),
    ] {
        assert!(objection(&wrong).is_some(), "{wrong}");
        assert!(parse(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn documented_examples_do_what_the_page_says() {
    let blocks = documented_blocks();
    let (mut good, mut broken) = (0, 0);
    for (index, (words, text)) in blocks.iter().enumerate() {
        match words.as_str() {
            "yaml" => {
                good += 1;
                parse(text).unwrap_or_else(|error| panic!("{error}\nin\n{text}"));
            }
            "yaml broken" => {
                broken += 1;
                let error = RuleSet::parse(text, "build.policy.yaml", &env()).unwrap_err();
                let (words, answer) = &blocks[index + 1];
                assert_eq!(words, "text");
                assert_eq!(&format!("{error}\n"), answer);
            }
            "yaml cases" => {
                let cases = Cases::parse(text, "build.cases.yaml", &env()).unwrap();
                let (_, policy) = &blocks[0];
                assert_eq!(cases.failures(&parse(policy).unwrap()), []);
            }
            "text" => {}
            other => panic!("no test for a block of kind {other:?}"),
        }
    }
    assert!(
        good >= 1 && broken >= 1,
        "{good} examples, {broken} broken ones"
    );
}

#[test]
fn documented_access_kinds_are_those_of_the_code() {
    let page = std::fs::read_to_string(file("docs/POLICY.md")).unwrap();
    let section = page.split("## Access kinds").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let documented: Vec<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(documented, Access::ALL.names().collect::<Vec<_>>());
    let section = page.split("| kind | what is refused |").nth(1).unwrap();
    let documented: Vec<_> = section
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let all = Access::NETWORK;
    assert_eq!(documented, all.names().collect::<Vec<_>>());
}

#[test]
fn every_starter_policy_compiles_under_its_own_name() {
    let mut count = 0;
    let page = std::fs::read_to_string(file("docs/POLICY.md")).unwrap();
    for entry in std::fs::read_dir(file("policies")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let set = RuleSet::parse(&text, &path.display().to_string(), &env()).unwrap();
        assert_eq!(path.file_stem().unwrap().to_str(), Some(set.name.as_str()));
        let row = format!("\n| `{}.yaml` |", set.name);
        assert!(page.contains(&row), "{} is not in docs/POLICY.md", set.name);
        count += 1;
    }
    assert!(count >= 1);
}

#[test]
fn protect_secrets_denies_password_files_and_keys_in_every_way() {
    let text = std::fs::read_to_string(file("policies/protect-secrets.yaml")).unwrap();
    let set = RuleSet::parse(&text, "protect-secrets.yaml", &env()).unwrap();
    for path in [
        "/etc/shadow",
        "/etc/gshadow",
        "/home/kim/.ssh/id_ed25519",
        "/home/kim/.gnupg/private-keys-v1.d/x.key",
        "/home/kim/.netrc",
    ] {
        for kind in Access::ALL.names() {
            let access = Access::from_name(kind).unwrap();
            let decision = evaluate(&set, &Request::new(Path::new(path), access));
            assert_eq!(decision.verdict, Verdict::Deny, "{kind} {path}");
        }
    }
    let other = Request::new(Path::new("/etc/passwd"), Access::READ);
    assert_eq!(evaluate(&set, &other).verdict, Verdict::Allow);
}

#[test]
fn no_network_leaves_this_machine_alone() {
    let text = std::fs::read_to_string(file("policies/no-network.yaml")).unwrap();
    let set = RuleSet::parse(&text, "no-network.yaml", &env()).unwrap();
    for (address, verdict) in [
        ("127.0.0.1:80", Verdict::Allow),
        ("[::1]:53", Verdict::Allow),
        ("0.0.0.0:80", Verdict::Allow),
        ("192.0.2.1:443", Verdict::Deny),
        ("[::ffff:192.0.2.1]:443", Verdict::Deny),
        ("[2001:db8::1]:443", Verdict::Deny),
    ] {
        for access in Access::OUTWARDS.kinds() {
            let contact = Contact::new(address.parse().unwrap(), None, access);
            let decision = evaluate_contact(&set, &contact);
            assert_eq!(decision.verdict, verdict, "{access} {address}");
        }
    }
    let own = Contact::new("0.0.0.0:80".parse().unwrap(), None, Access::OWN);
    assert_eq!(evaluate_contact(&set, &own).verdict, Verdict::Allow);
}

/// Pieces of which documents are made, right and wrong ones, so that random text gets past the parser.
const KINDS: [&str; 4] = ["read", "write", "exec", "delete"];
const PATHS: [&str; 5] = ["/a", "/a/b", "/a/b/c", "/a/**", "/a/b/**"];

fn some_of(all: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(all, 1..=all.len())
}

fn document_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "version: 1\n",
        "version: ",
        "files:\n",
        "network:\n",
        "to: [any]\n",
        "to: ['10.0.0.0/8:','::']\n",
        "deny: connect\n",
        "files: ",
        "  - ",
        "    ",
        "id: a\n",
        "id: b\n",
        "deny: all\n",
        "deny: [read, write]\n",
        "deny: ",
        "paths: [/a]\n",
        "paths: ",
        "mode: audit\n",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ": ",
        "\n",
        "\r\n",
        "\r",
        "\t",
        "~",
        "\"",
        "'",
        "&x ",
        "*x ",
        "<<: ",
        "!t ",
        "!!binary ",
        "\\0",
        "/",
        "..",
        "ä",
        "\0",
        "\u{feff}",
        "---\n",
        "...\n",
        "|\n",
        ">\n",
        "# c\n",
        "? ",
        "- ",
        "1",
        "null",
        "%YAML 1.2\n",
        "\u{202e}",
        "$x",
        "\u{2028}",
        "\u{85}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Whatever the text is: no panic, and an error is one of ours in printable characters.
fn check_any_text(text: &str) {
    match parse(text) {
        Ok(set) => {
            assert!(!set.rules.is_empty());
            for rule in &set.rules {
                assert!(!rule.access.is_empty() && !rule.paths.is_empty() && rule.line > 0);
                assert!(rule.paths.iter().all(|path| path.path().has_root()));
            }
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Policy);
            let error = error.to_string();
            assert!(error.starts_with("p.yaml:"), "{error:?}");
            assert!(
                error
                    .chars()
                    .all(|c| matches!(c, '\n' | '\t') || !c.is_control()),
                "{error:?}"
            );
            assert!(matches!(error.lines().count(), 1 | 3), "{error:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        check_any_text(&text);
    }

    #[test]
    fn text_that_resembles_a_policy_never_panics(text in document_like()) {
        check_any_text(&text);
        check_any_text(&format!("version: 1\nfiles:\n  - id: x\n    deny: all\n    paths:\n{text}"));
    }

    /// Whatever the policy: with the edit the access goes through, and nothing is denied that was not.
    #[test]
    fn an_edit_allows_what_was_denied_and_closes_nothing(
        rules in prop::collection::vec(
            (any::<bool>(), some_of(&KINDS), some_of(&PATHS), -1..2i32, any::<bool>()), 1..6,
        ),
        path in prop::sample::select(PATHS.to_vec()),
        kinds in some_of(&KINDS),
    ) {
        let mut text = "version: 1\nfiles:\n".to_owned();
        for (n, (deny, kinds, paths, priority, audit)) in rules.iter().enumerate() {
            let effect = if *deny { "deny" } else { "allow" };
            let mode = if *audit { "audit" } else { "enforce" };
            let (kinds, paths) = (kinds.join(", "), paths.join(", "));
            text += &format!(
                "  - {{ id: r{n}, {effect}: [{kinds}], paths: [{paths}], priority: {priority}, mode: {mode} }}\n"
            );
        }
        let set = RuleSet::parse(&text, "p", &env()).unwrap();
        let path = path.replace("**", "x");
        let names = kinds.iter().filter_map(|name| Access::from_name(name));
        let access = names.reduce(|a, b| a | b).unwrap();
        let request = Request::new(Path::new(&path), access);
        let before = evaluate(&set, &request).verdict;
        match edit(&set, &request) {
            None => prop_assert_eq!(before, Verdict::Allow, "{}", text),
            Some(edit) => {
                prop_assert!(before != Verdict::Allow && !edit.steps.is_empty(), "{}", text);
                let after = evaluate(&edit.after, &request).verdict;
                prop_assert_eq!(after, Verdict::Allow, "{}{:?}", text, edit.steps);
                for change in diff(&set, &edit.after) {
                    let closer = change.after.verdict > change.before.verdict;
                    prop_assert!(!closer, "{}{:?}: {:?}", text, edit.steps, change);
                }
            }
        }
    }

    #[test]
    fn arbitrary_paths_are_refused_or_made_absolute(path in any::<String>()) {
        if let Ok(set) = RuleSet::deny_files([PathBuf::from(&path)], &env()) {
            let absolute = &set.rules[0].paths[0];
            assert!(absolute.path().has_root());
            assert!(!absolute.path().components().any(|c| c.as_os_str() == ".."));
            assert_eq!(set.rules[0].id, format!("deny-file:{path}"));
        }
    }
}

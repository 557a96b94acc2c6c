//! Only what somebody asked for: paths, addresses and ports.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::Value;

use crate::fence::text;
use crate::harness::{Ctx, Ended, Needs, Outcome, Test, number, stockade, word};

pub(crate) const TESTS: &[Test] = &[
    Test::new("paths_are_chosen_in_the_kernel", Needs::Watch, paths),
    Test::new(
        "paths_are_chosen_in_the_summary",
        Needs::Watch,
        counted_paths,
    ),
    Test::new(
        "addresses_and_ports_are_chosen_in_the_kernel",
        Needs::Watch,
        addresses,
    ),
];

/// Two directories of which one's name is the start of the other's, a third one, and a link to the first.
fn tree(ctx: &Ctx) -> (PathBuf, PathBuf) {
    let dir = ctx.path("tree");
    for name in ["want", "wanted", "other"] {
        fs::create_dir_all(dir.join(name)).expect("a directory");
        fs::write(dir.join(name).join("file"), name).expect("a file");
    }
    let link = ctx.path("link");
    symlink(dir.join("want"), &link).expect("a link");
    (dir, link)
}

fn run(ctx: &Ctx, options: &[&str], shell: &str) -> Ended {
    let args = ["run", "--format", "json"].iter().chain(options);
    let ended = stockade(ctx, args.chain(&["--", "bash", "-c", shell]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let end = ended.of("end").next().expect("an end record");
    assert_eq!(end["stockade.losses"], serde_json::json!([]), "{end}");
    ended
}

/// What was seen: not the end record, and not what the kernel kept from a program (docs/KERNELS.md, "Skipped programs").
fn told(ended: &Ended) -> impl Iterator<Item = &Value> {
    let seen = |e: &&Value| e["event.action"] != "end" && e["event.action"] != "loss";
    ended.events.iter().filter(seen)
}

fn paths(ctx: &Ctx) -> Outcome {
    let (dir, link) = tree(ctx);
    let file = ctx.path("paths.stk");
    let work = format!(
        "cd {}; i=0; while [ $i -lt 300 ]; do : <other/file; : <wanted/file; i=$((i+1)); done
         : >want/a; : >wanted/b; rm wanted/b; : >other/c; mv $PWD/other/c $PWD/want/c; ln $PWD/want/c other/l
         rm other/l; mkdir other/m want/m; cat want/none wanted/none 2>/dev/null; : <want/file",
        text(&dir)
    );
    let options = ["--file", "--path", text(&link), "--record", text(&file)];
    let ended = run(ctx, &options, &work);
    let want = dir.join("want");
    let is_below = |path: &Value| {
        path.as_str()
            .is_some_and(|path| path.starts_with(text(&want)) && !path.contains("wanted"))
    };
    for event in told(&ended) {
        assert!(
            is_below(&event["file.path"]) || is_below(&event["stockade.old_path"]),
            "{event}"
        );
    }
    for (action, key, name) in [
        ("create", "file.path", "a"),
        ("link", "stockade.old_path", "c"),
        ("mkdir", "file.path", "m"),
        ("open", "file.path", "none"),
        ("open", "file.path", "file"),
    ] {
        let path = want.join(name);
        let found = ended.of(action).any(|e| e[key] == text(&path));
        assert!(found, "no {action} of {name}: {:#?}", ended.events);
    }
    assert_eq!(ended.of("rename").count(), 1, "{:#?}", ended.events);
    // A recording holds what the ring delivered.
    let len = fs::metadata(&file).expect("the recording").len();
    assert!(len < 30_000, "{len} bytes: 600 opens are in it");
    let after = stockade(ctx, ["replay", text(&file), "--format", "json"]);
    assert_eq!(after.events, ended.events);
    let refused = stockade(ctx, ["run", "--file", "--path", "etc", "--", "true"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("not absolute"),
        "{}",
        refused.stderr
    );
    Outcome::Passed
}

fn counted_paths(ctx: &Ctx) -> Outcome {
    let (dir, link) = tree(ctx);
    let work = format!(
        "cd {}; for name in want wanted other; do cat $name/file $name/file $name/none; done >/dev/null 2>&1; :",
        text(&dir)
    );
    let ended = run(ctx, &["--file=summary", "--path", text(&link)], &work);
    let all: Vec<&Value> = told(&ended).collect();
    let file = dir.join("want/file");
    let [summary] = all[..] else {
        panic!("{all:#?}");
    };
    assert_eq!(word(summary, "file.path"), text(&file));
    assert_eq!(number(summary, "stockade.file.opens"), 2);
    assert_eq!(number(summary, "stockade.file.read_bytes"), 8);
    Outcome::Passed
}

fn addresses(ctx: &Ctx) -> Outcome {
    let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = first.local_addr().expect("its address").port();
    let second = TcpListener::bind(("127.0.0.2", port)).expect("the same port of another address");
    let third = TcpListener::bind("[::1]:0").expect("a free port");
    let other = third.local_addr().expect("its address").port();
    let work = format!(
        "for to in 127.0.0.1/{port} 127.0.0.2/{port} ::1/{other}; do exec 3<>/dev/tcp/$to; exec 3>&-; done"
    );
    let port = port.to_string();
    let other = other.to_string();
    // A close may come too late: the peer's end of it is nobody's.
    let seen = |options: &[&str]| {
        let ended = run(ctx, options, &work);
        let of = |e: &Value| {
            let ip = word(e, "destination.ip").to_owned();
            (ip, number(e, "destination.port").to_string())
        };
        let mut seen: Vec<_> = told(&ended).map(of).collect();
        seen.dedup();
        seen
    };
    let of = |ip: &str, port: &str| (ip.to_owned(), port.to_owned());
    assert_eq!(
        seen(&["--network", "--address", "127.0.0.2/31"]),
        [of("127.0.0.2", &port)]
    );
    assert_eq!(seen(&["--network", "--port", &other]), [of("::1", &other)]);
    let options = ["--network=summary", "--address", "::1", "--address"];
    let options = [&options[..], &["127.0.0.2", "--port", &port]].concat();
    assert_eq!(seen(&options), [of("127.0.0.2", &port)]);
    for (option, value, why) in [
        ("--address", "10.1.0.0/8", "the range is 10.0.0.0/8"),
        ("--port", "http", "a port or a range"),
    ] {
        let refused = stockade(ctx, ["run", "--network", option, value, "--", "true"]);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    drop((first, second, third));
    Outcome::Passed
}

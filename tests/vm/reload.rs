//! Another policy in the place of the one that is in force.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;
use stockade::policy::{Environment, RuleSet};
use stockade::{Event, Scope, Session};

use crate::fence::{EPERM, text};
use crate::harness::{Ctx, Needs, Outcome, Stockade, Test, number, poll, stockade};
use crate::helper::{arguments, outside, results, step};
use crate::places::policy_named;
use crate::scope::start_helper;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "policy_takes_the_place_of_another_without_a_gap",
        Needs::Fence,
        without_gap,
    ),
    Test::new(
        "enforce_reads_its_policy_again_and_keeps_it_where_the_new_one_is_wrong",
        Needs::Fence,
        reread,
    ),
    Test::new(
        "policy_that_nobody_confirms_is_taken_back",
        Needs::Fence,
        reverted,
    ),
];

/// What two policies refuse, each in another way.
const PORT: u16 = 4711;

fn reverted(ctx: &Ctx) -> Outcome {
    let (one, other) = (ctx.path("one"), ctx.path("other"));
    for file in [&one, &other] {
        fs::write(file, "text").unwrap();
    }
    let policy = ctx.path("policy.yaml");
    let write = |path: &Path| {
        let rule = format!("{{ id: x, deny: all, paths: ['{}'] }}", text(path));
        fs::write(&policy, format!("version: 1\nfiles:\n  - {rule}\n")).unwrap();
    };
    let out = ctx.path("results");
    let go = [0, 1].map(|n| ctx.path(&format!("go-{n}")));
    let steps: Vec<_> = go
        .iter()
        .flat_map(|go| {
            [
                step("go", &[&"wait", go]),
                step("one", &[&"open", &one]),
                step("other", &[&"open", &other]),
            ]
        })
        .collect();
    let mut helper = start_helper(ctx, arguments(&out, &steps));
    let pid = helper.pid().to_string();
    let start = |after: &str| {
        let words = ["enforce", "--format", "json", "--policy", text(&policy)];
        let more = ["--tree", &pid, "--revert-after", after];
        let mut enforce = Stockade::start(ctx, words.into_iter().chain(more));
        enforce.until_stderr("unless it is confirmed: kill -USR1 ");
        enforce
    };

    // Nobody confirms it: there is no fence, and who asked for one is told so.
    write(&one);
    let ended = start("1s").wait();
    assert_eq!(ended.code, 40, "{}", ended.stderr);
    let sentence = "nobody has confirmed the policy\nstockade: the fence is taken down";
    assert!(ended.stderr.contains(sentence), "{}", ended.stderr);
    ended.complete();

    // The first one is confirmed, the second one not.
    let mut enforce = start("5s");
    enforce.process.signal(Signal::USR1);
    enforce.until_stderr("stockade: confirmed");
    write(&other);
    enforce.until_stderr("policy read again");
    fs::write(&go[0], "").unwrap();
    enforce.until_stderr("nobody has confirmed the policy, and the one before is back");
    fs::write(&go[1], "").unwrap();
    assert_eq!(helper.wait(), 0);
    enforce.process.signal(Signal::TERM);
    let ended = enforce.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let errnos: Vec<i32> = done.iter().map(|done| done.errno).collect();
    assert_eq!(errnos, [0, 0, EPERM, 0, EPERM, 0], "{}", ended.stderr);
    let end = ended.complete();
    assert_eq!(number(&end["stockade.fence"], "reloads"), 2, "{end}");
    Outcome::Passed
}

fn first(dir: &str) -> String {
    format!(
        "\
files:
  - {{ id: both, deny: all, paths: ['{dir}/closed/both'] }}
  - {{ id: away, deny: [delete], paths: ['{dir}/from'] }}
  - {{ id: first, deny: [read], paths: ['{dir}/first'] }}
network:
  - {{ id: net, deny: connect, to: ['127.0.0.0/8:{PORT}', '10.0.0.0/8'] }}
"
    )
}

fn second(dir: &str) -> String {
    format!(
        "\
files:
  - {{ id: many, deny: [read], paths: ['{dir}/second', '{dir}/another', '{dir}/first/../to'] }}
  - {{ id: both, deny: [read, write], paths: ['{dir}/closed/**'] }}
  - {{ id: over, deny: [replace], paths: ['{dir}/to'] }}
network:
  - {{ id: net, deny: connect, to: ['127.0.0.1'] }}
  - {{ id: more, deny: connect, to: ['::1', '10.1.0.0/16'] }}
"
    )
}

/// How often something was done, and came out otherwise than it must.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    /// What both policies refuse and was not refused; what neither refuses and was.
    wrong: u64,
    /// What the one or the other refuses: times that it was refused, and that it was not.
    of_one: [u64; 2],
}

/// Does what is refused, and what is not, again and again until it is told to end.
pub(crate) fn hammer(dir: &str, out: &str) -> rustix::io::Result<()> {
    let path = |name: &str| format!("{dir}/{name}");
    let open = |name: &str| {
        rustix::fs::open(path(name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(drop)
    };
    let to: SocketAddr = ([127, 0, 0, 1], PORT).into();
    let connect = || {
        use rustix::net::{AddressFamily, SocketType, connect, socket};
        connect(&socket(AddressFamily::INET, SocketType::DGRAM, None)?, &to)
    };
    let refused = |result: rustix::io::Result<()>| result == Err(Errno::PERM);
    let mut tally = Tally::default();
    while !Path::new(&path("stop")).exists() {
        tally.rounds += 1;
        let renamed = rustix::fs::rename(path("from"), path("to"));
        for held in [
            refused(open("closed/both")),
            refused(renamed),
            refused(connect()),
            open("free").is_ok(),
        ] {
            tally.wrong += u64::from(!held);
        }
        tally.of_one[usize::from(refused(open("first")))] += 1;
        // Each denial is a record of 4.5 KiB: else most of the time is for reading them.
        if tally.rounds % 20 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if tally.rounds == 1 {
            fs::write(format!("{out}.begun"), "").expect("the test's own directory");
        }
    }
    let Tally {
        rounds,
        wrong,
        of_one: [not, was],
    } = tally;
    fs::write(out, format!("{rounds} {wrong} {not} {was}")).expect("the test's own directory");
    Ok(())
}

fn tallied(out: &Path) -> Tally {
    let text = fs::read_to_string(out).unwrap();
    let numbers: Vec<u64> = text.split(' ').map(|n| n.parse().unwrap()).collect();
    Tally {
        rounds: numbers[0],
        wrong: numbers[1],
        of_one: [numbers[2], numbers[3]],
    }
}

/// Bytes that the kernel has for the maps of this process.
fn bytes_of_maps() -> u64 {
    let entries = fs::read_dir("/proc/self/fdinfo").unwrap();
    let infos = entries.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
    let maps = infos.filter(|info| info.contains("map_type:"));
    let sizes = maps.filter_map(|info| {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("memlock:"))?;
        line.trim().parse::<u64>().ok()
    });
    sizes.sum()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// Reloads in a run of the tests; `STOCKADE_RELOADS` asks for more.
const RELOADS: u32 = 30;

fn without_gap(ctx: &Ctx) -> Outcome {
    let dir = text(&ctx.dir).to_owned();
    fs::create_dir(ctx.path("closed")).unwrap();
    for name in [
        "closed/both",
        "from",
        "to",
        "first",
        "second",
        "another",
        "free",
    ] {
        fs::write(ctx.path(name), name).unwrap();
    }
    let env = Environment::new(None, "/".into());
    let rules = |sections: String| {
        RuleSet::parse(&format!("version: 1\nname: p\n{sections}"), "p", &env).unwrap()
    };
    // `..` is resolved by the kernel and not in a rule, so the file stands for itself.
    let policies = [
        rules(first(&dir)),
        rules(second(&dir).replace("/first/..", "")),
    ];
    let go = ctx.path("go");
    let mut helpers = Vec::new();
    for n in 0..2 {
        let out = ctx.path(&format!("tally-{n}"));
        let steps = [
            step("go", &[&"wait", &go]),
            step("hammer", &[&"hammer", &dir, &out]),
        ];
        let noted = ctx.path(&format!("results-{n}"));
        helpers.push((start_helper(ctx, arguments(&noted, &steps)), out));
    }
    let scope = helpers
        .iter()
        .fold(Scope::new(), |scope, (helper, _)| scope.tree(helper.pid()));
    let mut session = Session::builder()
        .scope(scope)
        .policy(policies[0].clone())
        .start()
        .unwrap();
    fs::write(&go, "").unwrap();
    for (_, out) in &helpers {
        let begun = PathBuf::from(format!("{}.begun", text(out)));
        poll("the first round", || begun.exists().then_some(()));
    }

    let mut rules_told = [0u64; 2];
    let mut unknown = Vec::new();
    let reloads = std::env::var("STOCKADE_RELOADS").ok();
    let reloads: u32 = reloads.map_or(RELOADS, |n| n.parse().expect("a number of reloads"));
    let mut before = None;
    let mut spent = std::time::Duration::ZERO;
    for n in 1..=reloads {
        let policy = &policies[n as usize % 2];
        let begin = std::time::Instant::now();
        let mut told = 0;
        let mut on = |event: &Event| {
            use stockade::event::Kind;
            match &event.kind {
                Kind::Reload(state) => told = state.reloads,
                Kind::Denial(denial) => {
                    // By the name of a rule of another policy the object would be another one.
                    let object = denial.object.to_string();
                    match denial.rule_id.as_str() {
                        "first" if object.ends_with("/first") => rules_told[0] += 1,
                        "away" if object.ends_with("/from") => rules_told[0] += 1,
                        "over" if object.ends_with("/to") => rules_told[1] += 1,
                        "both" if object.ends_with("/both") => {}
                        "net" if object.starts_with("to=udp:") => {}
                        // A path that another program came in between of is cut, and says so.
                        "first" | "away" | "over" | "both" if object.starts_with("path=...") => {}
                        _ => unknown.push(format!("{n}: {}", event.kind)),
                    }
                }
                _ => {}
            }
        };
        session.reload(policy, &mut on).unwrap();
        spent += begin.elapsed();
        assert_eq!(told, n);
        // Once all there is has been there.
        if n == 20 || n % 1000 == 0 {
            let now = (descriptors(), bytes_of_maps(), resident_kib());
            println!("after {n} reloads: {now:?}");
            before.get_or_insert(now);
        }
    }
    let after = (descriptors(), bytes_of_maps(), resident_kib());
    let before = before.expect("more than 20 reloads");
    fs::write(ctx.path("stop"), "").unwrap();
    let mut rounds = 0;
    for (helper, out) in &mut helpers {
        assert_eq!(helper.wait(), 0);
        let tally = tallied(out);
        assert_eq!(tally.wrong, 0, "{tally:?}");
        assert!(tally.of_one.iter().all(|n| *n > 0), "{tally:?}");
        rounds += tally.rounds;
    }
    let certificate = session.end(&mut |_| {}).unwrap();
    let state = certificate.fence.as_ref().unwrap();
    assert_eq!((state.reloads, state.canary_proofs > 1), (reloads, true));
    assert!(rules_told.iter().all(|n| *n > 0), "{rules_told:?}");
    assert!(unknown.is_empty(), "{unknown:?}");
    println!(
        "{reloads} reloads of {:?} each; meanwhile {rounds} rounds; descriptors, bytes of maps, KiB: {before:?} then {after:?}",
        spent / reloads
    );
    assert_eq!(after.0, before.0, "descriptors");
    assert!(after.1 <= before.1, "maps: {before:?} then {after:?}");
    // So many records as came at once, which is a ring full at most, in buffers that are kept.
    assert!(
        after.2 <= before.2 + 8 * 1024,
        "memory: {before:?} then {after:?}"
    );
    Outcome::Passed
}

fn reread(ctx: &Ctx) -> Outcome {
    let (one, other) = (ctx.path("one"), ctx.path("other"));
    for file in [&one, &other] {
        fs::write(file, "text").unwrap();
    }
    let policy = ctx.path("policy.yaml");
    let deny = |path: &Path, more: &str| {
        format!(
            "files:\n  - {{ id: x, deny: all, paths: ['{}']{more} }}",
            text(path)
        )
    };
    // One step for each policy: what is refused then.
    let out = ctx.path("results");
    let go = |n: usize| ctx.path(&format!("go-{n}"));
    let ready = |n: usize| ctx.path(&format!("ready-{n}"));
    let udp = format!("127.0.0.1:{PORT}");
    let mut steps = Vec::new();
    for n in 0..6 {
        let [go, ready] = [go(n), ready(n)];
        steps.push(step("go", &[&"wait", &go]));
        steps.push(step(&format!("{n} one"), &[&"open", &one]));
        steps.push(step(&format!("{n} other"), &[&"open", &other]));
        steps.push(step(&format!("{n} udp"), &[&"net", &"udp", &udp]));
        steps.push(step("ready", &[&"touch", &ready]));
    }
    let mut helper = start_helper(ctx, arguments(&out, &steps));
    let pid = helper.pid().to_string();
    let helper_program = fs::canonicalize(&ctx.helper).unwrap();
    let recording = ctx.path("recording");

    policy_named(ctx, "test", &deny(&one, ""));
    let mut enforce = Stockade::start(
        ctx,
        [
            "enforce",
            "--format",
            "json",
            "--room",
            "100",
            "--policy",
            text(&policy),
            "--tree",
            &pid,
            "--record",
            text(&recording),
        ],
    );
    enforce.until_stderr("fence armed");
    let mut tried = 0;
    let mut attempt = || {
        fs::write(go(tried), "").unwrap();
        poll("the helper", || ready(tried).exists().then_some(()));
        tried += 1;
    };
    attempt();
    // Each line that stderr gets counts, or an old one would do for a new one.
    let mut lines = 1;
    let mut until = |enforce: &Stockade, what: &str| {
        let mut told = String::new();
        poll(what, || {
            let all = enforce.stderr();
            told = all.lines().skip(lines).collect::<Vec<_>>().join("\n");
            (told.contains("still is\n")
                || told.ends_with("still is")
                || told.contains("canary refused"))
            .then_some(())
        });
        lines = enforce.stderr().lines().count();
        assert!(told.contains(what), "{what}: {told}");
        told
    };
    let again = "policy read again: 1 rule on 1 path";

    // Another file, and then the network, for which hooks are attached only now.
    policy_named(ctx, "test", &deny(&other, ""));
    until(&enforce, again);
    attempt();
    let network = format!("network:\n  - {{ id: n, deny: connect, to: ['127.0.0.1:{PORT}'] }}");
    policy_named(ctx, "test", &network);
    until(&enforce, "policy read again: 1 rule on 1 address");
    attempt();

    // What is wrong changes nothing, whatever is wrong about it.
    let many: Vec<String> = (0..101).map(|n| format!("'{}-{n}'", text(&one))).collect();
    for (sections, what) in [
        (
            "files:\n  - { id: x, deny: all, pats: ['/'] }".to_owned(),
            "pats",
        ),
        (
            deny(&ctx.path("none/at/all"), ""),
            "its directory must exist",
        ),
        (
            format!(
                "files:\n  - {{ id: x, deny: all, paths: [{}] }}",
                many.join(", ")
            ),
            "room for 101 names, and this fence was armed with room for 100",
        ),
        (
            "syscalls:\n  - { id: s, deny: [ptrace] }".to_owned(),
            "is about system calls",
        ),
    ] {
        policy_named(ctx, "test", &sections);
        until(&enforce, what);
    }
    attempt();

    // By a signal, when nothing has changed but what the names stand for; written in place and not replaced.
    let by = |mode: &str| format!("version: 1\nname: last\n{}\n", deny(&one, mode));
    fs::write(&policy, by(", mode: audit")).unwrap();
    until(&enforce, again);
    attempt();
    fs::write(&policy, by("")).unwrap();
    until(&enforce, again);
    enforce.process.signal(Signal::HUP);
    until(&enforce, again);
    attempt();
    assert_eq!(helper.wait(), 0);
    enforce.process.signal(Signal::TERM);
    let ended = enforce.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let errnos = |n: usize| -> Vec<i32> {
        let of = done
            .iter()
            .filter(|d| d.label.starts_with(&format!("{n} ")));
        of.map(|d| d.errno).collect()
    };
    let (denied_one, denied_other, denied_udp) = ([EPERM, 0, 0], [0, EPERM, 0], [0, 0, EPERM]);
    let expected = [
        denied_one,
        denied_other,
        denied_udp,
        denied_udp,
        [0, 0, 0],
        denied_one,
    ];
    for (n, expected) in expected.iter().enumerate() {
        assert_eq!(errnos(n), expected, "{n}: {}", ended.stderr);
    }

    // The stream says from where on which policy holds, and each denial names its rule.
    let told: Vec<(&str, Value)> = ended
        .events
        .iter()
        .filter_map(|event| match event["event.action"].as_str()? {
            "reload" => Some(("reload", event["stockade.fence"]["policy"].clone())),
            "denial" => Some(("denial", event["rule.id"].clone())),
            _ => None,
        })
        .collect();
    let told: Vec<(&str, &str)> = told
        .iter()
        .map(|(a, b)| (*a, b.as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("denial", "x"),
            ("reload", "test"),
            ("denial", "x"),
            ("reload", "test"),
            ("denial", "n"),
            ("denial", "n"),
            ("reload", "last"),
            ("denial", "x"),
            ("reload", "last"),
            ("reload", "last"),
            ("denial", "x"),
        ]
    );
    // By what, by which line, and by whose descendant: the step's process is one of the helper's, which is ours.
    for (denial, line) in ended.of("denial").zip([4; 6]) {
        assert_eq!(number(denial, "stockade.rule.line"), line, "{denial}");
        assert_eq!(denial["stockade.mechanism"], ctx.mechanism.as_str());
        let ancestors = denial["stockade.ancestors"].as_array().unwrap();
        let pids: Vec<u64> = ancestors.iter().map(|a| number(a, "pid")).collect();
        let own = u64::from(std::process::id());
        assert_eq!(pids[..2], [pid.parse::<u64>().unwrap(), own], "{denial}");
        assert_eq!(pids.last(), Some(&1), "{denial}");
        assert_eq!(
            ancestors[0]["executable"],
            text(&helper_program),
            "{denial}"
        );
    }
    let end = ended.complete();
    assert_eq!(number(&end["stockade.fence"], "reloads"), 5, "{end}");
    assert_eq!(end["stockade.fence"]["policy"], "last");
    // Outside of the fence all the time.
    assert_eq!(outside(&[step("open", &[&"open", &one])])[0].errno, 0);
    let after = stockade(ctx, ["replay", text(&recording), "--format", "json"]);
    assert_eq!((after.code, &after.events), (0, &ended.events));
    Outcome::Passed
}

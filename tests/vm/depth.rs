//! Files deep in directories and in mounts, and long names: where the kernel half takes more than one stretch.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::bypass;
use crate::fence::{EPERM, text, until_ready};
use crate::harness::{Ctx, Needs, Outcome, Stockade, Test, poll, stockade};
use crate::helper::{results, step};
use crate::mounts::bind;
use crate::places::{Case, case, faults, policy, rule, staged, under};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "rules_are_found_from_any_depth_and_for_names_of_any_length",
        Needs::Fence,
        depths,
    ),
    Test::new(
        "file_deep_in_a_directory_stays_denied_while_others_are_moved",
        Needs::Fence,
        moved,
    ),
];

/// A file with so many directories below this one on its way.
fn below(dir: &Path, levels: usize) -> PathBuf {
    let mut at = dir.to_owned();
    at.extend(std::iter::repeat_n("d", levels));
    fs::create_dir_all(&at).unwrap();
    let file = at.join("file");
    fs::write(&file, "text").unwrap();
    file
}

fn depths(ctx: &Ctx) -> Outcome {
    let (closed, open, names) = (ctx.path("closed"), ctx.path("open"), ctx.path("names"));
    fs::create_dir(&names).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    // On both sides of where a stretch ends, wherever the test's own directory lies.
    for levels in (8..=18).chain([31, 32, 33, 120, 200]) {
        let (inside, outside) = (below(&closed, levels), below(&open, levels));
        let label = format!("{levels} levels");
        cases.push(case(
            &format!("dir/any-depth: {label}"),
            Some("read"),
            &[&"open", &inside],
        ));
        cases.push(case(
            &format!("elsewhere: {label}"),
            None,
            &[&"open", &outside],
        ));
    }
    // The limit: what lies deeper counts as being in every directory that has rules.
    cases.push(case(
        "dir/too-deep",
        Some("read"),
        &[&"open", &below(&open, 260)],
    ));

    // Mounts in a mount, each a way out into the next.
    let (mounts, beyond) = (closed.join("mounts"), open.join("mounts"));
    let mut mounted = Vec::new();
    for (dir, times) in [(&mounts, 20), (&beyond, 34)] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "text").unwrap();
        mounted.extend((0..times).map(|_| bind(dir, dir)));
    }
    cases.push(case(
        "dir/mounts-in-mounts",
        Some("read"),
        &[&"open", &mounts.join("file")],
    ));
    cases.push(case(
        "dir/too-many-mounts",
        Some("read"),
        &[&"open", &beyond.join("file")],
    ));

    let mut rules = vec![rule("closed", "all", &[format!("{}/**", text(&closed))])];
    let mut named = Vec::new();
    for length in [1, 7, 8, 31, 32, 33, 63, 64, 65, 128, 254, 255] {
        // The same but for the last letter: no piece of a name may be left out.
        let [denied, left] = ["x", "y"].map(|end| names.join("n".repeat(length - 1) + end));
        fs::write(&denied, "text").unwrap();
        fs::write(&left, "text").unwrap();
        named.push(text(&denied).to_owned());
        cases.push(case(
            &format!("name/any-length: {length}"),
            Some("read"),
            &[&"open", &denied],
        ));
        cases.push(case(
            &format!("another of {length}"),
            None,
            &[&"open", &left],
        ));
    }
    rules.push(rule("closed-names", "all", &named));
    let policy = policy(ctx, &rules);

    let out = ctx.path("results");
    // Under other inodes than the ones that were there when the policy was armed, so that names alone hold.
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));
    let steps = staged([], (&ready, &go), &cases);
    let mut run = Stockade::start(ctx, under(&policy, &[], &out, &steps, ctx));
    until_ready(&mut run, &ready);
    for name in &named {
        fs::remove_file(name).unwrap();
        fs::write(name, "anew").unwrap();
    }
    fs::write(&go, "").unwrap();
    let ended = run.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let of = |case: &Case| {
        if case.0.label.starts_with("name/") {
            "closed-names"
        } else {
            "closed"
        }
    };
    let mut wrong = Vec::new();
    for (case, done) in cases.iter().zip(&done[2..]) {
        let rule = of(case);
        wrong.extend(faults(
            &ended,
            std::slice::from_ref(case),
            std::slice::from_ref(done),
            rule,
        ));
    }
    assert_eq!(done.len(), cases.len() + 2);
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all("tmpfs", &ended, &done);
    Outcome::Passed
}

const ATTEMPTS: u32 = 400;

/// Opens a file again and again by its directory, which stays the same wherever it is moved.
pub(crate) fn open_while_moved(directory: &str) -> Result<()> {
    // It is not at its name all the time.
    let directory = poll("the directory", || {
        rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
    });
    for _ in 0..ATTEMPTS {
        match rustix::fs::openat(&directory, "file", OFlags::RDONLY, Mode::empty()) {
            Err(Errno::PERM) => {}
            other => return other.map(drop),
        }
    }
    Err(Errno::PERM)
}

fn moved(ctx: &Ctx) -> Outcome {
    let closed = ctx.path("closed");
    let file = below(&closed, 45);
    let directory = file.parent().unwrap();
    // Everything from the 20th on goes one level up and down again: it is in the directory all the time.
    let there = closed.join("d/".repeat(20));
    let aside = closed.join("d/".repeat(18)).join("e");
    let policy = policy(
        ctx,
        &[rule("closed", "[read]", &[format!("{}/**", text(&closed))])],
    );
    let out = ctx.path("results");
    let steps = [step(
        "dir/moved-meanwhile",
        &[&"open-while-moved", &directory],
    )];
    let stop = AtomicBool::new(false);
    let (ended, moves) = std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            let mut moves = 0u32;
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&there, &aside).unwrap();
                fs::rename(&aside, &there).unwrap();
                moves += 2;
            }
            moves
        });
        let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
        stop.store(true, Ordering::Relaxed);
        (ended, mover.join().unwrap())
    });
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    assert_eq!(done[0].errno, EPERM, "{moves} moves");
    let told = ended
        .of("denial")
        .filter(|e| e["rule.id"] == "closed")
        .count();
    assert_eq!(told, ATTEMPTS as usize, "{moves} moves");
    assert!(moves > ATTEMPTS, "{moves} moves");
    ended.complete();
    bypass::all("tmpfs", &ended, &done);
    Outcome::Passed
}

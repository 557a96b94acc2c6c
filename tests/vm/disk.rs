//! Requests to block devices, held against what dd asked for and what the kernel itself counts in /proc/diskstats.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fence::text;
use crate::harness::{Ctx, Ended, Needs, Outcome, Test, number, stockade, word};
use crate::mounts::{Mount, mount, must};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "disk_summary_of_a_loop_device_is_exact",
        Needs::Disk,
        loop_summary,
    ),
    Test::new(
        "disk_summary_of_a_null_block_device_is_exact",
        Needs::Modules,
        null_summary,
    ),
    Test::new(
        "disk_requests_come_with_sector_size_and_error",
        Needs::Disk,
        requests,
    ),
    Test::new(
        "disk_filters_choose_requests_in_the_kernel",
        Needs::Disk,
        filters,
    ),
];

/// A block device for as long as it lives.
struct Device {
    path: String,
    /// How to get rid of it.
    remove: Vec<String>,
    /// What a loop device stands on.
    _mount: Option<Mount>,
}

impl Drop for Device {
    fn drop(&mut self) {
        // A test that failed may have left it busy.
        let _ = Command::new(&self.remove[0])
            .args(&self.remove[1..])
            .stdin(Stdio::null())
            .output();
    }
}

impl Device {
    /// A loop device of 16 MiB, on a tmpfs that has room for as many KiB of it, of which `full` are taken by its start.
    fn on_loop(ctx: &Ctx, room: usize, full: usize) -> Device {
        if !ctx.host {
            modprobe(&["loop"]);
        }
        let at = ctx.path("room");
        fs::create_dir(&at).expect("a mount point");
        let options = format!("size={room}k");
        let mount = mount(&["-t", "tmpfs", "tmpfs", "-o", &options], &at);
        let image = at.join("image");
        fs::write(&image, vec![0; full << 10]).expect("an image");
        let file = fs::File::options().write(true).open(&image);
        let longer = file.and_then(|file| file.set_len(16 << 20));
        longer.expect("a sparse image");
        let path = must("losetup", &["-f", "--show", text(&image)]);
        Device {
            remove: ["/usr/sbin/losetup", "-d", &path].map(str::to_owned).into(),
            path,
            _mount: Some(mount),
        }
    }

    fn null() -> Device {
        modprobe(&["null_blk", "nr_devices=1", "gb=1", "memory_backed=1"]);
        Device {
            path: "/dev/nullb0".to_owned(),
            remove: ["/usr/sbin/modprobe", "-r", "null_blk"]
                .map(str::to_owned)
                .into(),
            _mount: None,
        }
    }

    fn name(&self) -> &str {
        self.path.trim_start_matches("/dev/")
    }

    /// `major:minor`
    fn number(&self) -> String {
        let file = format!("/sys/block/{}/dev", self.name());
        fs::read_to_string(file)
            .expect("its number")
            .trim()
            .to_owned()
    }

    /// Requests and sectors by operation, as the kernel counts them.
    fn counted(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let all = fs::read_to_string("/proc/diskstats").expect("the kernel's counters");
        let line = all
            .lines()
            .find(|l| l.split_whitespace().nth(2) == Some(self.name()))
            .expect("the device");
        let words: Vec<u64> = line
            .split_whitespace()
            .skip(3)
            .map(|w| w.parse().expect("a number"))
            .collect();
        // Documentation/admin-guide/iostats.rst
        [
            ("read", (words[0], words[2])),
            ("write", (words[4], words[6])),
            ("discard", (words[11], words[13])),
        ]
        .into()
    }
}

/// Built in where it cannot be loaded; what needs it will say when it is neither.
fn modprobe(args: &[&str]) {
    let _ = Command::new("/usr/sbin/modprobe")
        .arg("-q")
        .args(args)
        .status();
}

/// A shell line that runs dd and leaves its pid and what it says in files of this name.
fn dd(ctx: &Ctx, name: &str, args: &str) -> String {
    let file = ctx.path(name);
    let file = text(&file);
    format!("sh -c 'echo $$ >{file}.pid; exec dd {args} 2>{file}.said'; ")
}

fn pid(ctx: &Ctx, name: &str) -> u64 {
    let text = fs::read_to_string(ctx.path(&format!("{name}.pid"))).expect("a pid");
    text.trim().parse().expect("a pid")
}

fn run(ctx: &Ctx, options: &[&str], script: &str) -> Ended {
    let mut args = vec!["run", "--format", "json"];
    args.extend_from_slice(options);
    args.extend(["--", "sh", "-c", script]);
    let ended = stockade(ctx, args);
    ended.complete();
    ended
}

/// Counters of one process and operation on this device, over all windows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    ios: u64,
    bytes: u64,
    errors: u64,
    in_queue: u64,
    in_device: u64,
}

fn sums(ended: &Ended, device: &Device) -> BTreeMap<(u64, String), Sum> {
    let mut sums: BTreeMap<(u64, String), Sum> = BTreeMap::new();
    let total = |event: &Value, key: &str| -> u64 {
        let slots = event[key].as_array().expect("a histogram");
        assert_eq!(slots.len(), 24);
        slots.iter().map(|n| n.as_u64().expect("a count")).sum()
    };
    let here = device.number();
    for event in ended
        .of("disk_summary")
        .filter(|e| e["stockade.disk.device"] == here)
    {
        assert_eq!(word(event, "stockade.disk.name"), device.name());
        let operation = word(event, "stockade.disk.operation").to_owned();
        let sum = sums
            .entry((number(event, "process.pid"), operation))
            .or_default();
        sum.ios += number(event, "stockade.disk.ios");
        sum.bytes += number(event, "stockade.disk.bytes");
        sum.errors += number(event, "stockade.disk.errors");
        sum.in_queue += total(event, "stockade.disk.queue_log2_us");
        sum.in_device += total(event, "stockade.disk.device_log2_us");
    }
    sums
}

fn loop_summary(ctx: &Ctx) -> Outcome {
    summary(ctx, &Device::on_loop(ctx, 32 << 10, 0))
}

fn null_summary(ctx: &Ctx) -> Outcome {
    summary(ctx, &Device::null())
}

fn summary(ctx: &Ctx, device: &Device) -> Outcome {
    let at = &device.path;
    let script = [
        // More than any queue takes in one request, so that it is split.
        dd(
            ctx,
            "large",
            &format!("if=/dev/zero of={at} oflag=direct bs=8M count=1"),
        ),
        dd(
            ctx,
            "writer",
            &format!("if=/dev/zero of={at} oflag=direct bs=64k count=20"),
        ),
        dd(
            ctx,
            "reader",
            &format!("if={at} of=/dev/null iflag=direct bs=4k count=33"),
        ),
        // Through the page cache: what the last call writes out together is merged.
        dd(
            ctx,
            "merger",
            &format!("if=/dev/zero of={at} bs=4k count=256 conv=fsync"),
        ),
    ]
    .concat();
    let before = device.counted();
    let ended = run(ctx, &["--disk"], &script);
    let after = device.counted();
    let sums = sums(&ended, device);
    for ((_, operation), sum) in &sums {
        assert_eq!(sum.in_queue, sum.ios, "{sums:?}");
        if operation != "flush" {
            assert_eq!(sum.in_device, sum.ios, "{sums:?}");
        }
        assert_eq!(sum.errors, 0, "{sums:?}");
    }
    let of = |name: &str, operation: &str| {
        let sum = sums.get(&(pid(ctx, name), operation.to_owned()));
        let sum = sum.unwrap_or_else(|| panic!("no {operation} of {name} in {sums:?}"));
        (sum.ios, sum.bytes)
    };
    assert_eq!(of("writer", "write"), (20, 20 << 16));
    assert_eq!(of("reader", "read"), (33, 33 << 12));
    assert_eq!(of("large", "write").1, 8 << 20);
    assert!(of("large", "write").0 > 1, "{sums:?}");
    assert_eq!(of("merger", "write").1, 256 << 12);
    // The loop driver of 5.10 takes each page by itself.
    assert!(
        of("merger", "write").0 < 256 || device.name().starts_with("loop"),
        "{sums:?}"
    );
    for (operation, truth) in &after {
        let truth = (truth.0 - before[operation].0, truth.1 - before[operation].1);
        let ours = sums
            .iter()
            // The kernel counts what asks for a flush as a write of no sectors.
            .filter(|((_, op), _)| op == operation || (op == "flush" && *operation == "write"))
            .fold((0, 0), |all, (_, s)| (all.0 + s.ios, all.1 + s.bytes / 512));
        assert_eq!(ours, truth, "{operation}: {sums:?}");
    }
    Outcome::Passed
}

/// Writes at places of its own, and one for which the loop device's file finds no room.
fn script(ctx: &Ctx, device: &Device) -> String {
    let to = format!("if=/dev/zero of={} oflag=direct", device.path);
    [
        dd(ctx, "small", &format!("{to} bs=4k count=3 seek=5")),
        dd(ctx, "big", &format!("{to} bs=16k count=2 seek=6")),
        dd(ctx, "failing", &format!("{to} bs=512k count=1 seek=8")),
        "true".to_owned(),
    ]
    .concat()
}

/// The requests to this device: what dd asked for, sector and length.
fn seen(ctx: &Ctx, ended: &Ended, device: &Device) -> Vec<(&'static str, u64, u64)> {
    let names = ["small", "big", "failing"].map(|name| (name, pid(ctx, name)));
    let here = device.number();
    let mut found: Vec<_> = ended
        .of("disk")
        .filter(|e| e["stockade.disk.device"] == here)
        .map(|e| {
            let pid = number(e, "process.pid");
            let name = names.iter().find(|(_, p)| *p == pid);
            let (name, _) = name.unwrap_or_else(|| panic!("whose is this: {e}"));
            (
                *name,
                number(e, "stockade.disk.sector"),
                number(e, "stockade.disk.bytes"),
            )
        })
        .collect();
    found.sort_unstable_by_key(|(_, sector, _)| *sector);
    found
}

const SMALL: [(&str, u64, u64); 3] = [
    ("small", 40, 4096),
    ("small", 48, 4096),
    ("small", 56, 4096),
];
const BIG: [(&str, u64, u64); 2] = [("big", 192, 16384), ("big", 224, 16384)];
const FAILING: [(&str, u64, u64); 1] = [("failing", 8192, 1 << 19)];

fn requests(ctx: &Ctx) -> Outcome {
    let device = Device::on_loop(ctx, 256, 256);
    let ended = run(ctx, &["--disk=events"], &script(ctx, &device));
    assert_eq!(
        seen(ctx, &ended, &device),
        [&SMALL[..], &BIG, &FAILING].concat()
    );
    let said = fs::read_to_string(ctx.path("failing.said")).expect("what dd said");
    let errno = if said.contains("No space left on device") {
        "ENOSPC"
    } else if said.contains("Input/output error") {
        "EIO"
    } else {
        panic!("dd did not fail: {said}")
    };
    let here = device.number();
    for event in ended
        .of("disk")
        .filter(|e| e["stockade.disk.device"] == here)
    {
        let failed = number(event, "process.pid") == pid(ctx, "failing");
        let outcome = if failed { "failure" } else { "success" };
        assert_eq!(event["event.outcome"], outcome, "{event}");
        assert_eq!(
            event.get("error.code").and_then(Value::as_str),
            failed.then_some(errno),
            "{event}"
        );
        assert_eq!(word(event, "stockade.disk.operation"), "write", "{event}");
        let flags = event["stockade.disk.flags"].as_array().expect("flags");
        assert!(flags.iter().any(|f| f == "sync"), "{event}");
        assert_eq!(word(event, "process.name"), "dd", "{event}");
        assert_eq!(
            number(event, "event.duration"),
            number(event, "stockade.disk.queue_ns") + number(event, "stockade.disk.device_ns"),
            "{event}"
        );
        assert!(number(event, "stockade.disk.device_ns") > 0, "{event}");
    }
    Outcome::Passed
}

fn filters(ctx: &Ctx) -> Outcome {
    let device = Device::on_loop(ctx, 256, 256);
    let wanted = |option: &[&str]| {
        let mut options = vec!["--disk=events"];
        options.extend_from_slice(option);
        let ended = run(ctx, &options, &script(ctx, &device));
        seen(ctx, &ended, &device)
    };
    assert_eq!(
        wanted(&["--min-bytes", "4097"]),
        [&BIG[..], &FAILING].concat()
    );
    assert_eq!(wanted(&["--errors-only"]), FAILING);
    assert_eq!(wanted(&["--min-latency", "3600s"]), []);
    Outcome::Passed
}

/// Why this machine has no loop device for the tests.
pub(crate) fn refusal() -> Option<String> {
    let free = Command::new("/usr/sbin/losetup").arg("-f").output();
    let works =
        free.as_ref().is_ok_and(|o| o.status.success()) && Path::new("/dev/loop-control").exists();
    (!works).then(|| "this machine has no loop device to spare".to_owned())
}

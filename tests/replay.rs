//! Recordings of real kernels, replayed without privileges and on any system: `tests/fixtures`, made by
//! `scripts/fixtures.sh`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use stockade::sink::Sink;
use stockade::{ErrorKind, Recording};

const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

#[test]
fn each_kernels_recording_gives_the_events_that_were_seen_there() {
    for kernel in KERNELS {
        let recording = Recording::open(&fixture(&format!("{kernel}.stk"))).expect(kernel);
        assert!(recording.kernel().starts_with(kernel), "{recording:?}");
        let clock = recording.clock().clone();
        let (mut sink, mut lines) = (Sink::json(), Vec::new());
        let end = recording
            .replay(&mut |event, clock| sink.write(event, clock, &mut lines))
            .expect(kernel);
        sink.certificate(&end, &clock, &mut lines);

        let expected = std::fs::read_to_string(fixture(&format!("{kernel}.jsonl"))).expect(kernel);
        let lines = String::from_utf8(lines).expect("JSON is UTF-8");
        assert_eq!(lines.lines().count(), expected.lines().count(), "{kernel}");
        for (line, expected) in lines.lines().zip(expected.lines()) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let expected: Value = serde_json::from_str(expected).expect("JSON");
            assert_eq!(line, expected, "{kernel}");
        }
    }
}

#[test]
fn each_kernel_saw_the_same_work() {
    for kernel in KERNELS {
        let recording = Recording::open(&fixture(&format!("{kernel}.stk"))).expect(kernel);
        let mut seen = Vec::new();
        let end = recording
            .replay(&mut |event, _| seen.push(event.to_string()))
            .expect(kernel);
        assert!(end.monitors.iter().any(|m| m == "memory"), "{end:?}");
        for wanted in ["kept", "moved", "/nowhere", "code=3"] {
            assert!(
                seen.iter().any(|line| line.contains(wanted)),
                "{kernel}: nothing with {wanted} in {seen:#?}"
            );
        }
    }
}

#[test]
fn a_file_that_is_no_recording_is_named() {
    let e = Recording::open(&fixture("5.10.jsonl")).expect_err("JSON lines are no recording");
    assert_eq!(e.kind(), ErrorKind::Recording);
    assert!(e.to_string().contains("5.10.jsonl is no recording"), "{e}");
    let e = Recording::open(&fixture("nothing.stk")).expect_err("there is no such file");
    assert_eq!(e.kind(), ErrorKind::Io);
}

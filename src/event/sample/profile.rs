//! Profiles, for the samples.

use crate::event::{Frame, Kind, Profile, ProfileMode};

fn frame(address: u64, function: &str, offset: u64, module: &str, module_offset: u64) -> Frame {
    Frame {
        function: Some(function.into()),
        offset,
        module: Some(module.into()),
        module_offset,
        ..Frame::new(address)
    }
}

/// In a system call, with debug information, an inlined function, and an address that nothing is known of.
pub(super) fn running() -> Kind {
    let source = |file: &str, line| {
        let known = frame(0x55d0_c0a1_2345, "evaltree", 0x45, "/usr/bin/dash", 0x7345);
        Frame {
            file: Some(file.into()),
            line: Some(line),
            ..known
        }
    };
    Kind::Profile(Profile {
        mode: ProfileMode::Cpu,
        samples: 12,
        time_ns: 121_212_121,
        preempted: false,
        user: vec![
            Frame {
                module: Some("/usr/lib/x86_64-linux-gnu/libc.so.6".into()),
                module_offset: 0xff_2a4,
                ..Frame::new(0x7f5c_1c0f_f2a4)
            },
            Frame {
                function: Some("evalcommand".into()),
                inlined: true,
                ..source("/usr/src/dash/src/eval.c", 771)
            },
            source("/usr/src/dash/src/eval.c", 274),
            Frame::new(0x7ffd_0000_1000),
        ],
        kernel: vec![
            frame(0xffff_ffff_8110_2030, "vfs_read", 0x30, "[kernel]", 0),
            frame(0xffff_ffff_8100_1040, "do_syscall_64", 0x40, "[kernel]", 0),
        ],
        truncated: false,
        window_ns: 10_000_000_000,
    })
}

/// Of a thread that has nothing but what it has in the kernel.
pub(super) fn waiting() -> Kind {
    Kind::Profile(Profile {
        mode: ProfileMode::OffCpu,
        samples: 3,
        time_ns: 1_500_000_000,
        preempted: true,
        user: Vec::new(),
        kernel: vec![frame(
            0xffff_ffff_81a0_0400,
            "__schedule",
            0x400,
            "[kernel]",
            0,
        )],
        truncated: true,
        window_ns: 10_000_000_000,
    })
}

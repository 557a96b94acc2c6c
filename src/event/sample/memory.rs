//! Samples of the memory monitor.

use super::shell;
use crate::event::{
    Event, Kind, Memory, MemoryFailure, MemorySizes, MemorySummary, OomKill, Process, ProcessId,
    text,
};

fn at(after_ns: u64, process: Process, kind: Kind) -> Event {
    super::event(after_ns, process, kind)
}

fn memory(call: &'static str, bytes: i64, errno: u16) -> Kind {
    Kind::Memory(Memory {
        call: call.into(),
        address: 0x7f5c_1c00_0000,
        bytes,
        protection: 3,
        flags: 0x22,
        errno,
    })
}

fn sizes() -> MemorySizes {
    MemorySizes {
        anon_bytes: 1_712_128,
        file_bytes: 3_411_968,
        shmem_bytes: 4_096,
        swap_bytes: 0,
        virtual_bytes: 9_027_584,
        peak_virtual_bytes: 9_027_584,
        peak_rss_bytes: 5_242_880,
        heap_bytes: 135_168,
    }
}

fn summary() -> MemorySummary {
    MemorySummary {
        minor_faults: 412,
        major_faults: 3,
        mmap_calls: 21,
        mmap_bytes: 6_512_640,
        munmap_calls: 2,
        munmap_bytes: 139_264,
        brk_calls: 4,
        brk_grown_bytes: 135_168,
        brk_shrunk_bytes: 4_096,
        failures: vec![MemoryFailure::new("mmap", 12, 1)],
        sizes: Some(sizes()),
        ended: true,
        window_ns: 10_000_000_000,
    }
}

fn oom_kill(trigger_comm: &[u8], score_adj: i32) -> Kind {
    Kind::Oom(OomKill {
        trigger: ProcessId::new(super::HOUR_NS - 93_400_120_447, 4520),
        trigger_comm: text::escape(trigger_comm),
        anon_bytes: 16_777_216,
        file_bytes: 65_536,
        shmem_bytes: 0,
        swap_bytes: 8_192,
        virtual_bytes: 71_303_168,
        table_bytes: 73_728,
        score_adj,
    })
}

pub(super) fn samples() -> Vec<Event> {
    let odd = MemorySummary {
        failures: vec![
            MemoryFailure::new("brk", 12, u64::MAX),
            MemoryFailure::new("munmap", 4_000, 1),
        ],
        sizes: None,
        ended: false,
        window_ns: u64::MAX,
        ..MemorySummary::default()
    };
    vec![
        at(8_300_000, shell(), memory("mmap", 1 << 20, 0)),
        at(8_300_001, shell(), memory("munmap", -4096, 0)),
        at(8_300_002, shell(), memory("brk", 135_168, 12)),
        at(
            8_300_003,
            shell(),
            Kind::Memory(Memory {
                call: "mmap".into(),
                address: u64::MAX,
                bytes: i64::MAX,
                protection: u32::MAX,
                flags: u32::MAX,
                errno: 4_000,
            }),
        ),
        at(8_400_000, shell(), Kind::MemorySummary(summary())),
        at(8_400_000, shell(), Kind::MemorySummary(odd)),
        at(8_500_000, shell(), oom_kill(b"make", 0)),
        at(8_500_001, shell(), oom_kill(b"a \"b\"\n\x1b[31m", -1000)),
    ]
}

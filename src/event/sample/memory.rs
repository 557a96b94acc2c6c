//! Samples of the memory monitor.

use super::shell;
use crate::event::{
    Allocated, AllocationSource, Event, Frame, Kind, Memory, MemoryAllocations, MemoryFailure,
    MemoryOutstanding, MemorySizes, MemorySummary, OomKill, Process, ProcessId, text,
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

fn allocations() -> Kind {
    Kind::MemoryAllocations(MemoryAllocations {
        pages: Allocated {
            allocations: 310,
            requested_bytes: 1_282_048,
            bytes: 1_282_048,
            frees: 285,
            freed_requested_bytes: 1_179_648,
            freed_bytes: 1_179_648,
        },
        slab: Allocated {
            allocations: 2_204,
            requested_bytes: 402_118,
            bytes: 431_072,
            frees: 2_150,
            freed_requested_bytes: 391_006,
            freed_bytes: 418_944,
        },
        window_ns: 10_000_000_000,
    })
}

fn outstanding() -> MemoryOutstanding {
    let frame = |address, function: &str, offset| Frame {
        function: Some(function.into()),
        offset,
        module: Some("[kernel]".into()),
        ..Frame::new(address)
    };
    MemoryOutstanding {
        source: AllocationSource::Slab,
        allocations: 3,
        bytes: 49_152,
        requested_bytes: 30_720,
        growth_bytes: 16_384,
        kernel: vec![
            frame(0xffff_ffff_812a_4f81, "__kmalloc", 0x151),
            frame(0xffff_ffff_8131_0a25, "pipe_resize_ring", 0x45),
            frame(0xffff_ffff_8100_1040, "do_syscall_64", 0x40),
        ],
        truncated: false,
        window_ns: 10_000_000_000,
    }
}

/// Given back, and nothing is known of where it was; as much as can be, and where is not known to the end.
fn odd_outstanding() -> [MemoryOutstanding; 2] {
    [
        MemoryOutstanding {
            source: AllocationSource::Page,
            allocations: 0,
            bytes: 0,
            requested_bytes: 0,
            growth_bytes: i64::MIN,
            kernel: Vec::new(),
            ..outstanding()
        },
        MemoryOutstanding {
            allocations: u64::MAX,
            bytes: u64::MAX,
            requested_bytes: u64::MAX,
            growth_bytes: i64::MAX,
            kernel: vec![Frame::new(u64::MAX)],
            truncated: true,
            window_ns: u64::MAX,
            ..outstanding()
        },
    ]
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
    let mut all = vec![
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
        at(8_400_000, shell(), allocations()),
        at(8_400_000, shell(), Kind::MemoryOutstanding(outstanding())),
        at(8_500_000, shell(), oom_kill(b"make", 0)),
        at(8_500_001, shell(), oom_kill(b"a \"b\"\n\x1b[31m", -1000)),
    ];
    let odd = odd_outstanding().map(Kind::MemoryOutstanding);
    all.extend(odd.map(|kind| at(8_400_000, shell(), kind)));
    all
}

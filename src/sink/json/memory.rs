//! The lines of the memory monitor.

use super::Line;
use crate::event::memory::{map_flags, protection};
use crate::event::{
    Clock, Memory, MemoryAllocations, MemoryOutstanding, MemorySizes, MemorySummary, OomKill,
};

impl Line<'_> {
    pub(super) fn memory(&mut self, e: &Memory) {
        self.string(key!("stockade.memory.call"), &e.call);
        // As in /proc/PID/maps, where one looks it up; a number would lose digits in many readers.
        self.raw(key!("stockade.memory.address"));
        self.raw(b"\"");
        self.hex(e.address);
        self.raw(b"\"");
        self.number(key!("stockade.memory.bytes"), e.bytes);
        if e.call == "mmap" {
            self.flags(key!("stockade.memory.protection"), |each| {
                protection(e.protection, each)
            });
            self.flags(key!("stockade.memory.flags"), |each| {
                map_flags(e.flags, each)
            });
        }
        self.error(e.errno);
    }

    pub(super) fn memory_summary(&mut self, e: &MemorySummary) {
        for (key, value) in [
            (key!("stockade.memory.minor_faults"), e.minor_faults),
            (key!("stockade.memory.major_faults"), e.major_faults),
            (key!("stockade.memory.mmap_calls"), e.mmap_calls),
            (key!("stockade.memory.mmap_bytes"), e.mmap_bytes),
            (key!("stockade.memory.munmap_calls"), e.munmap_calls),
            (key!("stockade.memory.munmap_bytes"), e.munmap_bytes),
            (key!("stockade.memory.brk_calls"), e.brk_calls),
            (key!("stockade.memory.brk_grown_bytes"), e.brk_grown_bytes),
            (key!("stockade.memory.brk_shrunk_bytes"), e.brk_shrunk_bytes),
        ] {
            self.number(key, value);
        }
        if !e.failures.is_empty() {
            self.value(key!("stockade.memory.failures"), &e.failures);
        }
        if let Some(sizes) = &e.sizes {
            self.sizes(sizes);
        }
        self.flag(key!("stockade.memory.ended"), e.ended);
        self.number(key!("stockade.window_ns"), e.window_ns);
    }

    pub(super) fn memory_allocations(&mut self, e: &MemoryAllocations) {
        let (pages, slab) = (&e.pages, &e.slab);
        for (key, value) in [
            (key!("stockade.memory.page_allocations"), pages.allocations),
            (key!("stockade.memory.page_allocated_bytes"), pages.bytes),
            (key!("stockade.memory.page_frees"), pages.frees),
            (key!("stockade.memory.page_freed_bytes"), pages.freed_bytes),
            (key!("stockade.memory.slab_allocations"), slab.allocations),
            (
                key!("stockade.memory.slab_requested_bytes"),
                slab.requested_bytes,
            ),
            (key!("stockade.memory.slab_allocated_bytes"), slab.bytes),
            (key!("stockade.memory.slab_frees"), slab.frees),
            (
                key!("stockade.memory.slab_freed_requested_bytes"),
                slab.freed_requested_bytes,
            ),
            (key!("stockade.memory.slab_freed_bytes"), slab.freed_bytes),
            (key!("stockade.window_ns"), e.window_ns),
        ] {
            self.number(key, value);
        }
    }

    pub(super) fn memory_outstanding(&mut self, e: &MemoryOutstanding) {
        self.string(key!("stockade.outstanding.source"), e.source.name());
        self.number(key!("stockade.outstanding.allocations"), e.allocations);
        self.number(key!("stockade.outstanding.bytes"), e.bytes);
        self.number(
            key!("stockade.outstanding.requested_bytes"),
            e.requested_bytes,
        );
        self.number(key!("stockade.outstanding.growth_bytes"), e.growth_bytes);
        self.frames(key!("stockade.outstanding.kernel"), &e.kernel);
        self.flag(key!("stockade.outstanding.truncated"), e.truncated);
        self.number(key!("stockade.window_ns"), e.window_ns);
    }

    fn sizes(&mut self, e: &MemorySizes) {
        for (key, value) in [
            (key!("stockade.memory.rss_bytes"), e.rss_bytes()),
            (key!("stockade.memory.anon_bytes"), e.anon_bytes),
            (key!("stockade.memory.file_bytes"), e.file_bytes),
            (key!("stockade.memory.shmem_bytes"), e.shmem_bytes),
            (key!("stockade.memory.swap_bytes"), e.swap_bytes),
            (key!("stockade.memory.virtual_bytes"), e.virtual_bytes),
            (
                key!("stockade.memory.peak_virtual_bytes"),
                e.peak_virtual_bytes,
            ),
            (key!("stockade.memory.peak_rss_bytes"), e.peak_rss_bytes),
            (key!("stockade.memory.heap_bytes"), e.heap_bytes),
        ] {
            self.number(key, value);
        }
    }

    pub(super) fn oom_kill(&mut self, e: &OomKill, clock: &Clock, id: &mut String) {
        self.number(key!("stockade.oom.trigger.pid"), e.trigger.pid);
        self.entity(key!("stockade.oom.trigger.entity_id"), e.trigger, clock, id);
        self.string(key!("stockade.oom.trigger.name"), &e.trigger_comm);
        for (key, value) in [
            (
                key!("stockade.memory.rss_bytes"),
                e.anon_bytes + e.file_bytes + e.shmem_bytes,
            ),
            (key!("stockade.memory.anon_bytes"), e.anon_bytes),
            (key!("stockade.memory.file_bytes"), e.file_bytes),
            (key!("stockade.memory.shmem_bytes"), e.shmem_bytes),
            (key!("stockade.memory.swap_bytes"), e.swap_bytes),
            (key!("stockade.memory.virtual_bytes"), e.virtual_bytes),
            (key!("stockade.memory.table_bytes"), e.table_bytes),
        ] {
            self.number(key, value);
        }
        self.number(key!("stockade.oom.score_adj"), e.score_adj);
    }
}

//! Requests to block devices.

use super::Line;
use crate::event::disk::flags;
use crate::event::{BlockDevice, Disk, DiskOperation, DiskSummary};

impl Line<'_> {
    pub(super) fn disk(&mut self, e: &Disk) {
        self.disk_of(&e.device, e.operation);
        self.flags(key!("stockade.disk.flags"), |each| flags(e.flags, each));
        if let Some(sector) = e.sector {
            self.number(key!("stockade.disk.sector"), sector);
        }
        self.number(key!("stockade.disk.bytes"), e.bytes);
        self.number(key!("stockade.disk.queue_ns"), e.queue_ns);
        if let Some(ns) = e.device_ns {
            self.number(key!("stockade.disk.device_ns"), ns);
        }
        self.number(key!("event.duration"), e.duration_ns());
        self.error(e.errno);
    }

    pub(super) fn disk_summary(&mut self, e: &DiskSummary) {
        self.disk_of(&e.device, e.operation);
        self.number(key!("stockade.disk.ios"), e.ios);
        self.number(key!("stockade.disk.bytes"), e.bytes);
        self.number(key!("stockade.disk.errors"), e.errors);
        self.number(key!("stockade.disk.queue_ns"), e.queue_ns);
        self.number(key!("stockade.disk.device_ns"), e.device_ns);
        self.histogram(key!("stockade.disk.queue_log2_us"), &e.queue);
        self.histogram(key!("stockade.disk.device_log2_us"), &e.device_time);
        self.number(key!("stockade.window_ns"), e.window_ns);
    }

    fn disk_of(&mut self, device: &BlockDevice, operation: DiskOperation) {
        self.string(key!("stockade.disk.name"), &device.name);
        self.device(key!("stockade.disk.device"), device.major, device.minor);
        self.string(key!("stockade.disk.operation"), operation.name());
    }
}

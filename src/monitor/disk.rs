//! Block devices: requests from the bio that asked for them to their completion, counted or sent.

use super::summary::{Flush, Summary, Tally};
use super::{Form, Parts};
use crate::error::Result;
use crate::event::{DiskSummary, Event, Kind};
use crate::kernel::Needs::{Function, Params, PreemptibleTracepoints};
use crate::kernel::Program::Auto;
use crate::kernel::{Object, Probe, Variant};
use crate::wire::{DiskKey, DiskSum, disk_device, disk_operation};

macro_rules! probe {
    ($complete:literal) => {
        &[Probe {
            name: "disk.requests",
            variants: &[
                // The end of a request stays with the raw tracepoint, see disk.bpf.c.
                Variant {
                    name: "kprobe",
                    programs: &[
                        Auto($complete),
                        Auto("disk_issue__kprobe"),
                        Auto("disk_merge__raw_tp"),
                        Auto("disk_backmerge__raw_tp"),
                        Auto("disk_frontmerge__raw_tp"),
                        Auto("disk_queue__kprobe"),
                    ],
                    needs: &[
                        PreemptibleTracepoints,
                        Function("blk_mq_start_request"),
                        Function("blk_mq_submit_bio"),
                    ],
                    blind: None,
                },
                Variant {
                    name: "raw_tp",
                    programs: &[
                        Auto($complete),
                        Auto("disk_issue__raw_tp"),
                        Auto("disk_merge__raw_tp"),
                        Auto("disk_queue__raw_tp"),
                    ],
                    // The request behind the probe's own data; the first 5.10s have the queue in between.
                    needs: &[Params("__traceiter_block_rq_issue", 2)],
                    blind: None,
                },
            ],
            without: "requests to block devices",
            excused_without: None,
        }]
    };
}

const EVENTS: &[Probe] = probe!("disk_complete__raw_tp");
const SUMMARY: &[Probe] = probe!("disk_count_complete__raw_tp");

pub(super) fn parts(form: Form) -> Parts {
    match form {
        Form::Events => Parts::events(Object::Disk, EVENTS),
        Form::Summary | Form::OffCpu => Parts {
            summary: Some(Box::new(Counts(Tally::new("stk_disk_sums")))),
            ..Parts::events(Object::Disk, SUMMARY)
        },
    }
}

#[derive(Debug)]
struct Counts(Tally);

impl Summary for Counts {
    fn flush(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        for (key, sum) in self.0.news::<DiskKey, DiskSum>(flush)? {
            let kind = Kind::DiskSummary(Box::new(DiskSummary {
                device: disk_device(&key.device, String::new()),
                operation: disk_operation(key.op),
                ios: sum.ios,
                bytes: sum.bytes,
                errors: sum.errors,
                queue_ns: sum.queue_ns,
                device_ns: sum.device_ns,
                queue: sum.queue,
                device_time: sum.device,
                window_ns: flush.window_ns,
            }));
            tell(flush.event(key.task, kind)?);
        }
        Ok(())
    }
}

//! Profiles.

use super::Line;
use crate::event::{Frame, Profile};

impl Line<'_> {
    pub(super) fn profile(&mut self, e: &Profile) {
        self.string(key!("stockade.profile.mode"), e.mode.name());
        self.number(key!("stockade.profile.samples"), e.samples);
        self.number(key!("stockade.profile.time_ns"), e.time_ns);
        self.flag(key!("stockade.profile.preempted"), e.preempted);
        self.frames(key!("stockade.profile.user"), &e.user);
        self.frames(key!("stockade.profile.kernel"), &e.kernel);
        self.flag(key!("stockade.profile.truncated"), e.truncated);
        self.number(key!("stockade.window_ns"), e.window_ns);
    }

    pub(super) fn frames(&mut self, key: &[u8], frames: &[Frame]) {
        self.raw(key);
        self.raw(b"[");
        for (i, frame) in frames.iter().enumerate() {
            self.raw(if i > 0 {
                b",{\"address\":\"".as_slice()
            } else {
                b"{\"address\":\""
            });
            self.hex(frame.address);
            self.raw(b"\"");
            if let Some(function) = &frame.function {
                self.string(key!("function"), function);
                self.number(key!("offset"), frame.offset);
            }
            if let Some(module) = &frame.module {
                self.string(key!("module"), module);
                // Of the kernel there is none.
                if frame.module_offset != 0 {
                    self.number(key!("module_offset"), frame.module_offset);
                }
            }
            if let Some(file) = &frame.file {
                self.string(key!("file"), file);
            }
            if let Some(line) = frame.line {
                self.number(key!("line"), line);
            }
            self.flag(key!("inlined"), frame.inlined);
            self.raw(b"}");
        }
        self.raw(b"]");
    }
}

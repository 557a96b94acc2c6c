//! The lines of changes to files.

use super::{Day, Line, names};
use crate::event::{Change, Mount};

impl Line<'_> {
    pub(super) fn change(&mut self, e: &Change, day: &mut Day) {
        self.path(&e.path);
        if let Some(from) = &e.from {
            self.old_path(from);
        }
        if let Some(target) = &e.target {
            self.string(key!("file.target_path"), target);
        }
        if let Some(attribute) = &e.attribute {
            self.string(key!("stockade.xattr.name"), attribute);
        }
        if let Some(mode) = e.mode {
            self.mode(key!("stockade.change.mode"), mode);
        }
        if let Some((major, minor)) = e.device {
            self.device(key!("stockade.change.device"), major, minor);
        }
        for (key, id) in [(key!("file.uid"), e.uid), (key!("file.gid"), e.gid)] {
            if let Some(id) = id {
                self.quoted(key, id);
            }
        }
        if let Some(size) = e.size {
            self.number(key!("file.size"), size);
        }
        for (key, ns) in [
            (key!("file.accessed"), e.accessed_ns),
            (key!("file.mtime"), e.modified_ns),
        ] {
            if let Some(ns) = ns {
                self.date(key, ns, day);
            }
        }
        if let Some(file) = &e.file {
            self.file(file);
        }
        self.error(e.errno);
    }

    pub(super) fn mount(&mut self, e: &Mount) {
        self.mount_with(e, |flags, each| names::mount_flags(flags, each));
    }

    pub(super) fn umount(&mut self, e: &Mount) {
        self.mount_with(e, |flags, each| names::umount_flags(flags, each));
    }

    fn mount_with(&mut self, e: &Mount, names: fn(u32, &mut dyn FnMut(&'static str)) -> u32) {
        self.path(&e.path);
        if let Some(source) = &e.source {
            self.string(key!("stockade.mount.source"), source);
        }
        if let Some(fs_type) = &e.fs_type {
            self.string(key!("stockade.mount.type"), fs_type);
        }
        if let Some(flags) = e.flags {
            self.flags(key!("stockade.mount.flags"), |each| names(flags, each));
        }
        self.error(e.errno);
    }
}

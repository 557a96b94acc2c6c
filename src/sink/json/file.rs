//! Files: what was done with them, which they are, and what was counted.

use super::Line;
use crate::event::{FileId, FilePath, FileSummary, Open, Rename, Unlink, names};

impl Line<'_> {
    pub(super) fn open(&mut self, e: &Open) {
        self.path(&e.path);
        self.flags(key!("stockade.open.flags"), |each| {
            names::open_flags(e.flags, each)
        });
        if let Some(file) = &e.file {
            self.file(file);
        }
        self.error(e.errno);
    }

    pub(super) fn unlink(&mut self, e: &Unlink) {
        self.path(&e.path);
        if let Some(file) = &e.file {
            self.file(file);
        }
        self.error(e.errno);
    }

    pub(super) fn rename(&mut self, e: &Rename) {
        self.path(&e.to);
        self.old_path(&e.from);
        if e.flags != 0 {
            self.flags(key!("stockade.rename.flags"), |each| {
                names::rename_flags(e.flags, each)
            });
        }
        if let Some(file) = &e.file {
            self.file(file);
        }
        if let Some(replaced) = &e.replaced {
            self.quoted(key!("stockade.replaced.inode"), replaced.inode);
            self.number(key!("stockade.replaced.generation"), replaced.generation);
        }
        self.error(e.errno);
    }

    pub(super) fn old_path(&mut self, path: &FilePath) {
        self.string(key!("stockade.old_path"), &path.path);
        self.flag(key!("stockade.old_path_truncated"), path.truncated);
        self.flag(key!("stockade.old_path_as_given"), path.as_given);
    }

    pub(super) fn path(&mut self, path: &FilePath) {
        self.string(key!("file.path"), &path.path);
        self.path_flags(path);
    }

    pub(super) fn path_flags(&mut self, path: &FilePath) {
        self.flag(key!("stockade.path_truncated"), path.truncated);
        self.flag(key!("stockade.path_as_given"), path.as_given);
        self.flag(key!("stockade.file.deleted"), path.deleted);
    }

    pub(super) fn file(&mut self, file: &FileId) {
        self.quoted(key!("file.inode"), file.inode);
        self.mode(key!("file.mode"), file.mode);
        self.raw(match file.mode & 0o170_000 {
            0o100_000 => b",\"file.type\":\"file\"",
            0o040_000 => b",\"file.type\":\"dir\"",
            0o120_000 => b",\"file.type\":\"symlink\"",
            0o010_000 => b",\"file.type\":\"fifo\"",
            0o020_000 => b",\"file.type\":\"char_device\"",
            0o060_000 => b",\"file.type\":\"block_device\"",
            0o140_000 => b",\"file.type\":\"socket\"",
            // Files without an inode of their own, such as an anonymous one of the kernel.
            _ => b"".as_slice(),
        });
        self.device(key!("stockade.file.device"), file.major(), file.minor());
        self.number(key!("stockade.file.generation"), file.generation);
        self.raw(key!("stockade.file.fs_magic"));
        self.raw(b"\"");
        self.hex(file.fs_magic);
        self.raw(b"\"");
    }

    pub(super) fn file_summary(&mut self, e: &FileSummary) {
        if let Some(path) = &e.path {
            self.path(path);
        }
        if let Some(file) = &e.file {
            self.file(file);
        }
        self.number(key!("stockade.file.opens"), e.opens);
        self.number(key!("stockade.file.failures"), e.failures);
        self.number(key!("stockade.file.reads"), e.read.count);
        self.number(key!("stockade.file.read_bytes"), e.read.bytes);
        self.number(key!("stockade.file.read_ns"), e.read.time_ns);
        self.histogram(key!("stockade.file.read_log2_us"), &e.read.times);
        self.number(key!("stockade.file.writes"), e.written.count);
        self.number(key!("stockade.file.written_bytes"), e.written.bytes);
        self.number(key!("stockade.file.write_ns"), e.written.time_ns);
        self.histogram(key!("stockade.file.write_log2_us"), &e.written.times);
        self.number(key!("stockade.window_ns"), e.window_ns);
    }
}

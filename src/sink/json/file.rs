//! What processes do with files, counted.

use super::Line;
use crate::event::FileSummary;

impl Line<'_> {
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

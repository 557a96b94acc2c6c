//! `/proc/PID/maps`: what a process has mapped, a line each.

/// A line of it, in the kernel's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapLine<'a> {
    /// Addresses, in hexadecimal digits.
    pub(crate) start: &'a str,
    pub(crate) end: &'a str,
    /// `r`, `w` and `x`, or `-` in their places, and `p` or `s`.
    pub(crate) permissions: &'a str,
    /// In the file, in hexadecimal digits.
    pub(crate) offset: &'a str,
    /// `major:minor`, in hexadecimal digits.
    pub(crate) device: &'a str,
    /// In decimal digits; 0 where there is no file.
    pub(crate) inode: &'a str,
    /// Empty where there is none; a line feed in it is written as `\012`.
    pub(crate) path: &'a [u8],
}

impl<'a> MapLine<'a> {
    /// Those that are understood.
    pub(crate) fn all(text: &'a [u8]) -> impl Iterator<Item = Self> {
        text.split(|b| *b == b'\n').filter_map(MapLine::parse)
    }

    /// `start-end permissions offset device inode path`; the path is filled up with blanks in front of it.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.splitn(6, |b| *b == b' ');
        let mut word = || std::str::from_utf8(words.next()?).ok();
        let (start, end) = word()?.split_once('-')?;
        Some(MapLine {
            start,
            end,
            permissions: word()?,
            offset: word()?,
            device: word()?,
            inode: word()?,
            path: words.next().unwrap_or_default().trim_ascii_start(),
        })
    }

    /// Whether what is there can be run.
    pub(crate) fn is_code(&self) -> bool {
        self.permissions.contains('x')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let text = b"7f00-7fff r-xp 00002000 103:02 99                 /opt/a lib.so (deleted)\n\n7f-8f rw-p 0 00:00 0 \nx";
        let lines: Vec<_> = MapLine::all(text).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].start, lines[0].end), ("7f00", "7fff"));
        assert_eq!(
            (lines[0].offset, lines[0].device, lines[0].inode),
            ("00002000", "103:02", "99")
        );
        assert_eq!(lines[0].path, b"/opt/a lib.so (deleted)");
        assert!(lines[0].is_code() && !lines[1].is_code());
        assert_eq!(lines[1].path, b"");
    }

    #[test]
    fn our_own_code_is_found() {
        let text = std::fs::read("/proc/self/maps").unwrap();
        let own = std::env::current_exe().unwrap();
        let own = own.as_os_str().as_encoded_bytes();
        assert!(MapLine::all(&text).any(|line| line.is_code() && line.path == own));
    }
}

//! Bytes from the kernel as text that is safe to print.
//!
//! Valid UTF-8 stays as it is, without control characters; everything else is written as `\n`, `\t`, `\\` or `\xNN`.
//! A backslash is doubled, so that the original bytes can be recovered.

/// Appends `bytes` to `out`, escaped.
pub fn escape_into(out: &mut String, bytes: &[u8]) {
    // Nearly every name is plain ASCII: one scan, one copy.
    if let Some(text) = plain(bytes, b' ') {
        out.push_str(text);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                // Also the marks that reorder or split what a terminal or a log viewer shows.
                c if c.is_control()
                    || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        push_hex(out, byte);
                    }
                }
                c => out.push(c),
            }
        }
        for &byte in chunk.invalid() {
            push_hex(out, byte);
        }
    }
}

/// `bytes` as they are, where none of them needs to be escaped; `separator` counts as such a byte.
pub(crate) fn plain(bytes: &[u8], separator: u8) -> Option<&str> {
    // Without an early exit in a chunk, so that the compiler compares 16 bytes at once.
    let (chunks, rest) = bytes.as_chunks::<16>();
    let good = |part: &[u8]| {
        part.iter().fold(true, |good, &byte| {
            good & ((matches!(byte, 0x20..=0x7e) & (byte != b'\\')) | (byte == separator))
        })
    };
    // A second scan, for UTF-8, would take a tenth of all the time that an event takes.
    (separator.is_ascii() && chunks.iter().all(|chunk| good(chunk)) && good(rest)).then(|| {
        // SAFETY: every byte is printable ASCII or the separator, which is ASCII too.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    })
}

/// `bytes`, escaped.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    escape_into(&mut out, bytes);
    out
}

fn push_hex(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\x");
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_name_can_forge_a_line_or_hide_itself() {
        assert_eq!(escape(b"/tmp/a b"), "/tmp/a b");
        assert_eq!(escape(b"a\nDENIED"), "a\\nDENIED");
        assert_eq!(escape(b"\x1b[2J"), "\\x1b[2J");
        assert_eq!(escape(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(escape("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
        assert_eq!(escape("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
        assert_eq!(escape(br"a\x41"), r"a\\x41");
    }

    proptest! {
        #[test]
        fn plain_is_what_escaping_leaves_alone(
            mut bytes in prop::collection::vec(0x20u8..0x7f, 0..70), odd in any::<u8>(), at in any::<prop::sample::Index>(),
        ) {
            bytes.retain(|b| *b != b'\\');
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = odd;
            }
            let clean = bytes.iter().all(|b| matches!(b, 0x20..=0x7e) && *b != b'\\');
            prop_assert_eq!(plain(&bytes, b' ').is_some(), clean);
            prop_assert_eq!(plain(&bytes, 0).is_some(), clean || odd == 0);
            if let Some(text) = plain(&bytes, 0) {
                prop_assert_eq!(text.as_bytes(), &bytes);
            }
            // The slow way, one byte at a time.
            let mut slow = String::new();
            for chunk in bytes.utf8_chunks() {
                for c in chunk.valid().chars() {
                    slow.push_str(&escape(c.encode_utf8(&mut [0; 4]).as_bytes()));
                }
                for byte in chunk.invalid() {
                    slow.push_str(&format!("\\x{byte:02x}"));
                }
            }
            prop_assert_eq!(escape(&bytes), slow);
        }
    }
}

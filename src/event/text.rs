//! Bytes from the kernel as text that is safe to print.
//!
//! Valid UTF-8 stays as it is, without control characters; everything else is written as `\n`, `\t`, `\\` or `\xNN`.
//! A backslash is doubled, so that the original bytes can be recovered.

/// Appends `bytes` to `out`, escaped.
pub fn escape_into(out: &mut String, bytes: &[u8]) {
    // Nearly every name is plain ASCII: one scan, one copy.
    if bytes
        .iter()
        .all(|b| matches!(b, 0x20..=0x7e) && *b != b'\\')
    {
        // The scan above leaves ASCII only, so this never takes the other branch.
        out.push_str(std::str::from_utf8(bytes).unwrap_or_default());
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
}

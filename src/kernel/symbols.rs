//! Where the kernel keeps its variables, as far as it says so.

use std::fs::File;
use std::io::{BufRead, BufReader};

const PATH: &str = "/proc/kallsyms";

/// The addresses of these variables; 0 for one that the kernel lacks or does not tell: it lists variables with
/// `CONFIG_KALLSYMS_ALL` alone, and addresses as `kernel.kptr_restrict` says.
pub(crate) fn addresses<const N: usize>(names: [&str; N]) -> [u64; N] {
    match File::open(PATH) {
        Ok(file) => find(BufReader::new(file), names),
        Err(_) => [0; N],
    }
}

fn find<const N: usize>(mut list: impl BufRead, names: [&str; N]) -> [u64; N] {
    let mut found = [0; N];
    let mut line = Vec::new();
    // What cannot be read to the end is not told.
    while matches!(list.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        // "ADDRESS TYPE NAME", and for a module's "\t[MODULE]" behind: not ours.
        if let Ok(text) = std::str::from_utf8(&line) {
            let mut words = text.trim_end_matches('\n').splitn(3, ' ');
            if let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next())
                && let Some(which) = names.iter().position(|wanted| *wanted == name)
            {
                found[which] = u64::from_str_radix(address, 16).unwrap_or(0);
            }
        }
        line.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_by_their_whole_name() {
        let list = "0000000000019a80 A pcpu_hot\n\
                    ffffffff82a01000 D __per_cpu_offset_of\n\
                    ffffffff82a00960 D __per_cpu_offset\n\
                    ffffffffc0000000 d pcpu_cold\t[module]\n";
        let found = find(
            list.as_bytes(),
            ["__per_cpu_offset", "pcpu_cold", "pcpu_hot"],
        );
        assert_eq!(found, [0xffff_ffff_82a0_0960, 0, 0x19a80]);
    }
}

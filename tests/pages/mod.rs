//! The pages for readers, as tests read them.

/// The text without its fenced blocks, and the blocks with the word behind their fence.
pub(crate) fn split(text: &str) -> (String, Vec<(String, String)>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(word), None) => open = Some((word.trim().to_owned(), String::new())),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some((word, mut body))) => {
                body.push_str(line);
                body.push('\n');
                open = Some((word, body));
            }
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block without an end");
    (prose, blocks)
}

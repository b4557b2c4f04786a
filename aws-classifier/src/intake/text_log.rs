//! Lines of text logs: VPC Flow Logs and web access logs.
//!
//! Every line becomes a notification of our own in JSON, which goes the way of all records. Each line is recognised for
//! itself, so that a file may hold anything; only a flow log's header line speaks for the lines behind it. What a line
//! does not say (the account, the region) comes from the file's name where AWS puts it there, and is empty otherwise.
//!
//! **The same line twice is two records**: a tool sends the same request many times a second. The id of a line is a hash of
//! its text, of the id that CloudWatch Logs gave it, if it came from there, and of how often it came before in the same
//! file, so that the same file or batch read again makes the same records.

use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};
use serde_json::json;
use shared::Timestamp;
use shared::event::{Event, NotificationHeader};
use shared::json_scan::{ScanError, Scanner};

use super::text_line::Parsed;
use super::{IntakeError, access_log, flow_log};

/// At least so many different lines back it is known how often a line came before. Lines carry their time, so equal ones are
/// near each other. Our choice, two megabytes.
const LINES_REMEMBERED: usize = 1 << 16;

/// What a line is.
#[derive(Debug)]
pub enum Line<'t> {
    /// No line of a log that this version reads.
    Unknown,
    /// Names the columns of the lines to come.
    Header,
    /// A record, as text that [`super::Leaf::of`] reads.
    Record(&'t str),
    /// A line of a known log with a field that cannot be read.
    Bad(IntakeError),
}

/// Reads the lines of one file, in order.
#[derive(Debug, Default)]
pub struct TextLog {
    account: String,
    region: String,
    flow_columns: Option<flow_log::Columns>,
    seen: FxHashMap<u64, u32>,
    /// What was seen before that.
    seen_before: FxHashMap<u64, u32>,
    text: String,
}

impl TextLog {
    /// A reader of the file of that name.
    pub fn of_file(path: &str) -> Self {
        let file = path.rsplit(['/', '\\']).next().unwrap_or(path);
        // 123456789012_vpcflowlogs_eu-central-1_fl-…_20260301T1200Z_….log.gz
        // 123456789012_elasticloadbalancing_eu-central-1_app.name.id_20260301T1200Z_….log.gz
        match file.split('_').collect::<Vec<_>>()[..] {
            [account, "vpcflowlogs" | "elasticloadbalancing", region, ..]
                if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) =>
            {
                Self::of_place(account, region)
            }
            _ => Self::default(),
        }
    }

    /// A reader of lines from that account and region, for lines that do not name theirs.
    pub fn of_place(account: &str, region: &str) -> Self {
        Self { account: account.to_owned(), region: region.to_owned(), ..Self::default() }
    }

    /// Reads one line.
    pub fn line(&mut self, line: &str) -> Line<'_> {
        self.line_of(line, "")
    }

    /// Reads one line that CloudWatch Logs gave the id `id`.
    pub fn line_of(&mut self, line: &str, id: &str) -> Line<'_> {
        let line = line.trim();
        if let Some(columns) = flow_log::Columns::of_header(line) {
            self.flow_columns = Some(columns);
            return Line::Header;
        }
        let parsed = match self.parse(line) {
            None => {
                // CloudWatch Logs exports put the time of arrival before each line.
                let rest = line.split_once(' ').filter(|(time, _)| Timestamp::parse(time).is_some());
                match rest.and_then(|(_, rest)| self.parse(rest)) {
                    None => return Line::Unknown,
                    Some(parsed) => parsed,
                }
            }
            Some(parsed) => parsed,
        };
        match parsed {
            Err(error) => Line::Bad(error),
            Ok(parsed) => {
                self.write(line, id, parsed);
                Line::Record(&self.text)
            }
        }
    }

    fn parse(&self, line: &str) -> Option<Result<Parsed, IntakeError>> {
        flow_log::parse(line, self.flow_columns.as_ref()).or_else(|| access_log::parse(line))
    }

    fn write(&mut self, line: &str, id: &str, parsed: Parsed) {
        let mut hasher = FxHasher::default();
        hasher.write(line.as_bytes());
        hasher.write(id.as_bytes());
        let hash = hasher.finish();
        let nth = self.count(hash);
        let or = |given: String, known: &str| if given.is_empty() { known.to_owned() } else { given };
        self.text = json!({
            "source": parsed.source,
            "detail-type": parsed.name,
            "id": format!("{hash:016x}-{nth}"),
            "time": parsed.time,
            "account": or(parsed.account, &self.account),
            "region": or(parsed.region, &self.region),
            "detail": parsed.detail,
        })
        .to_string();
    }

    /// How often the line came by now, this time included.
    fn count(&mut self, hash: u64) -> u32 {
        if self.seen.len() >= LINES_REMEMBERED {
            self.seen_before = std::mem::take(&mut self.seen);
        }
        let before = &self.seen_before;
        let nth = self.seen.entry(hash).or_insert_with(|| before.get(&hash).copied().unwrap_or_default());
        *nth += 1;
        *nth
    }
}

/// Whether a notification was made here.
pub fn is_source(source: &str) -> bool {
    matches!(source, flow_log::SOURCE | access_log::SOURCE)
}

/// The event of a line: the other side's address and user agent are in the header, and a refused connection is a failed
/// call, so that classifiers can say no without looking into it.
pub fn event<'a>(header: NotificationHeader<'a>, detail: &'a str) -> Event<'a> {
    let mut event = Event::notification(header, detail);
    let _ = Scanner::new(detail).object::<ScanError>(|key, s| {
        let value = s.raw_value()?;
        match key {
            "source_ip" => event.source_ip = value.as_str().unwrap_or_default(),
            "user_agent" => event.user_agent = value.as_str().unwrap_or_default(),
            "action" => event.error_code = value.as_str().filter(|action| *action == "REJECT"),
            _ => {}
        }
        Ok(())
    });
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::log_groups::LogGroups;
    use crate::intake::{Leaf, decode};
    use proptest::prelude::*;

    fn read(log: &mut TextLog, line: &str) -> String {
        match log.line(line) {
            Line::Unknown => "unknown".to_owned(),
            Line::Header => "header".to_owned(),
            Line::Bad(error) => error.to_string(),
            Line::Record(text) => {
                let event = Leaf::of(text).unwrap().event().unwrap();
                let detail = event.detail().unwrap();
                let shown: Vec<String> = ["port", "path", "status"]
                    .iter()
                    .filter(|key| !detail[**key].is_null())
                    .map(|key| detail[*key].to_string())
                    .collect();
                format!(
                    "{} {} {} {} {}/{} {}{}",
                    event.name,
                    event.time,
                    event.source_ip,
                    shown.join(" "),
                    event.account,
                    event.region,
                    event.user_agent,
                    if event.is_failed() { "refused" } else { "" }
                )
            }
        }
    }

    #[test]
    fn flow_records_of_the_default_format_are_read_with_and_without_a_time_before_them() {
        let line = "2 123456789012 eni-0a1 203.0.113.9 10.0.0.4 51000 22 6 10 840 1772366460 1772366520 ACCEPT OK";
        let expected = "Flow 2026-03-01T12:01:00Z 203.0.113.9 22 123456789012/ ";
        assert_eq!(read(&mut TextLog::default(), line), expected);
        assert_eq!(read(&mut TextLog::default(), &format!("2026-03-01T12:05:00.000Z {line}")), expected);
        assert_eq!(read(&mut TextLog::default(), &line.replace("ACCEPT", "REJECT")), format!("{expected}refused"));
        assert_eq!(
            read(&mut TextLog::default(), &line.replace("203.0.113.9", "nobody")),
            "source_ip is not an address"
        );
        let nodata = "2 123456789012 eni-0a1 - - - - - - - 1772366460 1772366520 - NODATA";
        assert_eq!(read(&mut TextLog::default(), nodata), "Flow 2026-03-01T12:01:00Z   123456789012/ ");
    }

    #[test]
    fn a_header_line_names_the_columns_and_the_file_name_the_place() {
        let mut log = TextLog::of_file("a/123456789012_vpcflowlogs_eu-central-1_fl-0a1_20260301T1200Z_0a1.log.gz");
        assert_eq!(read(&mut log, "interface-id start dstport srcaddr flow-direction"), "header");
        let expected = "Flow 2026-03-01T12:01:00Z 2001:db8::9 3389 123456789012/eu-central-1 ";
        assert_eq!(read(&mut log, "eni-0a1 1772366460 3389 2001:db8::9 ingress"), expected);
        assert_eq!(read(&mut log, "eni-0a1 1772366460 3389"), "unknown");
    }

    #[test]
    fn access_logs_of_all_four_kinds_are_read() {
        let combined =
            r#"203.0.113.9 - - [01/Mar/2026:13:00:00 +0100] "GET /a?b=\"c\" HTTP/1.1" 404 12 "-" "sqlmap/1.7""#;
        let expected = r#"Request 2026-03-01T12:00:00Z 203.0.113.9 "/a?b=\\\"c\\\"" 404 / sqlmap/1.7"#;
        assert_eq!(read(&mut TextLog::default(), combined), expected);
        assert_eq!(read(&mut TextLog::default(), &format!("www.example.com:80 {combined}")), expected);
        let common = r#"203.0.113.9 - bob [01/Mar/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 12"#;
        assert_eq!(read(&mut TextLog::default(), common), r#"Request 2026-03-01T12:00:00Z 203.0.113.9 "/" 200 / "#);
        let alb = r#"https 2026-03-01T12:00:00.186641Z app/web/0a1 203.0.113.9:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57 "GET https://www.example.com:443/x HTTP/1.1" "curl/7.46.0" TLS_A TLSv1.2 arn "Root=1""#;
        assert_eq!(
            read(&mut TextLog::default(), alb),
            r#"Request 2026-03-01T12:00:00.186Z 203.0.113.9 "/x" 200 / curl/7.46.0"#
        );
        let classic = r#"2026-03-01T12:00:00.945958Z web 203.0.113.9:2817 10.0.0.1:80 0.1 0.2 0.3 200 200 0 29 "GET http://www.example.com:80/ HTTP/1.1" "curl/7.38.0" - -"#;
        assert_eq!(
            read(&mut TextLog::default(), classic),
            r#"Request 2026-03-01T12:00:00.945Z 203.0.113.9 "/" 200 / curl/7.38.0"#
        );
        assert_eq!(read(&mut TextLog::default(), "Mar  1 12:00:00 host sshd[1]: a line of another log"), "unknown");
    }

    #[test]
    fn the_same_line_twice_is_two_records_and_the_same_file_again_the_same() {
        let line = r#"203.0.113.9 - - [01/Mar/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 12"#;
        let ids = || {
            let mut log = TextLog::default();
            [line, line].map(|line| match log.line(line) {
                Line::Record(text) => Leaf::of(text).unwrap().event().unwrap().event_id.into_owned(),
                other => panic!("{other:?}"),
            })
        };
        let [first, second] = ids();
        assert_ne!(first, second);
        assert_eq!(ids(), [first, second]);
    }

    fn ids<'l>(log: &mut TextLog, lines: impl IntoIterator<Item = &'l (String, &'l str)>) -> Vec<String> {
        let id = |(line, id): &(String, &str)| match log.line_of(line, id) {
            Line::Record(text) => Leaf::of(text).unwrap().event().unwrap().event_id.into_owned(),
            other => panic!("{other:?}"),
        };
        lines.into_iter().map(id).collect()
    }

    #[test]
    fn equal_lines_stay_apart_where_what_is_remembered_is_full() {
        let line =
            |n: usize| (format!(r#"203.0.113.9 - - [01/Mar/2026:12:00:00 +0000] "GET /{n} HTTP/1.1" 200 12"#), "");
        let mut log = TextLog::default();
        let lines: Vec<_> =
            (0..LINES_REMEMBERED - 1).map(line).chain([line(9), line(1 << 20), line(9), line(9)]).collect();
        let mut found = ids(&mut log, &lines);
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), lines.len());
    }

    #[test]
    fn equal_lines_of_two_batches_are_two_records_and_a_batch_again_is_the_same() {
        let line = r#"203.0.113.9 - - [01/Mar/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 12"#.to_owned();
        let batch = |id: &str| ids(&mut TextLog::of_place("123456789012", ""), &[(line.clone(), id)]);
        assert_eq!(batch("3675-1"), batch("3675-1"));
        assert_ne!(batch("3675-1"), batch("3675-2"));
    }

    #[test]
    fn subscriptions_are_opened_line_by_line() {
        let line = "2 123456789012 eni-0a1 203.0.113.9 10.0.0.4 51000 22 6 10 840 1772366460 1772366520 ACCEPT OK";
        let text = json!({ "messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "flows",
            "logEvents": [{ "id": "1", "timestamp": 1, "message": line }, { "id": "2", "timestamp": 1, "message": "what" }] })
        .to_string();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, gzip.finish().unwrap());
        for text in [text, json!({ "awslogs": { "data": data } }).to_string()] {
            let mut seen = Vec::new();
            decode(&text, &LogGroups::default(), &mut |leaf| {
                seen.push(leaf.and_then(|l| l.event().map(|e| e.name.into_owned())));
            });
            assert_eq!(seen.len(), 2);
            assert_eq!(seen[0].as_deref(), Ok("Flow"));
            assert!(seen[1].is_err());
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in r#"([-0-9a-zA-Z:/." \[\]+\\]|é){0,120}"#) {
            let mut log = TextLog::default();
            let _ = log.line("version srcaddr start");
            let _ = log.line(&line);
        }

        #[test]
        fn any_damage_to_a_line_is_survived(at in 0_usize..200, with in ".") {
            let line = r#"h2 2026-03-01T12:00:00.186641Z app/web/0a1 203.0.113.9:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57 "GET https://a:443/x HTTP/1.1" "curl""#;
            let at = at % line.len();
            let damaged = format!("{}{with}{}", &line[..at], &line[at + 1..]);
            if let Line::Record(text) = TextLog::default().line(&damaged) {
                prop_assert!(Leaf::of(text).is_ok());
            }
        }
    }
}

//! Log lines kept as objects too, for longer than a log group keeps them.

use shared::Timestamp;
use shared::ports::{Archive, PortResult};

use crate::record::time_of;
use crate::sink::LogSink;

/// A sink whose lines also go to an archive, if there is one: one object for each batch, before the sink gets it.
///
/// **Names** are `lines/YYYY/MM/DD/HASH.jsonl`: the day of the earliest line, the hash of all lines in order of their text.
/// So a batch that is written again replaces its object. After a crash messages may come in other batches; then a line
/// can be in two objects, and `metadata.uid` tells that it is the same.
#[derive(Debug)]
pub struct ArchiveLog<S, A> {
    lines: S,
    archive: Option<A>,
}

impl<S, A> ArchiveLog<S, A> {
    /// A sink that writes to `lines`, and to `archive` before.
    pub const fn new(lines: S, archive: Option<A>) -> Self {
        Self { lines, archive }
    }
}

impl<S: LogSink, A: Archive> LogSink for ArchiveLog<S, A> {
    async fn append(&self, lines: &[String]) -> PortResult<()> {
        if let Some(archive) = &self.archive {
            let (name, content) = object(lines);
            archive.put(&name, content.as_bytes()).await?;
        }
        self.lines.append(lines).await
    }

    async fn commit(&self, lines: &[String]) -> PortResult<()> {
        self.lines.commit(lines).await
    }

    fn uncommitted(&self) -> Vec<String> {
        self.lines.uncommitted()
    }
}

/// The name and content of a batch.
fn object(lines: &[String]) -> (String, String) {
    let mut sorted: Vec<&str> = lines.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let content: String = sorted.iter().flat_map(|line| [*line, "\n"]).collect();
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, content.as_bytes());
    let day = match lines.iter().filter_map(|line| time_of(line)).min() {
        Some(time) => day(time),
        None => "undated".to_owned(),
    };
    let ending = if content.starts_with('{') { "jsonl" } else { "log" };
    (format!("lines/{day}/{hash}.{ending}"), content)
}

/// `YYYY/MM/DD`, in UTC.
fn day(time: Timestamp) -> String {
    time.to_string().chars().take(10).map(|c| if c == '-' { '/' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use shared::adapters::memory::MemoryArchive;
    use shared::ports::PortError;

    use super::*;
    use crate::sink::WriteLog;

    fn lines(days: &[&str]) -> Vec<String> {
        let ms = |day: &str| Timestamp::parse(&format!("2026-03-{day}T12:00:00Z")).expect("a time").as_millis();
        days.iter().map(|day| format!("{{\"time\":{},\"uid\":\"{day}\"}}", ms(day))).collect()
    }

    #[tokio::test]
    async fn a_batch_is_one_object_and_written_again_the_same_one() {
        let archive = std::rc::Rc::new(MemoryArchive::default());
        let sink = ArchiveLog::new(WriteLog::new(Vec::new()), Some(std::rc::Rc::clone(&archive)));
        sink.append(&lines(&["02", "01"])).await.expect("written");
        sink.append(&lines(&["01", "02"])).await.expect("written");
        sink.append(&lines(&["03"])).await.expect("written");
        let names = archive.names();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].starts_with("lines/2026/03/01/") && names[0].ends_with(".jsonl"), "{names:?}");
        let content = archive.get(&names[0]).expect("stored");
        assert_eq!(String::from_utf8(content).expect("text"), lines(&["01", "02"]).join("\n") + "\n");
        let written = String::from_utf8(sink.lines.into_inner()).expect("text");
        assert_eq!(written.lines().count(), 5, "the sink gets everything");
    }

    #[test]
    fn lines_of_both_formats_tell_their_day() {
        assert!(object(&["a=1 event_time=2026-03-01T12:00:00Z b=2".to_owned()]).0.starts_with("lines/2026/03/01/"));
        assert!(object(&["a=1 event_time= b=2".to_owned()]).0.starts_with("lines/undated/"));
    }

    struct Closed;

    impl Archive for Closed {
        async fn put(&self, name: &str, _content: &[u8]) -> PortResult<()> {
            Err(PortError::Retryable { what: format!("could not write {name}"), source: None })
        }
    }

    #[tokio::test]
    async fn what_cannot_be_archived_is_not_logged_either() {
        let sink = ArchiveLog::new(WriteLog::new(Vec::new()), Some(Closed));
        assert!(sink.append(&lines(&["01"])).await.is_err_and(|e| e.is_retryable()));
        assert!(sink.lines.into_inner().is_empty());
    }
}

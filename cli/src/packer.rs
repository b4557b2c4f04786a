//! Packs records into messages: `{"Records":[…]}`, as CloudTrail itself does.

/// Records in one message: our choice, a tenth of a second's work for the classifier.
const RECORDS_MAX: usize = 100;
/// Bytes in one message, below the 256 KB of SQS. A single larger record travels alone.
const BYTES_MAX: usize = 200 * 1024;

const HEAD: &str = "{\"Records\":[";
const TAIL: &str = "]}";

/// Collects records until a message is full.
#[derive(Debug, Default)]
pub struct Packer {
    body: String,
    records: usize,
}

impl Packer {
    /// Adds a record, any JSON text; answers the message before it when that is full.
    pub fn add(&mut self, record: &str) -> Option<String> {
        let full = self.records == RECORDS_MAX
            || (self.records > 0 && self.body.len() + record.len() + 1 + TAIL.len() > BYTES_MAX);
        let message = if full { self.take() } else { None };
        self.body.push_str(if self.records == 0 { HEAD } else { "," });
        self.body.push_str(record);
        self.records += 1;
        message
    }

    /// The message that is being packed, if it has any record.
    pub fn take(&mut self) -> Option<String> {
        if self.records == 0 {
            return None;
        }
        self.records = 0;
        let mut message = std::mem::take(&mut self.body);
        message.push_str(TAIL);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(records: &[String]) -> Vec<String> {
        let mut packer = Packer::default();
        let mut messages: Vec<String> = records.iter().filter_map(|r| packer.add(r)).collect();
        messages.extend(packer.take());
        messages
    }

    fn records_in(messages: &[String]) -> Vec<String> {
        let each = |message: &String| -> Vec<String> {
            let value: serde_json::Value = serde_json::from_str(message).unwrap();
            value["Records"].as_array().unwrap().iter().map(ToString::to_string).collect()
        };
        messages.iter().flat_map(each).collect()
    }

    #[test]
    fn messages_hold_every_record_once_and_in_order() {
        let records: Vec<String> = (0..250).map(|n| format!("{{\"n\":{n}}}")).collect();
        let messages = packed(&records);
        assert_eq!(messages.len(), 3);
        assert_eq!(records_in(&messages), records);
    }

    #[test]
    fn messages_stay_small_and_a_large_record_travels_alone() {
        let record = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
        let records = [record(150_000), record(60_000), record(500_000), record(10), record(20)];
        let messages = packed(&records);
        assert_eq!(records_in(&messages), records);
        let lengths: Vec<usize> = messages.iter().map(String::len).collect();
        assert_eq!(lengths.len(), 4, "{lengths:?}");
        assert!(lengths.iter().enumerate().all(|(i, n)| i == 2 || *n <= BYTES_MAX), "{lengths:?}");
    }

    #[test]
    fn nothing_makes_no_message() {
        assert!(packed(&[]).is_empty());
    }
}

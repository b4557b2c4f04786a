//! Security Hub envelopes: one EventBridge event may carry several findings. Each is a record of its own: it has its own
//! identity, fails alone, and a classifier sees one. Envelopes of several are split into envelopes of one; everything else
//! in them stays.

use shared::json_scan::{RawValue, ScanError, Scanner};

use super::IntakeError;

/// Detail types that carry findings start with this: "Security Hub Findings - Imported", "… - Custom Action".
const DETAIL_TYPE: &str = "\"Security Hub Findings";
/// A custom action sends at most 20 findings and an import has one; more than this is not Security Hub.
const FINDINGS_MAX: usize = 100;

/// The findings of an envelope, with the array that holds them.
pub struct Findings<'a> {
    array: &'a str,
    findings: Vec<&'a str>,
}

impl<'a> Findings<'a> {
    /// The findings in the detail of an envelope of this detail type (its raw JSON); `None` when it is no such envelope
    /// or has one finding, and so is a record already.
    pub fn several(detail_type: RawValue<'a>, detail: RawValue<'a>) -> Option<Self> {
        if !detail_type.text.starts_with(DETAIL_TYPE) || !detail.text.starts_with('{') {
            return None;
        }
        let mut array = "";
        let read = Scanner::new(detail.text).object::<ScanError>(|key, s| {
            let value = s.raw_value()?;
            if key == "findings" {
                array = value.text;
            }
            Ok(())
        });
        let findings = read.ok().and_then(|()| items(array))?;
        (findings.len() != 1).then_some(Self { array, findings })
    }

    /// Calls `each` with every finding in the envelope `text`, as if it had come alone.
    ///
    /// # Errors
    /// When there are more than any envelope of Security Hub has.
    pub fn open(&self, text: &str, mut each: impl FnMut(&str)) -> Result<(), IntakeError> {
        if self.findings.len() > FINDINGS_MAX {
            return Err(IntakeError::TooMany { what: "findings", max: FINDINGS_MAX });
        }
        // Both are slices of one text.
        let at = self.array.as_ptr() as usize - text.as_ptr() as usize;
        let (before, after) = (&text[..at], &text[at + self.array.len()..]);
        for finding in &self.findings {
            each(&[before, "[", finding, "]", after].concat());
        }
        Ok(())
    }
}

/// The values of an array; `None` when the text is none.
fn items(array: &str) -> Option<Vec<&str>> {
    let mut scanner = Scanner::new(array);
    scanner.expect(b'[', "expected an array").ok()?;
    let mut items = Vec::new();
    if scanner.take(b']') {
        return Some(items);
    }
    loop {
        items.push(scanner.raw_value().ok()?.text);
        if !scanner.take(b',') {
            return scanner.take(b']').then_some(items);
        }
    }
}

//! The sections `[notifier]` and `[channels.<id>]`.

use serde::{Deserialize, Serialize};
use shared::config::Document;
use shared::{OutcomeStatus, Severity};

/// Everything the notifier reads from the file; serialises to the sections it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifierSettings {
    /// `[notifier]`.
    pub notifier: Policy,
    /// `[channels.<id>]`.
    pub channels: ChannelSettings,
}

/// `[notifier]`: what is worth an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Findings below this are logged and not sent. Medium is our choice: it means "look at it today".
    pub min_severity: Severity,
    /// Repeats of a finding (the same in everything but time and facts) within this many seconds of event time become one
    /// alert; 0 sends each.
    pub group_s: u32,
    /// Whether good news (something is closed again) is sent although its severity is informational.
    pub good_news: bool,
    /// Outcomes that are sent. `DRY_RUN` is among them because dry-run is how the product starts, and its mail is
    /// what shows the exact calls before anyone turns a response on. `SKIPPED` is that of a response in mode `auto`: who
    /// has turned it on relies on it. What a dry run skips is only recorded.
    pub outcomes: Vec<OutcomeStatus>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_severity: Severity::Medium,
            group_s: 300,
            good_news: true,
            outcomes: vec![
                OutcomeStatus::DryRun,
                OutcomeStatus::PendingApproval,
                OutcomeStatus::Succeeded,
                OutcomeStatus::Failed,
                OutcomeStatus::Skipped,
            ],
        }
    }
}

/// `[channels.<id>]`: where alerts go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelSettings {
    /// `[channels.console]`.
    pub console: ConsoleSettings,
    /// `[channels.file]`.
    pub file: FileSettings,
    /// `[channels.sns]`.
    pub sns: SnsSettings,
}

/// `[channels.console]`: whole alerts on the terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleSettings {
    /// Off by default: ten alerts fill a screen.
    pub enabled: bool,
}

/// `[channels.file]`: one text file an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSettings {
    /// On by default on one machine; the Lambda function ignores it, its disk does not last.
    pub enabled: bool,
    /// The folder, relative to the data folder.
    pub folder: String,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self { enabled: true, folder: "alerts".to_owned() }
    }
}

/// `[channels.sns]`: e-mail through an SNS topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnsSettings {
    /// `arn:aws:sns:<region>:<account>:<name>`; empty turns the channel off.
    pub topic_arn: String,
}

/// One day: a longer group would hide an attack that goes on from those who come back to work.
const GROUP_S_MAX: u32 = 86_400;

/// Takes `[notifier]` and `[channels.<id>]` out of the file; mistakes stay in the document.
pub fn configure(document: &mut Document<'_>) -> NotifierSettings {
    let notifier = document.section_with("notifier", |policy: &Policy| {
        if policy.group_s > GROUP_S_MAX {
            let why = format!("must be at most {GROUP_S_MAX} (a day), is {}", policy.group_s);
            return vec![("group_s".to_owned(), why)];
        }
        Vec::new()
    });
    document.expect_table("channels");
    let console = document.section("channels.console");
    let file = document.section_with("channels.file", |file: &FileSettings| {
        if file.enabled && file.folder.is_empty() {
            return vec![("folder".to_owned(), "must name a folder".to_owned())];
        }
        Vec::new()
    });
    let sns = document.section_with("channels.sns", |sns: &SnsSettings| {
        let parts: Vec<&str> = sns.topic_arn.split(':').collect();
        let is_topic = matches!(parts[..], ["arn", _, "sns", region, account, name]
            if !region.is_empty() && !name.is_empty() && account.len() == 12);
        if sns.topic_arn.is_empty() || is_topic {
            return Vec::new();
        }
        let why = format!("must look like arn:aws:sns:REGION:ACCOUNT:NAME, is {:?}", sns.topic_arn);
        vec![("topic_arn".to_owned(), why)]
    });
    NotifierSettings { notifier, channels: ChannelSettings { console, file, sns } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_their_lines_and_good_values_count() {
        let text = "[notifier]\nmin_severity = \"high\"\noutcomes = [\"FAILED\"]\n[channels.sns]\ntopic_arn = \"x\"\n[channels.fax]\nn = 1\n";
        let mut document = Document::parse("pipeline.toml", text);
        let settings = configure(&mut document);
        assert_eq!(settings.notifier.min_severity, Severity::High);
        assert_eq!(settings.notifier.outcomes, [OutcomeStatus::Failed]);
        let error = document.finish().expect_err("two mistakes");
        let lines: Vec<_> = error.mistakes.iter().map(|m| (m.line, m.key.as_str())).collect();
        assert_eq!(lines, [(5, "channels.sns.topic_arn"), (6, "channels.fax")], "{error}");
    }

    #[test]
    fn defaults_read_back_as_themselves() {
        let defaults = NotifierSettings::default();
        let value = serde_json::to_value(&defaults).expect("plain values");
        assert_eq!(serde_json::from_value::<NotifierSettings>(value).expect("same shape"), defaults);
    }
}

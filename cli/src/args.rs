//! The command line, as `--help` shows it.

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use serde::Serialize;
use shared::{FindingId, IncidentStatus};

use crate::failure::Failure;

/// Where `run` keeps its database and its outputs unless told otherwise.
pub const DEFAULT_DATA: &str = "pipeline-data";

/// The deployment unless told otherwise: the default of the templates' parameter `Name`.
const DEFAULT_NAME: &str = "security-pipeline";

const EXAMPLES: &str = "\
Examples:
  pipeline demo                                 see it work on a made-up day, nothing to set up
  pipeline replay ./cloudtrail/                 what is in my logs? findings on the screen
  pipeline replay day.json.gz --format jsonl    one JSON object per finding, for other programs
  zcat day.json.gz | pipeline replay -          from standard input
  pipeline run ./cloudtrail/ --data ./mine      the whole chain: incidents, alerts, log; resumable
  pipeline incidents --data ./mine              what came of it
  pipeline inspect upload.zip                   is this file malicious?
  pipeline doctor --region eu-central-1         is my deployment in AWS well?
  pipeline responses list --since 7d            what has it done in my account? `undo` takes one back
  pipeline config --show-defaults > pipeline.toml

Inputs are CloudTrail log files ({\"Records\":[…]}, .json or .json.gz), JSON lines, plain arrays, EventBridge, \
SQS and SNS envelopes, and folders of them. Nothing is sent anywhere: no network, no account and no credentials \
are needed, and responses are only planned. Only `doctor`, `responses` and what is told --aws ask AWS, and only when \
built with it: \
cargo build --release --features aws

Exit codes:
  0    done
  1    something on this machine failed (disk full, damaged database), a deployment is not well, an undo stopped midway
  2    an input cannot be read, the configuration has mistakes, or the command line is wrong
  130  interrupted with Ctrl-C; what was done so far is kept";

/// Detects threats in AWS audit logs, plans the answer, tells people and keeps the incidents.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole chain at work on a made-up attack day (about 2,000 records)
    Demo(DemoArgs),
    /// Read logs and print the findings, in the order things happened
    Replay(ReplayArgs),
    /// Read logs through the whole chain, keeping incidents, alerts and the log in a folder
    Run(RunArgs),
    /// Run labelled records, each alone, and say which threats are missed and what fires without need
    TestCases(TestCasesArgs),
    /// Judge files as uploaded objects are judged: known, mislabelled, hostile or nearly so
    Inspect(InspectArgs),
    /// List what is detected
    Classifiers(ClassifiersArgs),
    /// List the incidents that `run` has kept
    Incidents(IncidentsArgs),
    /// Look at messages that could not be handled, or try them again
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Examine a deployment in AWS: is everything there, enabled and permitted, and does a test event come through?
    Doctor(DoctorArgs),
    /// What the responses of a deployment in AWS did, and taking one back
    #[command(subcommand)]
    Responses(ResponsesCommand),
    /// Check the configuration file, or print one with every setting at its default
    Config(ConfigArgs),
}

/// How results for people or programs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON array.
    Json,
}

/// How what may be many looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LineFormat {
    /// For people: one block each.
    Text,
    /// For programs: one JSON object per line.
    Jsonl,
}

/// A file to write, which is never standard output: there is what is printed.
fn file_to_write() -> impl TypedValueParser<Value = PathBuf> {
    let why = "name a file; `./-` is one of that name, /dev/stdout is standard output";
    PathBufValueParser::new().try_map(move |path| if path.as_os_str() == "-" { Err(why) } else { Ok(path) })
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigFile {
    /// Settings; default: ./pipeline.toml when it exists, else built-in defaults
    #[arg(long = "config", value_name = "FILE")]
    pub path: Option<PathBuf>,
    /// Sigma rules for CloudTrail: a folder with all below it, or a file; may be given several times
    #[arg(long, value_name = "DIR")]
    pub rules: Vec<PathBuf>,
}

/// `pipeline demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Only write the made-up records to FILE (JSON lines), to look at or to replay
    #[arg(long, value_name = "FILE", value_parser = file_to_write())]
    pub write: Option<PathBuf>,
}

/// `pipeline replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Findings are printed in event-time order and are the same whatever the number of threads. The summary goes to \
standard error, or as JSON to the file of --summary.

Examples:
  pipeline replay ./AWSLogs/
  pipeline replay a.json.gz b.json.gz --format jsonl | jq -r .title
  pipeline replay ./AWSLogs/ --rules ./sigma/rules/cloud/aws/cloudtrail
  pipeline replay - < records.jsonl
  pipeline replay ./AWSLogs/ --explain 6f7c8a51-3a2e-4c52-9d5b-0f2b1f0a7c11")]
pub struct ReplayArgs {
    /// Files or folders; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How findings are printed
    #[arg(long, value_enum, default_value_t = LineFormat::Text)]
    pub format: LineFormat,
    /// Configuration
    #[command(flatten)]
    pub config: ConfigFile,
    /// Threads that read; default: one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Write the summary as JSON to FILE instead of to the screen
    #[arg(long, value_name = "FILE", value_parser = file_to_write())]
    pub summary: Option<PathBuf>,
    /// Write the records that cannot be read to FILE: JSON lines with file, index, field, reason and text
    #[arg(long, value_name = "FILE", value_parser = file_to_write())]
    pub rejected: Option<PathBuf>,
    /// Instead of the findings, say what every classifier made of the event with this id, and why; stops there
    #[arg(long, value_name = "EVENT_ID", conflicts_with_all = ["summary", "rejected"])]
    pub explain: Option<String>,
}

/// `pipeline run`.
#[derive(Debug, Args)]
#[command(after_help = "\
In DIR afterwards: pipeline.redb (queues, state, incidents), alerts/ (one text per alert), pipeline.log (JSON \
lines) and rejected.jsonl (records that could not be read, with the reason).

Interrupt it as you like, even with kill -9: the same command with the same inputs and settings goes on where it \
stopped, and nothing is lost or doubled. Inputs are recognised by their names and sizes; when they change, \
everything is read again, and what was found before is not told twice.

Examples:
  pipeline run ./AWSLogs/ --data ./pipeline-data
  pipeline incidents --data ./pipeline-data --status new")]
pub struct RunArgs {
    /// Files or folders; not standard input, which cannot be read again after an interruption
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Where the database and the outputs are kept; made when it is not there
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// Configuration
    #[command(flatten)]
    pub config: ConfigFile,
    /// Threads that read; default: one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Write the summary as JSON to FILE instead of to the screen
    #[arg(long, value_name = "FILE", value_parser = file_to_write())]
    pub summary: Option<PathBuf>,
}

/// `pipeline test-cases`.
#[derive(Debug, Args)]
#[command(after_help = "\
FILE holds one case a line: {\"record\": {…}, \"expected\": true, \"rule\": \"…\", \"case\": \"…\", \"threshold\": 3}. \
`record` is anything `replay` reads; `expected` says whether it is a threat; the others may be left out. Every case \
runs alone, with nothing remembered. A case with a threshold above 1 is delivered that often, as different events one \
second apart, before it is judged. Found means that any classifier finds a threat in it; good news and findings that \
the allow-list keeps back do not count.

The exit code is 0 whatever the figures are, and 2 when the file cannot be read.

Examples:
  pipeline test-cases cases.jsonl
  pipeline test-cases cases.jsonl --format json | jq .recall")]
pub struct TestCasesArgs {
    /// The cases, JSON lines
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Configuration
    #[command(flatten)]
    pub config: ConfigFile,
}

/// `pipeline inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each file is clean, suspicious or malicious, with the reasons: known hashes, a score of extension, type and size, \
signatures, YARA rules, fuzzy hashes, and what zip and gzip files hold. Files are only read; nothing is run or changed. \
Nothing is sent but SHA-256 hashes, and those only when the configuration has a key for VirusTotal or Hybrid Analysis \
and the program was built with --features reputation.

The exit code says whether files could be read, not what was found: 0 also for malicious ones, 2 when one cannot be \
read; the others are judged all the same.

Lists are text, one entry a line, '#' for comments: HASH [NAME] (MD5, SHA-1, SHA-256), TLSH [NAME], TYPE KIND PATTERN. \
They come beside those of the configuration.

Examples:
  pipeline inspect upload.zip invoice.pdf.exe
  pipeline inspect * --format json | jq -r '.[] | select(.judgement == \"malicious\") | .name'
  pipeline inspect sample.bin --hashes known.txt --fuzzy-hashes families.txt")]
pub struct InspectArgs {
    /// Files; of large ones the first 100 MiB
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Settings, of which the section `inspection` is used; default: ./pipeline.toml when it exists, else built-in defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The Content-Type the files were stored with
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Known hashes; may be given several times
    #[arg(long, value_name = "LIST")]
    pub hashes: Vec<String>,
    /// Known fuzzy hashes (TLSH); may be given several times
    #[arg(long, value_name = "LIST")]
    pub fuzzy_hashes: Vec<String>,
    /// Signatures beside the built-in ones; may be given several times
    #[arg(long, value_name = "LIST")]
    pub signatures: Vec<String>,
    /// YARA rules: a file, or a folder with all below it; may be given several times (built with --features yara only)
    #[arg(long, value_name = "RULES")]
    pub yara: Vec<String>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `pipeline classifiers`.
#[derive(Debug, Args)]
pub struct ClassifiersArgs {
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Configuration
    #[command(flatten)]
    pub config: ConfigFile,
}

/// Which incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusArg {
    /// Nobody and nothing has acted.
    New,
    /// A response runs, waits for approval or was planned.
    Processing,
    /// A response succeeded.
    Mitigated,
    /// Over.
    Closed,
}

impl From<StatusArg> for IncidentStatus {
    fn from(arg: StatusArg) -> Self {
        match arg {
            StatusArg::New => Self::New,
            StatusArg::Processing => Self::Processing,
            StatusArg::Mitigated => Self::Mitigated,
            StatusArg::Closed => Self::Closed,
        }
    }
}

/// `pipeline incidents`.
#[derive(Debug, Args)]
pub struct IncidentsArgs {
    /// The folder `run` was given
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Only incidents that stand here; may be given several times
    #[arg(long, value_enum, ignore_case = true, value_name = "STATUS")]
    pub status: Vec<StatusArg>,
    /// At most N, newest first; 0 means all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub limit: usize,
}

/// The queues between the components, by the component that reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueueArg {
    /// Records on their way to the classifier.
    Classifier,
    /// Findings on their way to the responder.
    Responder,
    /// Findings and outcomes on their way to the notifier.
    Notifier,
    /// Everything on its way to the logger.
    Logger,
    /// In AWS: what EventBridge could not deliver to the classifier.
    Undelivered,
    /// In AWS: what a forwarder could not send to the central bus.
    Unforwarded,
}

/// Which deployment in AWS. Credentials and region are found as the AWS CLI finds them.
#[derive(Clone, Debug, Args)]
pub struct AwsArgs {
    /// The deployment: its parameter Name, the prefix of everything it created
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
    pub name: String,
    /// The region it is in; default: AWS_REGION or the profile's
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// The profile of ~/.aws/config to use; default: AWS_PROFILE
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
}

impl AwsArgs {
    /// Whether anything was said about the deployment.
    fn is_given(&self) -> bool {
        self.name != DEFAULT_NAME || self.region.is_some() || self.profile.is_some()
    }
}

impl PlaceArgs {
    /// The folder.
    ///
    /// # Errors
    /// When a deployment was described as well: whoever did so means AWS.
    pub fn folder(&self) -> Result<&Path, Failure> {
        if self.deployment.is_given() {
            return Err(Failure::Usage("--name, --region and --profile are about AWS: add --aws".to_owned()));
        }
        Ok(&self.data)
    }
}

/// Here, or in AWS.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// The folder `run` was given
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA, conflicts_with = "aws")]
    pub data: PathBuf,
    /// Ask the deployment in AWS instead of a folder
    #[arg(long)]
    pub aws: bool,
    /// Which deployment
    #[command(flatten)]
    pub deployment: AwsArgs,
}

/// `pipeline dlq`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
With --aws the queues are those of a deployment. Looking at a message there receives it: its count goes up by one and \
nobody else sees it for up to 30 seconds. Nothing is removed by looking, and dead letters are not moved by their count.

Trying a message again is harmless, also one that was handled: everything in the pipeline is idempotent.

Examples:
  pipeline dlq list --data ./mine
  pipeline dlq list --aws --region eu-central-1
  pipeline dlq show --aws 8f4a1c2e-5b1d-4a57-9d4e-0c6d7a1b2c3d
  pipeline dlq redrive --aws --queue notifier --max-per-second 20")]
pub enum DlqCommand {
    /// Show messages that could not be handled, and why
    List(DlqListArgs),
    /// Show one of them whole
    Show(DlqShowArgs),
    /// Put them back into their queues and handle them again
    Redrive(DlqRedriveArgs),
}

/// `pipeline dlq list`.
#[derive(Debug, Args)]
pub struct DlqListArgs {
    /// Where
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Only this queue; default: all
    #[arg(long, value_enum)]
    pub queue: Option<QueueArg>,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// In AWS: at most N of each queue are looked at; 0 means all
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub limit: usize,
}

/// `pipeline dlq show`.
#[derive(Debug, Args)]
pub struct DlqShowArgs {
    /// As `list` names it
    #[arg(value_name = "MESSAGE_ID")]
    pub message_id: String,
    /// Where
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Only this queue; default: all
    #[arg(long, value_enum)]
    pub queue: Option<QueueArg>,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `pipeline dlq redrive`.
#[derive(Debug, Args)]
#[command(after_help = "\
In a folder the messages are handled at once. In AWS they go back into the queues and the functions handle them: by \
SQS itself (StartMessageMoveTask) where it can, else one by one, each removed only when its copy is in the queue. A \
message that fails again comes back into the dead-letter queue.")]
pub struct DlqRedriveArgs {
    /// In AWS: only this message; default: all
    #[arg(value_name = "MESSAGE_ID")]
    pub message_id: Option<String>,
    /// Where
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Only this queue; default: all
    #[arg(long, value_enum)]
    pub queue: Option<QueueArg>,
    /// In AWS: at most N messages a second; default: as fast as SQS likes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=500))]
    pub max_per_second: Option<u16>,
    /// In AWS: the region of the pipeline, for events that a forwarder in another region kept
    #[arg(long, value_name = "REGION")]
    pub to_region: Option<String>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Configuration
    #[command(flatten)]
    pub config: ConfigFile,
}

/// `pipeline doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each check is ok, a warning, failed or skipped (what you may not see, with the permission you lack), and says what to \
do. Only the canary changes anything: a test event that only an operator can send, which goes through all components, \
is told to nobody and leaves a closed incident. It needs the permissions to write to the state table, to put events on \
the bus and to read incidents.

Exit codes: 0 nothing failed; 1 a check failed; 2 AWS cannot be asked.

Examples:
  pipeline doctor --region eu-central-1
  pipeline doctor --forwarders us-east-1,eu-west-1 --canary-from us-east-1
  pipeline doctor --no-canary --format json | jq '.[] | select(.status == \"failed\")'")]
pub struct DoctorArgs {
    /// Which deployment
    #[command(flatten)]
    pub deployment: AwsArgs,
    /// Regions whose forwarders are looked at, with commas between; default: us-east-1
    #[arg(long, value_name = "REGION", value_delimiter = ',')]
    pub forwarders: Vec<String>,
    /// Send no canary
    #[arg(long)]
    pub no_canary: bool,
    /// Send the canary from this region, through its forwarder; default: the deployment's own
    #[arg(long, value_name = "REGION", conflicts_with = "no_canary")]
    pub canary_from: Option<String>,
    /// How long to wait for the canary
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=900))]
    pub canary_wait_s: u16,
    /// How the answers are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Where a response stands, as `responses list` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// All calls succeeded, or nothing had to be changed.
    CarriedOut,
    /// Planned and shown, nothing called.
    DryRun,
    /// Refused by the policy: exempt, too old, too many, another account.
    Skipped,
    /// A call failed; what was done before it stays done.
    Failed,
    /// Begun, and not finished yet.
    Running,
    /// Taken back.
    Undone,
}

/// `pipeline responses`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
These ask a deployment in AWS; on one machine nothing is carried out. An undo is made with your own credentials, in the \
account where the response was, and needs the permissions that the action has (deploy/README.md, \"What an operator \
needs\"). It calls only what still changes something, so it can be repeated; what was changed by others since stays.

Examples:
  pipeline responses list --region eu-central-1
  pipeline responses list --since 7d --status carried-out --format jsonl | jq -r .outcome_id
  pipeline responses show OUTCOME_ID
  pipeline responses undo OUTCOME_ID --profile incident-response")]
pub enum ResponsesCommand {
    /// List what was done, planned or refused, newest first
    List(ResponsesListArgs),
    /// Show one whole: the calls, what was there before, the undo, whether it was taken back
    Show(ResponsesShowArgs),
    /// Take one back, after showing what would be called and with whose credentials
    Undo(ResponsesUndoArgs),
}

/// `pipeline responses list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Read from the incidents of that time, by their index: no table is scanned. An incident is one read of up to 4 KB; after \
10,000 of them the search ends and says so, which is about a tenth of a cent.")]
pub struct ResponsesListArgs {
    /// Which deployment
    #[command(flatten)]
    pub deployment: AwsArgs,
    /// Only answers to events since then: 90m, 24h, 7d
    #[arg(long = "since", value_name = "AGO", default_value = "24h", value_parser = ago_s)]
    pub since_s: i64,
    /// Only in this account
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub account: Option<String>,
    /// Only those that stand here; may be given several times
    #[arg(long, value_enum, ignore_case = true, value_name = "STATUS")]
    pub status: Vec<Standing>,
    /// At most N
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = LineFormat::Text)]
    pub format: LineFormat,
}

/// `pipeline responses show`.
#[derive(Debug, Args)]
pub struct ResponsesShowArgs {
    /// As `list` names it: FINDING/ACTION/TARGET
    #[arg(value_name = "OUTCOME_ID", value_parser = outcome_id)]
    pub outcome_id: String,
    /// Which deployment
    #[command(flatten)]
    pub deployment: AwsArgs,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `pipeline responses undo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 taken back, now or before; 1 a call did not work: what was made stays made, and the same command makes the \
rest; 2 nothing was changed.

Exemptions and limits of the responder do not apply: who undoes decides. The same finding never acts again, the next \
event of its kind does, and your own calls are events too: a rule that comes back opens its group again. So first exempt \
the group or yourself in the responder's configuration.")]
pub struct ResponsesUndoArgs {
    /// As `list` names it: FINDING/ACTION/TARGET
    #[arg(value_name = "OUTCOME_ID", value_parser = outcome_id)]
    pub outcome_id: String,
    /// Which deployment
    #[command(flatten)]
    pub deployment: AwsArgs,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Seconds of `90m`, `24h`, `7d`, `30s`; at most ten years, as far as anybody's incidents go back.
fn ago_s(text: &str) -> Result<i64, String> {
    let wrong = || "a number with s, m, h or d behind it, such as 24h".to_owned();
    let unit_at = text.len().saturating_sub(1);
    let (number, unit) = text.split_at_checked(unit_at).ok_or_else(wrong)?;
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let n: u32 = number.parse().map_err(|_| wrong())?;
    let s = i64::from(n) * unit_s;
    if (1..=3_650 * 86_400).contains(&s) { Ok(s) } else { Err("between 1s and 3650d".to_owned()) }
}

fn account(text: &str) -> Result<String, String> {
    let is_account = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    if is_account { Ok(text.to_owned()) } else { Err("an account is a number of 12 digits".to_owned()) }
}

/// The shape of [`shared::Outcome::key`]: anything else in the ledger is no response.
fn outcome_id(text: &str) -> Result<String, String> {
    let mut parts = text.splitn(3, '/');
    let is_finding = parts.next().is_some_and(|id| FindingId::parse(id).is_some());
    let is_whole = is_finding && (0..2).all(|_| parts.next().is_some_and(|part| !part.is_empty()));
    if is_whole { Ok(text.to_owned()) } else { Err("FINDING/ACTION/TARGET, as `responses list` shows it".to_owned()) }
}

/// `pipeline config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print a complete configuration with every setting at its default
    #[arg(long)]
    pub show_defaults: bool,
    /// Configuration
    #[command(flatten)]
    pub config: ConfigFile,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_ago_have_a_unit_and_a_limit() {
        for (text, s) in [("1s", 1), ("90m", 5_400), ("24h", 86_400), ("3650d", 315_360_000)] {
            assert_eq!(ago_s(text), Ok(s), "{text}");
        }
        for text in ["", "h", "24", "0d", "-1h", "1.5h", "1w", "3651d", "99999999999d", "24 h", "24µ", "٢h"] {
            assert!(ago_s(text).is_err(), "{text}");
        }
    }

    #[test]
    fn responses_are_named_by_finding_action_and_target() {
        let finding = "8b8b8b8b-0000-5000-8000-000000000001";
        let parse = |id: &str| Cli::try_parse_from(["pipeline", "responses", "undo", id]);
        let Command::Responses(ResponsesCommand::Undo(args)) =
            parse(&format!("{finding}/iam_access_key_deactivate/AKIA/x")).expect("it is one").command
        else {
            panic!("an undo")
        };
        assert!(args.outcome_id.ends_with("/AKIA/x") && !args.yes);
        for id in [finding, "response_begun/a/b", "a/b/c", &format!("{finding}/a"), &format!("{finding}/a/")] {
            assert!(parse(id).is_err(), "{id}");
        }
    }

    #[test]
    fn responses_are_listed_of_a_day_and_fifty_unless_told_otherwise() {
        let parse = |more: &[&str]| Cli::try_parse_from(["pipeline", "responses", "list"].iter().chain(more));
        let Command::Responses(ResponsesCommand::List(args)) = parse(&[]).expect("all defaulted").command else {
            panic!("a list")
        };
        assert_eq!((args.since_s, args.limit, args.account, &args.status[..]), (86_400, 50, None, &[][..]));
        for wrong in [["--limit", "0"], ["--limit", "1001"], ["--account", "12345678901x"], ["--status", "done"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}

//! The command line, as `--help` shows it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use shared::IncidentStatus;

/// Where `run` keeps its database and its outputs unless told otherwise.
pub const DEFAULT_DATA: &str = "pipeline-data";

const EXAMPLES: &str = "\
Examples:
  pipeline demo                                 see it work on a made-up day, nothing to set up
  pipeline replay ./cloudtrail/                 what is in my logs? findings on the screen
  pipeline replay day.json.gz --format jsonl    one JSON object per finding, for other programs
  zcat day.json.gz | pipeline replay -          from standard input
  pipeline run ./cloudtrail/ --data ./mine      the whole chain: incidents, alerts, log; resumable
  pipeline incidents --data ./mine              what came of it
  pipeline inspect upload.zip                   is this file malicious?
  pipeline config --show-defaults > pipeline.toml

Inputs are CloudTrail log files ({\"Records\":[…]}, .json or .json.gz), JSON lines, plain arrays, EventBridge, \
SQS and SNS envelopes, and folders of them. Nothing is sent anywhere: no network, no account and no credentials \
are needed, and responses are only planned.

Exit codes:
  0    done
  1    something on this machine failed (disk full, damaged database)
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

/// How findings look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FindingFormat {
    /// For people: one block per finding.
    Text,
    /// For programs: one JSON object per line.
    Jsonl,
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
    #[arg(long, value_name = "FILE")]
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
    #[arg(long, value_enum, default_value_t = FindingFormat::Text)]
    pub format: FindingFormat,
    /// Configuration
    #[command(flatten)]
    pub config: ConfigFile,
    /// Threads that read; default: one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Write the summary as JSON to FILE instead of to the screen
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Write the records that cannot be read to FILE: JSON lines with file, index, field, reason and text
    #[arg(long, value_name = "FILE")]
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
    #[arg(long, value_name = "FILE")]
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
    /// Settings, of which the section [inspection] is used; default: ./pipeline.toml when it exists, else built-in defaults
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
    #[arg(long, value_enum, value_name = "STATUS")]
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
}

/// `pipeline dlq`.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Show messages that could not be handled, and why
    List(DlqListArgs),
    /// Put them back into their queues and handle them again
    Redrive(DlqRedriveArgs),
}

/// `pipeline dlq list`.
#[derive(Debug, Args)]
pub struct DlqListArgs {
    /// The folder `run` was given
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// Only this queue; default: all four
    #[arg(long, value_enum)]
    pub queue: Option<QueueArg>,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `pipeline dlq redrive`.
#[derive(Debug, Args)]
pub struct DlqRedriveArgs {
    /// The folder `run` was given
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// Only this queue; default: all four
    #[arg(long, value_enum)]
    pub queue: Option<QueueArg>,
    /// Configuration
    #[command(flatten)]
    pub config: ConfigFile,
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
}

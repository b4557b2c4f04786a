//! `kill -9` in the middle of `pipeline run`, again and again: in the end everything is as if nothing had happened.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

/// Copies of the demo's day, each in an account of its own.
const ACCOUNTS: usize = 4;
/// 20 of each day, and two that only appear together: logins of many users that fail from one address.
const FINDINGS: usize = ACCOUNTS * 20 + 2;

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.args(args).current_dir(folder).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = command(folder, args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder of compressed log files, one for every account and hour.
fn write_logs(folder: &Path) {
    succeed(folder, &["demo", "--write", "day.jsonl"]);
    let day = fs::read_to_string(folder.join("day.jsonl")).unwrap();
    let logs = folder.join("logs");
    fs::create_dir(&logs).unwrap();
    for account in 0..ACCOUNTS {
        let mut hours: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in day.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let time = record.get("eventTime").or(record.get("time")).unwrap().as_str().unwrap();
            let line = line.replace("123456789012", &format!("12345678901{account}"));
            hours.entry(time[11..13].to_owned()).or_default().push(line);
        }
        for (hour, lines) in hours {
            let name = format!("12345678901{account}_CloudTrail_eu-central-1_20260302T{hour}00Z_made-up.json.gz");
            let mut file = GzEncoder::new(File::create(logs.join(name)).unwrap(), Compression::fast());
            write!(file, "{{\"Records\":[{}]}}", lines.join(",")).unwrap();
            file.finish().unwrap();
        }
    }
}

/// What a run leaves, without the moments at which it was done.
struct Left {
    incidents: Vec<Value>,
    log: Vec<String>,
    alerts: BTreeMap<String, String>,
}

impl Left {
    fn in_folder(folder: &Path) -> Self {
        let mut incidents: Vec<Value> =
            serde_json::from_str(&succeed(folder, &["incidents", "--data", "kept", "--format", "json"])).unwrap();
        incidents.iter_mut().for_each(forget_moments);
        let mut log: Vec<String> = BufReader::new(File::open(folder.join("kept/pipeline.log")).unwrap())
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(&line.unwrap()).expect("whole lines");
                forget_moments(&mut line);
                line.to_string()
            })
            .collect();
        log.sort();
        let alerts = fs::read_dir(folder.join("kept/alerts"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let text = fs::read_to_string(entry.path()).unwrap();
                let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("Decided ")).collect();
                (entry.file_name().into_string().unwrap(), lines.join("\n"))
            })
            // A killed delivery may leave its unfinished file; the alert itself is whole.
            .filter(|(name, _)| !name.ends_with(".tmp"))
            .collect();
        Self { incidents, log, alerts }
    }
}

/// Removes the wall-clock times: of the record, of the decision, of the delivery.
fn forget_moments(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for moment in ["created_at", "updated_at", "decided_at", "decided_at_ms", "at", "time"] {
                members.remove(moment);
            }
            members.values_mut().for_each(forget_moments);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_moments),
        _ => {}
    }
}

/// Compares one by one, so that a failure shows what differs and not everything.
fn assert_same<T: PartialEq + std::fmt::Debug>(left: &[T], expected: &[T]) {
    for (left, expected) in left.iter().zip(expected) {
        assert_eq!(left, expected);
    }
    assert_eq!(left.len(), expected.len());
}

/// How far a run is, by what can be seen from outside.
fn alerts_in(folder: &Path) -> usize {
    fs::read_dir(folder.join("kept/alerts")).map_or(0, Iterator::count)
}

fn log_bytes_in(folder: &Path) -> u64 {
    fs::metadata(folder.join("kept/pipeline.log")).map_or(0, |about| about.len())
}

/// Waits until the run is `far_enough` and kills it; answers whether it was killed and not done before.
fn kill_when(mut run: Child, far_enough: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(status) = run.try_wait().unwrap() {
            let said = std::io::read_to_string(run.stderr.take().unwrap()).unwrap();
            assert!(status.success(), "{status}: {said}");
            return false;
        }
        if far_enough() {
            run.kill().unwrap();
            return run.wait().unwrap().code().is_none();
        }
        assert!(Instant::now() < deadline, "the run gets nowhere");
        thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_run_killed_again_and_again_ends_as_one_that_was_not() {
    let whole = tempfile::tempdir().unwrap();
    write_logs(whole.path());
    let run = ["run", "logs", "--data", "kept", "--threads", "2", "--summary", "summary.json"];
    succeed(whole.path(), &run);
    let expected = Left::in_folder(whole.path());
    assert_eq!(expected.incidents.len(), FINDINGS);
    assert!(expected.alerts.len() > FINDINGS, "findings and outcomes are told: {}", expected.alerts.len());

    let torn = tempfile::tempdir().unwrap();
    let folder = torn.path();
    write_logs(folder);
    let start = || command(folder, &run).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut kills = 0;
    kills += u32::from(kill_when(start(), || folder.join("kept/pipeline.redb").exists()));
    for step in 1..=8 {
        let (alerts, log) = (alerts_in(folder), log_bytes_in(folder));
        // By turns right after an alert was written and right after a line of the log was.
        let further = || if step % 2 == 0 { alerts_in(folder) > alerts + step * 2 } else { log_bytes_in(folder) > log };
        kills += u32::from(kill_when(start(), further));
    }
    assert!(kills >= 5, "killed only {kills} times");
    succeed(folder, &run);
    let left = Left::in_folder(folder);
    assert_same(&left.incidents, &expected.incidents);
    assert_same(&left.log, &expected.log);
    assert_eq!(left.alerts.keys().collect::<Vec<_>>(), expected.alerts.keys().collect::<Vec<_>>());
    assert_same(&left.alerts.values().collect::<Vec<_>>(), &expected.alerts.values().collect::<Vec<_>>());
    let summary = |folder: &Path| -> Value {
        let mut summary: Value =
            serde_json::from_str(&fs::read_to_string(folder.join("summary.json")).unwrap()).unwrap();
        for timing in ["seconds", "events_per_second"] {
            summary.as_object_mut().unwrap().remove(timing);
        }
        summary
    };
    assert_eq!(summary(folder), summary(whole.path()));
    assert!(succeed(folder, &["dlq", "list", "--data", "kept"]).starts_with("no dead letters"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_cleanly_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    write_logs(folder.path());
    let run = ["run", "logs", "--data", "kept"];
    let child = command(folder.path(), &run).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while alerts_in(folder.path()) < 2 {
        assert!(Instant::now() < deadline, "the run gets nowhere");
        thread::sleep(Duration::from_micros(200));
    }
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("kept in kept") && said.contains("the same command goes on"), "{said}");
    let text = succeed(folder.path(), &run);
    assert!(text.contains(&format!("Incidents  {FINDINGS}")), "{text}");
}

#[test]
fn two_runs_at_once_in_one_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_logs(folder.path());
    let run = ["run", "logs", "--data", "kept"];
    let mut first = command(folder.path(), &run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while alerts_in(folder.path()) < 2 {
        assert!(Instant::now() < deadline, "the run gets nowhere");
        thread::sleep(Duration::from_micros(200));
    }
    let second = command(folder.path(), &run).output().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
}

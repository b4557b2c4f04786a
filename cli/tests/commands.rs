//! What a user sees: the real binary, its output and its exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn pipeline(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(args)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = pipeline(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{}", stderr(&output));
    stdout(&output)
}

/// Runs into an error of exit code 2 and answers what it says.
fn refused(folder: &Path, args: &[&str]) -> String {
    let output = pipeline(folder, args);
    assert_eq!(output.status.code(), Some(2), "{args:?}\n{}\n{}", stdout(&output), stderr(&output));
    stderr(&output)
}

#[test]
fn the_demo_shows_findings_incidents_responses_and_what_to_try_next() {
    let folder = tempfile::tempdir().unwrap();
    let text = succeed(folder.path(), &["demo"]);
    for part in [
        "8 critical, 9 high, 3 medium, 1 info",
        "Incidents  21, 19 still open",
        "Responses planned: 9",
        "iam:UpdateAccessKey AccessKeyId=AKIAEXAMPLE0SVCBCKUP Status=Inactive UserName=svc-backup",
        "ec2:RevokeSecurityGroupIngress GroupId=sg-0a0000000000000e7",
        "Root user signed in to the console",
        "What to try next",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours on a pipe");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "leaves nothing behind");
}

#[test]
fn the_written_day_replays_to_the_same_findings_without_the_threat_list() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &["demo", "--write", "day.jsonl"]);
    let text = succeed(folder.path(), &["replay", "day.jsonl", "--format", "jsonl", "--summary", "summary.json"]);
    let findings: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(findings.len(), 20);
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("summary.json")).unwrap()).unwrap();
    let number = |key: &str| summary[key].as_u64().unwrap();
    assert_eq!(
        number("records_in"),
        number("classified") + number("ignored") + number("failed") + number("duplicates")
    );
    assert_eq!(number("findings"), 20);
}

#[test]
fn a_run_keeps_incidents_alerts_and_log_and_a_second_run_adds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &["demo", "--write", "day.jsonl"]);
    let text = succeed(folder.path(), &["run", "day.jsonl", "--data", "kept"]);
    assert!(text.contains("20: 8 critical, 8 high, 3 medium, 1 info"), "{text}");
    let look = || {
        let log = fs::read_to_string(folder.path().join("kept/pipeline.log")).unwrap();
        let alerts = fs::read_dir(folder.path().join("kept/alerts")).unwrap().count();
        (log, alerts, succeed(folder.path(), &["incidents", "--data", "kept", "--format", "json"]))
    };
    let first = look();
    succeed(folder.path(), &["run", "day.jsonl", "--data", "kept", "--summary", "summary.json"]);
    assert_eq!(first, look());
    let incidents: Vec<Value> = serde_json::from_str(&first.2).unwrap();
    assert_eq!(incidents.len(), 20);
    let closed: Vec<Value> = serde_json::from_str(&succeed(
        folder.path(),
        &["incidents", "--data", "kept", "--format", "json", "--status", "closed"],
    ))
    .unwrap();
    assert_eq!(closed.len(), 2, "the good news and what it closed");
    let text = succeed(folder.path(), &["incidents", "--data", "kept", "--limit", "3"]);
    assert!(text.contains("3 incidents"), "{text}");
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["findings"], &summary["dead_letters"]), (&20.into(), &0.into()));
}

#[test]
fn mode_auto_shows_what_it_would_do_because_there_is_no_account_here() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &["demo", "--write", "day.jsonl"]);
    let config = "[actions.iam_access_key_deactivate]\nmode = \"auto\"\n";
    fs::write(folder.path().join("pipeline.toml"), config).unwrap();
    succeed(folder.path(), &["run", "day.jsonl", "--data", "kept"]);
    let alerts = fs::read_dir(folder.path().join("kept/alerts")).unwrap();
    let texts: Vec<String> = alerts.map(|alert| fs::read_to_string(alert.unwrap().path()).unwrap()).collect();
    let dry: Vec<&String> = texts.iter().filter(|t| t.contains("DRY RUN: iam_access_key_deactivate")).collect();
    assert!(!dry.is_empty());
    for text in dry {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(line.contains("none made; mode auto, but this program has no AWS account"), "{text}");
    }
    assert!(!texts.iter().any(|text| text.contains("[DONE]")));
}

#[test]
fn a_run_believes_records_of_the_log_groups_that_are_named_and_a_replay_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let batch = serde_json::json!({ "messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "/app/web",
        "logEvents": [{ "id": "1", "timestamp": 1, "message": key_created("e-1", 0) }] });
    fs::write(folder.path().join("batch.json"), batch.to_string()).unwrap();
    let text = succeed(folder.path(), &["replay", "batch.json"]);
    assert!(text.contains("iam_access_key_created"), "{text}");
    let text = succeed(folder.path(), &["run", "batch.json", "--data", "unnamed"]);
    assert!(text.contains("1 unreadable"), "{text}");
    let rejected = fs::read_to_string(folder.path().join("unnamed/rejected.jsonl")).unwrap();
    assert!(rejected.contains("which [log_groups] does not name"), "{rejected}");
    fs::write(folder.path().join("named.toml"), "[log_groups]\ncloudtrail = [\"/app/*\"]\n").unwrap();
    let text = succeed(folder.path(), &["run", "batch.json", "--data", "named", "--config", "named.toml"]);
    assert!(text.contains("0 unreadable"), "{text}");
    fs::write(folder.path().join("bad.toml"), "[log_groups]\norganization = [\"/app/*\"]\n").unwrap();
    let text = refused(folder.path(), &["run", "batch.json", "--data", "bad", "--config", "bad.toml"]);
    assert!(text.contains("organization"), "{text}");
}

#[test]
fn unreadable_records_are_kept_with_file_place_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let good = r#"{"eventTime":"2026-03-01T12:00:00Z","eventSource":"iam.amazonaws.com","eventName":"ListUsers","eventID":"e-1"}"#;
    fs::write(folder.path().join("bad.jsonl"), format!("{good}\n{{\"eventName\":7}}\n{good}\n")).unwrap();
    let text = succeed(folder.path(), &["run", "bad.jsonl", "--data", "kept"]);
    assert!(text.contains("1 unreadable, 1 duplicate\n"), "{text}");
    let kept = fs::read_to_string(folder.path().join("kept/rejected.jsonl")).unwrap();
    let rejected: Value = serde_json::from_str(kept.trim()).unwrap();
    assert_eq!(rejected["index"], 1, "{rejected}");
    assert!(rejected["file"].as_str().unwrap().ends_with("bad.jsonl"), "{rejected}");
    assert!(!rejected["reason"].as_str().unwrap().is_empty(), "{rejected}");
}

#[test]
fn a_message_that_cannot_be_handled_is_listed_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    // A login whose response is missing: the reader accepts the record, the classifiers that want it do not.
    let login = r#"{"eventTime":"2026-03-01T12:00:00Z","eventSource":"signin.amazonaws.com","eventName":"ConsoleLogin","eventID":"e-1\u001b[31m","userIdentity":{"type":"IAMUser","userName":"a"},"sourceIPAddress":"192.0.2.1"}"#;
    fs::write(folder.path().join("odd.jsonl"), login).unwrap();
    let text = succeed(folder.path(), &["run", "odd.jsonl", "--data", "kept"]);
    assert!(text.contains("pipeline dlq list --data kept"), "{text}");
    let text = succeed(folder.path(), &["dlq", "list", "--data", "kept"]);
    assert!(text.contains("responseElements.ConsoleLogin"), "{text}");
    assert!(!text.contains('\u{1b}'));
    let letters: Vec<Value> =
        serde_json::from_str(&succeed(folder.path(), &["dlq", "list", "--data", "kept", "--format", "json"])).unwrap();
    assert_eq!((letters.len(), &letters[0]["queue"]), (1, &"classifier".into()));
    let id = letters[0]["message_id"].as_str().unwrap();
    let text = succeed(folder.path(), &["dlq", "show", id, "--data", "kept"]);
    assert!(text.contains("responseElements.ConsoleLogin") && text.contains("\"eventName\""), "{text}");
    assert!(refused(folder.path(), &["dlq", "show", "nobody", "--data", "kept"]).contains("nobody"));
    refused(folder.path(), &["dlq", "list", "--data", "kept", "--queue", "undelivered"]);
    refused(folder.path(), &["dlq", "redrive", "some-id", "--data", "kept"]);
    let text = succeed(folder.path(), &["dlq", "redrive", "--data", "kept"]);
    assert_eq!(text, "1 message tried again, 1 dead letter left\n");
    let text = succeed(folder.path(), &["dlq", "list", "--data", "kept", "--queue", "logger"]);
    assert!(text.starts_with("no dead letters"), "{text}");
}

#[test]
fn every_classifier_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<Value> = serde_json::from_str(&succeed(folder.path(), &["classifiers", "--format", "json"])).unwrap();
    assert!(rows.len() >= 13, "{}", rows.len());
    let text = succeed(folder.path(), &["classifiers"]);
    for row in &rows {
        assert!(text.contains(row["id"].as_str().unwrap()), "{text}");
        assert!(!row["events"].as_array().unwrap().is_empty(), "{row}");
    }
}

#[test]
fn the_printed_defaults_are_a_configuration_without_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let text = succeed(folder.path(), &["config", "--show-defaults"]);
    fs::write(folder.path().join("pipeline.toml"), text).unwrap();
    assert_eq!(succeed(folder.path(), &["config"]), "./pipeline.toml has no mistakes\n");
}

#[test]
fn a_configuration_with_mistakes_is_refused_with_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("day.jsonl"), "{}\n").unwrap();
    let text = "[source]\nthreads = 9999\n\n[notifierr]\n\n[classifiers.threat_intel_ip]\nlists = [\"missing.txt\"]\n";
    fs::write(folder.path().join("bad.toml"), text).unwrap();
    for command in ["replay", "run"] {
        let said = refused(folder.path(), &[command, "day.jsonl", "--config", "bad.toml"]);
        for part in [
            "3 mistakes in bad.toml",
            "bad.toml:2: source.threads",
            "bad.toml:4: notifierr",
            "bad.toml:7:",
            "missing.txt",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
    }
    assert!(!folder.path().join("pipeline-data").exists(), "nothing is made before the configuration is read");
    let said = refused(folder.path(), &["config", "--config", "nowhere.toml"]);
    assert!(said.contains("nowhere.toml") && said.contains("--show-defaults"), "{said}");
}

#[test]
fn what_is_wrong_within_one_section_is_said_all_together() {
    let folder = tempfile::tempdir().unwrap();
    let text = "classifiers = 3\n[classifier]\ndisabled = [\"rot\", \"roott\"]\nseverity = { root_account_used = \"bad\" }\n\
                dedup_window_s = 9999999\n[geo]\ncity = \"a.mmdb\"\nasn = \"b.mmdb\"\n[responder]\n\
                account_responses_max_per_hour = 5000\nexempt_roles = [\"\", \" x\"]\n";
    fs::write(folder.path().join("pipeline.toml"), text).unwrap();
    let said = refused(folder.path(), &["config"]);
    assert!(said.contains("10 mistakes in pipeline.toml"), "{said}");
    for (line, key) in [
        (1, "classifiers"),
        (3, "classifier.disabled"),
        (4, "classifier.severity"),
        (5, "classifier.dedup_window_s"),
        (7, "geo.city"),
        (8, "geo.asn"),
        (10, "responder.account_responses_max_per_hour"),
        (11, "responder.exempt_roles"),
    ] {
        assert!(said.contains(&format!("pipeline.toml:{line}: {key}: ")), "{line} {key}\n{said}");
    }
}

/// A link that leads nowhere, as whoever runs the tests may be allowed to open everything.
#[test]
#[cfg(unix)]
fn what_cannot_be_opened_within_a_folder_stops_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("logs")).unwrap();
    fs::write(folder.path().join("logs/a.jsonl"), key_created("e-1", 0)).unwrap();
    for name in ["b.jsonl", "c_20260301T1200Z_x.json.gz"] {
        std::os::unix::fs::symlink("nowhere", folder.path().join("logs").join(name)).unwrap();
    }
    for args in [&["replay", "logs", "--format", "jsonl"][..], &["run", "logs", "--data", "kept"]] {
        let output = pipeline(folder.path(), args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for name in ["logs/b.jsonl: No such file", "logs/c_20260301T1200Z_x.json.gz: No such file", "all other inputs"]
        {
            assert!(said.contains(name), "{name}\n{said}");
        }
        assert!(stdout(&output).contains("iam_access_key_created") || args[0] == "run", "{}", stdout(&output));
    }
    let text = succeed(folder.path(), &["incidents", "--data", "kept", "--format", "json"]);
    assert!(text.contains("e-1"), "{text}");
    refused(folder.path(), &["replay", "logs/b.jsonl"]);
}

#[test]
#[cfg(unix)]
fn a_pipe_is_read_from_its_beginning_and_not_by_a_run() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &["demo", "--write", "day.jsonl"]);
    let of_file = succeed(folder.path(), &["replay", "day.jsonl", "--format", "jsonl"]);
    let day = || Stdio::from(fs::File::open(folder.path().join("day.jsonl")).unwrap());
    let cat = || Command::new("cat").stdin(day()).stdout(Stdio::piped()).spawn().unwrap().stdout.unwrap();
    for name in ["-", "/dev/stdin"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(["replay", name, "--format", "jsonl"]).current_dir(folder.path());
        let output = command.stdin(cat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output) == of_file && stderr(&output).contains("1,942 records"), "{name}: {}", stderr(&output));
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        let output = command.args(["run", name]).current_dir(folder.path()).stdin(cat()).output().unwrap();
        assert!(
            output.status.code() == Some(2) && stderr(&output).contains("save it to a file"),
            "{}",
            stderr(&output)
        );
    }
}

/// Standard input and one pipe are open and silent, the other pipe nobody opens to write.
#[test]
#[cfg(unix)]
fn the_first_ctrl_c_ends_the_wait_for_inputs() {
    let folder = tempfile::tempdir().unwrap();
    for pipe in ["a", "b"] {
        assert!(Command::new("mkfifo").arg(folder.path().join(pipe)).status().unwrap().success());
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(["replay", "-", "a", "b", "--threads", "3"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (id, stdin) = (child.id().to_string(), child.stdin.take());
    // Opens when it is opened to read, and by then Ctrl-C is listened for.
    let pipe = fs::OpenOptions::new().write(true).open(folder.path().join("a")).unwrap();
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = end.recv_timeout(std::time::Duration::from_secs(30));
    if output.is_err() {
        let _ = Command::new("kill").args(["-KILL", &id]).status();
    }
    let output = output.expect("ends").unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("interrupted: "), "{}", stderr(&output));
    drop((stdin, pipe));
}

#[test]
fn a_summary_that_cannot_be_written_is_said_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("day.jsonl"), key_created("e-1", 0)).unwrap();
    for command in ["replay", "run"] {
        let output = pipeline(folder.path(), &[command, "day.jsonl", "--summary", "no/such/folder.json"]);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{}", stderr(&output));
        assert!(stderr(&output).contains("could not write no/such/folder.json"), "{}", stderr(&output));
        assert!(refused(folder.path(), &[command, "day.jsonl", "--summary", "-"]).contains("name a file"));
    }
    refused(folder.path(), &["replay", "day.jsonl", "--rejected", "-"]);
    refused(folder.path(), &["demo", "--write", "-"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn a_status_may_be_written_as_the_list_prints_it_and_one_of_a_thing_is_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("day.jsonl"), key_created("e-1", 0)).unwrap();
    let output = pipeline(folder.path(), &["replay", "day.jsonl"]);
    assert!(
        stderr(&output).starts_with("1 record in ") && stderr(&output).contains("; 1 finding\n"),
        "{}",
        stderr(&output)
    );
    let text = succeed(folder.path(), &["run", "day.jsonl", "--data", "kept"]);
    assert!(text.contains("Records    1 read in"), "{text}");
    for status in ["NEW", "new", "New"] {
        let text = succeed(folder.path(), &["incidents", "--data", "kept", "--status", status]);
        assert!(text.ends_with("\n1 incident, 1 open\n"), "{text}");
    }
    refused(folder.path(), &["incidents", "--data", "kept", "--status", "done"]);
}

#[test]
fn errors_name_the_input_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["replay", "run"] {
        let said = refused(folder.path(), &[command, "no/such/file.json"]);
        assert!(said.starts_with("error: ") && said.contains("no/such/file.json"), "{said}");
    }
    let said = refused(folder.path(), &["run", "-"]);
    assert!(said.contains("pipeline replay -"), "{said}");
    let said = refused(folder.path(), &["incidents"]);
    assert!(said.contains("no data in pipeline-data") && said.contains("pipeline run PATH"), "{said}");
    assert!(!folder.path().join("pipeline-data").exists());
    refused(folder.path(), &["dlq", "list", "--data", "nowhere"]);
    fs::create_dir(folder.path().join("odd")).unwrap();
    fs::write(folder.path().join("odd/pipeline.redb"), "not a database").unwrap();
    let output = pipeline(folder.path(), &["incidents", "--data", "odd"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("is damaged").count(), 1, "said once: {said}");
    refused(folder.path(), &["replay"]);
    refused(folder.path(), &["demos"]);
}

/// Names and values are anyone's: none steers the terminal or begins a line of its own.
#[test]
#[cfg(unix)]
fn no_name_or_value_steers_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let odd = "e\u{1b}[31mvil\nerror: all is well\u{202e}";
    let harmless = "e·[31mvil·error: all is well·";
    let day =
        "{\"eventTime\":\"2026-03-01T12:00:00Z\",\"eventSource\":\"iam.amazonaws.com\",\"eventName\":\"ListUsers\"}\n";
    fs::write(folder.path().join("day.jsonl"), day).unwrap();
    fs::write(folder.path().join(format!("{odd}.toml")), "[\"a\\u001b[31m\\nb\"]\n[source]\n\"c\\u001b[2J\" = 3\n")
        .unwrap();
    fs::create_dir(folder.path().join("rules")).unwrap();
    fs::write(folder.path().join(format!("rules/{odd}.yml")), "title: \"a\\u001b[31m\\nb\"\n").unwrap();
    fs::write(folder.path().join(format!("{odd}.jsonl")), "no record\n").unwrap();
    let (toml, jsonl, data) = (format!("{odd}.toml"), format!("{odd}.jsonl"), format!("{odd}/data"));
    for (args, code) in [
        (&["replay", odd][..], 2),
        (&["replay", &jsonl], 2),
        (&["replay", "day.jsonl", "--config", odd], 2),
        (&["replay", "day.jsonl", "--config", &toml], 2),
        (&["replay", "day.jsonl", "--rules", odd], 2),
        (&["replay", "day.jsonl", "--rules", "rules"], 2),
        (&["replay", "day.jsonl", "--summary", &data], 1),
        (&["run", "day.jsonl", "--data", odd], 0),
        (&["run", &jsonl, "--data", odd], 2),
        (&["run", "day.jsonl", "--data", &jsonl], 1),
        (&["incidents", "--data", &jsonl], 2),
        (&["inspect", odd], 2),
        (&["test-cases", odd], 2),
        (&["demo", "--write", &data], 0),
    ] {
        let output = pipeline(folder.path(), args);
        let said = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{said}");
        assert!(!said.contains(['\u{1b}', '\u{202e}']), "{args:?}\n{said}");
        assert!(!said.lines().any(|line| line.starts_with("error: all")), "{args:?}\n{said}");
        assert!(args.contains(&"rules") || said.contains(harmless), "{args:?}\n{said}");
    }
}

/// `script` of util-linux runs it on a terminal of its own.
#[test]
#[cfg(target_os = "linux")]
fn on_a_terminal_every_line_begins_at_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &["demo", "--write", "day.jsonl"]);
    for (command, first) in [("replay day.jsonl", "2026-03-0"), ("replay day.jsonl --explain day-0", "error")] {
        let output = Command::new("script")
            .args(["--quiet", "--return", "--command"])
            .arg(format!("{} {command}", env!("CARGO_BIN_EXE_pipeline")))
            .arg("/dev/null")
            .current_dir(folder.path())
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .expect("script runs");
        let said = stdout(&output);
        // What was drawn over or wiped away is not seen.
        let shown = said.lines().next().unwrap().rsplit(['\r', 'K']).next().unwrap();
        assert!(shown.starts_with(first), "{command}: {shown:?} in\n{said:?}");
    }
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let text = succeed(folder.path(), &["--help"]);
    for part in ["Examples:", "pipeline replay ./cloudtrail/", "Exit codes:", "130", "demo", "incidents"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    for command in ["demo", "replay", "run", "inspect", "classifiers", "incidents", "dlq", "doctor", "config"] {
        succeed(folder.path(), &[command, "--help"]);
    }
    assert!(succeed(folder.path(), &["--version"]).starts_with("pipeline "));
}

#[test]
#[cfg(not(feature = "aws"))]
fn without_the_feature_whoever_asks_aws_is_told_how_to_build_it_in() {
    let folder = tempfile::tempdir().unwrap();
    let id = "8b8b8b8b-0000-5000-8000-000000000001/iam_access_key_deactivate/AKIAIOSFODNN7EXAMPLE";
    for command in [
        &["dlq", "list", "--aws"][..],
        &["dlq", "show", "--aws", "id"],
        &["dlq", "redrive", "--aws"],
        &["doctor"],
        &["responses", "list"],
        &["responses", "show", id],
        &["responses", "undo", id, "--yes"],
    ] {
        let said = refused(folder.path(), command);
        assert!(said.contains("cargo build --release --features aws"), "{command:?}: {said}");
    }
}

#[test]
#[cfg(feature = "aws")]
fn without_a_region_or_credentials_aws_is_not_asked_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = |region: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(["dlq", "list", "--aws"]).args(region).stdin(Stdio::null());
        // Nothing of whoever runs the tests, and nothing beyond this machine.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("HOME", folder.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(said(&[]).contains("no region"), "{}", said(&[]));
    assert!(said(&["--region", "eu-central-1"]).contains("sqs:GetQueueUrl"));
}

#[test]
fn inspect_judges_files_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let shell =
        b"<?php eval(base64_decode($_POST['x'])); // long enough to have the size of an ordinary script, as it must be";
    fs::write(folder.path().join("photo.jpg"), shell).unwrap();
    fs::write(folder.path().join("notes.txt"), "Bring the minutes of the meeting.").unwrap();
    fs::write(folder.path().join("tool.py"), "print('a script of an ordinary length, and nothing else')\n").unwrap();
    let text = succeed(folder.path(), &["inspect", "photo.jpg", "notes.txt"]);
    for part in ["malicious  photo.jpg", "clean      notes.txt", "php: eval(", "is application/x-httpd-php (+50)"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let text = succeed(folder.path(), &["inspect", "photo.jpg", "notes.txt", "tool.py", "--format", "json"]);
    let reports: Value = serde_json::from_str(&text).unwrap();
    let judgements: Vec<&str> = reports.as_array().unwrap().iter().map(|r| r["judgement"].as_str().unwrap()).collect();
    assert_eq!(judgements, ["malicious", "clean", "suspicious"]);
    let known = reports[1]["sha256"].as_str().unwrap();
    fs::write(folder.path().join("known.txt"), format!("{known} Test.Note\n")).unwrap();
    let text = succeed(folder.path(), &["inspect", "notes.txt", "--hashes", "known.txt"]);
    assert!(text.contains("is known as Test.Note"), "{text}");
    assert!(refused(folder.path(), &["inspect", "gone.txt"]).contains("gone.txt"));
    assert!(refused(folder.path(), &["inspect", "."]).contains("could not read .: it is a folder"));
    fs::write(folder.path().join("known.txt"), "12ab\n").unwrap();
    assert!(refused(folder.path(), &["inspect", "notes.txt", "--hashes", "known.txt"]).contains("known.txt:1: 12ab"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &["demo", "--write", "day.jsonl"]);
    for args in [&["replay", "day.jsonl"][..], &["demo"], &["config", "--show-defaults"], &["classifiers"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_pipeline"))
            .args(args)
            .current_dir(folder.path())
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("error"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn what_was_left_open_is_found_once_its_time_is_over_whatever_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let opened = |minute: u32| {
        format!(
            r#"{{"eventVersion":"1.10","eventID":"e-{minute}","eventTime":"2026-03-01T{:02}:{:02}:00Z","eventSource":"ec2.amazonaws.com","eventName":"AuthorizeSecurityGroupIngress","awsRegion":"eu-central-1","recipientAccountId":"123456789012","userIdentity":{{"type":"Root"}},"requestParameters":{{"groupId":"sg-{minute}","cidrIp":"0.0.0.0/0","fromPort":22,"toPort":22,"ipProtocol":"tcp"}}}}"#,
            minute / 60,
            minute % 60
        )
    };
    fs::create_dir(folder.path().join("logs")).unwrap();
    for file in 0..4 {
        let lines: Vec<String> = (file * 30..(file + 1) * 30).map(opened).collect();
        fs::write(folder.path().join(format!("logs/{file}.jsonl")), lines.join("\n")).unwrap();
    }
    let replay = |threads: &str| succeed(folder.path(), &["replay", "--format", "jsonl", "--threads", threads, "logs"]);
    let one = replay("1");
    assert_eq!(one, replay("4"));
    // Two hours of openings, one a minute: the last of them are within their hour when the records end.
    let left_open = one.lines().filter(|l| l.contains(r#""classifier":"security_group_left_open""#)).count();
    assert_eq!(left_open, 60);
}

#[test]
fn flow_and_access_logs_are_read_beside_trails_and_joined_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let call = |id: &str, time: &str, name: &str, rest: &str| {
        format!(
            r#"{{"eventVersion":"1.10","eventID":"{id}","eventTime":"{time}","eventSource":"ec2.amazonaws.com","eventName":"{name}","awsRegion":"eu-central-1","recipientAccountId":"123456789012","userIdentity":{{"type":"IAMUser","userName":"alice"}},{rest}}}"#
        )
    };
    let trail = [
        call(
            "e-1",
            "2026-03-01T09:00:00Z",
            "ModifyNetworkInterfaceAttribute",
            r#""requestParameters":{"networkInterfaceId":"eni-0a1","groupSet":{"items":[{"groupId":"sg-0a1"}]}}"#,
        ),
        call(
            "e-2",
            "2026-03-01T12:00:00Z",
            "AuthorizeSecurityGroupIngress",
            r#""requestParameters":{"groupId":"sg-0a1","cidrIp":"0.0.0.0/0","fromPort":22,"toPort":22,"ipProtocol":"tcp"}"#,
        ),
    ];
    fs::write(logs.join("trail.jsonl"), trail.join("\n")).unwrap();
    let flows = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status\n\
                 2 123456789012 eni-0a1 203.0.113.9 10.0.0.4 51000 22 6 10 840 1772366520 1772366580 ACCEPT OK\n\
                 no flow at all\n";
    fs::write(logs.join("123456789012_vpcflowlogs_eu-central-1_fl-0a1_20260301T1200Z_0a1.log"), flows).unwrap();
    let line = r#"203.0.113.9 - - [01/Mar/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 12 "-" "sqlmap/1.8""#;
    fs::write(logs.join("access.log"), format!("{line}\n{line}\n")).unwrap();
    let text = succeed(folder.path(), &["replay", "--format", "jsonl", "--summary", "summary.json", "logs"]);
    let mut found: Vec<String> = text
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["classifier"].as_str().unwrap().to_owned())
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        ["security_group_accessed_after_opening", "security_group_opened_to_world", "web_scanner_detected"]
    );
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("summary.json")).unwrap()).unwrap();
    let numbers = ["records_in", "classified", "failed", "duplicates"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(numbers, [6, 5, 1, 0]);
    assert_eq!(summary["rejected"][0]["reason"], "neither JSON nor a line of a log this version reads");
}

/// A user makes a key for another; `s` seconds after noon.
fn key_created(id: &str, s: u32) -> String {
    format!(
        r#"{{"eventTime":"2026-03-01T12:00:{s:02}Z","eventSource":"iam.amazonaws.com","eventName":"CreateAccessKey","eventID":"{id}","eventType":"AwsApiCall","recipientAccountId":"123456789012","awsRegion":"us-east-1","sourceIPAddress":"192.0.2.7","userIdentity":{{"type":"IAMUser","userName":"alice","accountId":"123456789012","arn":"arn:aws:iam::123456789012:user/alice"}},"requestParameters":{{"userName":"bob"}}}}"#
    )
}

#[test]
fn what_is_kept_back_is_in_the_summary_with_the_name_of_the_entry() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("day.jsonl"), format!("{}\n{}\n", key_created("e-1", 0), key_created("e-2", 1)))
        .unwrap();
    let entry = "[[allow]]\nname = \"bob's keys\"\nowner = \"iam@example.com\"\nreason = \"r\"\nexpires = 2026-03-01\nprincipal = \"alice\"\n";
    fs::write(folder.path().join("pipeline.toml"), entry).unwrap();
    let found = succeed(folder.path(), &["replay", "day.jsonl", "--format", "jsonl", "--summary", "s.json"]);
    assert_eq!(found, "");
    let summary: Value = serde_json::from_slice(&fs::read(folder.path().join("s.json")).unwrap()).unwrap();
    assert_eq!(
        (&summary["suppressed"], &summary["findings"], &summary["classified"]),
        (&2.into(), &0.into(), &2.into())
    );
    assert_eq!((&summary["allow"][0]["name"], &summary["allow"][0]["expired"]), (&"bob's keys".into(), &true.into()));
    let run = succeed(folder.path(), &["run", "day.jsonl", "--data", "data"]);
    assert!(run.contains("2 findings by the allow-list") && run.contains("bob's keys: 2 kept back; expired"), "{run}");
    let checked = succeed(folder.path(), &["config"]);
    assert!(checked.contains("expired: bob's keys, last day 2026-03-01, ask iam@example.com"), "{checked}");
    fs::write(folder.path().join("pipeline.toml"), entry.replace("owner = \"iam@example.com\"\n", "")).unwrap();
    assert!(refused(folder.path(), &["config"]).contains("pipeline.toml:1: allow.owner: is missing"));
}

#[test]
fn an_event_is_explained_whether_anybody_wants_it_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let unwanted = key_created("e-0", 0).replace("CreateAccessKey", "ListAccessKeys");
    let broken = key_created("e-3", 0).replace("\"CreateAccessKey\"", "7");
    let day = format!("{}\n{unwanted}\n{}\n{broken}\n", key_created("e-1", 0), key_created("e-2", 1));
    fs::write(folder.path().join("day.jsonl"), day).unwrap();
    let text = succeed(folder.path(), &["replay", "day.jsonl", "--explain", "e-2"]);
    assert!(text.contains("found       iam_access_key_created: "), "{text}");
    assert!(text.contains("is known, first seen"), "what was known: {text}");
    let json = succeed(folder.path(), &["replay", "day.jsonl", "--explain", "e-2", "--format", "jsonl"]);
    let explained: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(explained["event_name"], "CreateAccessKey");
    let text = succeed(folder.path(), &["replay", "day.jsonl", "--explain", "e-0"]);
    assert!(text.contains("ListAccessKeys"), "{text}");
    assert!(refused(folder.path(), &["replay", "day.jsonl", "--explain", "e-3"]).contains("eventName is not a string"));
    assert!(refused(folder.path(), &["replay", "day.jsonl", "--explain", "e-9"]).contains("none of the 4 records"));
}

#[test]
fn labelled_cases_are_judged_each_alone() {
    let folder = tempfile::tempdir().unwrap();
    let failure = r#"{"eventTime":"2026-03-01T12:00:00Z","eventSource":"signin.amazonaws.com","eventName":"ConsoleLogin","eventID":"l","eventType":"AwsConsoleSignIn","recipientAccountId":"123456789012","awsRegion":"us-east-1","sourceIPAddress":"192.0.2.7","errorMessage":"Failed authentication","userIdentity":{"type":"IAMUser","userName":"alice","accountId":"123456789012"},"responseElements":{"ConsoleLogin":"Failure"}}"#;
    let lower = failure.replace("eventTime", "eventtime").replace("eventID", "eventid");
    let key = key_created("e-1", 0);
    let cases = format!(
        "{{\"record\":{key},\"expected\":true,\"rule\":\"keys\",\"case\":\"made\"}}\n\
         {{\"record\":{key},\"expected\":false,\"rule\":\"keys\",\"case\":\"made too\"}}\n\
         {{\"record\":{failure},\"expected\":false,\"rule\":\"logins\",\"case\":\"one\"}}\n\
         {{\"record\":{failure},\"expected\":true,\"rule\":\"logins\",\"case\":\"many\",\"threshold\":3}}\n\
         {{\"record\":{lower},\"expected\":true,\"rule\":\"logins\",\"case\":\"of a store\",\"threshold\":3}}\n\
         {{\"record\":{{\"a\":1}},\"expected\":true,\"case\":\"nothing\"}}\n"
    );
    fs::write(folder.path().join("cases.jsonl"), cases).unwrap();
    let report: Value =
        serde_json::from_str(&succeed(folder.path(), &["test-cases", "cases.jsonl", "--format", "json"])).unwrap();
    let figures = ["cases", "positives", "found", "negatives", "fired"].map(|key| report[key].as_u64().unwrap());
    assert_eq!(figures, [6, 4, 3, 2, 1], "{report:#}");
    assert_eq!(report["misses"][0]["by"][0], "iam_access_key_created");
    let text = succeed(folder.path(), &["test-cases", "cases.jsonl"]);
    assert!(text.contains("recall 75.0 % (3 of 4 threats found), precision 75.0 %"), "{text}");
    fs::write(folder.path().join("cases.jsonl"), "{\"record\":{}}\n").unwrap();
    assert!(refused(folder.path(), &["test-cases", "cases.jsonl"]).contains("line 1 is no case"));
}

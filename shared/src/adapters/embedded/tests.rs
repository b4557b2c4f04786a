use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::adapters::memory::MemoryState;
use crate::observation::{Observation, Observations, ObserveRequest};
use crate::ports::{Claim, FailedMessage, Incidents, LEDGER_RETENTION_S, Ledger, Outbox, Queue, State};
use crate::testing::{
    SUITE_QUEUE, archive_suite, incidents_suite, ledger_suite, queue_suite, sample_incident, state_suite,
};
use crate::time::Timestamp;

fn fresh() -> (tempfile::TempDir, Embedded) {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(folder.path().join("pipeline.redb")).unwrap();
    (folder, embedded)
}

fn now() -> Timestamp {
    Timestamp::parse("2026-03-01T12:00:00Z").unwrap()
}

fn bodies(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|i| format!("body {i:08}")).collect()
}

#[tokio::test]
async fn one_file_keeps_all_contracts_at_once() {
    let (_folder, embedded) = fresh();
    // A neighbour whose messages no suite may see.
    let neighbour = embedded.queue("suit", SUITE_QUEUE);
    neighbour.send(&bodies(0..3)).await.unwrap();
    queue_suite(&embedded.queue("suite", SUITE_QUEUE)).await;
    queue_suite(&embedded.queue("", SUITE_QUEUE)).await;
    assert_eq!(neighbour.depth().await.unwrap(), 3);
    assert_eq!(neighbour.receive(10, now()).await.unwrap().len(), 3);
    state_suite(&embedded).await;
    ledger_suite(&embedded).await;
    incidents_suite(&embedded).await;
    archive_suite(&embedded, |name| embedded.archived(name).unwrap()).await;
}

#[tokio::test]
async fn a_sweep_takes_claims_whose_lease_has_ended_and_results_that_are_old_enough() {
    let (_folder, embedded) = fresh();
    let later = now().plus_seconds(LEDGER_RETENTION_S + 60);
    embedded.claim("abandoned", now(), now().plus_seconds(60)).await.unwrap();
    embedded.claim("placeholder", now(), Timestamp::default()).await.unwrap();
    embedded.claim("held", now(), later.plus_seconds(1)).await.unwrap();
    embedded.complete("old", "r", now()).await.unwrap();
    embedded.complete("young", "r", now().plus_seconds(60)).await.unwrap();
    embedded.inner.claimed.store(SWEEP_EVERY - 1, std::sync::atomic::Ordering::Relaxed);
    embedded.claim("new", later, later.plus_seconds(60)).await.unwrap();
    let mut keys: Vec<String> = Vec::new();
    let tx = embedded.inner.database.begin_read().unwrap();
    for entry in tx.open_table(LEDGER).unwrap().iter().unwrap() {
        keys.push(entry.unwrap().0.value().to_owned());
    }
    assert_eq!(keys, ["held", "new", "young"]);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let (folder, embedded) = fresh();
    let path = folder.path().join("pipeline.redb");
    let queue = embedded.queue("q", SUITE_QUEUE);
    queue.send(&bodies(0..4)).await.unwrap();
    let received = queue.receive(3, now()).await.unwrap();
    queue.delete(&[received[0].message_id.clone()]).await.unwrap();
    let poison = FailedMessage { message_id: received[1].message_id.clone(), reason: "bad".into(), retryable: false };
    queue.give_back(&[poison]).await.unwrap();
    embedded.enqueue_with_progress("q2", &bodies(9..10), "file", b"at 9").unwrap();
    let request = ObserveRequest {
        classifier: "c",
        event: 1,
        at: now(),
        observations: Observations::none().count("n", "k", 1, 60).into_vec(),
    };
    embedded.observe(std::slice::from_ref(&request)).await.unwrap();
    embedded.claim("work", now(), now().plus_seconds(60)).await.unwrap();
    embedded.complete("done", "result", now()).await.unwrap();
    let incident = sample_incident("e", now(), Some("k"));
    embedded.update(incident.incident_id, &mut |_| Some(incident.clone())).await.unwrap();
    embedded.put("a/b", b"content").await.unwrap();
    drop((queue, embedded));

    let embedded = Embedded::open(&path).unwrap();
    let queue = embedded.queue("q", SUITE_QUEUE);
    assert_eq!(queue.depth().await.unwrap(), 2);
    let dead = queue.dead_letters(9).await.unwrap();
    assert_eq!((dead.len(), &*dead[0].reason, &*dead[0].body), (1, "bad", &*received[1].body));
    let visible = queue.receive(9, now()).await.unwrap();
    assert_eq!(visible.len(), 1, "what was in flight still is");
    assert_eq!(visible[0].body, "body 00000003");
    assert_eq!(queue.release_in_flight().unwrap(), 2);
    let mut counts: Vec<_> = queue.receive(9, now()).await.unwrap().iter().map(|m| m.receive_count).collect();
    counts.sort();
    assert_eq!(counts, [2, 2], "receive counts are kept");
    assert_eq!(embedded.queue("q2", SUITE_QUEUE).depth().await.unwrap(), 1);
    assert_eq!(embedded.progress("file").unwrap().as_deref(), Some(&b"at 9"[..]));
    assert_eq!(embedded.progress("other").unwrap(), None);
    let later = ObserveRequest { event: 2, ..request };
    assert_eq!(embedded.observe(&[later]).await.unwrap()[0].count("n").now, 2);
    let claim = embedded.claim("work", now(), now()).await.unwrap();
    assert_eq!(claim, Claim::Busy { until: now().plus_seconds(60) });
    assert_eq!(embedded.claim("done", now(), now()).await.unwrap(), Claim::Done("result".into()));
    assert_eq!(embedded.get(incident.incident_id).await.unwrap(), Some(incident));
    assert_eq!(embedded.archived("a/b").unwrap().as_deref(), Some(&b"content"[..]));
}

#[tokio::test]
async fn a_failed_transaction_leaves_nothing_behind() {
    let (_folder, embedded) = fresh();
    let failed = embedded.write("test", |tx| {
        QueueTables::open(tx, "q")?.add(["x"].into_iter())?;
        Err::<(), _>(Fault::Record("record \"x\"".into()))
    });
    let error = failed.unwrap_err();
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("pipeline.redb: record \"x\" is damaged"), "{error}");
    assert_eq!(embedded.queue("q", SUITE_QUEUE).depth().await.unwrap(), 0);
}

#[test]
fn a_file_in_use_is_refused_with_what_to_do() {
    let (_folder, embedded) = fresh();
    let error = Embedded::open(embedded.path()).unwrap_err().to_string();
    assert!(error.contains("pipeline.redb is in use by another process: wait"), "{error}");
}

#[test]
fn files_that_are_not_ours_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    for content in [b"hello".to_vec(), vec![b'x'; 100_000], vec![0; 5000]] {
        std::fs::write(&path, &content).unwrap();
        let error = Embedded::open(&path).unwrap_err();
        assert!(!error.is_retryable());
        let text = error.to_string();
        assert!(text.contains("notes.txt is damaged or not a file of this program"), "{text}");
        assert!(std::fs::read(&path).unwrap() == content, "left alone");
    }
}

#[test]
fn a_missing_folder_and_a_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Embedded::open(folder.path().join("no/file")).unwrap_err().to_string();
    assert!(error.contains("its folder does not exist"), "{error}");
    let error = Embedded::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("could not open"), "{error}");
}

#[test]
fn a_file_of_another_version_is_refused() {
    let (folder, embedded) = fresh();
    let tx = embedded.inner.database.begin_write().unwrap();
    tx.open_table(ABOUT).unwrap().insert("version", 99).unwrap();
    tx.commit().unwrap();
    drop(embedded);
    let error = Embedded::open(folder.path().join("pipeline.redb")).unwrap_err().to_string();
    assert!(error.contains("layout version 99 and this program reads version 1"), "{error}");
}

/// Set for the child of the test below: the file to write to.
const CHILD_FILE: &str = "SHARED_TEST_CHILD_FILE";

/// Not a test of its own: what the killed process does. Each round sends ten bodies with the round as progress, then
/// receives and deletes five, then reports the round.
#[tokio::test]
async fn child_that_is_killed() {
    let Ok(path) = std::env::var(CHILD_FILE) else { return };
    let embedded = Embedded::open(path).unwrap();
    let queue = embedded.queue("q", QueueSettings::default());
    for round in 1.. {
        let value = u64::to_be_bytes(round);
        embedded.enqueue_with_progress("q", &bodies(10 * (round - 1)..10 * round), "round", &value).unwrap();
        let received = queue.receive(5, now()).await.unwrap();
        let ids: Vec<_> = received.into_iter().map(|m| m.message_id).collect();
        queue.delete(&ids).await.unwrap();
        writeln!(std::io::stdout(), " round {round}").unwrap();
    }
}

#[tokio::test]
async fn nothing_committed_is_lost_when_the_process_is_killed() {
    for rounds in [1, 2, 17, 60] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("killed.redb");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "adapters::embedded::tests::child_that_is_killed", "--nocapture"])
            .env(CHILD_FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reported = lines
            .by_ref()
            .filter_map(|line| line.unwrap().rsplit_once(" round ")?.1.parse::<u64>().ok())
            .nth(rounds - 1)
            .expect("the child reports until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();

        let embedded = Embedded::open(&path).unwrap();
        let sent = u64::from_be_bytes(embedded.progress("round").unwrap().unwrap().try_into().unwrap());
        assert!(sent >= reported, "progress that was reported is there");
        let queue = embedded.queue("q", QueueSettings::default());
        queue.release_in_flight().unwrap();
        let left = queue.depth().await.unwrap();
        let received = queue.receive(usize::MAX, now()).await.unwrap();
        let mut found: Vec<_> = received.into_iter().map(|m| m.body).collect();
        found.sort();
        assert_eq!(found.len() as u64, left, "the depth is right");
        let deleted = 10 * sent - left;
        assert!(deleted >= 5 * reported && deleted % 5 == 0, "{deleted} deleted, {reported} rounds reported");
        assert_eq!(found, bodies(deleted..10 * sent), "every body is there once, none that was deleted");
    }
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let value = (0..4_u8).prop_map(|v| v.to_string());
    let observations = prop_oneof![
        (1..4_u32, 1..100_u32).prop_map(|(w, s)| Observations::none().count("n", "k", w, s)),
        (value.clone(), 1..100_u32).prop_map(|(v, s)| Observations::none().distinct("d", "k", v, s)),
        (1..100_u32).prop_map(|s| Observations::none().reset("n", "k", s)),
        (value, 1..100_u32).prop_map(|(v, s)| Observations::none().remember("v", "k", v, s)),
        (1..100_u32).prop_map(|s| Observations::none().recall("v", "k", s)),
        (1..100_u32).prop_map(|s| Observations::none().see("s", "k", s)),
        (1..100_u32).prop_map(|s| Observations::none().see("n", "k", s)),
    ];
    observations.prop_map(|o| o.into_vec().remove(0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn memory_and_file_give_identical_answers(
        batches in prop::collection::vec(
            prop::collection::vec(
                (0..30_u64, 0..10_000_i64, prop::collection::vec(any_observation(), 0..4)),
                0..20,
            ),
            0..5,
        )
    ) {
        let (_folder, embedded) = fresh();
        let memory = MemoryState::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for batch in batches {
            let requests: Vec<_> = batch
                .into_iter()
                .map(|(event, s, observations)| ObserveRequest {
                    classifier: "c", event, at: now().plus_seconds(s), observations,
                })
                .collect();
            let in_memory = runtime.block_on(memory.observe(&requests)).unwrap();
            prop_assert_eq!(in_memory, runtime.block_on(embedded.observe(&requests)).unwrap());
        }
    }
}

"""The deployed pipeline against the one in a process: the made-up day of `pipeline demo` must come to the same.

Run by scripts/check-end-to-end, which names the folder of the binaries in BINARIES. What the emulators do otherwise than AWS is
in deploy/local/emulators.py; a test says where it matters to it.
"""

import gzip
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import attack
import emulators
import local_aws
import pytest
from templates import COMPONENTS

BINARIES = Path(os.environ["BINARIES"])
# What a mail of SNS may have as its subject: fewer than 100 printable ASCII characters, no line break.
SUBJECT = re.compile(r"[ -~]{1,99}")


def pipeline(*arguments: object) -> str:
    """The command line tool."""
    done = subprocess.run([BINARIES / "pipeline", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> dict:
    """The day, its configuration, and the incidents that it comes to in one process."""
    folder = tmp_path_factory.mktemp("day")
    pipeline("demo", "--write", folder / "day.jsonl")
    (folder / "listed.txt").write_text("203.0.113.200\n")
    config = f'[classifiers.threat_intel_ip]\nlists = ["{folder}/listed.txt"]\n'
    (folder / "pipeline.toml").write_text(config)
    pipeline("run", folder / "day.jsonl", "--data", folder / "data", "--config", folder / "pipeline.toml")
    incidents = json.loads(pipeline("incidents", "--data", folder / "data", "--format", "json"))
    records = list(emulators.read(folder / "day.jsonl"))
    return {"records": records, "config": config, "incidents": incidents}


@pytest.fixture
def local(day):
    """A pipeline of its own for each test, with the classifier seeing what it sees in one process."""
    with emulators.LocalAws(BINARIES, day["config"]) as running:
        # In one process every record is classified. `classifier-every-call` brings the rest here, as an operator may decide.
        running.client("events").enable_rule(Name=f"{emulators.STACK}-classifier-every-call")
        yield running


TEST_EVENT = "aws-classifier/src/classifiers/iam_access_key_created/fires_own_key.json"
# They fire on the event that completes their window, which is the one that *arrives* last; in one process all arrive in order.
COUNTING = {"console_login_failed_repeatedly", "ec2_mass_instance_creation", "security_group_opened_repeatedly"}
# They compare with what came before. A day arrives within seconds here, so what a kill or a stall delays comes hours late by
# the clock of the events, and what was usual is learnt after what was not. AWS is minutes late, not hours.
LEARNING = {"console_login_new_device", "console_login_new_ip", "region_unusual"}


def essence(incident: dict) -> dict:
    """An incident without what depends on the clock and the order of arrival. MiniStack gives every envelope a new id and the
    present time, and a notification has no other; CloudTrail records carry their own."""
    kept = {k: v for k, v in incident.items() if k not in ("created_at", "updated_at", "note", "incident_id", "details")}
    details = incident["details"]
    # Repeats in one batch of the notifier become one message; which findings meet in a batch depends on the order.
    kept["notify_status"] = {"GROUPED": "SENT"}.get(incident["notify_status"], incident["notify_status"])
    kept["principal"], kept["title"] = details.get("principal"), details.get("title")
    if incident["event_type"] in COUNTING or not incident["source"].endswith(".amazonaws.com"):
        del kept["timestamp"]
    else:
        kept["incident_id"] = incident["incident_id"]
    return kept


def tampering_and_the_rest(incidents: list[dict]) -> tuple[list[dict], list[dict]]:
    tampering = [i for i in incidents if i["event_type"] == "cloudtrail_tampered"]
    return tampering, [i for i in incidents if i not in tampering]


def same(ours: list[dict], theirs: list[dict], *, in_order: bool = True) -> None:
    """The same incidents, each once; without those of what is learnt unless records came about in order. But tampering right
    after a sign-in is told by whichever record arrives last, and batches are handled at the same time: it is critical by
    itself, or the sign-in makes a second incident that is, or both are."""
    (tampering, ours), (expected, theirs) = map(tampering_and_the_rest, (ours, theirs))
    if not in_order:
        ours, theirs = ([i for i in incidents if i["event_type"] not in LEARNING] for incidents in (ours, theirs))
    texts = [sorted(json.dumps(essence(i), sort_keys=True) for i in incidents) for incidents in (ours, theirs)]
    assert texts[0] == texts[1]
    by_call = {i["source"]: i for i in tampering}
    assert len(by_call) == len(tampering) and set(by_call) <= {"cloudtrail.amazonaws.com", "signin.amazonaws.com"}, tampering
    [one] = expected
    assert by_call[one["source"]]["incident_id"] == one["incident_id"], tampering
    assert "CRITICAL" in {i["severity"] for i in tampering}, tampering
    assert {i["resource_id"].rsplit("/", 1)[-1] for i in tampering} == {one["resource_id"].rsplit("/", 1)[-1]}, tampering


def bootstraps(local: emulators.LocalAws) -> list[int]:
    """The processes of the functions."""
    found = subprocess.run(["pgrep", "-g", str(local.ministack.process.pid), "-x", "bootstrap"], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def dead_letters(local: emulators.LocalAws, component: str) -> list[dict]:
    """What waits in a dead-letter queue."""
    queue = local.queue_url(f"{component}-dlq")
    answer = local.client("sqs").receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=0
    )
    return answer.get("Messages", [])


def test_the_day_comes_to_the_same_and_again_to_nothing_new(day, local):
    # A message that meets another execution at the same work comes back.
    local.shorten_visibility(3)
    local.put(day["records"])
    assert local.settle() == {}, "dead letters"
    same(local.incidents(), day["incidents"])

    mails = local.mails()
    for mail in mails:
        assert SUBJECT.fullmatch(mail["subject"]), mail["subject"]
    for incident in day["incidents"]:
        if incident["severity"] == "CRITICAL":
            about = [m for m in mails if incident["timestamp"][:19] in m["text"] or incident["event"] in m["text"]]
            assert about, f"nobody was told of {incident['event']}"
    trail = next(mail for mail in mails if "cloudtrail_tampered" in mail["text"])
    for part in ("carol", "198.51.100.10", emulators.ACCOUNT, "StopLogging", "seconds_after_login: 42"):
        assert part in trail["text"], trail["text"]

    # AWS may deliver any event again, hours later: all of them, in another order.
    before = local.incidents()
    cloudtrail = [r for r in day["records"] if "detail-type" not in r]
    random.Random(4).shuffle(cloudtrail)
    local.put(cloudtrail)
    assert local.settle() == {}
    assert local.incidents() == before
    assert local.mails() == mails


def test_the_test_event_of_the_readme_is_mailed_once(local):
    body = (emulators.templates.DEPLOY.parent / TEST_EVENT).read_text()
    assert TEST_EVENT in (emulators.templates.DEPLOY / "README.md").read_text()
    local.shorten_visibility(3)
    for _ in range(2):
        local.client("sqs").send_message(QueueUrl=local.queue_url("classifier"), MessageBody=body)
        assert local.settle() == {}
    alerts = [mail["subject"] for mail in local.mails() if not mail["subject"].startswith("[DRY RUN]")]
    assert len(alerts) == 1 and "ccess key" in alerts[0], alerts


# CloudTrail's name of a log file, less the number of the file.
LOG_FILE = f"AWSLogs/{emulators.ACCOUNT}/CloudTrail/eu-central-1/2026/03/01/{emulators.ACCOUNT}_CloudTrail_eu-central-1_20260301T%02d00Z_abc.json.gz"
WEB_SHELL = b"<?php if (isset($_POST['x'])) { eval(base64_decode($_POST['x'])); } system($_GET['c']); ?>"


def test_log_files_and_uploads_are_read_from_their_buckets(day, tmp_path):
    """The two sources that are fetched. Each bucket announces its objects to EventBridge; the rules and the permission to read exist
    only with the parameters."""
    records = [record for record in day["records"] if "detail-type" not in record]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "pipeline.toml").write_text(day["config"])
    arguments = ("--data", tmp_path / "data", "--config", tmp_path / "pipeline.toml")
    pipeline("run", tmp_path / "records.jsonl", *arguments)
    expected = json.loads(pipeline("incidents", "--data", tmp_path / "data", "--format", "json"))

    buckets = {"CloudTrailBucket": "trail", "UploadBucket": "uploads"}
    with emulators.LocalAws(BINARIES, day["config"], parameters=buckets) as local:
        local.shorten_visibility(15)
        s3 = local.client("s3")
        size = -(-len(records) // 4)
        files = {LOG_FILE % n: json.dumps({"Records": records[n * size : (n + 1) * size]}) for n in range(4)}
        for _ in range(2):
            # S3 may announce everything again. Files are hours apart, and minutes late at most on AWS: one after the other.
            for key, text in files.items():
                s3.put_object(Bucket="trail", Key=key, Body=gzip.compress(text.encode()))
                assert local.settle() == {}, "dead letters"
            s3.put_object(Bucket="trail", Key=LOG_FILE.replace("/CloudTrail/", "/CloudTrail-Digest/") % 1, Body=b"{}")
            assert local.settle() == {}, "dead letters"
            same(local.incidents(), expected)

        before = len(local.mails())
        s3.put_object(Bucket="uploads", Key="notes.txt", Body=b"nothing to see\n", ContentType="text/plain")
        s3.put_object(Bucket="uploads", Key="avatars/me.php", Body=WEB_SHELL, ContentType="image/png")
        # Whoever uploads chooses the key: nothing here is taken for a log file.
        forged = json.dumps({"Records": [dict(records[0], eventID="forged", eventName="StopLogging")]})
        s3.put_object(Bucket="uploads", Key=LOG_FILE % 9, Body=gzip.compress(forged.encode()))
        assert local.settle() == {}, "dead letters"
        (found,) = [i for i in local.incidents() if i["event_type"] == "s3_malicious_file"]
        assert found["severity"] == "CRITICAL" and found["resource_id"].endswith("uploads/avatars/me.php"), found
        assert "forged" not in json.dumps(local.incidents())
        assert any("avatars/me.php" in mail["text"] for mail in local.mails()[before:])


# Where Firehose puts batches of CloudWatch Logs, as the README says.
LOG_LINES = f"AWSLogs/{emulators.ACCOUNT}/CloudWatchLogs/2026/03/01/12/web-1-2026-03-01-12-05-00-abc.json.gz"


def test_lines_of_log_groups_and_messages_of_the_named_topic_come_in(day):
    """Neither has a way in by default: lines come as files of gzip batches, one behind the other, and a topic may send to the queue,
    which is subscribed to it, when it is named."""
    topic = f"arn:aws:sns:{emulators.REGION}:{emulators.ACCOUNT}:inputs"
    inputs = {"CloudTrailBucket": "trail", "InputTopicArn": topic}
    with emulators.LocalAws(BINARIES, day["config"], parameters=inputs) as local:
        local.shorten_visibility(3)
        line = '203.0.113.9 - - [01/Mar/2026:12:00:00 +0000] "GET /?id=1 HTTP/1.1" 200 12 "-" "sqlmap/1.7.2"'
        batch = {"messageType": "DATA_MESSAGE", "owner": emulators.ACCOUNT, "logGroup": "web", "logStream": "s",
                 "logEvents": [{"id": "1", "timestamp": 1, "message": line}]}
        quiet = batch | {"logEvents": [{"id": "2", "timestamp": 1, "message": line.replace("sqlmap", "Mozilla")}]}
        body = b"".join(gzip.compress(json.dumps(each).encode()) for each in (quiet, batch))
        local.client("s3").put_object(Bucket="trail", Key=LOG_LINES, Body=body)
        assert local.settle() == {}, "dead letters"
        scan = {(i["event_type"], i["details"]["source_ip"]) for i in local.incidents()}
        assert scan == {("web_scanner_detected", "203.0.113.9")}

        alarm = {"AlarmName": "dvwa-web-scan-5min", "AWSAccountId": emulators.ACCOUNT, "NewStateValue": "ALARM", "OldStateValue": "OK",
                 "NewStateReason": "Threshold Crossed", "StateChangeTime": "2026-03-01T13:00:00.000+0000",
                 "AlarmArn": f"arn:aws:cloudwatch:{emulators.REGION}:{emulators.ACCOUNT}:alarm:dvwa-web-scan-5min"}
        local.client("sns").publish(TopicArn=topic, Subject="ALARM", Message=json.dumps(alarm))
        assert local.settle() == {}, "dead letters"
        assert len(local.incidents()) == 2, local.incidents()


def test_poison_ends_in_the_dead_letter_queue_with_its_reason_and_alone(day, local):
    local.shorten_visibility(2)
    sqs = local.client("sqs")
    for component in COMPONENTS:
        sqs.send_message(QueueUrl=local.queue_url(component), MessageBody='{"not": "ours"')
    local.put(day["records"])
    assert local.settle() == {f"{component}-dlq": 1 for component in COMPONENTS}
    for component in COMPONENTS:
        (letter,) = dead_letters(local, component)
        assert letter["Body"] == '{"not": "ours"'
        assert letter["MessageAttributes"]["reason"]["StringValue"], letter
    same(local.incidents(), day["incidents"])


@contextmanager
def killing(local: emulators.LocalAws, every_s: float):
    """Kills functions by SIGKILL, in the middle of their work, twenty times at most and once at least."""
    done = threading.Event()
    killed = 0

    def kill() -> None:
        nonlocal killed
        while not done.wait(every_s) and killed < 20:
            for process in bootstraps(local)[:1]:
                os.kill(process, signal.SIGKILL)
                killed += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        done.set()
        killer.join()
    assert killed, "nothing ran"


def test_killed_functions_lose_and_double_nothing(day, local):
    """Lambda ends processes whenever it likes; here by SIGKILL, in the middle of their work, twenty times."""
    # A killed function leaves its claims behind, which end after 60 s: before the last of five receives, as with the 300 s of
    # the templates.
    local.shorten_visibility(20)
    with killing(local, every_s=0.2):
        local.put(day["records"])
        time.sleep(5)
    left = local.settle()
    # Five receives are what the templates give a message; one that met as many kills waits for a redrive.
    redrive(local, left)
    same(local.incidents(), day["incidents"], in_order=False)


def redrive(local: emulators.LocalAws, left: dict[str, int], delayed: bool = True) -> None:
    """What `start-message-move-task` does, which MiniStack does not have: every dead letter back to its queue."""
    sqs = local.client("sqs")
    for name in left:
        queue, to = local.queue_url(name), local.queue_url(name.removesuffix("-dlq"))
        while letters := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for letter in letters:
                sqs.send_message(QueueUrl=to, MessageBody=letter["Body"])
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=letter["ReceiptHandle"])
    assert local.settle(delayed=delayed) == {}


@pytest.mark.parametrize("which", ["ministack", "moto"])
def test_a_service_that_stalls_for_20_seconds_delays_and_loses_nothing(day, local, which):
    """Frozen and not ended: neither emulator keeps anything on disk. MiniStack is all services but SNS at once, the Runtime API
    among them; moto is SNS."""
    local.shorten_visibility(15)
    half = len(day["records"]) // 2
    local.put(day["records"][:half])
    emulator = getattr(local, which)
    if which == "moto":
        emulator.freeze()
        local.put(day["records"][half:])
        time.sleep(20)
        emulator.thaw()
    else:
        emulator.freeze()
        time.sleep(20)
        emulator.thaw()
        local.put(day["records"][half:])
    redrive(local, local.settle())
    same(local.incidents(), day["incidents"], in_order=False)
    subjects = [mail["subject"] for mail in local.mails()]
    assert subjects, "nobody was told"


# What is left of the range that attack.open_group opens, without FTP, SSH and Telnet.
HARMLESS = ("20-20", "24-30")


@pytest.fixture
def carrying_out():
    """A pipeline that may change the emulated account, both actions in mode `auto`."""
    with emulators.LocalAws(BINARIES, local_aws.AUTO, "carry-out") as running:
        yield running


def test_responses_change_exactly_what_offends_and_everybody_is_told(carrying_out):
    local = carrying_out
    local.shorten_visibility(3)
    key, made = attack.create_key(local)
    group, opened = attack.open_group(local)
    before = local.changeable()
    local.put([made, opened])
    assert local.settle(delayed=False) == {}, local.log_end()

    after = local.changeable()
    rest = [f"{group}: tcp {ports} from {source}" for ports in HARMLESS for source in ("0.0.0.0/0 for a test", "::/0")]
    assert sorted(set(before) - set(after)) == sorted(
        [f"alice: {key} Active", f"{group}: tcp 20-30 from 0.0.0.0/0 for a test", f"{group}: tcp 20-30 from ::/0"]
    )
    assert sorted(set(after) - set(before)) == sorted([f"alice: {key} Inactive", *rest])

    answered = {i["event_type"]: i for i in local.incidents() if i.get("last_action")}
    assert set(answered) == {"iam_access_key_created", "security_group_opened_to_world"}
    for incident in answered.values():
        assert (incident["status"], incident["last_action_result"]) == ("MITIGATED", "SUCCEEDED"), incident
        (outcome,) = incident["details"]["outcomes"].values()
        assert outcome["calls"] and outcome["undo"], outcome

    done = [mail for mail in local.mails() if mail["subject"].startswith("[DONE]")]
    by_action = {mail["subject"].split()[1].rstrip(":"): mail["text"] for mail in done}
    assert len(done) == 2 and set(by_action) == {"iam_access_key_deactivate", "security_group_rule_revoke"}, done
    for part in ("HOW TO UNDO", key, "iam:UpdateAccessKey", '"Inactive"', '"Active"'):
        assert part in by_action["iam_access_key_deactivate"], by_action
    for part in ("HOW TO UNDO", group, "ec2:RevokeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupIngress"):
        assert part in by_action["security_group_rule_revoke"], by_action

    # AWS may deliver any event again. A person has decided otherwise meanwhile: that stands.
    local.account("iam").update_access_key(UserName="alice", AccessKeyId=key, Status="Active")
    (mails, incidents, changed) = (local.mails(), local.incidents(), local.changeable())
    local.put([opened, made, made])
    assert local.settle(delayed=False) == {}
    assert (local.mails(), local.incidents(), local.changeable()) == (mails, incidents, changed)


def test_a_forged_record_changes_nothing(carrying_out):
    """Whoever may call PutEvents chooses everything but a source that begins with "aws.": on both buses, and in the queue should a
    rule of somebody's bring it there."""
    local = carrying_out
    local.shorten_visibility(3)
    _, made = attack.create_key(local)
    before = local.changeable()
    buses = ("default", emulators.STACK)
    forged = {"Source": "pipeline.canary", "DetailType": "AWS API Call via CloudTrail", "Detail": json.dumps(made)}
    answer = local.client("events").put_events(Entries=[{**forged, "EventBusName": bus} for bus in buses])
    assert answer["FailedEntryCount"] == 0, answer
    assert local.settle(delayed=False) == {}, "it passed a rule"
    envelope = {"source": forged["Source"], "detail-type": forged["DetailType"], "account": emulators.ACCOUNT, "detail": made}
    local.client("sqs").send_message(QueueUrl=local.queue_url("classifier"), MessageBody=json.dumps(envelope))
    assert local.settle(delayed=False) == {"classifier-dlq": 1}
    (letter,) = dead_letters(local, "classifier")
    assert "source is not AWS" in letter["MessageAttributes"]["reason"]["StringValue"], letter
    assert (local.changeable(), local.incidents(), local.mails()) == (before, [], [])

    # The central bus still lets in what AWS says.
    answer = local.client("events").put_events(Entries=[{**forged, "Source": "aws.iam", "EventBusName": emulators.STACK}])
    assert answer["FailedEntryCount"] == 0, answer
    local.settle(delayed=False)
    assert [i["event_type"] for i in local.incidents()] == ["iam_access_key_created"]
    assert local.changeable() != before


def test_without_the_parameter_nothing_is_changed_whatever_the_configuration_says():
    with emulators.LocalAws(BINARIES, local_aws.AUTO) as local:
        local.shorten_visibility(3)
        _, made = attack.create_key(local)
        _, opened = attack.open_group(local)
        before = local.changeable()
        local.put([made, opened])
        assert local.settle(delayed=False) == {}
        assert local.changeable() == before
        subjects = [mail["subject"] for mail in local.mails() if mail["subject"].startswith("[DRY RUN]")]
        assert len(subjects) == 2, subjects
        texts = [" ".join(mail["text"].split()) for mail in local.mails()]
        assert sum("mode auto, but this deployment only plans" in text for text in texts) == 2, texts


def test_killed_responders_change_everything_once(carrying_out):
    """SIGKILL in the middle of responses: what was begun is finished by a later delivery, and nothing is changed twice."""
    local = carrying_out
    local.shorten_visibility(20)
    groups = [attack.open_group(local, f"web-{n}") for n in range(6)]
    keys = [attack.create_key(local, f"user-{n}") for n in range(6)]
    with killing(local, every_s=0.1):
        local.put([record for _, record in groups + keys])
        time.sleep(5)
    redrive(local, local.settle(delayed=False), delayed=False)
    state = local.changeable()
    for group, _ in groups:
        rules = sorted(line.split(": ")[1] for line in state if line.startswith(group))
        others = ["tcp 20-30 from 203.0.113.0/24 the office", "tcp 443-443 from 0.0.0.0/0"]
        harmless = [f"tcp {ports} from {source}" for ports in HARMLESS for source in ("0.0.0.0/0 for a test", "::/0")]
        assert rules == sorted(others + harmless), rules
    for key, _ in keys:
        assert any(line.endswith(f"{key} Inactive") for line in state), state
    # Six groups at once are an incident of their own as well.
    single = ("iam_access_key_created", "security_group_opened_to_world")
    answered = [i for i in local.incidents() if i["event_type"] in single]
    assert len(answered) == 12 and {i["status"] for i in answered} == {"MITIGATED"}, answered

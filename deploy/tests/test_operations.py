"""The operator's commands against the deployed pipeline: `pipeline dlq … --aws`, `pipeline doctor` and `pipeline responses`.

Run by scripts/check-end-to-end. The tool is pointed at the emulators as anybody would point it, by the environment. MiniStack does
not move messages itself (`StartMessageMoveTask`), so the way by hand is what is tested here; the other is tested with prepared answers.
"""

import json
import os
import subprocess
from pathlib import Path

import attack
import emulators
import local_aws
import pytest
from templates import COMPONENTS

BINARIES = Path(os.environ["BINARIES"])
GOOD = "aws-classifier/src/classifiers/iam_access_key_created/fires_own_key.json"
# Clears a terminal, ends a line, and turns the direction of text around, with the characters that SQS takes.
HOSTILE = '{"not": "ours", "a": "\x9b2J\nforged line \u202e"'


@pytest.fixture(scope="module")
def local():
    """One pipeline for all tests: each leaves the queues empty."""
    with emulators.LocalAws(BINARIES) as running:
        trails = running.client("cloudtrail")
        running.client("s3").create_bucket(Bucket="trail", CreateBucketConfiguration={"LocationConstraint": emulators.REGION})
        trails.create_trail(Name="main", S3BucketName="trail", IsMultiRegionTrail=True)
        trails.start_logging(Name="main")
        yield running


def run(environment: dict[str, str], *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the tool with these variables and none of the caller's account."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")} | environment
    command = [BINARIES / "pipeline", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=180, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def operate(local: emulators.LocalAws, *arguments: str, code: int = 0) -> str:
    """Runs the tool; answers what it prints."""
    return run(local.operator_environment(), *arguments, code=code).stdout


def listed(local: emulators.LocalAws) -> list[dict]:
    return json.loads(operate(local, "dlq", "list", "--aws", "--format", "json"))


def examined(local: emulators.LocalAws, *arguments: str, code: int = 1) -> dict[str, dict]:
    """The checks by name. There is no forwarder here, so something always fails."""
    checks = json.loads(operate(local, "doctor", "--format", "json", *arguments, code=code))
    return {check["check"]: check for check in checks}


def send(local: emulators.LocalAws, queue: str, body: str) -> None:
    local.client("sqs").send_message(QueueUrl=local.queue_url(queue), MessageBody=body)


def purge(local: emulators.LocalAws) -> None:
    for component in COMPONENTS:
        local.client("sqs").purge_queue(QueueUrl=local.queue_url(f"{component}-dlq"))


def test_dead_letters_are_listed_with_their_reasons_and_shown_neutralised(local):
    for component in COMPONENTS:
        send(local, component, HOSTILE)
    assert local.settle() == {f"{component}-dlq": 1 for component in COMPONENTS}
    rows = listed(local)
    assert [row["queue"] for row in rows] == list(COMPONENTS)
    for row in rows:
        assert row["body"] == HOSTILE and row["attributes"]["component"] == row["queue"]
        assert row["reason"] and row["sent_at"], row
    text = operate(local, "dlq", "list", "--aws")
    shown = operate(local, "dlq", "show", "--aws", rows[0]["message_id"])
    for output in (text, shown):
        assert "\x9b" not in output and "\u202e" not in output
        assert not any(line.startswith("forged line") for line in output.splitlines() if output is text)
    assert rows[0]["reason"].split(":")[0] in shown
    assert json.loads(operate(local, "dlq", "show", "--aws", rows[1]["message_id"], "--format", "json"))["queue"] == "responder"
    operate(local, "dlq", "show", "--aws", "no-such-message", code=2)
    # Looking moves nothing and hides nothing.
    assert len(listed(local)) == len(COMPONENTS)
    purge(local)


def test_one_message_is_redriven_with_its_attributes_and_the_others_stay(local):
    good = (emulators.templates.DEPLOY.parent / GOOD).read_text()
    sqs, before = local.client("sqs"), len(local.incidents())
    reason = {"reason": {"DataType": "String", "StringValue": "mended since"}}
    sqs.send_message(QueueUrl=local.queue_url("classifier-dlq"), MessageBody=good, MessageAttributes=reason)
    send(local, "classifier-dlq", HOSTILE)
    (row,) = [row for row in listed(local) if row["reason"] == "mended since"]
    moved = json.loads(operate(local, "dlq", "redrive", "--aws", row["message_id"], "--format", "json"))
    assert moved == [{"queue": "classifier", "moved": 1}]
    assert local.settle() == {"classifier-dlq": 1}
    assert len(local.incidents()) == before + 1
    assert [row["body"] for row in listed(local)] == [HOSTILE]
    operate(local, "dlq", "redrive", "--aws", row["message_id"], code=2)
    purge(local)


def test_all_are_redriven_each_once_and_what_fails_again_comes_back(local):
    for _ in range(12):
        send(local, "notifier-dlq", HOSTILE)
    send(local, "undelivered-events", (emulators.templates.DEPLOY.parent / GOOD).read_text())
    moved = json.loads(operate(local, "dlq", "redrive", "--aws", "--format", "json", "--max-per-second", "50"))
    assert {row["queue"]: row["moved"] for row in moved if row["moved"]} == {"notifier": 12, "undelivered": 1}
    assert local.settle() == {"notifier-dlq": 12}
    assert {row["attributes"]["component"] for row in listed(local)} == {"notifier"}
    purge(local)


def test_the_doctor_finds_a_deployment_well_and_times_its_canary(local):
    mails = len(local.mails())
    checks = examined(local)
    # The emulators: no forwarder in another region, no e-mail for alarms, rules without the long state, no databases of places.
    for name in ("caller", "tables", "functions", "permissions", "queues", "dead letters", "trail", "alarms", "canary"):
        assert checks[name]["status"] == "ok", checks[name]
    assert {name: checks[name]["status"] for name in ("rules", "subscriptions", "geo data", "forwarder")} == {
        "rules": "warning",
        "subscriptions": "warning",
        "geo data": "warning",
        "forwarder": "failed",
    }
    stages = checks["canary"]["figures"]["stages"]
    assert set(stages) == {f"{component}_ms" for component in COMPONENTS}
    assert all(0 <= ms < 60_000 for ms in stages.values()), stages
    (incident,) = [i for i in local.incidents() if i["incident_id"] == checks["canary"]["figures"]["incident_id"]]
    assert (incident["status"], incident["severity"], incident["notify_status"]) == ("CLOSED", "INFO", "NOT_TOLD")
    assert local.settle() == {} and len(local.mails()) == mails


def test_the_doctor_finds_what_is_wrong(local):
    events, trails = local.client("events"), local.client("cloudtrail")
    rule = f"{emulators.STACK}-classifier-cloudtrail-1"
    events.disable_rule(Name=rule)
    trails.stop_logging(Name="main")
    send(local, "logger-dlq", HOSTILE)
    try:
        checks = examined(local, "--no-canary")
        assert checks["rules"]["status"] == "failed" and rule in checks["rules"]["said"], checks["rules"]
        assert checks["trail"]["status"] == "failed" and "does not log" in checks["trail"]["said"], checks["trail"]
        assert checks["dead letters"]["status"] == "warning" and checks["dead letters"]["figures"]["logger"] == 1
        assert checks["canary"]["status"] == checks["geo data"]["status"] == "skipped"
    finally:
        events.enable_rule(Name=rule)
        trails.start_logging(Name="main")
        purge(local)


def test_the_doctor_says_when_the_canary_is_lost_and_where_to_look(local):
    functions = local.client("lambda")
    (mapping,) = functions.list_event_source_mappings(FunctionName=f"{emulators.STACK}-responder")["EventSourceMappings"]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    try:
        checks = examined(local, "--canary-wait-s", "5")
        assert checks["canary"]["status"] == "failed" and "did not come through" in checks["canary"]["said"]
        assert checks["functions"]["status"] == "failed" and "responder" in checks["functions"]["said"], checks["functions"]
    finally:
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
        assert local.settle() == {}


def test_a_canary_that_nobody_announced_is_a_finding(local):
    detail = {"id": "0195a2c0-0000-7000-8000-000000000001", "secret": "07" * 32}
    entry = {"Source": "pipeline.canary", "DetailType": "Pipeline Canary", "Detail": json.dumps(detail)}
    known = {i["incident_id"] for i in local.incidents()}
    local.client("events").put_events(Entries=[entry])
    assert local.settle() == {}
    (forged,) = [i for i in local.incidents() if i["incident_id"] not in known]
    assert (forged["event_type"], forged["severity"], forged["status"]) == ("pipeline_canary", "MEDIUM", "NEW")


def test_another_deployment_or_region_is_not_there(local):
    operate(local, "dlq", "list", "--aws", "--name", "somebody-elses", code=2)
    checks = examined(local, "--name", "somebody-elses", "--no-canary")
    for name in ("tables", "functions", "queues", "dead letters", "rules", "alarms"):
        assert checks[name]["status"] == "failed", checks[name]


@pytest.fixture(scope="module")
def answered():
    """A pipeline that has answered a key and a group of an attacker in the emulated account; with both ids, the account
    before, and the record of the key."""
    with emulators.LocalAws(BINARIES, local_aws.AUTO, "carry-out") as running:
        running.shorten_visibility(3)
        key, made = attack.create_key(running)
        group, opened = attack.open_group(running)
        before = running.changeable()
        running.put([made, opened])
        assert running.settle(delayed=False) == {}, running.log_end()
        yield running, key, group, before, made


def respond(local: emulators.LocalAws, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`pipeline responses`, as an operator who may change the emulated account."""
    return run(local.responder_environment(), "responses", *arguments, code=code)


def responses(local: emulators.LocalAws, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in respond(local, "list", "--format", "jsonl", *arguments).stdout.splitlines()]


def test_a_response_is_listed_shown_and_taken_back_once(answered):
    local, key, group, before, made = answered
    rows = {row["action"]: row for row in responses(local)}
    assert {action: (row["status"], row["target"]) for action, row in rows.items() if row["status"] != "skipped"} == {
        "iam_access_key_deactivate": ("carried_out", key),
        "security_group_rule_revoke": ("carried_out", group),
    }, rows
    assert responses(local, "--account", "210987654321") == responses(local, "--status", "failed") == []
    assert len(responses(local, "--limit", "1")) == 1

    outcome = rows["iam_access_key_deactivate"]["outcome_id"]
    whole = json.loads(respond(local, "show", outcome, "--format", "json").stdout)
    assert (whole["status"], whole["begun"]["before"][0]["Status"], whole["undone"]) == ("carried_out", "Active", None)
    text = respond(local, "show", outcome).stdout
    assert key in text and "Status=Inactive" in text and "not taken back" in text, text

    # Nobody to ask, another account, no such response: nothing is changed.
    changed = local.changeable()
    assert "add --yes" in respond(local, "undo", outcome, code=2).stderr
    respond(local, "undo", outcome.replace(key, "AKIAIOSFODNN7EXAMPLE"), "--yes", code=2)
    assert local.changeable() == changed

    said = respond(local, "undo", outcome, "--yes").stdout
    assert "in account 123456789012" in said and "Status=Active" in said and "taken back at" in said, said
    assert f"alice: {key} Active" in local.changeable()

    again = json.loads(respond(local, "undo", outcome, "--yes", "--format", "json").stdout)
    assert again["was_undone_before"] and again["undone_at"] in said, (again, said)
    by_action = {row["action"]: row for row in responses(local, "--status", "undone")}
    assert by_action["iam_access_key_deactivate"]["undone_at"] == again["undone_at"], by_action
    assert "taken back at" in respond(local, "show", outcome).stdout

    # AWS may deliver any event again: that does not act against who has undone it.
    local.put([made])
    assert local.settle(delayed=False) == {}
    assert f"alice: {key} Active" in local.changeable()

    respond(local, "undo", rows["security_group_rule_revoke"]["outcome_id"], "--yes")
    assert local.changeable() == before


def test_an_undo_that_cannot_be_made_says_why_and_changes_nothing(answered):
    local, *_ = answered
    key, made = attack.create_key(local, "bob")
    local.put([made])
    assert local.settle(delayed=False) == {}, local.log_end()
    (row,) = [row for row in responses(local, "--status", "carried-out") if row["target"] == key]
    local.account("iam").delete_access_key(UserName="bob", AccessKeyId=key)
    changed = local.changeable()
    failed = respond(local, "undo", row["outcome_id"], "--yes", code=2)
    assert "the key does not exist any more" in failed.stderr, failed.stderr
    assert local.changeable() == changed
    assert {row["status"] for row in responses(local) if row["target"] == key} == {"carried_out"}

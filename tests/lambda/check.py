"""Drives the four Lambda binaries through a stand-in of the Runtime API, against emulated AWS services:

    scripts/ministack sh -c '"$MINISTACK_PYTHON" tests/lambda/check.py target/debug'

Each gets batches that mix good, bad and repeated messages; what they answer and what they leave in queues, tables, the
topic and the bucket is read with boto3. Ends with an error at the first thing that is not as it should be.
"""

import gzip
import json
import os
import signal
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3

from runtime_api import Function

REGION = "us-east-1"
ACCOUNT = "123456789012"
RUN = uuid.uuid4().hex[:8]

sqs, dynamo, sns, s3 = (boto3.client(name) for name in ("sqs", "dynamodb", "sns", "s3"))


def queue(name):
    return sqs.create_queue(QueueName=f"{name}-{RUN}")["QueueUrl"]


def received(url):
    """Everything in a queue, taken out of it."""
    messages = []
    while True:
        batch = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages", [])
        if not batch:
            return messages
        for message in batch:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        messages += batch


def event(*bodies):
    """An SQS event; a pair names the message id of its body."""
    records = []
    for i, body in enumerate(bodies):
        message_id, body = body if isinstance(body, tuple) else (f"m-{i}", body)
        record = {"messageId": message_id, "receiptHandle": "h", "eventSource": "aws:sqs", "awsRegion": REGION,
                  "attributes": {"ApproximateReceiveCount": "1"}, "messageAttributes": {}}
        if body is not None:
            record["body"] = body if isinstance(body, str) else json.dumps(body)
        records.append(record)
    return {"Records": records}


def failures(answer):
    assert set(answer) == {"batchItemFailures"}, answer
    return sorted(item["itemIdentifier"] for item in answer["batchItemFailures"])


def equal(found, expected, what):
    assert found == expected, f"{what}: found {found!r}, expected {expected!r}"


def hours_ago(hours):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - hours * 3600))


def key_created(event_id):
    return {
        "eventVersion": "1.09",
        "userIdentity": {"type": "IAMUser", "principalId": "AIDAEXAMPLE", "arn": f"arn:aws:iam::{ACCOUNT}:user/alice",
                         "accountId": ACCOUNT, "userName": "alice"},
        "eventTime": hours_ago(1), "eventSource": "iam.amazonaws.com", "eventName": "CreateAccessKey",
        "awsRegion": REGION, "sourceIPAddress": "198.51.100.10", "userAgent": "aws-cli/2.15.0",
        "requestParameters": {"userName": "bob"},
        "responseElements": {"accessKey": {"userName": "bob", "accessKeyId": "AKIAEXAMPLE0000000BB", "status": "Active"}},
        "eventID": event_id, "readOnly": False, "eventType": "AwsApiCall", "recipientAccountId": ACCOUNT,
    }


def group_opened(event_id, hours):
    return {
        "eventVersion": "1.10",
        "userIdentity": {"type": "IAMUser", "principalId": "AIDAEXAMPLE", "arn": f"arn:aws:iam::{ACCOUNT}:user/alice",
                         "accountId": ACCOUNT, "userName": "alice"},
        "eventTime": hours_ago(hours), "eventSource": "ec2.amazonaws.com", "eventName": "AuthorizeSecurityGroupIngress",
        "awsRegion": REGION, "sourceIPAddress": "198.51.100.10", "userAgent": "aws-cli/2.15.0",
        "requestParameters": {"groupId": "sg-0a1", "ipPermissions": {"items": [
            {"ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "ipRanges": {"items": [{"cidrIp": "0.0.0.0/0"}]}}]}},
        "responseElements": {"_return": True}, "eventID": event_id, "readOnly": False, "eventType": "AwsApiCall",
        "recipientAccountId": ACCOUNT,
    }


def uninteresting(event_id):
    record = key_created(event_id)
    return {**record, "eventSource": "example.amazonaws.com", "eventName": "DescribeNothing", "readOnly": True}


def created(bucket, key):
    return {"Records": [{"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
                         "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]}


def bridge(record):
    return {"version": "0", "id": str(uuid.uuid4()), "detail-type": "AWS API Call via CloudTrail", "source": "aws.iam",
            "account": ACCOUNT, "time": record["eventTime"], "region": REGION, "resources": [], "detail": record}


def table(name, *keys, index=None):
    name = f"{name}-{RUN}"
    kinds = ["HASH", "RANGE"]
    names = list(keys) + (list(index[1:]) if index else [])
    extra = {}
    if index:
        extra["GlobalSecondaryIndexes"] = [{
            "IndexName": index[0], "Projection": {"ProjectionType": "KEYS_ONLY"},
            "KeySchema": [{"AttributeName": n, "KeyType": k} for n, k in zip(index[1:], kinds)]}]
    dynamo.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": n, "KeyType": k} for n, k in zip(keys, kinds)],
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in names], **extra)
    return name


class World:
    """The queues, tables, topic and buckets of one run, and how the functions are told about them."""

    def __init__(self, binaries):
        self.binaries = binaries
        self.queues = {name: queue(name) for name in ("classifier", "responder", "notifier", "logger")}
        self.dead = {name: queue(f"{name}-dead") for name in self.queues}
        self.state = table("state", "pk")
        self.incidents = table("incidents", "pk", "sk", index=("by_status", "status_shard", "incident_id"))
        self.topic = sns.create_topic(Name=f"alerts-{RUN}")["TopicArn"]
        self.mail = queue("mail")
        arn = sqs.get_queue_attributes(QueueUrl=self.mail, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)
        self.trail, self.archive = f"trail-{RUN}", f"archive-{RUN}"
        for bucket in (self.trail, self.archive):
            s3.create_bucket(Bucket=bucket)

    def start(self, component, **changes):
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        environment.update({
            "RUST_LOG": "info", "DLQ_URL": self.dead[component], "STATE_TABLE": self.state,
            "INCIDENT_TABLE": self.incidents, "ARCHIVE_BUCKET": self.archive, "SNS_TOPIC_ARN": self.topic,
            **{f"{name.upper()}_QUEUE_URL": url for name, url in self.queues.items()}, **changes})
        return Function(os.path.join(self.binaries, component), environment)

    def reasons(self, component):
        """Bodies and reasons of the dead letters, which are taken out."""
        letters = received(self.dead[component])
        for letter in letters:
            equal(letter["MessageAttributes"]["component"]["StringValue"], component, "component of a dead letter")
        return {m["Body"]: m["MessageAttributes"]["reason"]["StringValue"] for m in letters}


def metrics(function):
    """The metric lines so far, each with the values it promises."""
    found = []
    for line in function.lines():
        if "_aws" in line:
            [directive] = line["_aws"]["CloudWatchMetrics"]
            equal(directive["Namespace"], "AwsSecurityPipeline", "namespace")
            assert all(line[d] for dimensions in directive["Dimensions"] for d in dimensions), line
            found.append({m["Name"]: line[m["Name"]] for m in directive["Metrics"]})
    return found


def finding_ids(messages):
    return sorted(json.loads(m["Body"])["payload"]["finding_id"] for m in messages)


def by_key(messages):
    return {json.loads(m["Body"])["idempotency_key"]: m["Body"] for m in messages}


def classifier(world):
    log_file = f"AWSLogs/{ACCOUNT}/CloudTrail/{REGION}/2026/03/01/a b.json.gz"
    records = [key_created("in-file"), uninteresting("dull"), {**key_created("bad"), "eventName": 7}]
    s3.put_object(Bucket=world.trail, Key=log_file, Body=gzip.compress(json.dumps({"Records": records}).encode()))
    file_created, missing = created(world.trail, log_file.replace(" ", "+")), created(world.trail, log_file + ".json")
    digest = created(world.trail, log_file.replace("CloudTrail", "CloudTrail-Digest"))
    batch = event(
        ("good", key_created("one")), ("again", bridge(key_created("one"))), ("poison", "not JSON"),
        ("shape", {"hello": 1}), ("file", file_created), ("missing", missing), ("digest", digest),
        ("test", {"Service": "Amazon S3", "Event": "s3:TestEvent"}), ("nothing", None), ("dull", uninteresting("two")))
    function = world.start("classifier")
    equal(failures(function.invoke(batch)), ["nothing"], "what comes back")
    found = received(world.queues["responder"])
    ids = finding_ids(found)
    equal(len(set(ids)), 2, f"findings of two events among {len(ids)}")
    for message in found:
        # That messages carry the trace header is a unit test: MiniStack drops it from SendMessageBatch.
        equal(json.loads(message["Body"])["correlation_id"] in ("one", "in-file"), True, "correlation id")
    reasons = world.reasons("classifier")
    equal(len(reasons), 4, f"dead letters {reasons}")
    assert "eventName is not a string" in reasons[json.dumps(file_created)], reasons
    assert "record 2" in reasons[json.dumps(file_created)] and log_file in reasons[json.dumps(file_created)], reasons
    assert log_file in reasons[json.dumps(missing)], reasons
    assert "hello" in reasons[json.dumps({"hello": 1})] and reasons["not JSON"], reasons
    [values] = metrics(function)
    equal((values["messages_in"], values["messages_failed_permanent"]), (10, 5), "messages")
    counted = [values[f"records_{what}"] for what in ("in", "classified", "ignored", "failed")]
    # Two good ones, one in the file; dull twice, digest, test event; two unreadable, one in the file, one file missing.
    equal(counted, [11, 3, 4, 4], "records")
    assert values["cold_start_ms"] >= 0, values

    equal(failures(function.invoke(batch)), ["nothing"], "what comes back the second time")
    equal(sorted(set(finding_ids(received(world.queues["responder"])))), sorted(set(ids)), "findings when delivered again")
    world.reasons("classifier")

    # An opening of three hours ago: its follow-up is due at once, and says that the group is open still.
    function.invoke(event(group_opened("opened", 3)))
    deadline, follow_ups = time.time() + 10, []
    while not follow_ups and time.time() < deadline:
        follow_ups = received(world.queues["classifier"])
        time.sleep(0.1)
    [follow_up] = follow_ups
    received(world.queues["responder"])
    equal(failures(function.invoke(event(follow_up["Body"]))), [], "a follow-up")
    [left_open] = received(world.queues["responder"])
    equal(json.loads(left_open["Body"])["payload"]["classifier"], "security_group_left_open", "found by the follow-up")
    # One of now is held back.
    function.invoke(event(group_opened("just-now", 0)))
    attributes = sqs.get_queue_attributes(QueueUrl=world.queues["classifier"], AttributeNames=["All"])["Attributes"]
    equal(attributes["ApproximateNumberOfMessagesDelayed"], "1", "follow-ups that wait")
    received(world.queues["responder"])
    equal(function.end(), 0, "exit code")
    return [m["Body"] for m in found] + [left_open["Body"]]


def undated(body):
    """A message without the times at which components let it go."""
    return json.dumps({name: value for name, value in json.loads(body).items() if name != "passed"})


def responder(world, findings):
    function = world.start("responder")
    batch = event(*findings, findings[0], ("poison", "{}"))
    equal(failures(function.invoke(batch)), [], "what comes back")
    assert "not an envelope" in world.reasons("responder")["{}"], "reason"
    first = [m["Body"] for m in received(world.queues["notifier"])]
    equal(sorted(set(first)), sorted({m["Body"] for m in received(world.queues["logger"])}), "both queues get the same")
    answered = {undated(body) for body in first}
    kinds = {json.loads(body)["kind"] for body in first}
    equal(kinds, {"finding", "outcome"}, "kinds of messages")
    function.invoke(batch)
    second = {undated(m["Body"]) for m in received(world.queues["notifier"])}
    equal(second, answered, "delivered again: the same but for when it passed, decisions included")
    world.reasons("responder")
    received(world.queues["logger"])
    equal(function.end(), 0, "exit code")
    # Another execution meets the same journal.
    function = world.start("responder")
    function.invoke(event(*findings))
    equal({undated(m["Body"]) for m in received(world.queues["logger"])}, answered, "of another process: the same")
    received(world.queues["notifier"])
    equal(function.end(), 0, "exit code")
    return sorted(set(first))


def notifier(world, messages):
    function = world.start("notifier")
    equal(failures(function.invoke(event(*messages, messages[0], ("poison", "?")))), [], "what comes back")
    equal(list(world.reasons("notifier")), ["?"], "dead letters")
    alerts = [json.loads(m["Body"]) for m in received(world.mail)]
    assert alerts, "somebody is told"
    for alert in alerts:
        assert len(alert["Subject"]) < 100 and alert["Subject"].isascii() and len(alert["Message"]) <= 256_000, alert
    receipts = by_key(received(world.queues["logger"]))
    equal(function.end(), 0, "exit code")
    function = world.start("notifier")
    function.invoke(event(*messages))
    equal(received(world.mail), [], "delivered again to another process: nobody is told twice")
    equal(set(by_key(received(world.queues["logger"]))), set(receipts), "and the receipts have the same keys")
    equal(function.end(), 0, "exit code")
    return sorted(receipts.values())


def logger(world, messages, receipts):
    function = world.start("logger")
    # A receipt that comes before its finding waits.
    equal(failures(function.invoke(event(("early", receipts[0])))), ["early"], "what comes back")
    equal(failures(function.invoke(event(*messages, *receipts, messages[0], ("poison", "[]")))), [], "what comes back")
    equal(list(world.reasons("logger")), ["[]"], "dead letters")
    uids = [line["metadata"]["uid"] for line in function.lines() if "_aws" not in line]
    equal(len(uids), len(set(uids)), "lines, each once")
    equal(len(uids), len(messages) + len(receipts), "a line for each message")
    equal(function.end(), 0, "exit code")
    function = world.start("logger")
    function.invoke(event(*messages, *receipts))
    equal([line for line in function.lines() if "_aws" not in line], [], "delivered again: no line twice")
    equal(function.end(), 0, "exit code")

    items = dynamo.scan(TableName=world.incidents, ConsistentRead=True)["Items"]
    incidents = [json.loads(item["incident"]["S"]) for item in items if "incident" in item]
    findings = {json.loads(m)["payload"]["finding_id"] for m in messages if json.loads(m)["kind"] == "finding"}
    equal({i["details"]["finding_id"] for i in incidents}, findings, "an incident for each finding")
    assert all(i["notify_status"] in ("SENT", "GROUPED", "NOT_TOLD") for i in incidents), incidents
    archived = []
    for listed in s3.list_objects_v2(Bucket=world.archive).get("Contents", []):
        assert listed["Key"].startswith("lines/20"), listed
        text = s3.get_object(Bucket=world.archive, Key=listed["Key"])["Body"].read().decode()
        archived += [json.loads(line)["metadata"]["uid"] for line in text.splitlines()]
    equal(sorted(archived), sorted(uids), "archived lines")


def nobody_there(world, findings):
    """Without the services, what could be handled later comes back, and poison too, because it cannot be buried."""
    closed = "http://127.0.0.1:9"
    function = world.start("responder", AWS_ENDPOINT_URL=closed)
    batch = event(("good", findings[0]), ("poison", "{}"))
    equal(failures(function.invoke(batch)), ["good", "poison"], "what comes back")
    [values] = metrics(function)
    equal((values["messages_failed_retryable"], values["messages_failed_permanent"]), (1, 1), "messages")
    equal(function.end(), 0, "exit code")


class Slow(BaseHTTPRequestHandler):
    """A queue that refuses everything, and the first request only after `go_on`."""

    arrived, go_on = threading.Event(), threading.Event()

    def log_message(self, *args):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.arrived.set()
        self.go_on.wait(30)
        body = b'{"__type": "AccessDeniedException", "message": "said so"}'
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def ends_when_asked(world, findings):
    """A signal in the middle of a batch: it is answered, then the process ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    function = world.start("responder", AWS_ENDPOINT_URL_SQS="http://127.0.0.1:%d" % server.server_address[1])
    request = function.send(event(*findings))
    assert Slow.arrived.wait(30), function.log()
    function.process.send_signal(signal.SIGTERM)
    # Long enough for a function that ends without looking.
    time.sleep(0.3)
    equal(function.process.poll(), None, "it has not ended in the middle of the batch, with code")
    Slow.go_on.set()
    equal(len(failures(function.answer(request))), len(findings), "what comes back of what nobody took")
    equal(function.process.wait(10), 0, "exit code")
    server.shutdown()
    function.api.close()


def mistakes(world):
    """A function that lacks something says so and ends."""
    for changes, text in [({"STATE_TABLE": ""}, "STATE_TABLE"), ({"DLQ_URL": ""}, "DLQ_URL"),
                          ({"PIPELINE_CONFIG": "[responder]\nmode = 1"}, "mode"),
                          ({"RESPONSES": "yes"}, "plan or carry-out"), ({"RESPONSES": "carry-out"}, "ACCOUNT_ID")]:
        function = world.start("responder", **changes)
        assert function.process.wait(timeout=20) != 0, changes
        assert text in function.log(), (changes, function.log())
        function.api.close()


def main():
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:"), "the emulator, never AWS"
    world = World(sys.argv[1])
    findings = classifier(world)
    messages = responder(world, findings)
    receipts = notifier(world, messages)
    logger(world, messages, receipts)
    nobody_there(world, findings)
    ends_when_asked(world, findings)
    mistakes(world)
    print(f"the four functions did as they should: {len(findings)} findings, {len(messages)} messages, {len(receipts)} receipts")


main()

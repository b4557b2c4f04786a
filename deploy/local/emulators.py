"""The pipeline on two emulators, deployed from the templates: what `scripts/local-aws` starts and the tests drive.

MiniStack is CloudFormation, EventBridge, SQS, Lambda, DynamoDB and S3, and runs the real binaries. moto is SNS, because it keeps
mails for reading, and the IAM and EC2 that responses change, because it has all of their security group rules. Both listen on
loopback and keep nothing.

Where they differ from AWS, as far as this depends on it:

* `PutEvents` takes sources that begin with `aws.`, by `run_ministack.py`; AWS and MiniStack refuse them. That is how events get
  in here. Their envelopes get a new id and the time of the call.
* MiniStack delivers under the rule state `ENABLED` only, and then read-only events too. So rules with the state
  `ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS` are set to `ENABLED` once they are deployed.
* EventBridge delivers once and in order; AWS may deliver twice and in any order, which the tests do themselves.
* IAM policies, queue policies, encryption and TLS are not enforced; alarms are not evaluated.
* Lambda runs as many batches of a mapping at once as `MaximumConcurrency` says, without the ramp of AWS; a failed batch waits for
  its visibility time-out as on AWS.
* MiniStack takes `MaximumConcurrency` as text from a parameter and then cannot compare it, so it is set again as a number.
* Topics live in both emulators: moto gets those that MiniStack made from the template, with their subscriptions, confirmed.
"""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import boto3
import templates

ACCOUNT = "123456789012"
REGION = "eu-central-1"
STACK = "security-pipeline"
DETAIL_TYPES = {
    "AwsConsoleSignIn": "AWS Console Sign In via CloudTrail",
    "AwsServiceEvent": "AWS Service Event via CloudTrail",
}
# EventBridge's limit of one PutEvents call.
ENTRIES_MAX = 10
RUN_MINISTACK = Path(__file__).with_name("run_ministack.py")


class Failed(Exception):
    """Something on this machine did not work; the text says what."""


def wait_for(what: str, holds: Callable[[], object], timeout_s: float = 30.0) -> object:
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = holds()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout_s:.0f} s in vain: {what}")
        time.sleep(0.1)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Emulator:
    """One emulator in a process group of its own, so that nothing it starts outlives it."""

    def __init__(self, name: str, command: list[str], port: int, environment: dict[str, str], log: Path):
        self.name, self.port, self.log = name, port, log
        self.url = f"http://127.0.0.1:{port}"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self) -> None:
        """Returns when it listens."""

        def listens() -> bool:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(f"{self.name} to listen on {self.port}", listens)

    def freeze(self) -> None:
        """Stops it as a stalled host would: connections hang. What it started runs on."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        """Ends it and all it started."""
        for ask in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, ask)
                if ask == signal.SIGTERM:
                    self.process.wait(2)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.process.wait()


class Pipeline:
    """A running one, by the URLs of the two emulators."""

    def __init__(self, ministack_url: str, moto_url: str):
        self.ministack_url, self.moto_url = ministack_url, moto_url
        keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "example", "region_name": REGION}
        self.session = boto3.Session(**keys)

    def client(self, service: str):
        """A client of MiniStack."""
        return self.session.client(service, endpoint_url=self.ministack_url)

    def operator_environment(self) -> dict[str, str]:
        """What leads a tool of an operator to the emulators, and nowhere else."""
        return {
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_REGION": REGION,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.ministack_url,
            "AWS_ENDPOINT_URL_SNS": self.moto_url,
        }

    def responder_environment(self) -> dict[str, str]:
        """The same for who takes responses back: the account that they change is moto's."""
        account = {f"AWS_ENDPOINT_URL_{service}": self.moto_url for service in ("EC2", "IAM")}
        return self.operator_environment() | account

    def account(self, service: str):
        """A client of the account that is watched and that responses change: `iam` or `ec2` of moto."""
        return self.session.client(service, endpoint_url=self.moto_url)

    def changeable(self) -> list[str]:
        """What responses may change there, a line each: access keys with their status, ingress rules from anywhere."""
        iam, ec2 = self.account("iam"), self.account("ec2")
        lines = []
        for user in iam.list_users()["Users"]:
            for key in iam.list_access_keys(UserName=user["UserName"])["AccessKeyMetadata"]:
                lines.append(f"{user['UserName']}: {key['AccessKeyId']} {key['Status']}")
        for rule in ec2.describe_security_group_rules()["SecurityGroupRules"]:
            source = rule.get("CidrIpv4") or rule.get("CidrIpv6")
            if source and not rule["IsEgress"]:
                ports = f"{rule['IpProtocol']} {rule.get('FromPort')}-{rule.get('ToPort')}"
                lines.append(f"{rule['GroupId']}: {ports} from {source} {rule.get('Description', '')}".rstrip())
        return sorted(lines)

    def put(self, records: Iterable[dict]) -> int:
        """Puts CloudTrail records and EventBridge envelopes on the default bus; answers how many."""
        events = self.client("events")
        entries = [entry(record) for record in records]
        for start in range(0, len(entries), ENTRIES_MAX):
            answer = events.put_events(Entries=entries[start : start + ENTRIES_MAX])
            if answer["FailedEntryCount"]:
                raise Failed(f"PutEvents refused: {answer['Entries']}")
        return len(entries)

    def queue_url(self, name: str) -> str:
        """`classifier`, `classifier-dlq`, `undelivered-events`."""
        return self.client("sqs").get_queue_url(QueueName=f"{STACK}-{name}")["QueueUrl"]

    def shorten_visibility(self, seconds: int) -> None:
        """The templates' five minutes would be most of a test; what happens afterwards is the same."""
        for component in templates.COMPONENTS:
            attributes = {"VisibilityTimeout": str(seconds)}
            self.client("sqs").set_queue_attributes(QueueUrl=self.queue_url(component), Attributes=attributes)

    def depths(self, delayed: bool = True) -> dict[str, int]:
        """How many messages wait, are being handled or are delayed, by queue without the prefix; empty ones left out."""
        states = ["", "NotVisible", *(["Delayed"] if delayed else [])]
        sqs = self.client("sqs")
        found: dict[str, int] = {}
        for url in sqs.list_queues(QueueNamePrefix=f"{STACK}-")["QueueUrls"]:
            attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            depth = sum(int(attributes.get(f"ApproximateNumberOfMessages{state}", 0)) for state in states)
            if depth:
                found[url.rsplit("/", 1)[1].removeprefix(f"{STACK}-")] = depth
        return found

    def settle(self, timeout_s: float = 120.0, delayed: bool = True) -> dict[str, int]:
        """Waits until every queue but the dead-letter queues has been empty for a second; answers what those hold. Without
        `delayed`, what the classifier has put off (was the group closed within the hour?) is not waited for."""

        def idle() -> bool:
            return not any(name in templates.COMPONENTS for name in self.depths(delayed))

        deadline = time.monotonic() + timeout_s
        quiet_since: float | None = None
        while quiet_since is None or time.monotonic() - quiet_since < 1.0:
            if time.monotonic() > deadline:
                raise Failed(f"after {timeout_s:.0f} s messages still wait: {self.depths()}")
            now = time.monotonic()
            quiet_since = (quiet_since or now) if idle() else None
            time.sleep(0.1)
        return self.depths(delayed)

    def incidents(self) -> list[dict]:
        """Every incident, oldest first."""
        pages = self.client("dynamodb").get_paginator("scan").paginate(TableName=f"{STACK}-incidents", ConsistentRead=True)
        items = [item for page in pages for item in page["Items"] if "incident" in item]
        return sorted((json.loads(item["incident"]["S"]) for item in items), key=lambda i: i["incident_id"])

    def mails(self) -> list[dict[str, str]]:
        """What was mailed through the topic for alerts, in order: `subject` and `text`."""
        with urllib.request.urlopen(f"{self.moto_url}/moto-api/data.json") as answer:
            topics = json.load(answer)["sns"]["Topic"]
        sent = [m for topic in topics if topic["name"] == f"{STACK}-alerts" for m in topic["sent_notifications"]]
        return [{"subject": subject, "text": text} for _, text, subject, *_ in sent]


class LocalAws(Pipeline):
    """Starts and ends it. A context manager; `binaries` holds `classifier`, `responder`, `notifier` and `logger`. Buckets and the
    topic that `parameters` of the root template name are made before, buckets with their notifications on, as their owner
    would."""

    def __init__(
        self, binaries: Path, config: str = "", responses: str = "plan", parameters: dict[str, str] | None = None
    ):
        self.binaries, self.config, self.responses = binaries, config, responses
        self.parameters = parameters or {}
        self.emulators: list[Emulator] = []
        self.folder = Path(tempfile.mkdtemp(prefix="local-aws-"))

    def __enter__(self) -> "LocalAws":
        try:
            self._start()
            self._deploy()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends both emulators and removes what they wrote."""
        for emulator in self.emulators:
            emulator.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        tools = Path(sys.executable).parent
        ports = {"ministack": free_port(), "moto": free_port()}
        # Nothing of the caller's account: no profile, no credentials, no real endpoint.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        environment |= {
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            # The functions inherit these.
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['ministack']}",
            **{f"AWS_ENDPOINT_URL_{name}": f"http://127.0.0.1:{ports['moto']}" for name in ("EC2", "IAM", "SNS")},
            "TMPDIR": str(self.folder),
        }
        ministack = environment | {
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(ports["ministack"]),
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": REGION,
        }
        self.ministack = self._emulator("ministack", [sys.executable, str(RUN_MINISTACK)], ports["ministack"], ministack)
        moto_command = [str(tools / "moto_server"), "-H", "127.0.0.1", "-p", str(ports["moto"])]
        self.moto = self._emulator("moto", moto_command, ports["moto"], environment)
        for emulator in self.emulators:
            emulator.wait()
        Pipeline.__init__(self, self.ministack.url, self.moto.url)

    def _emulator(self, name: str, command: list[str], port: int, environment: dict[str, str]) -> Emulator:
        emulator = Emulator(name, command, port, environment, self.folder / f"{name}.log")
        self.emulators.append(emulator)
        return emulator

    def _deploy(self) -> None:
        s3, cloudformation = self.client("s3"), self.client("cloudformation")
        s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": REGION})

        def store(key: str, content: bytes) -> str:
            s3.put_object(Bucket="code", Key=key, Body=content)
            return f"{self.ministack_url}/code/{key}"

        root = templates.package(store, self._code)
        parameters = {
            "PipelineConfig": self.config,
            "Responses": self.responses,
            "AlertEmail": "soc@example.com",
            "LogRetentionDays": "1",
        } | self.parameters
        for name in (parameters[key] for key in ("CloudTrailBucket", "UploadBucket") if key in parameters):
            s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
            s3.put_bucket_notification_configuration(
                Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
            )
        if "InputTopicArn" in parameters:
            self.client("sns").create_topic(Name=parameters["InputTopicArn"].rsplit(":", 1)[1])
        cloudformation.create_stack(
            StackName=STACK,
            TemplateBody=json.dumps(root),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        )

        def created() -> bool:
            status = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"]
            if status not in ("CREATE_IN_PROGRESS", "CREATE_COMPLETE"):
                events = cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
                raise Failed("; ".join(e["ResourceStatusReason"] for e in events if e.get("ResourceStatusReason")))
            return status == "CREATE_COMPLETE"

        wait_for("the stack", created, 60.0)
        functions = self.client("lambda")
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
            most = int(mapping["ScalingConfig"]["MaximumConcurrency"])
            functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": most})
        events = self.client("events")
        for bus in events.list_event_buses()["EventBuses"]:
            for page in events.get_paginator("list_rules").paginate(EventBusName=bus["Name"]):
                for rule in page["Rules"]:
                    if rule["State"] == "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS":
                        events.enable_rule(Name=rule["Name"], EventBusName=bus["Name"])
        self._copy_topics()

    def _copy_topics(self) -> None:
        here, there = self.client("sns"), self.session.client("sns", endpoint_url=self.moto_url)
        for topic in here.list_topics()["Topics"]:
            arn = topic["TopicArn"]
            made = there.create_topic(Name=arn.rsplit(":", 1)[1])["TopicArn"]
            if made != arn:
                raise Failed(f"moto made the topic {made}, not {arn}")
            for subscription in here.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]:
                there.subscribe(TopicArn=arn, Protocol=subscription["Protocol"], Endpoint=subscription["Endpoint"])

    def _code(self, component: str) -> bytes:
        binary = self.binaries / component
        if not binary.is_file():
            raise Failed(f"{binary} is not built")
        stripped = self.folder / component
        # Without its debugging information a binary of the dev profile is a tenth as large.
        subprocess.run(["strip", "-o", str(stripped), str(binary)], check=True)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
            about = zipfile.ZipInfo("bootstrap")
            about.external_attr = 0o755 << 16
            packed.writestr(about, stripped.read_bytes())
        stripped.unlink()
        return archive.getvalue()

    def log_end(self) -> str:
        """The last of what MiniStack and the functions have logged."""
        return self.ministack.log.read_text(errors="replace")[-4000:]


def entry(record: dict) -> dict:
    """A CloudTrail record, or an event as EventBridge delivers it, as an entry of `PutEvents`."""
    if "detail-type" in record:
        source, detail_type, detail = record["source"], record["detail-type"], record["detail"]
        happened = record["time"]
    else:
        source = "aws." + record["eventSource"].removesuffix(".amazonaws.com")
        detail_type = DETAIL_TYPES.get(record.get("eventType", ""), "AWS API Call via CloudTrail")
        detail, happened = record, record["eventTime"]
    return {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail), "Time": happened}


def read(path: Path) -> Iterator[dict]:
    """The records of a file: `{"Records": […]}`, one record, or JSON lines."""
    text = path.read_text()
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(whole, dict):
        whole = whole.get("Records", [whole])
    yield from whole

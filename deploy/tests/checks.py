"""What the linters of the field miss, as functions from templates to problems.

Each takes all templates, by the path below deploy/ (as `templates.load` reads them), and yields one sentence for each
problem. `test_checks.py` runs them on the real templates and on broken copies, so that none is a check that cannot fail.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import templates
from templates import COMPONENTS

ROOT = templates.DEPLOY.parent
RUNBOOKS = ROOT / "docs/runbooks"
FUNCTION, QUEUE, RULE, ALARM = (
    "AWS::Serverless::Function",
    "AWS::SQS::Queue",
    "AWS::Events::Rule",
    "AWS::CloudWatch::Alarm",
)
# The Lambda guide ("Using Lambda with Amazon SQS"): visibility at least six time-outs, five receives at least.
VISIBILITY_TIMEOUTS = 6
RECEIVES_MIN = 5
# What a component must be watched by; the ends of the alarms' names.
COMPONENT_ALARMS = {"dlq-depth", "dlq-age", "queue-age", "queue-depth", "errors", "throttles"}
# EventBridge's quotas: characters of a pattern, rules of a bus in the regions that allow the fewest.
PATTERN_CHARS_MAX, RULES_MAX = 2048, 100
# What anybody may put on a bus, by source: the canary, which proves itself.
PERMITTED_FROM_ANYBODY = {"pipeline.canary": "Pipeline Canary"}
# Actions that take no resource, by the Service Authorization Reference.
WITHOUT_RESOURCES = {
    "ec2:DescribeSecurityGroupRules",
    "logs:StopQuery",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}

# Amazon S3's rules for bucket names; the longest name of a region today; CloudFormation's longest parameter.
BUCKET_CHARS_MAX, LONGEST_REGION, NAME_CHARS_MAX = 63, "ap-southeast-1", 4096
FOUNDATION = "foundation/template.yaml"
# Who may read or write which items of the state table, by hash key, as the crates declare it (`cargo xtask gen`).
STATE_KEYS = json.loads((ROOT / "deploy/generated/state-keys.json").read_text())

Templates = dict[str, dict]
Problems = Iterator[str]


def resources(all_templates: Templates, kind: str) -> Iterator[tuple[str, str, dict]]:
    """Every resource of a type: template, logical id, resource."""
    for name, template in all_templates.items():
        for logical_id, resource in template["Resources"].items():
            if resource["Type"] == kind:
                yield name, logical_id, resource


def component_templates(all_templates: Templates) -> Iterator[tuple[str, dict]]:
    """The components with their templates."""
    for component in COMPONENTS:
        yield component, all_templates[f"{component}/template.yaml"]


def strings(value: object) -> Iterator[str]:
    """Every text inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def statements(value: object) -> Iterator[dict]:
    """Every policy statement inside a value, also those behind an `Fn::If`."""
    if isinstance(value, dict):
        if "Effect" in value and "Action" in value:
            yield value
        for inner in value.values():
            yield from statements(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from statements(inner)


def as_list(value: object) -> list:
    """IAM takes one or a list of almost everything."""
    return value if isinstance(value, list) else [value]


def policies_of(template: dict, kind: str, key: str, logical_id: str) -> Iterator[dict]:
    """Statements of the queue or topic policies that are attached to a resource."""
    for resource in template["Resources"].values():
        if resource["Type"] == kind and {"Ref": logical_id} in as_list(resource["Properties"][key]):
            yield from statements(resource["Properties"]["PolicyDocument"])


def visibility_covers_six_timeouts(all_templates: Templates) -> Problems:
    """A message must not become visible while its function still works on it or its retries."""
    for component, template in component_templates(all_templates):
        function = template["Resources"]["Function"]["Properties"]
        for event in function["Events"].values():
            window = event["Properties"].get("MaximumBatchingWindowInSeconds", 0)
            needed = VISIBILITY_TIMEOUTS * function["Timeout"] + window
            visibility = template["Resources"]["Queue"]["Properties"]["VisibilityTimeout"]
            if visibility < needed:
                yield f"{component}: visibility {visibility} s is below {needed} s"


def every_mapping_answers_in_part_and_is_bounded(all_templates: Templates) -> Problems:
    """A failed message must not bring its batch back; throttles must not burn receives."""
    for name, logical_id, function in resources(all_templates, FUNCTION):
        properties = function["Properties"]
        if "ReservedConcurrentExecutions" in properties:
            yield f"{name} {logical_id}: a reserved concurrency throttles; bound the mapping"
        if not properties.get("Events"):
            yield f"{name} {logical_id}: no event source"
        for event in properties.get("Events", {}).values():
            mapping = event["Properties"]
            if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
                yield f"{name} {logical_id}: no ReportBatchItemFailures"
            if "MaximumConcurrency" not in mapping.get("ScalingConfig", {}):
                yield f"{name} {logical_id}: no MaximumConcurrency"
            if mapping.get("Queue") != {"Fn::GetAtt": ["Queue", "Arn"]}:
                yield f"{name} {logical_id}: it reads another queue than its own"


def every_queue_ends_in_a_dead_letter_queue(all_templates: Templates) -> Problems:
    """Nothing is lost: enough receives, and dead letters outlive the time they had in their queue."""
    for name, logical_id, queue in resources(all_templates, QUEUE):
        properties = queue["Properties"]
        if logical_id != "Queue":
            if properties.get("MessageRetentionPeriod") != 1209600:
                yield f"{name} {logical_id}: dead letters are not kept 14 days"
            continue
        redrive = properties.get("RedrivePolicy", {})
        if redrive.get("deadLetterTargetArn") != {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}:
            yield f"{name}: the queue has no dead-letter queue of its stack"
        if redrive.get("maxReceiveCount", 0) < RECEIVES_MIN:
            yield f"{name}: fewer than {RECEIVES_MIN} receives"
        dead = all_templates[name]["Resources"]["DeadLetterQueue"]["Properties"]
        if properties["MessageRetentionPeriod"] >= dead.get("MessageRetentionPeriod", 345600):
            yield f"{name}: dead letters do not outlive the queue's messages"


def every_queue_is_encrypted_and_refuses_plain_text(all_templates: Templates) -> Problems:
    """At rest by one of the two keys, in transit by policy."""
    for name, logical_id, queue in resources(all_templates, QUEUE):
        properties = queue["Properties"]
        managed = properties.get("SqsManagedSseEnabled")
        if managed is not True and managed != {"Fn::If": ["OwnKey", {"Ref": "AWS::NoValue"}, True]}:
            yield f"{name} {logical_id}: not encrypted by SQS's key"
        if managed is not True and "KmsMasterKeyId" not in properties:
            yield f"{name} {logical_id}: no key where SQS's is off"
        attached = policies_of(all_templates[name], "AWS::SQS::QueuePolicy", "Queues", logical_id)
        if not any(is_transport_denial(statement) for statement in attached):
            yield f"{name} {logical_id}: no policy refuses plain text"


def is_transport_denial(statement: dict) -> bool:
    """Whether the statement refuses everybody who does not use TLS."""
    secure = statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")
    return statement["Effect"] == "Deny" and statement["Principal"] == "*" and secure == "false"


def topics_and_buckets_refuse_plain_text(all_templates: Templates) -> Problems:
    """The same for what else is sent to or stored in."""
    for kind, policy, key in [
        ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "Topics"),
        ("AWS::S3::Bucket", "AWS::S3::BucketPolicy", "Bucket"),
    ]:
        for name, logical_id, _ in resources(all_templates, kind):
            attached = policies_of(all_templates[name], policy, key, logical_id)
            if not any(is_transport_denial(statement) for statement in attached):
                yield f"{name} {logical_id}: no policy refuses plain text"


def every_rule_target_has_a_dead_letter_queue(all_templates: Templates) -> Problems:
    """EventBridge drops what it could not deliver in 24 hours."""
    for name, logical_id, rule in resources(all_templates, RULE):
        for target in rule["Properties"]["Targets"]:
            if target.get("DeadLetterConfig", {}).get("Arn") != {"Fn::GetAtt": ["UndeliveredQueue", "Arn"]}:
                yield f"{name} {logical_id}: a target without a dead-letter queue"
            retry = target.get("RetryPolicy", {})
            if (retry.get("MaximumEventAgeInSeconds"), retry.get("MaximumRetryAttempts")) != (86400, 185):
                yield f"{name} {logical_id}: it gives up before EventBridge must"


def rules_are_the_generated_ones_within_the_quotas(all_templates: Templates) -> Problems:
    """Both templates carry every generated rule with its pattern and state; bus and pattern quotas hold."""
    generated = json.loads((ROOT / "deploy/generated/event-rules.json").read_text())
    wanted = {f"${{Name}}-{rule['name']}": (rule["state"], rule["pattern"]) for rule in generated}
    for name in ("rules/template.yaml", "forwarder/template.yaml"):
        here = {
            rule["Properties"]["Name"]["Fn::Sub"]: rule["Properties"]
            for _, _, rule in resources({name: all_templates[name]}, RULE)
        }
        of_default_bus = sum("EventBusName" not in rule for rule in here.values())
        if max(of_default_bus, len(here) - of_default_bus) > RULES_MAX:
            yield f"{name}: {of_default_bus} rules of {len(here)} on one bus, which takes {RULES_MAX}"
        for rule_name, (state, pattern) in wanted.items():
            rule = here.get(rule_name, {})
            if (rule.get("State"), rule.get("EventPattern")) != (state, pattern):
                yield f"{name}: {rule_name} is missing or not as generated"
        for rule_name, rule in here.items():
            characters = len(json.dumps(rule["EventPattern"], separators=(",", ":")))
            if characters > PATTERN_CHARS_MAX:
                yield f"{name}: the pattern of {rule_name} has {characters} characters"
            if not rule_name.startswith("${Name}-"):
                yield f"{name}: the queue's policy does not know {rule_name}"


def only_aws_may_send_what_is_believed(all_templates: Templates) -> Problems:
    """Anybody with PutEvents chooses everything but a source that begins with "aws.": another needs its detail type."""
    for name, logical_id, rule in resources(all_templates, RULE):
        pattern = rule["Properties"]["EventPattern"]
        for source in pattern.get("source", [None]):
            prefix = source.get("prefix") if isinstance(source, dict) else source
            is_of_aws = isinstance(prefix, str) and prefix.startswith("aws.")
            if not is_of_aws and pattern.get("detail-type") != [PERMITTED_FROM_ANYBODY.get(prefix)]:
                yield f"{name} {logical_id}: anybody may send it events with the source {source!r}"


def only_rules_of_this_pipeline_may_send(all_templates: Templates) -> Problems:
    """A service principal without account and source would be a confused deputy; a topic may send when it was named."""
    for kind in ("AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy"):
        for name, logical_id, policy in resources(all_templates, kind):
            for entry in policy["Properties"]["PolicyDocument"]["Statement"]:
                [statement] = statements(entry)
                if statement["Effect"] == "Deny":
                    continue
                if statement["Principal"] == {"Service": "sns.amazonaws.com"}:
                    named = {"ArnEquals": {"aws:SourceArn": {"Ref": "InputTopicArn"}}}
                    if statement.get("Condition") != named or entry.get("Fn::If", [None])[0] != "InputTopic":
                        yield f"{name} {logical_id}: a topic may send that was not named"
                    continue
                condition = statement.get("Condition", {})
                if condition.get("StringEquals", {}).get("aws:SourceAccount") != {"Ref": "AWS::AccountId"}:
                    yield f"{name} {logical_id}: any account's service may send"
                sources = list(strings(condition.get("ArnLike", {}).get("aws:SourceArn", [])))
                if not sources or not all("${Name}-*" in source for source in sources):
                    yield f"{name} {logical_id}: not only this pipeline's rules and alarms may send"


def a_topic_is_read_only_when_one_is_named(all_templates: Templates) -> Problems:
    """The queue's subscription hangs on `InputTopicArn`, which nobody has set, and comes after the permission to send."""
    template = all_templates["classifier/template.yaml"]
    if template["Conditions"].get("InputTopic") != {"Fn::Not": [{"Fn::Equals": [{"Ref": "InputTopicArn"}, ""]}]}:
        yield "classifier: the condition InputTopic is not that a topic was named"
    for name in ("template.yaml", "classifier/template.yaml"):
        if all_templates[name]["Parameters"].get("InputTopicArn", {}).get("Default") != "":
            yield f"{name}: a topic is read by default"
    subscription = template["Resources"].get("InputSubscription", {})
    if (subscription.get("Condition"), subscription.get("DependsOn")) != ("InputTopic", "QueuePolicy"):
        yield "classifier: its queue is subscribed before a topic is named or may send"
    wanted = {"TopicArn": {"Ref": "InputTopicArn"}, "Protocol": "sqs", "Endpoint": {"Fn::GetAtt": ["Queue", "Arn"]}}
    if subscription.get("Properties") != wanted:
        yield "classifier: the topic is not led into its queue"
    allowed = [s for s in policies_of(template, "AWS::SQS::QueuePolicy", "Queues", "Queue") if s["Effect"] == "Allow"]
    if not any(s["Principal"] == {"Service": "sns.amazonaws.com"} for s in allowed):
        yield "classifier: the topic may not send to its queue"


def the_bus_is_open_to_the_organization_only(all_templates: Templates) -> Problems:
    """And closed without one."""
    for name, logical_id, policy in resources(all_templates, "AWS::Events::EventBusPolicy"):
        condition = policy["Properties"]["Statement"].get("Condition", {})
        if condition.get("StringEquals", {}).get("aws:PrincipalOrgID") != {"Ref": "OrganizationId"}:
            yield f"{name} {logical_id}: open to others than the organization"
        if policy.get("Condition") != "Organization":
            yield f"{name} {logical_id}: it exists without an organization"


def actions_and_resources_are_named(all_templates: Templates) -> Problems:
    """No wildcard in an action; none as a resource but where the API takes none."""
    for name, template in all_templates.items():
        for logical_id, resource in template["Resources"].items():
            for statement in statements(resource["Properties"]):
                actions = as_list(statement["Action"])
                if any("*" in action for action in actions):
                    yield f"{name} {logical_id}: a wildcard in {actions}"
                # In a key policy "*" is the key itself.
                free = resource["Type"] == "AWS::KMS::Key" or set(actions) <= WITHOUT_RESOURCES
                # A trust policy has no resource.
                if "*" in as_list(statement.get("Resource", [])) and not free:
                    yield f"{name} {logical_id}: any resource for {actions}"


def functions_use_their_own_roles(all_templates: Templates) -> Problems:
    """A role that SAM makes has managed policies with wildcards; the responder knows its own by name."""
    settings = (ROOT / "aws-responder/src/settings.rs").read_text()
    own = re.search(r'\[([a-z", ]+)\]\s*\.map\(\|component\| format!\("arn:\*:iam::\*:role/\{deployment\}-\{component\}"', settings)
    known = {"${Name}-" + component for component in re.findall(r'"([a-z]+)"', own[1])} if own else set()
    for component, template in component_templates(all_templates):
        resources_here = template["Resources"]
        if resources_here["Function"]["Properties"].get("Role") != {"Fn::GetAtt": ["FunctionRole", "Arn"]}:
            yield f"{component}: SAM makes the role"
        role = resources_here["FunctionRole"]["Properties"]
        if role.get("ManagedPolicyArns"):
            yield f"{component}: managed policies"
        named = role.get("RoleName", {}).get("Fn::Sub", "")
        if named not in known:
            yield f"{component}: responder.own_roles does not know the role {named!r}"


def reading_objects_is_granted_only_with_a_bucket(all_templates: Templates) -> Problems:
    """`s3:GetObject` of log files, uploads and files of settings, and `kms:Decrypt` of log files, hang on their parameters."""
    buckets = {"LogFiles": "${CloudTrailBucket}", "Uploads": "${UploadBucket}", "Settings": "${SettingsBucket}"}
    role = all_templates["classifier/template.yaml"]["Resources"]["FunctionRole"]["Properties"]
    for entry in role["Policies"][0]["PolicyDocument"]["Statement"]:
        condition = entry["Fn::If"][0] if "Fn::If" in entry else None
        for statement in statements(entry):
            services = {action.split(":")[0] for action in as_list(statement["Action"])}
            if "s3" in services and buckets.get(condition, "none") not in str(statement["Resource"]):
                yield "classifier: it may read S3 without a bucket that was named"
            if "kms" in services and condition not in ("EncryptedLogFiles", "OwnKey"):
                yield "classifier: it may decrypt without a key"


def log_groups_are_asked_only_when_one_is_named(all_templates: Templates) -> Problems:
    """`logs:StartQuery` and what belongs to it hang on `AlarmLogGroup`, and no other log group may be asked."""
    template = all_templates["classifier/template.yaml"]
    if template["Conditions"].get("Alarms") != {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmLogGroup"}, ""]}]}:
        yield "classifier: the condition Alarms is not that a log group was named"
    for name in ("template.yaml", "classifier/template.yaml"):
        if all_templates[name]["Parameters"].get("AlarmLogGroup", {}).get("Default") != "":
            yield f"{name}: a log group is asked by default"
    for entry in template["Resources"]["FunctionRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]:
        condition = entry["Fn::If"][0] if "Fn::If" in entry else None
        for statement in statements(entry):
            queries = {action for action in as_list(statement["Action"]) if action.endswith(("Query", "QueryResults"))}
            if queries and condition != "Alarms":
                yield f"classifier: {sorted(queries)} without a log group that was named"
            if "logs:StartQuery" in queries and not all("${AlarmLogGroup}" in str(r) for r in as_list(statement["Resource"])):
                yield "classifier: it may ask a log group that was not named"


def responses_are_permitted_only_when_asked_for(all_templates: Templates) -> Problems:
    """What the actions declare, all of it and nothing else, in one policy that hangs on the parameter `Responses`."""
    generated = json.loads((ROOT / "deploy/generated/response-policy.json").read_text())
    responder = all_templates["responder/template.yaml"]
    policy = responder["Resources"].get("ResponsesPolicy", {})
    if policy.get("Properties", {}).get("PolicyDocument") != generated:
        yield "responder: ResponsesPolicy is not deploy/generated/response-policy.json"
    if policy.get("Condition") != "CarryOut":
        yield "responder: responses are permitted without being asked for"
    tags = responder["Resources"]["Function"]["Properties"].get("Tags", {})
    if {"Fn::If": ["CarryOut", {"Ref": "ResponsesPolicy"}, "none"]} not in tags.values():
        yield "responder: the function may be told to carry out before it is permitted to"
    if responder["Conditions"].get("CarryOut") != {"Fn::Equals": [{"Ref": "Responses"}, "carry-out"]}:
        yield "responder: the condition CarryOut is not that Responses says carry-out"
    for name in ("template.yaml", "responder/template.yaml"):
        if all_templates[name]["Parameters"].get("Responses", {}).get("Default") != "plan":
            yield f"{name}: responses are carried out by default"
    responses = {action for statement in statements(generated) for action in as_list(statement["Action"])}
    for name, template in all_templates.items():
        for logical_id, resource in template["Resources"].items():
            if (name, logical_id) == ("responder/template.yaml", "ResponsesPolicy"):
                continue
            granted = {action for statement in statements(resource["Properties"]) for action in as_list(statement["Action"])}
            if granted & responses:
                yield f"{name} {logical_id}: {sorted(granted & responses)} are the responses' own"


def responses_fit_the_queue_and_the_function(all_templates: Templates) -> Problems:
    """Whoever takes a response over must be alone with it, and it must have its last word before its message dies."""
    source = {name: (ROOT / f"aws-responder/src/{name}.rs").read_text() for name in ("journal", "response", "handler")}
    lease_s = int(re.search(r"pub const LEASE_S: i64 = (\d+);", source["journal"])[1])
    deliveries = int(re.search(r"pub const DELIVERIES_MAX: u32 = (\d+);", source["response"])[1])
    begin_s = int(re.search(r"pub const BEGIN_S_MAX: i64 = (\d+);", source["handler"])[1])
    here = all_templates["responder/template.yaml"]["Resources"]
    timeout_s, queue = here["Function"]["Properties"]["Timeout"], here["Queue"]["Properties"]
    if not timeout_s < lease_s < queue["VisibilityTimeout"]:
        yield f"responder: a lease of {lease_s} s with a time-out of {timeout_s} s, visibility {queue['VisibilityTimeout']} s"
    if begin_s + 15 > timeout_s:
        yield f"responder: it begins responses for {begin_s} s, and is cut off after {timeout_s} s"
    if not deliveries < queue["RedrivePolicy"]["maxReceiveCount"]:
        yield f"responder: it gives up after {deliveries} deliveries, and the message is dead by then"


def environment_is_what_the_binary_reads(all_templates: Templates) -> Problems:
    """Names in the template and names in `main.rs`, both ways."""
    for component, template in component_templates(all_templates):
        given = set(template["Resources"]["Function"]["Properties"]["Environment"]["Variables"])
        source = (ROOT / f"aws-{component}/src/main.rs").read_text()
        header = "\n".join(line for line in source.splitlines() if line.startswith("//!"))
        read = set(re.findall(r"`([A-Z][A-Z_]{5,})`", header))
        for variable in sorted(given ^ read - {"LAMBDA_TASK_ROOT"}):
            which = "the binary does not read" if variable in given else "the template does not set"
            yield f"{component}: {which} {variable}"


def metrics_exist(all_templates: Templates) -> Problems:
    """Alarms and dashboard on our own metrics name those that the code writes."""
    namespace = "AwsSecurityPipeline"
    code = "".join(path.read_text() for folder in ("shared", *(f"aws-{c}" for c in COMPONENTS))
                   for path in sorted((ROOT / folder / "src").rglob("*.rs")))
    written = set(re.findall(r'"([a-z][a-z_]+)"', code))
    used: set[str] = set()
    for component, template in component_templates(all_templates):
        variables = template["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
        if variables.get("DEPLOYMENT") != {"Ref": "Name"}:
            yield f"{component}: its metrics do not say of which deployment they are"
    for name, logical_id, alarm in resources(all_templates, ALARM):
        if alarm["Properties"]["Namespace"] == namespace:
            used.add(alarm["Properties"]["MetricName"])
            if {"Name": "deployment", "Value": {"Ref": "Name"}} not in alarm["Properties"]["Dimensions"]:
                yield f"{name} {logical_id}: it also hears of other deployments"
    for name, logical_id, dashboard in resources(all_templates, "AWS::CloudWatch::Dashboard"):
        body = json.loads(dashboard["Properties"]["DashboardBody"]["Fn::Sub"])
        for widget in body["widgets"]:
            for metric in widget["properties"]["metrics"]:
                if metric[0] == namespace:
                    used.add(metric[1])
                    if metric[2:5] != ["deployment", "${Name}", "component"] or metric[5] not in COMPONENTS:
                        yield f"{name} {logical_id}: no such component of this deployment: {metric}"
    if f'"{namespace}"' not in code:
        yield f"nothing writes metrics into {namespace}"
    for metric in sorted(used - written):
        yield f"nothing writes the metric {metric}"
    if not used:
        yield "no alarm and no widget uses our own metrics"


def alarms_are_complete_and_explained(all_templates: Templates) -> Problems:
    """Each component has all of them, each tells somebody and names a page that exists; no page is left over."""
    pages: set[str] = set()
    for name, logical_id, alarm in resources(all_templates, ALARM):
        properties = alarm["Properties"]
        found = re.findall(r"docs/runbooks/([a-z-]+)\.md", properties["AlarmDescription"])
        pages.update(found)
        if len(found) != 1 or not (RUNBOOKS / f"{found[0]}.md").is_file():
            yield f"{name} {logical_id}: no runbook page"
        elif not properties["AlarmName"]["Fn::Sub"].endswith(f"-{found[0]}"):
            yield f"{name} {logical_id}: the page {found[0]} is about another alarm"
        if not name.startswith("forwarder/") and properties.get("AlarmActions") != [{"Ref": "AlarmTopicArn"}]:
            yield f"{name} {logical_id}: it tells nobody"
    for component, template in component_templates(all_templates):
        names = [a["Properties"]["AlarmName"]["Fn::Sub"] for _, _, a in resources({component: template}, ALARM)]
        for kind in sorted(COMPONENT_ALARMS):
            if f"${{Name}}-{component}-{kind}" not in names:
                yield f"{component}: no alarm {kind}"
    for page in sorted(RUNBOOKS.glob("*.md")):
        if page.stem not in pages and page.stem != "README":
            yield f"no alarm leads to {page.name}"


def alarms_watch_what_exists(all_templates: Templates) -> Problems:
    """An alarm on a queue or function of another name never rings."""
    expected = {"QueueName": ("AWS/SQS", QUEUE), "FunctionName": ("AWS/Lambda", FUNCTION)}
    for name, logical_id, alarm in resources(all_templates, ALARM):
        properties = alarm["Properties"]
        for dimension in properties["Dimensions"]:
            if dimension["Name"] not in expected:
                continue
            namespace, kind = expected[dimension["Name"]]
            value = dimension["Value"]
            target = value.get("Ref") or value["Fn::GetAtt"][0]
            if all_templates[name]["Resources"].get(target, {}).get("Type") != kind:
                yield f"{name} {logical_id}: it watches no {kind}"
            if properties["Namespace"] != namespace:
                yield f"{name} {logical_id}: {dimension['Name']} is none of {properties['Namespace']}"
            if ("DeadLetter" in logical_id) != (target == "DeadLetterQueue"):
                yield f"{name} {logical_id}: it watches {target}"


def stacks_meet_in_parameters_that_exist(all_templates: Templates) -> Problems:
    """Every SSM parameter that a stack reads is written by one that the root deploys before it; nothing is forgotten."""
    root = all_templates["template.yaml"]
    written: set[str] = set()
    waiting = dict(root["Resources"])
    done: set[str] = set()
    while waiting:
        ready = [i for i, r in waiting.items() if set(as_list(r.get("DependsOn", []))) <= done]
        if not ready:
            yield f"the root waits in a circle: {sorted(waiting)}"
            return
        for logical_id in ready:
            resource = waiting.pop(logical_id)
            nested = all_templates[resource["Properties"]["Location"]]
            given = resource["Properties"]["Parameters"]
            for unknown in sorted(set(given) - set(nested["Parameters"])):
                yield f"{logical_id} has no parameter {unknown}"
            for parameter, about in nested["Parameters"].items():
                if not about["Type"].startswith("AWS::SSM::Parameter::Value<"):
                    continue
                path = given.get(parameter, {}).get("Fn::Sub", "")
                if path not in written:
                    yield f"{logical_id}: {parameter} is written by nothing before it: {path!r}"
                if about["Default"] != path.replace("${Name}", nested["Parameters"]["Name"]["Default"]):
                    yield f"{logical_id}: {parameter} differs between the root and the template alone"
        for logical_id in ready:
            nested = all_templates[root["Resources"][logical_id]["Properties"]["Location"]]
            for _, _, parameter in resources({logical_id: nested}, "AWS::SSM::Parameter"):
                written.add(parameter["Properties"]["Name"]["Fn::Sub"])
            done.add(logical_id)


def the_state_table_is_shared_out(all_templates: Templates) -> Problems:
    """A component that is taken over must not forge what another has remembered, claimed or done."""
    for component, template in component_templates(all_templates):
        role = template["Resources"]["FunctionRole"]["Properties"]
        for statement in statements(role):
            if "${StateTable}" not in str(statement.get("Resource")):
                continue
            keys = statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys", [])
            if set(keys) != set(STATE_KEYS[component]):
                yield f"{component}: {statement['Sid']} is for other items than its own"


def everything_can_be_set_from_the_root(all_templates: Templates) -> Problems:
    """The root passes every parameter of a nested template on, with the same default and limits."""
    root = all_templates["template.yaml"]
    kept = ("Type", "Default", "AllowedValues", "AllowedPattern", "MinValue", "MaxValue")
    for logical_id, resource in root["Resources"].items():
        nested = all_templates[resource["Properties"]["Location"]]["Parameters"]
        given = resource["Properties"]["Parameters"]
        for missing in sorted(set(nested) - set(given)):
            yield f"{logical_id}: {missing} cannot be set from the root"
        for parameter in sorted(set(nested) & set(given)):
            if "Ref" not in given[parameter]:
                continue
            of_root = root["Parameters"].get(given[parameter]["Ref"], {})
            if any(of_root.get(key) != nested[parameter].get(key) for key in kept):
                yield f"{logical_id}: {parameter} differs between the root and the template alone"


def the_configuration_can_be_a_file(all_templates: Templates) -> Problems:
    """Every function has the layer that PipelineConfig may name a file of."""
    for component, template in component_templates(all_templates):
        layers = template["Resources"]["Function"]["Properties"].get("Layers")
        if layers != {"Fn::If": ["DataLayer", [{"Ref": "DataLayerArn"}], {"Ref": "AWS::NoValue"}]}:
            yield f"{component}: it has not the layer DataLayerArn"
        if template["Conditions"].get("DataLayer") != {"Fn::Not": [{"Fn::Equals": [{"Ref": "DataLayerArn"}, ""]}]}:
            yield f"{component}: the condition DataLayer is not that a layer was named"


def what_is_gone_looks_gone(all_templates: Templates) -> Problems:
    """Without s3:ListBucket S3 says of an object that is not there that it is forbidden."""
    role = all_templates["classifier/template.yaml"]["Resources"]["FunctionRole"]["Properties"]
    granted: dict[str, set[str]] = {"s3:GetObject": set(), "s3:ListBucket": set()}
    for statement in statements(role):
        for action in set(as_list(statement["Action"])) & set(granted):
            for resource in as_list(statement["Resource"]):
                granted[action].add(resource["Fn::Sub"].split(":::")[1].split("/")[0])
    for bucket in sorted(granted["s3:GetObject"] - granted["s3:ListBucket"]):
        yield f"classifier: of {bucket} it cannot tell what is gone from what is forbidden"


def names_agree(all_templates: Templates) -> Problems:
    """One default name, one set of allowed values, wherever a parameter appears again."""
    seen: dict[str, tuple[str, dict]] = {}
    for name, template in all_templates.items():
        for parameter, about in template["Parameters"].items():
            if parameter == "MaximumConcurrency":
                continue
            kept = {key: about.get(key) for key in ("Type", "Default", "AllowedValues", "AllowedPattern")}
            first, before = seen.setdefault(parameter, (name, kept))
            if kept != before:
                yield f"{parameter} differs between {first} and {name}"


def names_fit_everywhere(all_templates: Templates) -> Problems:
    """The longest name of a deployment makes a bucket's name that S3 takes, in every region."""
    for name, template in all_templates.items():
        pattern = template["Parameters"]["Name"].get("AllowedPattern", "")
        rest = re.search(r"\{\d+,(\d+)\}$", pattern)
        longest = 1 + int(rest[1]) if rest else NAME_CHARS_MAX
        for _, logical_id, bucket in resources({name: all_templates[FOUNDATION]}, "AWS::S3::Bucket"):
            bucket_name = bucket["Properties"]["BucketName"]["Fn::Sub"]
            for variable, text in [("Name", "n" * longest), ("AWS::AccountId", "1" * 12), ("AWS::Region", LONGEST_REGION)]:
                bucket_name = bucket_name.replace(f"${{{variable}}}", text)
            if len(bucket_name) > BUCKET_CHARS_MAX:
                yield f"{name}: a Name of {longest} characters makes {logical_id} {len(bucket_name)} characters long"


def what_is_kept_survives(all_templates: Templates) -> Problems:
    """Tables and bucket outlive their stack and can be restored."""
    for kind in ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::KMS::Key"):
        for name, logical_id, resource in resources(all_templates, kind):
            # A protected table cannot be deleted when its creation is rolled back.
            kept = "Retain" if kind == "AWS::DynamoDB::Table" else "RetainExceptOnCreate"
            if (resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy")) != (kept, "Retain"):
                yield f"{name} {logical_id}: it goes with its stack, or stays when its creation fails"
    for name, logical_id, table in resources(all_templates, "AWS::DynamoDB::Table"):
        properties = table["Properties"]
        if properties.get("PointInTimeRecoverySpecification") != {"PointInTimeRecoveryEnabled": True}:
            yield f"{name} {logical_id}: no point-in-time recovery"
        if properties.get("BillingMode") != "PAY_PER_REQUEST":
            yield f"{name} {logical_id}: provisioned capacity throttles bursts"


def logs_are_kept_for_a_time(all_templates: Templates) -> Problems:
    """Each function writes into a log group of its stack, which has a retention."""
    for component, template in component_templates(all_templates):
        if template["Resources"]["Function"]["Properties"].get("LoggingConfig") != {"LogGroup": {"Ref": "LogGroup"}}:
            yield f"{component}: it makes its own log group, kept for ever"
        if "RetentionInDays" not in template["Resources"]["LogGroup"]["Properties"]:
            yield f"{component}: its log is kept for ever"


def functions_are_built_from_their_crates(all_templates: Templates) -> Problems:
    """`CodeUri` and `Binary` name the crate's folder and its one binary."""
    for component, template in component_templates(all_templates):
        function = template["Resources"]["Function"]
        binary = function.get("Metadata", {}).get("BuildProperties", {}).get("Binary")
        code = Path(function["Properties"]["CodeUri"])
        manifest = (ROOT / "deploy" / component / code / "Cargo.toml").resolve()
        if not manifest.is_file() or f'name = "{binary}"' not in manifest.read_text():
            yield f"{component}: {manifest} has no binary {binary}"
        elif 'features = ["lambda"]' not in manifest.read_text():
            yield f"{component}: {manifest} does not tell cargo-lambda its features"
        if function["Properties"]["Runtime"] != "provided.al2023":
            yield f"{component}: {function['Properties']['Runtime']} is not what it is built for"


ALL = [
    visibility_covers_six_timeouts,
    every_mapping_answers_in_part_and_is_bounded,
    every_queue_ends_in_a_dead_letter_queue,
    every_queue_is_encrypted_and_refuses_plain_text,
    topics_and_buckets_refuse_plain_text,
    every_rule_target_has_a_dead_letter_queue,
    rules_are_the_generated_ones_within_the_quotas,
    only_aws_may_send_what_is_believed,
    only_rules_of_this_pipeline_may_send,
    a_topic_is_read_only_when_one_is_named,
    the_bus_is_open_to_the_organization_only,
    actions_and_resources_are_named,
    functions_use_their_own_roles,
    reading_objects_is_granted_only_with_a_bucket,
    log_groups_are_asked_only_when_one_is_named,
    responses_are_permitted_only_when_asked_for,
    responses_fit_the_queue_and_the_function,
    environment_is_what_the_binary_reads,
    metrics_exist,
    alarms_are_complete_and_explained,
    alarms_watch_what_exists,
    stacks_meet_in_parameters_that_exist,
    everything_can_be_set_from_the_root,
    the_configuration_can_be_a_file,
    what_is_gone_looks_gone,
    names_agree,
    names_fit_everywhere,
    the_state_table_is_shared_out,
    what_is_kept_survives,
    logs_are_kept_for_a_time,
    functions_are_built_from_their_crates,
]

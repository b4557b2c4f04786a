"""The checks on the real templates, and each on copies that are broken in the way it is there to find."""

import copy
import json

import checks
import parliament
import pytest
import templates

REAL = {name: templates.load(name) for name in templates.ALL}
CLASSIFIER, FOUNDATION, LOGGER, NOTIFIER, RESPONDER, RULES = (
    f"{name}/template.yaml" for name in ("classifier", "foundation", "logger", "notifier", "responder", "rules")
)


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
def test_the_templates_have_no_problem(check):
    assert list(check(REAL)) == []


def at(template: str, resource: str, *path):
    """A setter: `at(CLASSIFIER, "Queue", "VisibilityTimeout")(templates, 60)`; a value of None removes."""

    def set_to(all_templates, value):
        place = all_templates[template]["Resources"][resource]
        *way, last = path
        for step in way:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return set_to


P = "Properties"
MAPPING = (P, "Events", "Messages", P)
ROLE = (P, "Policies", 0, "PolicyDocument", "Statement", 0)
ALARM_RECORDS = (*ROLE[:-1], 13, "Fn::If", 1)
SETTINGS_GONE = (*ROLE[:-1], 12, "Fn::If", 1)
LEADING_KEYS = ("Condition", "ForAllValues:StringLike", "dynamodb:LeadingKeys")
STATE = (*ROLE[:-1], 4)
STATEMENTS = (P, "PolicyDocument", "Statement")
RULE = (P, "Targets", 0)
# What must be found, where it is put, and what with.
BROKEN = [
    (checks.visibility_covers_six_timeouts, at(CLASSIFIER, "Queue", P, "VisibilityTimeout"), 299),
    (checks.visibility_covers_six_timeouts, at(CLASSIFIER, "Function", P, "Timeout"), 51),
    (checks.visibility_covers_six_timeouts, at(CLASSIFIER, "Function", *MAPPING, "MaximumBatchingWindowInSeconds"), 1),
    (checks.every_mapping_answers_in_part_and_is_bounded, at(CLASSIFIER, "Function", *MAPPING, "FunctionResponseTypes"), None),
    (checks.every_mapping_answers_in_part_and_is_bounded, at(CLASSIFIER, "Function", *MAPPING, "ScalingConfig"), None),
    (checks.every_mapping_answers_in_part_and_is_bounded, at(CLASSIFIER, "Function", P, "ReservedConcurrentExecutions"), 1),
    (checks.every_mapping_answers_in_part_and_is_bounded, at(CLASSIFIER, "Function", P, "Events"), {}),
    (checks.every_queue_ends_in_a_dead_letter_queue, at(CLASSIFIER, "Queue", P, "RedrivePolicy"), None),
    (checks.every_queue_ends_in_a_dead_letter_queue, at(CLASSIFIER, "Queue", P, "RedrivePolicy", "maxReceiveCount"), 4),
    (checks.every_queue_ends_in_a_dead_letter_queue, at(CLASSIFIER, "Queue", P, "MessageRetentionPeriod"), 1209600),
    (checks.every_queue_ends_in_a_dead_letter_queue, at(RULES, "UndeliveredQueue", P, "MessageRetentionPeriod"), None),
    (checks.every_queue_is_encrypted_and_refuses_plain_text, at(CLASSIFIER, "Queue", P, "SqsManagedSseEnabled"), None),
    (checks.every_queue_is_encrypted_and_refuses_plain_text, at(CLASSIFIER, "Queue", P, "KmsMasterKeyId"), None),
    (checks.every_queue_is_encrypted_and_refuses_plain_text, at(CLASSIFIER, "DeadLetterQueuePolicy", P, "Queues"), []),
    (checks.topics_and_buckets_refuse_plain_text, at(FOUNDATION, "AlertTopicPolicy", P, "Topics"), []),
    (checks.topics_and_buckets_refuse_plain_text, at(FOUNDATION, "ArchiveBucketPolicy", P, "PolicyDocument", "Statement", 0, "Condition"), {}),
    (checks.every_rule_target_has_a_dead_letter_queue, at(RULES, "ClassifierRoot", *RULE, "DeadLetterConfig"), None),
    (checks.every_rule_target_has_a_dead_letter_queue, at("forwarder/template.yaml", "ClassifierRoot", *RULE, "RetryPolicy"), None),
    (checks.rules_are_the_generated_ones_within_the_quotas, at(RULES, "ClassifierRoot", P, "State"), "ENABLED"),
    (checks.rules_are_the_generated_ones_within_the_quotas, at(RULES, "CentralBusRule", P, "EventPattern"), {"source": ["x" * 2048]}),
    (checks.rules_are_the_generated_ones_within_the_quotas, at(RULES, "CentralBusRule", P, "Name"), {"Fn::Sub": "mine-${Name}"}),
    (checks.only_aws_may_send_what_is_believed, at(RULES, "CentralBusRule", P, "EventPattern"), {"source": [{"prefix": "aws."}, "pipeline.canary"]}),
    (checks.only_aws_may_send_what_is_believed, at(RULES, "CentralCanaryRule", P, "EventPattern", "detail-type"), None),
    (checks.only_aws_may_send_what_is_believed, at(RULES, "CentralCanaryRule", P, "EventPattern", "source"), [{"prefix": "pipeline."}]),
    (checks.only_aws_may_send_what_is_believed, at(RULES, "ClassifierRoot", P, "EventPattern", "source"), None),
    (checks.only_aws_may_send_what_is_believed, at("forwarder/template.yaml", "ClassifierRoot", P, "EventPattern", "source"), [{"anything-but": "x"}]),
    (checks.only_rules_of_this_pipeline_may_send, at(CLASSIFIER, "QueuePolicy", P, "PolicyDocument", "Statement", 0, "Condition", "StringEquals"), None),
    (checks.only_rules_of_this_pipeline_may_send, at(CLASSIFIER, "QueuePolicy", P, "PolicyDocument", "Statement", 0, "Condition", "ArnLike"), None),
    (checks.only_rules_of_this_pipeline_may_send, at(FOUNDATION, "AlarmTopicPolicy", P, "PolicyDocument", "Statement", 0, "Condition", "ArnLike"), None),
    (checks.only_rules_of_this_pipeline_may_send, at(CLASSIFIER, "QueuePolicy", *STATEMENTS, 1, "Fn::If", 0), "OwnKey"),
    (checks.only_rules_of_this_pipeline_may_send, at(CLASSIFIER, "QueuePolicy", *STATEMENTS, 1, "Fn::If", 1, "Condition"), {}),
    (checks.a_topic_is_read_only_when_one_is_named, at(CLASSIFIER, "InputSubscription", "Condition"), None),
    (checks.a_topic_is_read_only_when_one_is_named, at(CLASSIFIER, "InputSubscription", "DependsOn"), None),
    (checks.a_topic_is_read_only_when_one_is_named, at(CLASSIFIER, "InputSubscription", P, "Endpoint"), {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}),
    (checks.a_topic_is_read_only_when_one_is_named, at(CLASSIFIER, "QueuePolicy", *STATEMENTS, 1), {"Ref": "AWS::NoValue"}),
    (checks.the_bus_is_open_to_the_organization_only, at(RULES, "CentralBusPolicy", P, "Statement", "Condition"), None),
    (checks.the_bus_is_open_to_the_organization_only, at(RULES, "CentralBusPolicy", "Condition"), None),
    (checks.actions_and_resources_are_named, at(CLASSIFIER, "FunctionRole", *ROLE, "Action"), "sqs:*"),
    (checks.actions_and_resources_are_named, at(CLASSIFIER, "FunctionRole", *ROLE, "Resource"), "*"),
    (checks.functions_use_their_own_roles, at(CLASSIFIER, "Function", P, "Role"), None),
    (checks.functions_use_their_own_roles, at(CLASSIFIER, "FunctionRole", P, "RoleName"), None),
    (checks.functions_use_their_own_roles, at(CLASSIFIER, "FunctionRole", P, "ManagedPolicyArns"), ["arn:aws:iam::aws:policy/X"]),
    (checks.reading_objects_is_granted_only_with_a_bucket, at(CLASSIFIER, "FunctionRole", *ROLE, "Action"), "s3:GetObject"),
    (checks.reading_objects_is_granted_only_with_a_bucket, at(CLASSIFIER, "FunctionRole", *ROLE, "Action"), "kms:Decrypt"),
    (checks.log_groups_are_asked_only_when_one_is_named, at(CLASSIFIER, "FunctionRole", *ROLE, "Action"), "logs:StartQuery"),
    (checks.log_groups_are_asked_only_when_one_is_named, at(CLASSIFIER, "FunctionRole", *ROLE, "Action"), "logs:GetQueryResults"),
    (checks.log_groups_are_asked_only_when_one_is_named, at(CLASSIFIER, "FunctionRole", *ALARM_RECORDS, "Resource", 1), {"Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:*"}),
    (checks.responses_are_permitted_only_when_asked_for, at(RESPONDER, "ResponsesPolicy", "Condition"), None),
    (checks.responses_are_permitted_only_when_asked_for, at(RESPONDER, "ResponsesPolicy", *STATEMENTS, 0, "Action"), ["iam:UpdateAccessKey"]),
    (checks.responses_are_permitted_only_when_asked_for, at(RESPONDER, "ResponsesPolicy", *STATEMENTS, 0, "Resource"), {"Fn::Sub": "arn:${AWS::Partition}:iam::*:user/*"}),
    (checks.responses_are_permitted_only_when_asked_for, at(RESPONDER, "FunctionRole", *ROLE, "Action"), "iam:UpdateAccessKey"),
    (checks.responses_are_permitted_only_when_asked_for, at(RESPONDER, "Function", P, "Tags"), {}),
    (checks.responses_fit_the_queue_and_the_function, at(RESPONDER, "Function", P, "Timeout"), 60),
    (checks.responses_fit_the_queue_and_the_function, at(RESPONDER, "Function", P, "Timeout"), 49),
    (checks.responses_fit_the_queue_and_the_function, at(RESPONDER, "Queue", P, "VisibilityTimeout"), 60),
    (checks.responses_fit_the_queue_and_the_function, at(RESPONDER, "Queue", P, "RedrivePolicy", "maxReceiveCount"), 4),
    (checks.environment_is_what_the_binary_reads, at(CLASSIFIER, "Function", P, "Environment", "Variables", "STATE_TABLE"), None),
    (checks.environment_is_what_the_binary_reads, at(CLASSIFIER, "Function", P, "Environment", "Variables", "STATE_TABEL"), "x"),
    (checks.metrics_exist, at(CLASSIFIER, "SilentAlarm", P, "MetricName"), "records_inn"),
    (checks.metrics_exist, at(FOUNDATION, "Dashboard", P, "DashboardBody"), {"Fn::Sub": '{"widgets": [{"properties": {"metrics": [["AwsSecurityPipeline", "records_in", "deployment", "${Name}", "component", "clasifier"]]}}]}'}),
    (checks.metrics_exist, at(FOUNDATION, "Dashboard", P, "DashboardBody"), {"Fn::Sub": '{"widgets": [{"properties": {"metrics": [["AwsSecurityPipeline", "records_in", "component", "classifier"]]}}]}'}),
    (checks.metrics_exist, at(CLASSIFIER, "SilentAlarm", P, "Dimensions"), [{"Name": "component", "Value": "classifier"}]),
    (checks.metrics_exist, at(CLASSIFIER, "Function", P, "Environment", "Variables", "DEPLOYMENT"), "security-pipeline"),
    (checks.names_fit_everywhere, at(FOUNDATION, "ArchiveBucket", P, "BucketName"), {"Fn::Sub": "${Name}-archives-${AWS::AccountId}-${AWS::Region}"}),
    (checks.the_state_table_is_shared_out, at(CLASSIFIER, "FunctionRole", *STATE, "Condition"), None),
    (checks.the_state_table_is_shared_out, at(CLASSIFIER, "FunctionRole", *STATE, *LEADING_KEYS), ["*"]),
    (checks.the_state_table_is_shared_out, at(NOTIFIER, "FunctionRole", *STATE, *LEADING_KEYS), ["ledger/notify/*", "ledger/notify-group/*"]),
    (checks.the_state_table_is_shared_out, at(LOGGER, "FunctionRole", *STATE, *LEADING_KEYS), ["ledger/log/*", "ledger/response_begun/*"]),
    (checks.what_is_kept_survives, at(FOUNDATION, "ArchiveBucket", "DeletionPolicy"), "Retain"),
    (checks.alarms_are_complete_and_explained, at(CLASSIFIER, "ErrorsAlarm", P, "AlarmDescription"), "Something is wrong."),
    (checks.alarms_are_complete_and_explained, at(CLASSIFIER, "ErrorsAlarm", P, "AlarmDescription"), "docs/runbooks/throttles.md"),
    (checks.alarms_are_complete_and_explained, at(CLASSIFIER, "ErrorsAlarm", P, "AlarmActions"), []),
    (checks.alarms_are_complete_and_explained, at(CLASSIFIER, "ErrorsAlarm", "Type"), "AWS::CloudWatch::CompositeAlarm"),
    (checks.alarms_watch_what_exists, at(CLASSIFIER, "ErrorsAlarm", P, "Dimensions", 0, "Value"), {"Ref": "Queue"}),
    (checks.alarms_watch_what_exists, at(CLASSIFIER, "ErrorsAlarm", P, "Namespace"), "AWS/SQS"),
    (checks.alarms_watch_what_exists, at(CLASSIFIER, "DeadLetterDepthAlarm", P, "Dimensions", 0, "Value"), {"Fn::GetAtt": ["Queue", "QueueName"]}),
    (checks.stacks_meet_in_parameters_that_exist, at("template.yaml", "Notifier", "DependsOn"), None),
    (checks.stacks_meet_in_parameters_that_exist, at("template.yaml", "Notifier", P, "Parameters", "LoggerQueueUrl"), {"Fn::Sub": "/${Name}/loger/queue-url"}),
    (checks.stacks_meet_in_parameters_that_exist, at("template.yaml", "Notifier", P, "Parameters", "Colour"), "red"),
    (checks.stacks_meet_in_parameters_that_exist, at("template.yaml", "Logger", "DependsOn"), "Rules"),
    (checks.everything_can_be_set_from_the_root, at("template.yaml", "Foundation", P, "Parameters", "ArchiveDays"), None),
    (checks.everything_can_be_set_from_the_root, at("template.yaml", "Notifier", P, "Parameters", "MaximumConcurrency"), {"Ref": "LoggerConcurrency"}),
    (checks.the_configuration_can_be_a_file, at(RESPONDER, "Function", P, "Layers"), None),
    (checks.what_is_gone_looks_gone, at(CLASSIFIER, "FunctionRole", *SETTINGS_GONE, "Action"), "s3:GetBucketLocation"),
    (checks.what_is_kept_survives, at(FOUNDATION, "StateTable", "DeletionPolicy"), None),
    (checks.what_is_kept_survives, at(FOUNDATION, "StateTable", P, "PointInTimeRecoverySpecification"), None),
    (checks.what_is_kept_survives, at(FOUNDATION, "StateTable", P, "BillingMode"), "PROVISIONED"),
    (checks.logs_are_kept_for_a_time, at(CLASSIFIER, "LogGroup", P, "RetentionInDays"), None),
    (checks.logs_are_kept_for_a_time, at(CLASSIFIER, "Function", P, "LoggingConfig"), None),
    (checks.functions_are_built_from_their_crates, at(CLASSIFIER, "Function", P, "CodeUri"), "../../aws-logger"),
    (checks.functions_are_built_from_their_crates, at(CLASSIFIER, "Function", P, "Runtime"), "provided.al2"),
]


@pytest.mark.parametrize(("check", "put", "value"), BROKEN, ids=[f"{n}-{b[0].__name__}" for n, b in enumerate(BROKEN)])
def test_a_broken_template_is_found(check, put, value):
    broken = copy.deepcopy(REAL)
    put(broken, value)
    assert list(check(broken)), "the check cannot fail"


def test_a_parameter_that_differs_is_found():
    broken = copy.deepcopy(REAL)
    broken[CLASSIFIER]["Parameters"]["Name"]["Default"] = "pipeline"
    assert list(checks.names_agree(broken))


@pytest.mark.parametrize("template", [RESPONDER, "template.yaml"])
def test_responses_by_default_are_found(template):
    broken = copy.deepcopy(REAL)
    broken[template]["Parameters"]["Responses"]["Default"] = "carry-out"
    assert list(checks.responses_are_permitted_only_when_asked_for(broken))


@pytest.mark.parametrize("template", [CLASSIFIER, "template.yaml"])
def test_a_log_group_by_default_is_found(template):
    broken = copy.deepcopy(REAL)
    broken[template]["Parameters"]["AlarmLogGroup"]["Default"] = "trail"
    assert list(checks.log_groups_are_asked_only_when_one_is_named(broken))


@pytest.mark.parametrize("template", [CLASSIFIER, "template.yaml"])
def test_a_topic_by_default_is_found(template):
    broken = copy.deepcopy(REAL)
    broken[template]["Parameters"]["InputTopicArn"]["Default"] = "arn:aws:sns:eu-central-1:123456789012:all"
    assert list(checks.a_topic_is_read_only_when_one_is_named(broken))


def test_a_condition_that_always_holds_is_found():
    broken = copy.deepcopy(REAL)
    broken[RESPONDER]["Conditions"]["CarryOut"] = {"Fn::Equals": ["carry-out", "carry-out"]}
    assert list(checks.responses_are_permitted_only_when_asked_for(broken))
    broken = copy.deepcopy(REAL)
    broken[CLASSIFIER]["Conditions"]["Alarms"] = {"Fn::Equals": [{"Ref": "AlarmLogGroup"}, {"Ref": "AlarmLogGroup"}]}
    assert list(checks.log_groups_are_asked_only_when_one_is_named(broken))


def test_a_runbook_page_without_an_alarm_is_found(tmp_path, monkeypatch):
    for page in checks.RUNBOOKS.glob("*.md"):
        (tmp_path / page.name).write_text(page.read_text())
    (tmp_path / "left-over.md").write_text("# Left over\n")
    monkeypatch.setattr(checks, "RUNBOOKS", tmp_path)
    assert list(checks.alarms_are_complete_and_explained(REAL)) == ["no alarm leads to left-over.md"]


def test_every_check_is_shown_to_fail():
    shown = {check for check, _, _ in BROKEN} | {checks.names_agree}
    assert set(checks.ALL) == shown


def resolved(value):
    """A policy with made-up values in place of CloudFormation's functions, for a linter that reads JSON."""
    if isinstance(value, list):
        kept = [resolved(inner) for inner in value]
        return [inner for inner in kept if inner is not None]
    if not isinstance(value, dict):
        return value
    if "Fn::If" in value:
        return resolved(value["Fn::If"][1])
    if "Fn::Sub" in value:
        known = {"AWS::Partition": "aws", "AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012", "AWS::URLSuffix": "amazonaws.com"}
        text = value["Fn::Sub"]
        for name, known_value in known.items():
            text = text.replace(f"${{{name}}}", known_value)
        return text.replace("${", "").replace("}", "")
    if "Ref" in value or "Fn::GetAtt" in value:
        return ARNS.get(value["Ref"] if "Ref" in value else value["Fn::GetAtt"][0])
    return {key: resolved(inner) for key, inner in value.items()}


HERE = "eu-central-1:123456789012"
ARNS = {
    **{name: f"arn:aws:sqs:{HERE}:queue" for name in ("Queue", "DeadLetterQueue", "UndeliveredQueue")},
    **{f"{c.capitalize()}QueueArn": f"arn:aws:sqs:{HERE}:{c}" for c in templates.COMPONENTS},
    "KeyArn": f"arn:aws:kms:{HERE}:key/1",
    "CloudTrailKeyArn": f"arn:aws:kms:{HERE}:key/2",
    "AlertTopicArn": f"arn:aws:sns:{HERE}:alerts",
    "CentralBusArn": f"arn:aws:events:{HERE}:event-bus/central",
}


def policies():
    """Every identity policy of the templates."""
    for name, logical_id, role in checks.resources(REAL, "AWS::IAM::Role"):
        for policy in role["Properties"]["Policies"]:
            yield pytest.param(json.dumps(resolved(policy["PolicyDocument"])), id=f"{name}-{logical_id}")
    for name, logical_id, policy in checks.resources(REAL, "AWS::IAM::Policy"):
        yield pytest.param(json.dumps(resolved(policy["Properties"]["PolicyDocument"])), id=f"{name}-{logical_id}")


def complaints(policy: str) -> list[str]:
    """What parliament says, but for one remark: which user or group a response is about is not known beforehand, so a
    resource like `user/*` is as narrow as it can be."""
    findings = parliament.analyze_policy_string(policy).findings
    return [f"{f.issue}: {f.detail}" for f in findings if f.issue != "RESOURCE_EFFECTIVELY_STAR"]


@pytest.mark.parametrize("policy", list(policies()))
def test_parliament_has_nothing_to_say(policy):
    assert complaints(policy) == []


def test_parliament_would_say_something():
    for action, resource in [("sqs:SendMesage", f"arn:aws:sqs:{HERE}:queue"), ("sqs:SendMessage", f"arn:aws:sns:{HERE}:topic")]:
        statement = f'{{"Effect": "Allow", "Action": "{action}", "Resource": "{resource}"}}'
        assert complaints(f'{{"Version": "2012-10-17", "Statement": [{statement}]}}')

"""The templates of this repository as Python values, and what `sam package` does to them.

Tags of CloudFormation become its long forms: `!Ref X` is {"Ref": "X"}, `!Sub s` {"Fn::Sub": s}, `!GetAtt A.B`
{"Fn::GetAtt": ["A", "B"]}.
"""

import copy
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parent.parent
COMPONENTS = ("classifier", "responder", "notifier", "logger")
NESTED = ("foundation", *COMPONENTS, "rules")
# Every template; `forwarder` is for other regions and accounts and no part of the root application.
ALL = ("template.yaml", *(f"{name}/template.yaml" for name in (*NESTED, "forwarder")))


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's tags."""


def _tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict:
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _tag)
# A date stays text: `Version: '2012-10-17'` is quoted, but nothing should depend on it.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(name: str) -> dict:
    """The template `name`, a path below deploy/."""
    return yaml.load((DEPLOY / name).read_text(), Loader=_Loader)


def expand(template: dict) -> dict:
    """The template in plain CloudFormation, by the translator that the service itself uses."""
    if "Transform" not in template:
        return template
    from samtranslator.translator.transform import transform

    class NoManagedPolicies:
        """The templates use none."""

        def load(self) -> dict:
            return {}

    # It warns about metrics of its own that nobody collects here.
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    # It fills in defaults of parameters in place, and asks for a region even where none matters.
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    expanded = transform(copy.deepcopy(template), {}, NoManagedPolicies())
    expanded.pop("Transform", None)
    return expanded


def package(store: Callable[[str, bytes], str], code: Callable[[str], bytes]) -> dict:
    """The root template with its nested templates and the functions' code stored, as `sam package` leaves it.

    `store(key, content)` keeps an object and answers its URL; `code(component)` is the zip file of a function.
    """
    root = load("template.yaml")
    for resource in root["Resources"].values():
        location = resource["Properties"]["Location"]
        nested = load(location)
        component = location.split("/")[0]
        for inner in nested["Resources"].values():
            if inner["Type"] == "AWS::Serverless::Function":
                url = store(f"{component}.zip", code(component))
                bucket, key = url.rsplit("/", 2)[1:]
                inner["Properties"]["CodeUri"] = {"Bucket": bucket, "Key": key}
        resource["Properties"]["Location"] = store(f"{component}.template.json", json.dumps(expand(nested)).encode())
    return root

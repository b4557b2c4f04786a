"""An attack that really happens in the emulated account: a stolen identity makes a key, and opens a group to the world.

Each part changes IAM or EC2 of moto and answers the CloudTrail record that AWS would write of it, with the ids moto gave, so that
responses meet what the record says.
"""

import datetime
import uuid

import emulators

# What is there before and must stay.
OFFICE = {"CidrIp": "203.0.113.0/24", "Description": "the office"}
WORLD = {"CidrIp": "0.0.0.0/0", "Description": "for a test"}


def record(source: str, name: str, region: str, request: dict, response: dict) -> dict:
    """A CloudTrail record of a call by mallory, a moment ago."""
    account = emulators.ACCOUNT
    return {
        "eventVersion": "1.10",
        "eventID": str(uuid.uuid4()),
        "eventTime": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": f"{source}.amazonaws.com",
        "eventName": name,
        "awsRegion": region,
        "recipientAccountId": account,
        "eventType": "AwsApiCall",
        "eventCategory": "Management",
        "managementEvent": True,
        "readOnly": False,
        "sourceIPAddress": "198.51.100.7",
        "userAgent": "aws-cli/2.15.0",
        "userIdentity": {
            "type": "IAMUser",
            "accountId": account,
            "principalId": "AIDAEXAMPLEMALLORY",
            "userName": "mallory",
            "arn": f"arn:aws:iam::{account}:user/mallory",
            "accessKeyId": "AKIAEXAMPLE0000000MM",
        },
        "requestParameters": request,
        "responseElements": response,
    }


def create_key(pipeline: emulators.Pipeline, user: str = "alice") -> tuple[str, dict]:
    """A second key for a user who has one; the new key's id and the record."""
    iam = pipeline.account("iam")
    iam.create_user(UserName=user, Path="/people/")
    iam.create_access_key(UserName=user)
    key = iam.create_access_key(UserName=user)["AccessKey"]["AccessKeyId"]
    response = {"accessKey": {"userName": user, "accessKeyId": key, "status": "Active"}}
    return key, record("iam", "CreateAccessKey", "us-east-1", {"userName": user}, response)


def open_group(pipeline: emulators.Pipeline, name: str = "web") -> tuple[str, dict]:
    """A range of ports with SSH in it opened to the world, IPv4 and IPv6, in a group that lets the office in; its id and the
    record."""
    ec2 = pipeline.account("ec2")
    group = ec2.create_security_group(GroupName=name, Description="web servers")["GroupId"]
    https = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    office = {"IpProtocol": "tcp", "FromPort": 20, "ToPort": 30, "IpRanges": [OFFICE]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[https, office])
    opened = {"IpProtocol": "tcp", "FromPort": 20, "ToPort": 30, "IpRanges": [WORLD], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[opened])
    permission = {
        "ipProtocol": "tcp",
        "fromPort": 20,
        "toPort": 30,
        "groups": {},
        "prefixListIds": {},
        "ipRanges": {"items": [{"cidrIp": WORLD["CidrIp"], "description": WORLD["Description"]}]},
        "ipv6Ranges": {"items": [{"cidrIpv6": "::/0"}]},
    }
    request = {"groupId": group, "ipPermissions": {"items": [permission]}}
    return group, record("ec2", "AuthorizeSecurityGroupIngress", emulators.REGION, request, {"_return": True})

//! The resources that policies hang on: the calls that write them, and where in a request policy and resource are.
//!
//! The calls and members are those of the services' API models. Buckets have `s3_public_exposure`, endpoints of networks,
//! Redshift and what is shared without a policy have rules. Left out because strangers are what they are for: origins of
//! media (`PutOriginEndpointPolicy`, `mediatailor`), monitors of browsers (`rum`) and sinks of observability (`oam`), which
//! receive. Aurora DSQL takes no other accounts.

use serde_json::Value;
use shared::{Event, Pattern, Severity};

/// Calls that write the policy of one kind of resource.
pub(super) struct Kind {
    pub(super) source: &'static str,
    names: &'static [&'static str],
    /// What it is called in titles.
    pub(super) what: &'static str,
    /// Where the policy is, in `requestParameters`; the first that is there.
    pub(super) policy: &'static [&'static str],
    /// Where the resource is named; what comes after the first that is there tells it from others of the name.
    pub(super) resource: &'static [&'static str],
    /// How bad it is to let anyone in.
    pub(super) to_anyone: Severity,
    /// How bad it is to let another account in.
    pub(super) to_account: Severity,
    /// Whether it answers callers that have no identity of AWS. Then an address, a network or an endpoint is how its owner
    /// says who may come; elsewhere owners name principals, and a place beside `*` is as likely a stranger's.
    pub(super) answers_unsigned: bool,
}

const KINDS: [Kind; 85] = [
    kind("acm-pca.amazonaws.com", &["PutPolicy"], "certificate authority", &["/policy"], &["/resourceArn"]),
    kind(
        "aiops.amazonaws.com",
        &["PutInvestigationGroupPolicy"],
        "group of investigations",
        &["/policy"],
        &["/identifier"],
    ),
    kind(
        "apigateway.amazonaws.com",
        &["CreateRestApi"],
        "API",
        &["/createRestApiInput/policy", "/policy"],
        &["/createRestApiInput/name", "/name"],
    )
    .answers_unsigned()
    .often_open(),
    kind(
        "apigateway.amazonaws.com",
        &["PutPortalProductSharingPolicy"],
        "product of an API portal",
        &["/policyDocument"],
        &["/portalProductId"],
    ),
    kind("apigateway.amazonaws.com", &["UpdateRestApi"], "API", &[], &["/restApiId"]).answers_unsigned().often_open(),
    kind("aps.amazonaws.com", &["PutResourcePolicy"], "workspace of metrics", &["/policyDocument"], &["/workspaceId"]),
    kind(
        "backup.amazonaws.com",
        &["CreateBackupAccessPoint"],
        "backup",
        &["/accessPointPolicy"],
        &["/recoveryPointArn", "/name"],
    )
    .high(),
    kind("backup.amazonaws.com", &["PutBackupVaultAccessPolicy"], "backup vault", &["/policy"], &["/backupVaultName"])
        .high(),
    kind(
        "bedrock.amazonaws.com",
        &["PutResourcePolicy"],
        "model or agent",
        &["/resourcePolicy", "/policy"],
        &["/resourceArn"],
    ),
    kind("bedrock-agentcore.amazonaws.com", &["PutResourcePolicy"], "agent", &["/policy"], &["/resourceArn"]),
    kind(
        "cleanrooms-ml.amazonaws.com",
        &["PutConfiguredAudienceModelPolicy"],
        "audience model",
        &["/configuredAudienceModelPolicy"],
        &["/configuredAudienceModelArn"],
    ),
    kind("cloudfront.amazonaws.com", &["PutResourcePolicy"], "distribution", &["/policyDocument"], &["/resourceArn"]),
    kind("cloudhsm.amazonaws.com", &["PutResourcePolicy"], "backup of keys", &["/policy"], &["/resourceArn"]).high(),
    kind(
        "cloudsearch.amazonaws.com",
        &["UpdateServiceAccessPolicies"],
        "search domain",
        &["/accessPolicies"],
        &["/domainName"],
    )
    .answers_unsigned(),
    kind(
        "cloudtrail.amazonaws.com",
        &["PutResourcePolicy"],
        "store of audit events",
        &["/resourcePolicy"],
        &["/resourceArn"],
    )
    .high(),
    kind(
        "codeartifact.amazonaws.com",
        &["PutDomainPermissionsPolicy", "PutRepositoryPermissionsPolicy"],
        "code repository",
        &["/policyDocument"],
        &["/repository", "/domain"],
    ),
    kind("codebuild.amazonaws.com", &["PutResourcePolicy"], "build project", &["/policy"], &["/resourceArn"]),
    kind("comprehend.amazonaws.com", &["PutResourcePolicy"], "model", &["/resourcePolicy"], &["/resourceArn"]),
    kind("dynamodb.amazonaws.com", &["CreateTable"], "table", &["/resourcePolicy"], &["/tableName"]),
    kind("dynamodb.amazonaws.com", &["PutResourcePolicy"], "table", &["/policy"], &["/resourceArn"]),
    kind(
        "ecr.amazonaws.com",
        &["CreateRepositoryCreationTemplate", "UpdateRepositoryCreationTemplate"],
        "template of image repositories",
        &["/repositoryPolicy"],
        &["/prefix"],
    ),
    kind("ecr.amazonaws.com", &["PutRegistryPolicy"], "image registry", &["/policyText"], &["/registryId"]),
    kind("ecr.amazonaws.com", &["SetRepositoryPolicy"], "image repository", &["/policyText"], &["/repositoryName"]),
    kind(
        "ecr-public.amazonaws.com",
        &["SetRepositoryPolicy"],
        "image repository",
        &["/policyText"],
        &["/repositoryName"],
    ),
    kind("elasticfilesystem.amazonaws.com", &["PutFileSystemPolicy"], "file system", &["/policy"], &["/fileSystemId"])
        .answers_unsigned(),
    kind("entityresolution.amazonaws.com", &["AddPolicyStatement"], "workflow of matching", &[], &["/arn"]),
    kind("entityresolution.amazonaws.com", &["PutPolicy"], "workflow of matching", &["/policy"], &["/arn"]),
    kind(
        "es.amazonaws.com",
        &["CreateDomain", "CreateElasticsearchDomain", "UpdateDomainConfig", "UpdateElasticsearchDomainConfig"],
        "search domain",
        &["/accessPolicies"],
        &["/domainName"],
    )
    .answers_unsigned(),
    kind(
        "events.amazonaws.com",
        &["PutPermission", "PutResourcePolicy"],
        "event bus",
        &["/policy", "/policyDocument"],
        &["/eventBusName", "/resourceArn"],
    ),
    kind(
        "fsx.amazonaws.com",
        &["CreateAndAttachS3AccessPoint"],
        "access point",
        &["/s3AccessPoint/policy"],
        &["/name"],
    )
    .answers_unsigned(),
    kind("glacier.amazonaws.com", &["SetVaultAccessPolicy"], "archive", &["/policy/policy"], &["/vaultName"]).high(),
    kind("glue.amazonaws.com", &["PutResourcePolicy"], "data catalogue", &["/policyInJson"], &["/resourceArn"]).high(),
    kind("iam.amazonaws.com", &["CreateRole"], "role", &["/assumeRolePolicyDocument"], &["/roleName"]).critical(),
    kind("iam.amazonaws.com", &["UpdateAssumeRolePolicy"], "role", &["/policyDocument"], &["/roleName"])
        .critical()
        .high(),
    kind("imagebuilder.amazonaws.com", &["PutComponentPolicy"], "image component", &["/policy"], &["/componentArn"]),
    kind(
        "imagebuilder.amazonaws.com",
        &["PutContainerRecipePolicy", "PutImageRecipePolicy"],
        "image recipe",
        &["/policy"],
        &["/containerRecipeArn", "/imageRecipeArn"],
    ),
    kind("imagebuilder.amazonaws.com", &["PutImagePolicy"], "machine image", &["/policy"], &["/imageArn"]),
    kind("kafka.amazonaws.com", &["PutClusterPolicy"], "Kafka cluster", &["/policy"], &["/clusterArn"]),
    kind("kinesis.amazonaws.com", &["PutResourcePolicy"], "stream", &["/policy"], &["/resourceARN"]),
    kind(
        "kms.amazonaws.com",
        &["CreateKey", "PutKeyPolicy", "ReplicateKey"],
        "encryption key",
        &["/policy"],
        &["/keyId"],
    )
    .high(),
    kind("lambda.amazonaws.com", &["PutResourcePolicy"], "function", &["/policy"], &["/resourceArn"]),
    kind(
        "lex.amazonaws.com",
        &["CreateResourcePolicy", "UpdateResourcePolicy"],
        "bot",
        &["/policy"],
        &["/resourceArn"],
    ),
    kind(
        "logs.amazonaws.com",
        &["PutDeliveryDestinationPolicy"],
        "log destination",
        &["/deliveryDestinationPolicy"],
        &["/deliveryDestinationName"],
    ),
    kind("logs.amazonaws.com", &["PutDestinationPolicy"], "log destination", &["/accessPolicy"], &["/destinationName"]),
    kind(
        "logs.amazonaws.com",
        &["PutResourcePolicy"],
        "log group",
        &["/policyDocument"],
        &["/resourceArn", "/policyName"],
    ),
    kind(
        "mediapackagev2.amazonaws.com",
        &["PutChannelPolicy"],
        "channel of media",
        &["/policy"],
        &["/channelName", "/ChannelName", "/channelGroupName", "/ChannelGroupName"],
    ),
    kind("mediastore.amazonaws.com", &["PutContainerPolicy"], "container of media", &["/policy"], &["/containerName"])
        .answers_unsigned()
        .often_open(),
    kind("network-firewall.amazonaws.com", &["PutResourcePolicy"], "firewall policy", &["/policy"], &["/resourceArn"]),
    kind(
        "networkmanager.amazonaws.com",
        &["PutResourcePolicy"],
        "core network",
        &["/policyDocument"],
        &["/resourceArn"],
    ),
    kind(
        "omics.amazonaws.com",
        &["PutS3AccessPolicy"],
        "store of sequences",
        &["/s3AccessPolicy"],
        &["/s3AccessPointArn"],
    ),
    kind("osis.amazonaws.com", &["PutResourcePolicy"], "ingestion pipeline", &["/policy"], &["/resourceArn"]),
    kind("payment-cryptography.amazonaws.com", &["PutResourcePolicy"], "payment key", &["/policy"], &["/resourceArn"])
        .high(),
    kind(
        "refactor-spaces.amazonaws.com",
        &["PutResourcePolicy"],
        "environment of an application",
        &["/policy"],
        &["/resourceArn"],
    ),
    kind("rekognition.amazonaws.com", &["PutProjectPolicy"], "model", &["/policyDocument"], &["/projectArn"]),
    kind(
        "route53resolver.amazonaws.com",
        &["PutFirewallRuleGroupPolicy", "PutResolverQueryLogConfigPolicy", "PutResolverRulePolicy"],
        "resolver configuration",
        &["/firewallRuleGroupPolicy", "/resolverQueryLogConfigPolicy", "/resolverRulePolicy"],
        &["/arn"],
    ),
    kind(
        "s3.amazonaws.com",
        &[
            "PutAccessGrantsInstanceResourcePolicy",
            "PutAccessPointPolicy",
            "PutAccessPointPolicyForObjectLambda",
            "PutMultiRegionAccessPointPolicy",
        ],
        "access point",
        ACCESS_POINT_POLICIES,
        ACCESS_POINTS,
    )
    .answers_unsigned(),
    kind("s3-outposts.amazonaws.com", &["PutAccessPointPolicy"], "access point", ACCESS_POINT_POLICIES, ACCESS_POINTS)
        .answers_unsigned(),
    kind(
        "s3-outposts.amazonaws.com",
        &["PutBucketPolicy"],
        "bucket",
        &["/bucketPolicy", "/policy", "/Policy"],
        &["/bucketName", "/bucket", "/Bucket", "/name"],
    )
    .answers_unsigned(),
    kind(
        "s3express.amazonaws.com",
        &["PutBucketPolicy"],
        "directory bucket",
        &["/bucketPolicy", "/policy", "/Policy"],
        &["/bucketName", "/bucket"],
    ),
    kind("s3files.amazonaws.com", &["PutFileSystemPolicy"], "file system", &["/policy"], &["/fileSystemId"])
        .answers_unsigned(),
    kind(
        "s3tables.amazonaws.com",
        &["PutTableBucketPolicy"],
        "bucket of tables",
        &["/resourcePolicy"],
        &["/tableBucketARN", "/tableBucketArn"],
    ),
    kind(
        "s3tables.amazonaws.com",
        &["PutTablePolicy"],
        "table",
        &["/resourcePolicy"],
        &["/name", "/namespace", "/tableBucketARN", "/tableBucketArn"],
    ),
    kind(
        "s3vectors.amazonaws.com",
        &["PutVectorBucketPolicy"],
        "bucket of vectors",
        &["/policy"],
        &["/vectorBucketArn", "/vectorBucketName"],
    ),
    kind(
        "sagemaker.amazonaws.com",
        &["PutEndpointPolicy", "PutModelPackageGroupPolicy"],
        "model",
        &["/resourcePolicy"],
        &["/endpointName", "/modelPackageGroupName"],
    ),
    kind("schemas.amazonaws.com", &["PutResourcePolicy"], "registry of schemas", &["/policy"], &["/registryName"]),
    kind("secretsmanager.amazonaws.com", &["PutResourcePolicy"], "secret", &["/resourcePolicy"], &["/secretId"]),
    kind("serverlessrepo.amazonaws.com", &["PutApplicationPolicy"], "application template", &[], &["/applicationId"]),
    kind(
        "ses.amazonaws.com",
        &["CreateEmailIdentityPolicy", "PutIdentityPolicy", "UpdateEmailIdentityPolicy"],
        "sender of mail",
        &["/policy"],
        &["/identity", "/emailIdentity"],
    ),
    kind("signer.amazonaws.com", &["AddProfilePermission"], "signing profile", &[], &["/profileName"]),
    kind("sms-voice.amazonaws.com", &["PutResourcePolicy"], "phone number", &["/policy"], &["/resourceArn"]),
    kind("sns.amazonaws.com", &["AddPermission"], "topic", &[], &["/topicArn"]),
    kind("sns.amazonaws.com", &["CreateTopic"], "topic", &["/attributes/Policy"], &["/name"]),
    kind("sns.amazonaws.com", &["SetTopicAttributes"], "topic", &["/attributeValue"], &["/topicArn"]),
    kind("sqs.amazonaws.com", &["AddPermission"], "queue", &[], &["/queueUrl"]).answers_unsigned(),
    kind("sqs.amazonaws.com", &["CreateQueue"], "queue", &["/attributes/Policy", "/attribute/Policy"], &["/queueName"])
        .answers_unsigned(),
    kind("sqs.amazonaws.com", &["SetQueueAttributes"], "queue", &["/attributes/Policy"], &["/queueUrl"])
        .answers_unsigned(),
    kind("ssm.amazonaws.com", &["PutResourcePolicy"], "parameter", &["/policy"], &["/resourceArn"]),
    kind("ssm-contacts.amazonaws.com", &["PutContactPolicy"], "contact", &["/policy"], &["/contactArn"]),
    kind("ssm-incidents.amazonaws.com", &["PutResourcePolicy"], "response plan", &["/policy"], &["/resourceArn"]),
    kind("vpc-lattice.amazonaws.com", &["PutAuthPolicy"], "service network", &["/policy"], &["/resourceIdentifier"])
        .answers_unsigned()
        .often_open(),
    kind("vpc-lattice.amazonaws.com", &["PutResourcePolicy"], "service network", &["/policy"], &["/resourceArn"]),
    kind("waf.amazonaws.com", &["PutPermissionPolicy"], "group of firewall rules", &["/policy"], &["/resourceArn"]),
    kind(
        "waf-regional.amazonaws.com",
        &["PutPermissionPolicy"],
        "group of firewall rules",
        &["/policy"],
        &["/resourceArn"],
    ),
    kind("wafv2.amazonaws.com", &["PutPermissionPolicy"], "group of firewall rules", &["/policy"], &["/resourceArn"]),
    kind("xray.amazonaws.com", &["PutResourcePolicy"], "store of traces", &["/policyDocument"], &["/policyName"]),
];

/// The control plane of S3 takes XML, whose root CloudTrail keeps for some calls.
const ACCESS_POINT_POLICIES: &[&str] = &[
    "/policy",
    "/Policy",
    "/details/policy",
    "/Details/Policy",
    "/PutAccessPointPolicyRequest/Policy",
    "/PutAccessPointPolicyForObjectLambdaRequest/Policy",
    "/PutAccessGrantsInstanceResourcePolicyRequest/Policy",
    "/PutMultiRegionAccessPointPolicyRequest/Details/Policy",
];

const ACCESS_POINTS: &[&str] =
    &["/name", "/Name", "/details/name", "/Details/Name", "/PutMultiRegionAccessPointPolicyRequest/Details/Name"];

const fn kind(
    source: &'static str,
    names: &'static [&'static str],
    what: &'static str,
    policy: &'static [&'static str],
    resource: &'static [&'static str],
) -> Kind {
    let (to_anyone, to_account) = (Severity::High, Severity::Medium);
    Kind { source, names, what, policy, resource, to_anyone, to_account, answers_unsigned: false }
}

impl Kind {
    const fn critical(mut self) -> Self {
        self.to_anyone = Severity::Critical;
        self
    }

    const fn high(mut self) -> Self {
        self.to_account = Severity::High;
        self
    }

    const fn answers_unsigned(mut self) -> Self {
        self.answers_unsigned = true;
        self
    }

    /// Many are open on purpose, and as open without a policy.
    const fn often_open(mut self) -> Self {
        self.to_anyone = Severity::Medium;
        self
    }

    pub(super) fn of(event: &Event<'_>) -> Option<&'static Self> {
        KINDS.iter().find(|kind| {
            kind.source == event.source && kind.names.iter().any(|name| name.eq_ignore_ascii_case(&event.name))
        })
    }

    pub(super) fn is_role(&self) -> bool {
        self.source == "iam.amazonaws.com"
    }

    /// Trust in a role that is there already, with whatever rights it has: said also of what tools lay out.
    pub(super) fn is_open_door(&self, event: &Event<'_>) -> bool {
        self.is_role() && event.name.eq_ignore_ascii_case("UpdateAssumeRolePolicy")
    }

    /// Search domains in a network and private APIs answer nobody outside of one.
    pub(super) fn is_inside_network(&self, request: &Value) -> bool {
        let list = |pointers: &[&str]| pointers.iter().find_map(|p| request.pointer(p)?.as_array());
        match self.source {
            "es.amazonaws.com" => {
                list(&["/vPCOptions/subnetIds", "/VPCOptions/SubnetIds"]).is_some_and(|subnets| !subnets.is_empty())
            }
            "apigateway.amazonaws.com" => {
                list(&["/createRestApiInput/endpointConfiguration/types", "/endpointConfiguration/types"])
                    .is_some_and(|types| types.iter().any(|kind| kind == "PRIVATE"))
            }
            _ => false,
        }
    }
}

pub(super) const PATTERNS: [Pattern; KINDS.len()] = {
    let mut patterns = [Pattern::Root; KINDS.len()];
    let mut i = 0;
    while i < patterns.len() {
        patterns[i] = Pattern::Api { source: KINDS[i].source, names: KINDS[i].names };
        i += 1;
    }
    patterns
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_call_belongs_to_one_kind() {
        let mut seen = BTreeSet::new();
        for kind in &KINDS {
            for name in kind.names {
                assert!(seen.insert((kind.source, *name)), "{}/{name}", kind.source);
            }
        }
    }
}

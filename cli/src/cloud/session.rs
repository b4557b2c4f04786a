//! Credentials, region and clients, as the AWS CLI finds them: options, environment, profiles with SSO and roles,
//! containers, instances. `AWS_ENDPOINT_URL` and its kin lead to an emulator.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};

use aws_sdk_sts::Client;

use super::refusal::{Kind, Refusal};
use crate::args::AwsArgs;
use crate::failure::Failure;

/// A person waits: a connection that takes longer will not come.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest that one try may take; listing calls of large accounts take seconds.
const ATTEMPT: Duration = Duration::from_secs(15);
/// The longest that a call may take with its tries: our choice.
const OPERATION: Duration = Duration::from_secs(45);
/// Tries of one call, the first included: checks ask much at once, and IAM throttles early.
const ATTEMPTS: u32 = 5;

/// Where to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Session {
    /// The deployment's name.
    pub name: String,
    /// The region.
    pub region: String,
    config: SdkConfig,
}

/// Whose credentials they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The 12-digit account.
    pub account: String,
    /// The user or the session of a role.
    pub arn: String,
    /// `aws`, `aws-cn`, `aws-us-gov`.
    pub partition: String,
}

impl Session {
    /// Finds region and credentials. They are used with the first call, not here.
    ///
    /// # Errors
    /// When no region is named anywhere.
    pub async fn open(args: &AwsArgs) -> Result<Self, Failure> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(OPERATION)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
        if let Some(profile) = &args.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(region) = &args.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let config = loader.load().await;
        let Some(region) = config.region().map(ToString::to_string) else {
            let why = "no region: name one with --region, in AWS_REGION, or in the profile";
            return Err(Failure::Usage(why.to_owned()));
        };
        Ok(Self { name: args.name.clone(), region, config })
    }

    /// A session whose every call goes to `endpoint`, once.
    #[cfg(test)]
    pub fn of_tests(name: &str, region: &str, endpoint: &str) -> Self {
        use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};

        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "AKIDEXAMPLE",
                "secret",
                None,
                None,
                "test",
            )))
            .retry_config(RetryConfig::disabled())
            .endpoint_url(endpoint)
            .build();
        Self { name: name.to_owned(), region: region.to_owned(), config }
    }

    /// The same credentials in another region.
    #[must_use]
    pub fn in_region(&self, region: &str) -> Self {
        let config = self.config.to_builder().region(Region::new(region.to_owned())).build();
        Self { region: region.to_owned(), config, ..self.clone() }
    }

    /// Who asks. Needs no permission.
    ///
    /// # Errors
    /// When STS cannot be asked: nothing else can then either.
    pub async fn caller(&self) -> Result<Caller, Refusal> {
        const CALL: &str = "sts:GetCallerIdentity";
        let answer = Box::pin(Client::new(self.config()).get_caller_identity().send()).await;
        let answer = answer.map_err(|e| Refusal::of(CALL, &e))?;
        let (account, arn) = (answer.account.unwrap_or_default(), answer.arn.unwrap_or_default());
        match arn.split(':').nth(1).filter(|partition| !partition.is_empty()) {
            Some(partition) => Ok(Caller { partition: partition.to_owned(), account, arn }),
            None => Err(Refusal { call: CALL, kind: Kind::Other, why: format!("{arn} is no ARN") }),
        }
    }

    /// What clients are built from.
    pub const fn config(&self) -> &SdkConfig {
        &self.config
    }
}

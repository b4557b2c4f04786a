//! How the AWS clients of a component are set up. One place, so that all of them give up in time.

use std::sync::OnceLock;
use std::time::Duration;

use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_smithy_http_client::default_connector;
use aws_smithy_runtime_api::client::http::{SharedHttpClient, SharedHttpConnector, http_client_fn};
use aws_types::SdkConfig;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

use super::lambda::{optional, required};

/// Tries of one operation, the first included.
pub(super) const ATTEMPTS: u32 = 4;
/// The longest first pause between tries; pauses double and are random (the SDK's standard mode).
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The longest that making a connection may take: our choice. TCP and TLS 1.2 are three round trips, to the farthest
/// region a second, and responses go to every region.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// The longest that one try may take; answers of DynamoDB and SQS come within milliseconds.
pub(super) const ATTEMPT: Duration = Duration::from_secs(3);
/// The longest that an operation may take, all its tries and pauses together: well below the 50 s of the deployed functions,
/// so that a service that does not answer is an error of some messages and not of the whole batch. When several do not
/// answer, a batch can still take longer than that; Lambda cuts it off and it comes back whole.
const OPERATION: Duration = Duration::from_secs(8);

/// The configuration that all clients are built from: region, credentials and endpoints as Lambda and the emulator put
/// them into the environment. Nothing else is looked for, so that a start waits for no file and no service.
///
/// # Errors
/// When there is no region or there are no credentials.
pub fn config() -> Result<SdkConfig, String> {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build();
    let retries =
        RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(PAUSE).with_max_backoff(PAUSE_MAX);
    let credentials = Credentials::new(
        required("AWS_ACCESS_KEY_ID", "the function's credentials")?,
        required("AWS_SECRET_ACCESS_KEY", "the function's credentials")?,
        optional("AWS_SESSION_TOKEN"),
        None,
        "environment",
    );
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(required("AWS_REGION", "the region the function is in")?))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .service_config(Endpoints)
        .http_client(http_client())
        .retry_config(retries)
        .timeout_config(timeouts);
    config.set_endpoint_url(optional("AWS_ENDPOINT_URL"));
    Ok(config.build())
}

/// `AWS_ENDPOINT_URL_SQS` and its kin: an emulator for each service.
#[derive(Debug)]
struct Endpoints;

impl LoadServiceConfig for Endpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        optional(&format!("{}_{}", key.env(), key.service_id().to_uppercase().replace(' ', "_")))
    }
}

/// One for all clients, made with the first request: each client's own would read the root certificates when it is built,
/// which takes longer than everything else in a start.
fn http_client() -> SharedHttpClient {
    let connector: OnceLock<SharedHttpConnector> = OnceLock::new();
    http_client_fn(move |settings, components| {
        let made = || default_connector(settings, components.sleep_impl()).expect("the feature rustls-aws-lc is on");
        connector.get_or_init(made).clone()
    })
}

/// Waits a random time before try number `tries` + 1, whose upper bound doubles with each: for tries that the SDK does not
/// make itself. Writers of one item do not meet again.
pub(super) async fn pause(tries: u32) {
    let longest = PAUSE.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX) / 4;
    let random = uuid::Uuid::now_v7().as_u128() & u128::from(u32::MAX);
    let ms = random % longest.as_millis().max(1);
    tokio::time::sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(0))).await;
}

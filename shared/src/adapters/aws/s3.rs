//! Objects in S3: log files are read, archives written.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;

use super::is_retryable;
use crate::ports::{Archive, ObjectBody, Objects, PortError, PortResult, check_archive_name};

/// [`Objects`] in buckets of the function's region.
#[derive(Clone, Debug)]
pub struct S3Objects {
    client: Client,
}

impl S3Objects {
    /// The client is built once, in `main`.
    pub const fn new(client: Client) -> Self {
        Self { client }
    }
}

/// An object that is being read.
#[derive(Debug)]
pub struct S3Body {
    /// For error messages.
    name: String,
    stream: ByteStream,
}

impl Objects for S3Objects {
    type Body = S3Body;

    async fn open(&self, bucket: &str, key: &str) -> PortResult<S3Body> {
        let name = format!("s3://{bucket}/{key}");
        let answer = Box::pin(self.client.get_object().bucket(bucket).key(key).send()).await.map_err(|error| {
            let what = format!("could not read {name}: {}", DisplayErrorContext(&error));
            failed(what, is_retryable(&error))
        })?;
        Ok(S3Body { name, stream: answer.body })
    }
}

impl ObjectBody for S3Body {
    async fn next(&mut self) -> PortResult<Option<Vec<u8>>> {
        // A connection that breaks in the middle: the object is there, so it can be read again.
        let chunk = self.stream.try_next().await;
        let chunk = chunk.map_err(|e| PortError::retryable(format!("could not read {} to its end", self.name), e))?;
        Ok(chunk.map(Into::into))
    }
}

/// An [`Archive`] in a bucket.
#[derive(Clone, Debug)]
pub struct S3Archive {
    client: Client,
    bucket: String,
}

impl S3Archive {
    /// Writes to `bucket`; the client is built once, in `main`.
    pub const fn new(client: Client, bucket: String) -> Self {
        Self { client, bucket }
    }
}

impl Archive for S3Archive {
    async fn put(&self, name: &str, content: &[u8]) -> PortResult<()> {
        check_archive_name(name)?;
        let body = ByteStream::from(content.to_vec());
        let call = self.client.put_object().bucket(&self.bucket).key(name).body(body);
        Box::pin(call.send()).await.map(drop).map_err(|error| {
            let what = format!("could not write s3://{}/{name}: {}", self.bucket, DisplayErrorContext(&error));
            failed(what, is_retryable(&error))
        })
    }
}

const fn failed(what: String, retryable: bool) -> PortError {
    if retryable { PortError::Retryable { what, source: None } } else { PortError::Permanent { what, source: None } }
}

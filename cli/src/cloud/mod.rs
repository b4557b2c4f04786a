//! Commands that ask a deployment in AWS, behind the feature `aws`. Without it each says how to build it in.
//!
//! Here people's profiles, SSO and roles count, so clients come from `aws-config`; the functions read their environment
//! only (`shared/src/adapters/aws/sdk.rs`).

#[cfg(feature = "aws")]
mod cloudwatch;
#[cfg(feature = "aws")]
mod dead_letters;
#[cfg(feature = "aws")]
mod dlq;
#[cfg(feature = "aws")]
mod doctor;
#[cfg(feature = "aws")]
mod refusal;
#[cfg(feature = "aws")]
mod responses;
#[cfg(feature = "aws")]
mod session;
#[cfg(feature = "aws")]
mod undo;

use crate::args::{
    DlqListArgs, DlqRedriveArgs, DlqShowArgs, DoctorArgs, ResponsesListArgs, ResponsesShowArgs, ResponsesUndoArgs,
};
use crate::failure::Failure;

/// What is asked.
#[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "only commands that ask AWS read it"))]
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// `pipeline dlq list --aws`.
    DlqList(&'a DlqListArgs),
    /// `pipeline dlq show --aws`.
    DlqShow(&'a DlqShowArgs),
    /// `pipeline dlq redrive --aws`.
    DlqRedrive(&'a DlqRedriveArgs),
    /// `pipeline doctor`.
    Doctor(&'a DoctorArgs),
    /// `pipeline responses list`.
    ResponsesList(&'a ResponsesListArgs),
    /// `pipeline responses show`.
    ResponsesShow(&'a ResponsesShowArgs),
    /// `pipeline responses undo`.
    ResponsesUndo(&'a ResponsesUndoArgs),
}

/// Does it.
///
/// # Errors
/// When AWS cannot be asked or says no.
#[cfg(feature = "aws")]
pub fn execute(request: &Request<'_>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::machine("start the async runtime", e))?;
    runtime.block_on(async {
        match request {
            Request::DlqList(args) => dlq::list(args).await,
            Request::DlqShow(args) => dlq::show(args).await,
            Request::DlqRedrive(args) => dlq::redrive(args).await,
            Request::Doctor(args) => doctor::execute(args).await,
            Request::ResponsesList(args) => responses::list(args).await,
            Request::ResponsesShow(args) => responses::show(args).await,
            Request::ResponsesUndo(args) => undo::execute(args).await,
        }
    })
}

/// Says how to build it in.
///
/// # Errors
/// Always.
#[cfg(not(feature = "aws"))]
pub fn execute(_request: &Request<'_>) -> Result<(), Failure> {
    Err(Failure::Usage(
        "this `pipeline` was built without AWS: build one that has it with `cargo build --release --features aws`"
            .to_owned(),
    ))
}

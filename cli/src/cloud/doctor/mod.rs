//! `pipeline doctor`: is a deployment well? Each check asks AWS one question that an operator would ask, and says what to
//! do about the answer. It changes nothing but for the canary, which leaves a closed incident behind.
//!
//! Everything of a deployment has a name by convention (`Name` and what it is for), so nothing is looked up.

mod alarms;
mod canary;
mod events;
mod functions;
mod permissions;
mod queues;
mod report;
mod tables;
mod topics;
mod trail;

use std::io::Write;

use shared::text::one_line;

use super::session::{Caller, Session};
use crate::args::{DoctorArgs, Format};
use crate::failure::Failure;
use crate::{interrupt, output};
use report::{Check, Status};

/// The components, in the order messages go.
const COMPONENTS: [&str; 4] = ["classifier", "responder", "notifier", "logger"];
/// Where global services say what happened.
const GLOBAL_REGION: &str = "us-east-1";

/// The deployment that is examined, and who does it.
#[derive(Clone, Debug)]
struct Context {
    session: Session,
    account: String,
    partition: String,
}

impl Context {
    /// The ARN of something in the deployment's account and region.
    fn arn(&self, service: &str, resource: &str) -> String {
        let Self { session, account, partition } = self;
        format!("arn:{partition}:{service}:{}:{account}:{resource}", session.region)
    }

    /// The name of something of the deployment.
    fn named(&self, what: &str) -> String {
        format!("{}-{what}", self.session.name)
    }

    fn in_region(&self, region: &str) -> Self {
        Self { session: self.session.in_region(region), ..self.clone() }
    }
}

/// Examines the deployment.
///
/// # Errors
/// When AWS cannot be asked at all, or a check failed.
pub async fn execute(args: &DoctorArgs) -> Result<(), Failure> {
    interrupt::listen();
    let session = Session::open(&args.deployment).await?;
    let (context, first) = identity(session).await?;
    let mut checks = vec![first];
    checks.push(tables::check(&context).await);
    checks.push(functions::check(&context).await);
    checks.push(permissions::check(&context).await);
    checks.push(queues::check(&context).await);
    checks.push(queues::dead_letters(&context).await);
    checks.push(events::rules(&context).await);
    for region in forwarders(args, &context.session.region) {
        checks.push(events::forwarder(&context, region).await);
    }
    checks.push(trail::check(&context).await);
    checks.push(topics::check(&context).await);
    checks.push(alarms::check(&context).await);
    checks.extend(canary::check(&context, args).await);

    let mut out = output::stdout();
    match args.format {
        Format::Json => output::json(&mut out, &checks)?,
        Format::Text => report::print(&mut out, &checks)?,
    }
    out.flush()?;
    let failed: Vec<&str> =
        checks.iter().filter(|check| check.status == Status::Failed).map(|check| check.check).collect();
    if interrupt::asked() {
        return Err(Failure::Interrupted("the canary goes on by itself".to_owned()));
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Unwell(format!("not well: {}", failed.join(", ")))) }
}

/// The regions whose forwarders are looked at: those named, else the one of the global services.
fn forwarders<'a>(args: &'a DoctorArgs, central: &str) -> Vec<&'a str> {
    if args.forwarders.is_empty() && central != GLOBAL_REGION {
        return vec![GLOBAL_REGION];
    }
    args.forwarders.iter().map(String::as_str).filter(|region| *region != central).collect()
}

/// Who asks. Nothing else can be asked when this cannot.
async fn identity(session: Session) -> Result<(Context, Check), Failure> {
    let Caller { account, arn, partition } = session.caller().await?;
    let said = format!("{arn} asks about {} in account {account}, {}", session.name, session.region);
    let check = Check::ok("caller", one_line(&said, said.len()));
    Ok((Context { partition, account, session }, check))
}

#[cfg(test)]
mod tests_support {
    use serde_json::Value;
    use shared::adapters::loopback::{Answer, Loopback};

    use super::Context;
    use crate::cloud::session::Session;

    /// A deployment whose services answer these, in order.
    pub fn answering(answers: impl IntoIterator<Item = Answer>) -> (Context, Loopback) {
        let server = Loopback::answering(answers);
        let session = Session::of_tests("security-pipeline", "eu-central-1", server.endpoint());
        (Context { session, account: "123456789012".to_owned(), partition: "aws".to_owned() }, server)
    }

    /// An answer of a service that speaks JSON.
    pub fn json(value: &Value) -> Answer {
        Answer::json("200 OK", value)
    }

    /// What services that speak JSON say to those who may not.
    pub fn denied() -> Answer {
        Answer::json("400 Bad Request", &serde_json::json!({"__type": "AccessDeniedException", "message": "no"}))
    }

    /// The same of a service that speaks XML.
    pub fn denied_xml() -> Answer {
        let error = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
        Answer::xml("403 Forbidden", error)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shared::adapters::loopback::Answer;

    use super::tests_support::{answering, denied_xml};
    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &[&str]) -> DoctorArgs {
        let line = ["pipeline", "doctor"].iter().chain(line);
        let Command::Doctor(args) = Cli::parse_from(line).command else { panic!("the doctor") };
        args
    }

    #[test]
    fn the_forwarder_of_global_services_is_looked_at_unless_others_are_named() {
        assert_eq!(forwarders(&args(&[]), "eu-central-1"), ["us-east-1"]);
        assert!(forwarders(&args(&[]), "us-east-1").is_empty());
        let named = args(&["--forwarders", "us-east-1,eu-west-1"]);
        assert_eq!(forwarders(&named, "eu-west-1"), ["us-east-1"]);
    }

    #[tokio::test]
    async fn the_partition_is_that_of_the_caller() {
        let answer = "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws-cn:sts::123456789012:assumed-role/a/b</Arn>\
                      <UserId>x</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
        let (context, _server) = answering([Answer::xml("200 OK", answer)]);
        let (context, check) = identity(context.session).await.expect("answered");
        assert_eq!(context.arn("sqs", "q"), "arn:aws-cn:sqs:eu-central-1:123456789012:q");
        assert_eq!(check.status, Status::Ok);
    }

    #[tokio::test]
    async fn without_credentials_nothing_is_asked() {
        let (context, _server) = answering([denied_xml()]);
        let error = identity(context.session).await.expect_err("denied");
        assert!(matches!(error, Failure::Cloud(_)) && error.to_string().contains("sts:GetCallerIdentity"), "{error}");
    }
}

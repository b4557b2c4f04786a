//! A typed view over one record of any source.
//!
//! The header (about fifteen fields) is borrowed from the record's text in one pass; the body is parsed
//! only when a classifier looks into it. An `Event` is cheap to make and is thrown away after use: what
//! must be kept is the text.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

pub use crate::identity::{Identity, PrincipalKind};
use crate::json_repair::repaired;
use crate::json_scan::{RawValue, ScanError, Scanner};
use crate::malformed::Malformed;
use crate::places::{Place, Places};
use crate::time::Timestamp;

/// Why a text is not a record. Always permanent; names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The text is not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] ScanError),
    /// A needed field is not there.
    #[error("{field} is missing")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// A field is there with the wrong type or an impossible value.
    #[error("{field} is not {expected}")]
    Wrong {
        /// The field's name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl RecordError {
    /// The field at fault, or empty when the text is not JSON at all.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Json(_) => "",
            Self::Missing { field } | Self::Wrong { field, .. } => field,
        }
    }
}

/// What kind of record an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A CloudTrail record; `source` is its `eventSource`, `name` its `eventName`.
    CloudTrail,
    /// Anything else that EventBridge or SNS carries; `source` is the EventBridge source such as
    /// `aws.guardduty`, `name` the detail type such as `GuardDuty Finding`.
    Notification,
}

/// A part of a CloudTrail record's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `userIdentity`.
    Identity,
    /// `requestParameters`.
    Request,
    /// `responseElements`.
    Response,
    /// `additionalEventData`.
    Additional,
    /// `resources`.
    Resources,
    /// `vpcEndpointId`.
    VpcEndpoint,
    /// `sessionCredentialFromConsole`.
    FromConsole,
    /// `userIdentity.arn`; this and the next are asked for by nearly every rule.
    CallerArn,
    /// `userIdentity.accountId`.
    CallerAccount,
    /// `userIdentity.principalId`.
    CallerId,
    /// `userIdentity.userName`.
    CallerName,
    /// `userIdentity.accessKeyId`.
    AccessKey,
    /// `userIdentity.sessionContext`.
    Session,
    /// `userIdentity.sessionContext.sessionIssuer.arn`.
    IssuerArn,
    /// `userIdentity.sessionContext.sessionIssuer.userName`.
    IssuerName,
    /// `userIdentity.sessionContext.attributes.mfaAuthenticated`.
    Mfa,
}

/// How many parts are noted while the header is read: those up to [`Part::Session`].
const PARTS: usize = Part::Session as usize + 1;

/// One record: its header, and its body on demand.
pub struct Event<'a> {
    /// What kind of record.
    pub kind: EventKind,
    /// `iam.amazonaws.com`, or `aws.guardduty`.
    pub source: Cow<'a, str>,
    /// `CreateAccessKey`, or `GuardDuty Finding`.
    pub name: Cow<'a, str>,
    /// The record's own id; a hash of its text when it carries none.
    pub event_id: Cow<'a, str>,
    /// When it happened.
    pub time: Timestamp,
    /// 12-digit account: `recipientAccountId`, else the caller's; empty when neither is there.
    pub account: Cow<'a, str>,
    /// Region; empty when absent.
    pub region: Cow<'a, str>,
    /// Address or service name; empty when absent.
    pub source_ip: Cow<'a, str>,
    /// User agent; empty when absent.
    pub user_agent: Cow<'a, str>,
    /// Set when the call was denied or failed.
    pub error_code: Option<Cow<'a, str>>,
    /// The message that came with it.
    pub error_message: Option<Cow<'a, str>>,
    /// `AwsApiCall`, `AwsConsoleSignIn`, `AwsServiceEvent`; empty when absent.
    pub event_type: Cow<'a, str>,
    /// CloudTrail `readOnly`.
    pub read_only: Option<bool>,
    /// `userIdentity.type`: `IAMUser`, `Root`, `AssumedRole`, …; empty when absent.
    pub identity_type: Cow<'a, str>,
    /// `userIdentity.invokedBy`: the AWS service that acts for the principal; empty when absent.
    pub invoked_by: Cow<'a, str>,
    /// The whole record (CloudTrail) or the whole detail (notification).
    pub record: &'a str,
    /// As they stand in the record; `None` when absent or null.
    parts: [Option<&'a str>; PARTS],
    // Boxed: most events are never looked into, and a small event is cheap to hand around.
    key: OnceCell<u64>,
    session: OnceCell<[Span; 3]>,
    identity: OnceCell<Box<Identity>>,
    request: OnceCell<Box<Value>>,
    response: OnceCell<Box<Value>>,
    additional: OnceCell<Box<Value>>,
    detail: OnceCell<Box<Value>>,
    places: OnceCell<Arc<Places>>,
    place: OnceCell<Box<Place>>,
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("kind", &self.kind).field("record", &self.record).finish_non_exhaustive()
    }
}

/// Where the header and the parts of a CloudTrail record stand in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    time: Timestamp,
    read_only: Option<bool>,
    header: [Span; 12],
    parts: [Span; PARTS],
    /// Within [`Part::Session`], when somebody asked for them.
    session: Option<[Span; 3]>,
}

/// A stretch of a record of less than 64 KiB; empty when there is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u16,
    bytes: u16,
}

impl Span {
    fn of(text: Option<&str>, record: &str) -> Self {
        let Some(text) = text else { return Self::default() };
        let start = (text.as_ptr() as usize).wrapping_sub(record.as_ptr() as usize);
        match (u16::try_from(start), u16::try_from(text.len())) {
            (Ok(start), Ok(bytes)) => Self { start, bytes },
            _ => Self::default(),
        }
    }

    fn within(self, record: &str) -> Option<&str> {
        let start = usize::from(self.start);
        record.get(start..start + usize::from(self.bytes)).filter(|text| !text.is_empty())
    }
}

/// Members of `userIdentity.sessionContext` as they stand in the record; `None` when absent or null.
#[derive(Clone, Copy, Debug, Default)]
struct Session<'a> {
    issuer_arn: Option<&'a str>,
    issuer_name: Option<&'a str>,
    mfa: Option<&'a str>,
}

impl<'a> Session<'a> {
    /// What does not look as expected is passed over.
    fn read(raw: &'a str) -> Self {
        let mut session = Self::default();
        let _ = Scanner::new(raw).object::<ScanError>(|key, s| match (key, s.peek()) {
            ("sessionIssuer", Some(b'{')) => s.object(|key, s| {
                let value = s.raw_value()?;
                match key {
                    "arn" => session.issuer_arn = present(value),
                    "userName" => session.issuer_name = present(value),
                    _ => {}
                }
                Ok(())
            }),
            ("attributes", Some(b'{')) => s.object(|key, s| {
                let value = s.raw_value()?;
                if key == "mfaAuthenticated" {
                    session.mfa = present(value);
                }
                Ok(())
            }),
            _ => s.raw_value().map(drop),
        });
        session
    }

    /// Whether EC2 handed the session's credentials to an instance.
    fn is_of_instance(raw: &str) -> bool {
        let mut of_instance = false;
        let _ = Scanner::new(raw).object::<ScanError>(|key, s| {
            let value = s.raw_value()?;
            of_instance |= key == "ec2RoleDelivery" && !value.is_null();
            Ok(())
        });
        of_instance
    }
}

/// The text of a JSON string; empty when it is none.
fn text(raw: Option<&str>) -> String {
    raw.and_then(|raw| RawValue::of(raw).as_str()).map(Cow::into_owned).unwrap_or_default()
}

/// The header of a notification, read by the intake from its envelope.
#[derive(Clone, Debug)]
pub struct NotificationHeader<'a> {
    /// EventBridge `source`.
    pub source: Cow<'a, str>,
    /// EventBridge `detail-type`.
    pub detail_type: Cow<'a, str>,
    /// EventBridge `id`; a hash of the detail is used when it is empty.
    pub id: Cow<'a, str>,
    /// EventBridge `time`.
    pub time: Timestamp,
    /// EventBridge `account`.
    pub account: Cow<'a, str>,
    /// EventBridge `region`.
    pub region: Cow<'a, str>,
}

static NULL: Value = Value::Null;

/// What stands in place of a part that was left out says little more than that: our choice.
const LEFT_OUT_BYTES_MAX: usize = 1024;

/// `eventType` of what CloudTrail Insights writes.
const INSIGHT: &str = "AwsCloudTrailInsight";

impl<'a> Event<'a> {
    fn empty(kind: EventKind, record: &'a str) -> Self {
        const NONE: Cow<'static, str> = Cow::Borrowed("");
        Self {
            kind,
            source: NONE,
            name: NONE,
            event_id: NONE,
            time: Timestamp::default(),
            account: NONE,
            region: NONE,
            source_ip: NONE,
            user_agent: NONE,
            error_code: None,
            error_message: None,
            event_type: NONE,
            read_only: None,
            identity_type: NONE,
            invoked_by: NONE,
            record,
            parts: [None; PARTS],
            key: OnceCell::new(),
            session: OnceCell::new(),
            identity: OnceCell::new(),
            request: OnceCell::new(),
            response: OnceCell::new(),
            additional: OnceCell::new(),
            detail: OnceCell::new(),
            places: OnceCell::new(),
            place: OnceCell::new(),
        }
    }

    /// Reads the header of one CloudTrail record that fills the whole text.
    ///
    /// # Errors
    /// When the text is not one JSON object, `eventSource`, `eventName` or `eventTime` is missing, a header field has the
    /// wrong type, or the time is before 2006 or after 2099. `userAgent` and `errorMessage` cost no record: what callers
    /// write or have repeated to them counts as absent when it is no text.
    pub fn from_cloudtrail(text: &'a str) -> Result<Self, RecordError> {
        let mut scanner = Scanner::new(text);
        let event = Self::scan_cloudtrail(text, &mut scanner)?;
        if scanner.peek().is_some() {
            let offset = scanner.position();
            return Err(ScanError { offset, what: "text behind the record" }.into());
        }
        Ok(event)
    }

    /// Reads the record at the scanner's position and leaves the scanner behind it. `text` is what the
    /// scanner runs over. When the text is JSON, the scanner is behind the record even on an error.
    ///
    /// # Errors
    /// As [`Event::from_cloudtrail`].
    #[inline]
    pub fn scan_cloudtrail(text: &'a str, scanner: &mut Scanner<'a>) -> Result<Self, RecordError> {
        let mut again = scanner.clone();
        match Self::scan(text, scanner, |key| key) {
            Err(RecordError::Missing { field }) => {
                Self::scan(text, &mut again, as_cloudtrail_writes).map_err(|_| RecordError::Missing { field })
            }
            other => other,
        }
    }

    /// `as_written` gives the name of a header field for a key.
    #[inline]
    fn scan(
        text: &'a str,
        scanner: &mut Scanner<'a>,
        as_written: impl Fn(&'a str) -> &'a str,
    ) -> Result<Self, RecordError> {
        scanner.peek();
        let start = scanner.position();
        let mut event = Self::empty(EventKind::CloudTrail, "");
        let mut time: Option<Cow<'a, str>> = None;
        let mut caller_account = Cow::Borrowed("");
        let mut wrong: Option<RecordError> = None;
        scanner.object::<ScanError>(|key, s| {
            let mut string = |s: &mut Scanner<'a>, into: &mut Cow<'a, str>, field: &'static str| {
                let raw = s.raw_value()?;
                match raw.as_str() {
                    Some(text) => *into = text,
                    None if raw.is_null() => {}
                    None => wrong = Some(RecordError::Wrong { field, expected: "a string" }),
                }
                Ok::<(), ScanError>(())
            };
            match as_written(key) {
                "eventTime" => {
                    let mut text = Cow::Borrowed("");
                    string(s, &mut text, "eventTime")?;
                    time = Some(text);
                }
                "eventSource" => string(s, &mut event.source, "eventSource")?,
                "eventName" => string(s, &mut event.name, "eventName")?,
                "eventID" => string(s, &mut event.event_id, "eventID")?,
                "awsRegion" => string(s, &mut event.region, "awsRegion")?,
                "sourceIPAddress" => string(s, &mut event.source_ip, "sourceIPAddress")?,
                "userAgent" => event.user_agent = s.raw_value()?.as_str().unwrap_or_default(),
                "eventType" => string(s, &mut event.event_type, "eventType")?,
                "recipientAccountId" => string(s, &mut event.account, "recipientAccountId")?,
                "errorCode" => {
                    let mut text = Cow::Borrowed("");
                    string(s, &mut text, "errorCode")?;
                    event.error_code = (!text.is_empty()).then_some(text);
                }
                "errorMessage" => event.error_message = s.raw_value()?.as_str().filter(|text| !text.is_empty()),
                "readOnly" => {
                    let raw = s.raw_value()?;
                    event.read_only = match raw.text {
                        "true" | "\"true\"" => Some(true),
                        "false" | "\"false\"" => Some(false),
                        _ => None,
                    };
                }
                "requestParameters" => event.parts[Part::Request as usize] = present(s.raw_value()?),
                "responseElements" => event.parts[Part::Response as usize] = present(s.raw_value()?),
                "additionalEventData" => event.parts[Part::Additional as usize] = present(s.raw_value()?),
                "resources" => event.parts[Part::Resources as usize] = present(s.raw_value()?),
                "vpcEndpointId" => event.parts[Part::VpcEndpoint as usize] = present(s.raw_value()?),
                "sessionCredentialFromConsole" => event.parts[Part::FromConsole as usize] = present(s.raw_value()?),
                "userIdentity" => {
                    let at = s.peek();
                    let from = s.position();
                    if at == Some(b'{') {
                        s.object::<ScanError>(|key, s| match as_written(key) {
                            "type" => string(s, &mut event.identity_type, "userIdentity.type"),
                            "invokedBy" => string(s, &mut event.invoked_by, "userIdentity.invokedBy"),
                            "accountId" => {
                                s.peek();
                                let from = s.position();
                                string(s, &mut caller_account, "userIdentity.accountId")?;
                                event.parts[Part::CallerAccount as usize] =
                                    present(RawValue::of(&text[from..s.position()]));
                                Ok(())
                            }
                            _ => {
                                let value = s.raw_value()?;
                                let part = match as_written(key) {
                                    "arn" => Part::CallerArn,
                                    "principalId" => Part::CallerId,
                                    "userName" => Part::CallerName,
                                    "accessKeyId" => Part::AccessKey,
                                    "sessionContext" => Part::Session,
                                    _ => return Ok(()),
                                };
                                event.parts[part as usize] = present(value);
                                Ok(())
                            }
                        })?;
                        event.parts[Part::Identity as usize] = Some(&text[from..s.position()]);
                    } else if !s.raw_value()?.is_null() {
                        wrong = Some(RecordError::Wrong { field: "userIdentity", expected: "an object" });
                    }
                }
                _ => {
                    s.raw_value()?;
                }
            }
            Ok(())
        })?;
        event.record = &text[start..scanner.position()];
        if let Some(error) = wrong {
            return Err(error);
        }
        // An insight tells of the rate of a call, which it names further in, and is no call itself: nobody's concern, but no
        // damaged record either.
        if event.event_type == INSIGHT && event.source.is_empty() && event.name.is_empty() {
            (event.source, event.name) = (Cow::Borrowed("cloudtrail.amazonaws.com"), Cow::Borrowed(INSIGHT));
        }
        for (field, value) in [("eventSource", &event.source), ("eventName", &event.name)] {
            if value.is_empty() {
                return Err(RecordError::Missing { field });
            }
        }
        let Some(time) = time.filter(|t| !t.is_empty()) else {
            return Err(RecordError::Missing { field: "eventTime" });
        };
        event.time = plausible_time(&time, "eventTime")?;
        if event.account.is_empty() {
            event.account = caller_account;
        }
        if event.event_id.is_empty() {
            event.event_id = Cow::Owned(content_id(event.record));
        }
        Ok(event)
    }

    /// Where everything stands, so that the header need not be read again; `None` unless this is a CloudTrail record
    /// whose header has no escapes and that is short enough, as nearly all are.
    pub fn outline(&self) -> Option<Outline> {
        let header = [
            Some(&self.source),
            Some(&self.name),
            Some(&self.event_id),
            Some(&self.account),
            Some(&self.region),
            Some(&self.source_ip),
            Some(&self.user_agent),
            Some(&self.event_type),
            Some(&self.identity_type),
            Some(&self.invoked_by),
            self.error_code.as_ref(),
            self.error_message.as_ref(),
        ];
        let is_short = self.record.len() <= usize::from(u16::MAX);
        if !is_short
            || self.kind != EventKind::CloudTrail
            || header.iter().flatten().any(|text| matches!(text, Cow::Owned(_)))
        {
            return None;
        }
        Some(Outline {
            time: self.time,
            read_only: self.read_only,
            header: header.map(|text| Span::of(text.map(|text| &**text), self.record)),
            parts: self.parts.map(|part| Span::of(part, self.record)),
            session: self.session.get().copied(),
        })
    }

    /// The event that had this outline; `record` is its [`Event::record`].
    #[inline]
    pub fn from_outline(record: &'a str, outline: &Outline) -> Self {
        let mut event = Self::empty(EventKind::CloudTrail, record);
        event.time = outline.time;
        event.read_only = outline.read_only;
        let [header @ .., error_code, error_message] = &outline.header;
        let fields = [
            &mut event.source,
            &mut event.name,
            &mut event.event_id,
            &mut event.account,
            &mut event.region,
            &mut event.source_ip,
            &mut event.user_agent,
            &mut event.event_type,
            &mut event.identity_type,
            &mut event.invoked_by,
        ];
        for (field, span) in fields.into_iter().zip(header) {
            *field = Cow::Borrowed(span.within(record).unwrap_or_default());
        }
        event.error_code = error_code.within(record).map(Cow::Borrowed);
        event.error_message = error_message.within(record).map(Cow::Borrowed);
        event.parts = outline.parts.map(|part| part.within(record));
        event.session = outline.session.map_or_else(OnceCell::new, OnceCell::from);
        event
    }

    /// An event from a notification; `detail` is its body, a JSON object.
    pub fn notification(header: NotificationHeader<'a>, detail: &'a str) -> Self {
        let mut event = Self::empty(EventKind::Notification, detail);
        event.source = header.source;
        event.name = header.detail_type;
        event.event_id = if header.id.is_empty() { Cow::Owned(content_id(detail)) } else { header.id };
        event.time = header.time;
        event.account = header.account;
        event.region = header.region;
        event
    }

    /// The caller. Fields that are absent or of an odd type are empty.
    pub fn identity(&self) -> &Identity {
        self.identity.get_or_init(|| Box::new(self.read_identity()))
    }

    /// The caller, for who keeps it.
    pub fn to_identity(&self) -> Identity {
        self.identity.get().map_or_else(|| self.read_identity(), |identity| (**identity).clone())
    }

    fn read_identity(&self) -> Identity {
        let kind = self.identity_type.clone().into_owned();
        let principal_id = text(self.raw(Part::CallerId));
        let session_name = match principal_id.split_once(':') {
            Some((_, name)) if kind == "AssumedRole" => name.to_owned(),
            _ => String::new(),
        };
        let session = self.session();
        let mfa = session.mfa.and_then(|raw| match raw {
            "true" | "\"true\"" => Some(true),
            _ => (raw == "false" || raw.starts_with('"')).then_some(false),
        });
        Identity {
            kind,
            arn: text(self.raw(Part::CallerArn)),
            account: text(self.raw(Part::CallerAccount)),
            principal_id,
            user_name: text(self.raw(Part::CallerName)),
            access_key_id: text(self.raw(Part::AccessKey)),
            invoked_by: self.invoked_by.clone().into_owned(),
            issuer_arn: text(session.issuer_arn),
            issuer_name: text(session.issuer_name),
            session_name,
            mfa,
        }
    }

    fn session(&self) -> Session<'a> {
        let Some(raw) = self.raw(Part::Session) else { return Session::default() };
        if raw.len() > usize::from(u16::MAX) {
            return Session::read(raw);
        }
        let [issuer_arn, issuer_name, mfa] = self.session.get_or_init(|| {
            let Session { issuer_arn, issuer_name, mfa } = Session::read(raw);
            [issuer_arn, issuer_name, mfa].map(|text| Span::of(text, raw))
        });
        Session { issuer_arn: issuer_arn.within(raw), issuer_name: issuer_name.within(raw), mfa: mfa.within(raw) }
    }

    /// The raw JSON of a part of the body; `None` when it is absent or null. For those who look for one value and need
    /// no tree.
    pub fn raw(&self, part: Part) -> Option<&'a str> {
        match part {
            Part::IssuerArn => self.session().issuer_arn,
            Part::IssuerName => self.session().issuer_name,
            Part::Mfa => self.session().mfa,
            part => self.parts[part as usize],
        }
    }

    /// Whether CloudTrail left the part out because it was too large: then an object with `omitted: true` stands in its
    /// place. `requestParameters` and `responseElements` may have 100 KB, `additionalEventData` 28 KB
    /// (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>).
    pub fn is_left_out(&self, part: Part) -> bool {
        let mut left_out = false;
        if let Some(raw) = self.raw(part).filter(|raw| raw.starts_with('{') && raw.len() <= LEFT_OUT_BYTES_MAX) {
            let _ = Scanner::new(raw).object::<ScanError>(|key, s| {
                let value = s.raw_value()?;
                left_out |= key == "omitted" && value.text == "true";
                Ok(())
            });
        }
        left_out
    }

    /// The names of the parts that CloudTrail left out.
    pub fn left_out(&self) -> Vec<&'static str> {
        const PARTS: [(Part, &str); 4] = [
            (Part::Request, "requestParameters"),
            (Part::Response, "responseElements"),
            (Part::Additional, "additionalEventData"),
            (Part::Resources, "resources"),
        ];
        PARTS.iter().filter(|(part, _)| self.is_left_out(*part)).map(|(_, name)| *name).collect()
    }

    /// Who did it: see [`Identity::principal`].
    pub fn principal(&self) -> &str {
        self.identity().principal()
    }

    /// Who is counted for what is done again and again: [`Identity::actor_key`], but an instance with a role by its own
    /// session, which EC2 names for the instance and nobody else can: `ec2RoleDelivery` says so. `None` when the record
    /// names nobody, as for anonymous calls.
    pub fn actor(&self) -> Option<Cow<'_, str>> {
        let identity = self.identity();
        if identity.arn.is_empty() && identity.user_name.is_empty() && identity.principal_id.is_empty() {
            return None;
        }
        let of_instance = || self.raw(Part::Session).is_some_and(Session::is_of_instance);
        Some(match identity.principal_kind() {
            PrincipalKind::RoleSession if of_instance() => identity.principal_key(),
            _ => identity.actor_key(),
        })
    }

    /// Whether the call was denied or failed.
    pub const fn is_failed(&self) -> bool {
        self.error_code.is_some()
    }

    /// Whether the call only reads. Old records do not say; then the verb of the call does.
    pub fn is_reading(&self) -> bool {
        const VERBS: [&str; 5] = ["Describe", "Get", "Head", "List", "Lookup"];
        self.read_only.unwrap_or_else(|| VERBS.iter().any(|verb| self.name.starts_with(verb)))
    }

    /// Whether an AWS service acted: by itself, with a role that is linked to it, or for a principal (`invokedBy`,
    /// forward access sessions, CloudFormation). This is the one place that says so. The sign-in page is not such a
    /// service, it is how people act. `AWS Internal` is the address of the console too, which does not always mark the
    /// session: alone it makes no service of a person.
    pub fn is_by_aws_service(&self) -> bool {
        use PrincipalKind::{FederatedUser, IamUser, Root, Service, SsoUser};
        self.identity_type == "AWSService"
            || (!self.invoked_by.is_empty() && self.invoked_by != "signin.amazonaws.com")
            || self.source_ip.ends_with(".amazonaws.com")
            || self.source_ip.ends_with(".amazonaws.com.cn")
            || match self.identity().principal_kind() {
                Service => true,
                FederatedUser | IamUser | Root | SsoUser => false,
                _ => self.source_ip == "AWS Internal" && self.raw(Part::FromConsole).is_none(),
            }
    }

    /// Whether an AWS service acted and nobody stands behind it who asked for that: the service itself, or a role that is
    /// linked to it. No when it acts with the rights of somebody, as CloudFormation does with a template's.
    pub fn is_by_aws_service_alone(&self) -> bool {
        use PrincipalKind::{FederatedUser, IamUser, RoleSession, Root, SsoUser};
        self.is_by_aws_service()
            && !matches!(self.identity().principal_kind(), FederatedUser | IamUser | RoleSession | Root | SsoUser)
    }

    /// The address the call came from, IPv4 in IPv4 form; `None` for service names and anything else.
    pub fn source_address(&self) -> Option<IpAddr> {
        self.source_ip.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    }

    /// Says which databases [`Event::place`] asks. The first call counts; the engine makes it.
    pub fn locate_with(&self, places: &Arc<Places>) {
        self.places.get_or_init(|| Arc::clone(places));
    }

    /// The databases, to ask whether there are any.
    pub fn places(&self) -> &Places {
        static NOWHERE: Places = Places::none();
        self.places.get().map_or(&NOWHERE, |places| places)
    }

    /// Where the call came from; unknown without a database or an address. Not for `wants`: it is too slow there.
    pub fn place(&self) -> &Place {
        self.place
            .get_or_init(|| Box::new(self.source_address().map_or_else(Place::default, |ip| self.places().locate(ip))))
    }

    /// `requestParameters`; `Null` when absent.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn request(&self) -> Result<&Value, Malformed> {
        lazily(&self.request, self.raw(Part::Request), "requestParameters")
    }

    /// `responseElements`; `Null` when absent.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn response(&self) -> Result<&Value, Malformed> {
        lazily(&self.response, self.raw(Part::Response), "responseElements")
    }

    /// `additionalEventData`; `Null` when absent.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn additional(&self) -> Result<&Value, Malformed> {
        lazily(&self.additional, self.raw(Part::Additional), "additionalEventData")
    }

    /// The whole record (CloudTrail) or detail (notification) as a tree.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn detail(&self) -> Result<&Value, Malformed> {
        lazily(&self.detail, Some(self.record), "detail")
    }

    /// A string of `requestParameters` by JSON pointer such as `/userName`; `None` when absent.
    ///
    /// # Errors
    /// When the parameters are not JSON or the value is there and is not a string.
    pub fn request_str(&self, pointer: &'static str) -> Result<Option<&str>, Malformed> {
        match self.request()?.pointer(pointer) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Malformed::wrong(pointer, "a string")),
        }
    }

    /// As [`Event::request_str`], for what only describes a call whose name says enough: a value that is no string is absent.
    ///
    /// # Errors
    /// When the parameters are not JSON.
    pub fn request_text(&self, pointer: &str) -> Result<Option<&str>, Malformed> {
        Ok(self.request()?.pointer(pointer).and_then(Value::as_str))
    }

    /// What tells this event from all others of its account and region: the event id; for notifications the hash of
    /// the detail too, because some producers reuse envelope ids for different details.
    pub fn identity_id(&self) -> Cow<'_, str> {
        match self.kind {
            EventKind::CloudTrail => Cow::Borrowed(&self.event_id),
            EventKind::Notification => Cow::Owned(format!("{}/{}", self.event_id, content_id(self.record))),
        }
    }

    /// A stable 64-bit name of this event for state entries: of account, region and [`Event::identity_id`]. The id of a
    /// CloudTrail record is a random UUID, whose halves do; any other is hashed.
    pub fn key(&self) -> u64 {
        *self.key.get_or_init(|| {
            let id = self.identity_id();
            let id = Uuid::try_parse(&id).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()));
            let (high, low) = id.as_u64_pair();
            // FNV-1a, 64 bits.
            let place = [&*self.account, "/", &*self.region];
            let place = place
                .iter()
                .flat_map(|text| text.bytes())
                .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            high ^ low.rotate_left(32) ^ place
        })
    }
}

/// The name that CloudTrail gives a header field. Athena, Glue and whatever stands on them turn it to lower case, as they
/// do with columns; what lies inside parameters is left as it was.
fn as_cloudtrail_writes(key: &str) -> &str {
    const NAMES: [&str; 24] = [
        "eventTime",
        "eventSource",
        "eventName",
        "eventID",
        "awsRegion",
        "sourceIPAddress",
        "userAgent",
        "eventType",
        "recipientAccountId",
        "errorCode",
        "errorMessage",
        "readOnly",
        "requestParameters",
        "responseElements",
        "additionalEventData",
        "vpcEndpointId",
        "sessionCredentialFromConsole",
        "userIdentity",
        "accountId",
        "invokedBy",
        "principalId",
        "userName",
        "accessKeyId",
        "sessionContext",
    ];
    NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(key)).unwrap_or(key)
}

fn present(raw: RawValue<'_>) -> Option<&str> {
    (!raw.is_null()).then_some(raw.text)
}

/// Reads a time and checks that a record could carry it.
///
/// # Errors
/// When it is not RFC 3339, or before 2006 or after 2099.
pub fn plausible_time(text: &str, field: &'static str) -> Result<Timestamp, RecordError> {
    let time =
        Timestamp::parse(text).ok_or(RecordError::Wrong { field, expected: "a time such as 2026-03-01T12:00:00Z" })?;
    if time.is_plausible() {
        Ok(time)
    } else {
        Err(RecordError::Wrong { field, expected: "a time between 2006 and 2099" })
    }
}

/// The id of a record that carries none: a UUIDv5 of its text.
fn content_id(text: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).to_string()
}

fn lazily<'c>(cell: &'c OnceCell<Box<Value>>, raw: Option<&str>, field: &'static str) -> Result<&'c Value, Malformed> {
    let Some(raw) = raw else { return Ok(&NULL) };
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = serde_json::from_str(raw)
        .or_else(|error| serde_json::from_str(&repaired(raw)).map_err(|_| Malformed::not_json(field, &error)))?;
    Ok(cell.get_or_init(|| Box::new(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Identity {
        let record = format!(
            r#"{{"eventTime":"2026-03-01T00:00:00Z","eventSource":"s","eventName":"n","userIdentity":{text}}}"#
        );
        Event::from_cloudtrail(&record).unwrap().identity().clone()
    }

    const SESSION: &str = r#"{"type":"AssumedRole","principalId":"AROAX:alice","accountId":"123456789012",
        "arn":"arn:aws:sts::123456789012:assumed-role/NAME/alice",
        "sessionContext":{"sessionIssuer":{"type":"Role","arn":"arn:aws:iam::123456789012:role/PATHNAME","userName":"NAME"}}}"#;

    #[test]
    fn insights_are_read_and_have_a_name_of_their_own() {
        let record = r#"{"eventTime":"2026-03-01T00:00:00Z","awsRegion":"eu-west-1","eventID":"5b7a8e6e",
            "eventType":"AwsCloudTrailInsight","recipientAccountId":"123456789012","eventCategory":"Insight",
            "insightDetails":{"state":"Start","eventSource":"iam.amazonaws.com","eventName":"CreateUser"}}"#;
        let event = Event::from_cloudtrail(record).unwrap();
        assert_eq!((&*event.source, &*event.name), ("cloudtrail.amazonaws.com", "AwsCloudTrailInsight"));
    }

    #[test]
    fn a_store_may_have_turned_the_header_to_lower_case() {
        let record = r#"{"eventtime":"2026-03-01 00:00:00","eventsource":"iam.amazonaws.com","eventname":"CreateUser","awsregion":"us-east-1",
            "useridentity":{"arn":"a","accountid":"123456789012","username":"bob"},"requestparameters":{"userName":"eve"}}"#;
        let event = Event::from_cloudtrail(record).unwrap();
        assert_eq!((&*event.name, &*event.region, &*event.account), ("CreateUser", "us-east-1", "123456789012"));
        assert_eq!((&*event.identity().user_name, event.request_str("/userName").unwrap()), ("bob", Some("eve")));
    }

    #[test]
    fn odd_text_of_a_caller_costs_neither_the_record_nor_its_parameters() {
        for (agent, read) in [(r#""a\ud800""#, "a\u{fffd}"), ("7", ""), ("[]", ""), ("null", ""), (r#""a\x""#, "")] {
            let record = format!(
                r#"{{"eventTime":"2026-03-01T00:00:00Z","eventSource":"s","eventName":"n","userAgent":{agent},"errorMessage":{agent},
                "requestParameters":{{"userName":"bob","odd":["\udc00",1e999]}},"responseElements":{{"userName":}}}}"#
            );
            let event = Event::from_cloudtrail(&record).unwrap();
            assert_eq!(
                (&*event.user_agent, event.error_message.as_deref().unwrap_or_default()),
                (read, read),
                "{agent}"
            );
            assert_eq!(event.request_str("/userName").unwrap(), Some("bob"));
            assert_eq!(event.request().unwrap()["odd"][0], "\u{fffd}");
            let error = event.response().unwrap_err();
            assert_eq!(error.field, "responseElements");
        }
    }

    #[test]
    fn an_outline_gives_the_same_event() {
        let record = format!(
            r#"{{ "eventTime":"2026-03-01T00:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","readOnly":true,
            "errorCode":"AccessDenied","userAgent":"é","requestParameters":{{"a":[1]}},"userIdentity":{SESSION},
            "eventID":"6f7c8a51-3a2e-4c52-9d5b-0f2b1f0a7c11","responseElements":null}}"#
        );
        let event = Event::from_cloudtrail(&record).unwrap();
        let outline = event.outline().unwrap();
        let again = Event::from_outline(&record, &outline);
        assert_eq!((again.outline(), again.identity()), (Some(outline), event.identity()));
        assert_eq!((&*again.user_agent, again.error_code.as_deref()), ("é", Some("AccessDenied")));
        assert_eq!((&*again.account, again.error_message.is_none()), ("123456789012", true));
        assert_eq!(again.request().unwrap(), event.request().unwrap());
        assert_eq!((again.raw(Part::Response), again.key(), again.time), (None, event.key(), event.time));
        let with_session = event.outline().unwrap();
        let again = Event::from_outline(&record, &with_session);
        assert_eq!((again.outline().as_ref(), again.identity()), (Some(&with_session), event.identity()));
        let escaped = record.replace('é', "\\u00e9");
        assert_eq!(Event::from_cloudtrail(&escaped).unwrap().outline(), None);
    }

    #[test]
    fn role_sessions_are_known_by_issuer_and_session_name() {
        let plain = identity(&SESSION.replace("PATH", "").replace("NAME", "Admin"));
        assert_eq!(plain.principal_kind(), PrincipalKind::RoleSession);
        assert_eq!(plain.principal_key(), "arn:aws:iam::123456789012:role/Admin/alice");
        let sso = "aws-reserved/sso.amazonaws.com/eu-west-1/";
        let sso = identity(&SESSION.replace("PATH", sso).replace("NAME", "AWSReservedSSO_Admin_0123456789abcdef"));
        assert_eq!(sso.principal_kind(), PrincipalKind::SsoUser);
        let linked = "aws-service-role/autoscaling.amazonaws.com/";
        let linked = identity(&SESSION.replace("PATH", linked).replace("NAME", "AWSServiceRoleForAutoScaling"));
        assert_eq!(linked.principal_kind(), PrincipalKind::Service);
        let bare = identity(
            r#"{"type":"AssumedRole","arn":"arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_View_0/bob"}"#,
        );
        assert_eq!(bare.principal_kind(), PrincipalKind::SsoUser);
        assert_eq!(bare.principal_key(), bare.arn);
    }

    #[test]
    fn a_role_that_is_only_named_like_one_of_aws_is_none() {
        for name in ["AWSServiceRoleForAutoScaling", "AWSReservedSSO_Admin_0123456789abcdef"] {
            let named = identity(&SESSION.replace("PATH", "").replace("NAME", name));
            assert_eq!(named.principal_kind(), PrincipalKind::RoleSession, "{name}");
        }
    }

    #[test]
    fn a_role_whose_path_only_contains_one_of_aws_is_none() {
        for path in ["aws-service-role/", "aws-reserved/sso.amazonaws.com/"] {
            for before in ["x/", "x:role/", "role/", "/"] {
                let placed = identity(&SESSION.replace("PATH", &format!("{before}{path}")).replace("NAME", "evil"));
                assert_eq!(placed.principal_kind(), PrincipalKind::RoleSession, "{before}{path}");
            }
        }
    }

    #[test]
    fn sessions_of_a_role_share_their_habits_and_users_do_not() {
        let session = identity(&SESSION.replace("PATH", "").replace("NAME", "Admin"));
        assert_eq!(session.habit_key(), "arn:aws:iam::123456789012:role/Admin");
        assert_eq!(session.actor_key(), "arn:aws:iam::123456789012:role/Admin");
        let user = identity(r#"{"type":"IAMUser","userName":"alice","accountId":"123456789012"}"#);
        assert_eq!(user.habit_key(), "123456789012/alice");
    }

    #[test]
    fn what_was_too_large_is_left_out() {
        let parts = |request: &str, response: &str| {
            let record = format!(
                r#"{{"eventTime":"2026-03-01T00:00:00Z","eventSource":"s3.amazonaws.com","eventName":"PutBucketPolicy",
                "requestParameters":{request},"responseElements":{response}}}"#
            );
            Event::from_cloudtrail(&record).unwrap().left_out()
        };
        let omitted = r#"{"originalSize": 108544, "omitted": true}"#;
        assert_eq!(parts(omitted, "null"), ["requestParameters"]);
        assert_eq!(parts(r#"{"omitted":true}"#, omitted), ["requestParameters", "responseElements"]);
        for kept in [
            "null",
            "true",
            r#""omitted""#,
            r#"{"omitted":false}"#,
            r#"{"omitted":"true"}"#,
            r#"{"a":{"omitted":true}}"#,
        ] {
            assert_eq!(parts(kept, kept), [""; 0], "{kept}");
        }
    }

    #[test]
    fn who_counts_does_not_follow_from_a_name_that_the_caller_chooses() {
        let session = |issuer: &str, name: &str, more: &str| {
            format!(
                r#"{{"type":"AssumedRole","principalId":"AROAX:{name}","accountId":"123456789012",
                "arn":"arn:aws:sts::123456789012:assumed-role/Admin/{name}","sessionContext":{{{issuer}{more}}}}}"#
            )
        };
        let federated = |name: &str| {
            format!(
                r#"{{"type":"FederatedUser","arn":"arn:aws:sts::123456789012:federated-user/{name}",
                "sessionContext":{{"sessionIssuer":{{"arn":"arn:aws:iam::123456789012:user/bob"}}}}}}"#
            )
        };
        let actor = |identity: &str| {
            let record = format!(
                r#"{{"eventTime":"2026-03-01T00:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","userIdentity":{identity}}}"#
            );
            Event::from_cloudtrail(&record).unwrap().actor().map(Cow::into_owned)
        };
        let role = r#""sessionIssuer":{"arn":"arn:aws:iam::123456789012:role/path/Admin"}"#;
        let sso = r#""sessionIssuer":{"arn":"arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_A_0"}"#;
        let instance = r#","ec2RoleDelivery":"2.0""#;
        let other =
            |name: &str| format!(r#"{{"type":"AWSAccount","principalId":"{name}","accountId":"210987654321"}}"#);
        for (identity, key) in [
            (session(role, "a", ""), "arn:aws:iam::123456789012:role/path/Admin"),
            (session("", "a", ""), "arn:aws:sts::123456789012:assumed-role/Admin"),
            (session(sso, "alice", ""), "identity-center/alice"),
            (session(role, "i-0a1b2c3d", instance), "arn:aws:iam::123456789012:role/path/Admin/i-0a1b2c3d"),
            // Anybody may call his session like an instance.
            (session(role, "i-0a1b2c3d", ""), "arn:aws:iam::123456789012:role/path/Admin"),
            (federated("a"), "arn:aws:iam::123456789012:user/bob"),
            (other("AROAY:a"), "210987654321/AROAY"),
            (other("AIDAY"), "210987654321/AIDAY"),
            (r#"{"type":"Root","arn":"arn:aws:iam::123456789012:root"}"#.to_owned(), "arn:aws:iam::123456789012:root"),
        ] {
            assert_eq!(actor(&identity).as_deref(), Some(key), "{identity}");
        }
        for nobody in [r#"{"type":"AWSAccount","principalId":"","accountId":"ANONYMOUS_PRINCIPAL"}"#, "{}"] {
            assert_eq!(actor(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn services_are_told_from_people_who_use_the_console() {
        let by_service = |more: &str| {
            let record = format!(
                r#"{{"eventTime":"2026-03-01T00:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject",{more}}}"#
            );
            Event::from_cloudtrail(&record).unwrap().is_by_aws_service()
        };
        let linked = "aws-service-role/autoscaling.amazonaws.com/";
        let linked = SESSION.replace("PATH", linked).replace("NAME", "AWSServiceRoleForAutoScaling");
        for service in [
            r#""userIdentity":{"type":"AWSService","invokedBy":"config.amazonaws.com"}"#,
            r#""userIdentity":{"type":"Root","invokedBy":"support.amazonaws.com"}"#,
            r#""userIdentity":{"invokedBy":"AWS Internal"}"#,
            r#""sourceIPAddress":"cloudformation.amazonaws.com""#,
            r#""sourceIPAddress":"ec2.amazonaws.com.cn""#,
            r#""sourceIPAddress":"AWS Internal""#,
            &format!(r#""sourceIPAddress":"192.0.2.7","userIdentity":{linked}"#),
        ] {
            assert!(by_service(service), "{service}");
        }
        for person in [
            r#""sourceIPAddress":"192.0.2.7""#,
            r#""userIdentity":{"type":"IAMUser","invokedBy":"signin.amazonaws.com"}"#,
            r#""sourceIPAddress":"AWS Internal","sessionCredentialFromConsole":"true""#,
            r#""sourceIPAddress":"AWS Internal","userIdentity":{"type":"IAMUser","userName":"alice"}"#,
            r#""sourceIPAddress":"AWS Internal","userIdentity":{"type":"Root"}"#,
            r#""sourceIPAddress":"amazonaws.com.example.com""#,
            r#""userAgent":"config.amazonaws.com""#,
        ] {
            assert!(!by_service(person), "{person}");
        }
    }

    #[test]
    fn a_service_that_acts_for_somebody_does_not_act_alone() {
        let alone = |identity: &str| {
            let record = format!(
                r#"{{"eventTime":"2026-03-01T00:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject",
                "sourceIPAddress":"cloudformation.amazonaws.com","userIdentity":{identity}}}"#
            );
            let event = Event::from_cloudtrail(&record).unwrap();
            assert!(event.is_by_aws_service(), "{identity}");
            event.is_by_aws_service_alone()
        };
        let linked = "aws-service-role/autoscaling.amazonaws.com/";
        let linked = SESSION.replace("PATH", linked).replace("NAME", "AWSServiceRoleForAutoScaling");
        for service in
            [&*linked, r#"{"type":"AWSService","invokedBy":"config.amazonaws.com"}"#, r#"{"invokedBy":"AWS Internal"}"#]
        {
            assert!(alone(service), "{service}");
        }
        let session = SESSION.replace("PATH", "").replace("NAME", "Deployer");
        for somebody in [
            &*session,
            r#"{"type":"IAMUser","userName":"bob","invokedBy":"cloudformation.amazonaws.com"}"#,
            r#"{"type":"Root","invokedBy":"cloudformation.amazonaws.com"}"#,
        ] {
            assert!(!alone(somebody), "{somebody}");
        }
    }

    #[test]
    fn other_callers_have_a_kind_and_a_key() {
        for (text, kind, key) in [
            (
                r#"{"type":"Root","arn":"arn:aws:iam::123456789012:root"}"#,
                PrincipalKind::Root,
                "arn:aws:iam::123456789012:root",
            ),
            (
                r#"{"type":"IAMUser","userName":"alice","accountId":"123456789012"}"#,
                PrincipalKind::IamUser,
                "123456789012/alice",
            ),
            (
                r#"{"type":"FederatedUser","arn":"arn:aws:sts::123456789012:federated-user/bob"}"#,
                PrincipalKind::FederatedUser,
                "arn:aws:sts::123456789012:federated-user/bob",
            ),
            (
                r#"{"type":"SAMLUser","principalId":"idp=:s-1","userName":"bob@example.com"}"#,
                PrincipalKind::ExternalUser,
                "/idp=/bob@example.com",
            ),
            (r#"{"type":"AWSService","invokedBy":"ec2.amazonaws.com"}"#, PrincipalKind::Service, "/ec2.amazonaws.com"),
            (
                r#"{"type":"AWSAccount","accountId":"123456789012","principalId":"AIDAX"}"#,
                PrincipalKind::Account,
                "123456789012/AIDAX",
            ),
            ("{}", PrincipalKind::Unknown, "/unknown"),
        ] {
            let identity = identity(text);
            assert_eq!((identity.principal_kind(), &*identity.principal_key()), (kind, key), "{text}");
        }
    }
}

//! A field of a record by its dotted path, looked up in the record's text without building a tree.
//!
//! Lists are passed through: `a.b` reaches the `b` of every item of the list `a`, and the field has all their values. An
//! absent field, a null and an empty list are the same: no value.
//!
//! `actor` is ours and in no record: who is counted, see [`Event::actor`].

use std::borrow::Cow;

use shared::event::{Event, Part};
use shared::json_scan::{RawValue, ScanError, Scanner};

/// Who is counted for what is done again and again.
const ACTOR: &str = "actor";

/// Where a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As the rule writes it.
    pub name: String,
    at: At,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Head(Head),
    Actor,
    Part(Part, Vec<String>),
    Record(Vec<String>),
}

/// What every event has at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Source,
    Name,
    Region,
    SourceIp,
    UserAgent,
    ErrorCode,
    ErrorMessage,
    EventType,
    IdentityType,
    InvokedBy,
}

/// One value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'e> {
    /// A text.
    Text(Cow<'e, str>),
    /// A number or truth value, as written.
    Scalar(&'e str),
    /// An object, as written.
    Tree(&'e str),
}

impl Found<'_> {
    /// The value as text; an object is its JSON.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Scalar(text) | Self::Tree(text) => text,
        }
    }
}

/// Ends a walk: enough was seen, or the text is not JSON after all.
struct Stop {
    found: bool,
}

impl From<ScanError> for Stop {
    fn from(_: ScanError) -> Self {
        Self { found: false }
    }
}

impl Field {
    /// The field of this name.
    pub fn new(name: &str) -> Self {
        let head = match name {
            "eventSource" => Some(Head::Source),
            "eventName" => Some(Head::Name),
            "awsRegion" => Some(Head::Region),
            "sourceIPAddress" => Some(Head::SourceIp),
            "userAgent" => Some(Head::UserAgent),
            "errorCode" => Some(Head::ErrorCode),
            "errorMessage" => Some(Head::ErrorMessage),
            "eventType" => Some(Head::EventType),
            "userIdentity.type" => Some(Head::IdentityType),
            "userIdentity.invokedBy" => Some(Head::InvokedBy),
            _ => None,
        };
        const PARTS: &[(&str, Part)] = &[
            ("userIdentity.arn", Part::CallerArn),
            ("userIdentity.accountId", Part::CallerAccount),
            ("userIdentity.principalId", Part::CallerId),
            ("userIdentity.userName", Part::CallerName),
            ("userIdentity.accessKeyId", Part::AccessKey),
            ("userIdentity.sessionContext.sessionIssuer.arn", Part::IssuerArn),
            ("userIdentity.sessionContext.sessionIssuer.userName", Part::IssuerName),
            ("userIdentity.sessionContext.attributes.mfaAuthenticated", Part::Mfa),
            ("userIdentity", Part::Identity),
            ("requestParameters", Part::Request),
            ("responseElements", Part::Response),
            ("additionalEventData", Part::Additional),
            ("resources", Part::Resources),
            ("vpcEndpointId", Part::VpcEndpoint),
            ("sessionCredentialFromConsole", Part::FromConsole),
        ];
        let path = |path: &str| path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
        let part = PARTS.iter().find_map(|(start, part)| {
            let rest = name.strip_prefix(start)?;
            (rest.is_empty() || rest.starts_with('.')).then_some((*part, rest))
        });
        let at = match (head, part) {
            _ if name == ACTOR => At::Actor,
            (Some(head), _) => At::Head(head),
            (None, Some((part, rest))) => At::Part(part, path(rest)),
            (None, None) => At::Record(path(name)),
        };
        Self { name: name.to_owned(), at }
    }

    /// Roughly what a look costs, in looks at a header field: the identity is short, a record is not.
    pub const fn cost(&self) -> u32 {
        match &self.at {
            At::Head(_) => 1,
            At::Part(_, path) if path.is_empty() => 2,
            At::Part(..) => 8,
            At::Actor => 20,
            At::Record(_) => 30,
        }
    }

    /// Whether it is who is counted.
    pub const fn is_actor(&self) -> bool {
        matches!(self.at, At::Actor)
    }

    /// Whether most records have no such field, so that a test of it is over before a value is looked at.
    pub const fn is_seldom_there(&self) -> bool {
        matches!(
            &self.at,
            At::Head(Head::ErrorCode | Head::ErrorMessage | Head::InvokedBy)
                | At::Part(Part::VpcEndpoint | Part::FromConsole, _)
        )
    }

    /// Whether some value of the field passes the test.
    #[inline]
    pub fn any(&self, event: &Event<'_>, mut test: impl FnMut(&Found<'_>) -> bool) -> bool {
        let (raw, path) = match &self.at {
            At::Head(head) => {
                return head.of(event).is_some_and(|text| test(&Found::Text(Cow::Borrowed(text))));
            }
            At::Actor => return event.actor().is_some_and(|actor| test(&Found::Text(actor))),
            At::Part(part, path) => (event.raw(*part), path),
            At::Record(path) => (Some(event.record), path),
        };
        let Some(raw) = raw else { return false };
        // Most values are texts that stand where they are looked for.
        if path.is_empty() && raw.starts_with('"') {
            return RawValue::of(raw).as_str().is_some_and(|text| test(&Found::Text(text)));
        }
        matches!(walk(raw, path, &mut test), Err(Stop { found: true }))
    }

    /// The first value as text.
    pub fn first(&self, event: &Event<'_>) -> Option<String> {
        let mut first = None;
        self.any(event, |value| {
            first = Some(value.as_str().to_owned());
            true
        });
        first
    }
}

impl Head {
    fn of<'e>(self, event: &'e Event<'_>) -> Option<&'e str> {
        let text = match self {
            Self::Source => &event.source,
            Self::Name => &event.name,
            Self::Region => &event.region,
            Self::SourceIp => &event.source_ip,
            Self::UserAgent => &event.user_agent,
            Self::ErrorCode => return event.error_code.as_deref(),
            Self::ErrorMessage => return event.error_message.as_deref(),
            Self::EventType => &event.event_type,
            Self::IdentityType => &event.identity_type,
            Self::InvokedBy => &event.invoked_by,
        };
        (!text.is_empty()).then_some(&**text)
    }
}

fn walk(raw: &str, path: &[String], test: &mut dyn FnMut(&Found<'_>) -> bool) -> Result<(), Stop> {
    let mut scanner = Scanner::new(raw);
    match scanner.peek() {
        Some(b'[') => {
            let mut result = Ok(());
            items(&mut scanner, &mut |item| {
                result = walk(item, path, test);
                result.is_ok()
            })?;
            result
        }
        Some(b'{') => match path.split_first() {
            None => offer(&Found::Tree(raw), test),
            Some((key, rest)) => scanner.object(|name, s| {
                let value = s.raw_value()?;
                if name == key { walk(value.text, rest, test) } else { Ok(()) }
            }),
        },
        _ if !path.is_empty() => Ok(()),
        _ => match RawValue::of(raw) {
            value if value.is_null() => Ok(()),
            value => match value.as_str() {
                Some(text) => offer(&Found::Text(text), test),
                None => offer(&Found::Scalar(raw), test),
            },
        },
    }
}

fn offer(value: &Found<'_>, test: &mut dyn FnMut(&Found<'_>) -> bool) -> Result<(), Stop> {
    if test(value) { Err(Stop { found: true }) } else { Ok(()) }
}

/// The items of a list, as long as `each` wants more.
fn items(scanner: &mut Scanner<'_>, each: &mut dyn FnMut(&str) -> bool) -> Result<(), ScanError> {
    scanner.expect(b'[', "expected a list")?;
    if scanner.take(b']') {
        return Ok(());
    }
    loop {
        let item = scanner.raw_value()?;
        if !each(item.text) || !scanner.take(b',') {
            return Ok(());
        }
    }
}

/// Whether some string inside the JSON text passes, keys included.
pub fn any_string(raw: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'"', &raw.as_bytes()[from..]) {
        let mut scanner = Scanner::at(raw, from + found);
        let Ok(value) = scanner.raw_value() else { return false };
        if value.as_str().is_some_and(|text| test(&text)) {
            return true;
        }
        from = scanner.position();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"eventTime":"2026-03-02T10:00:00Z","eventSource":"ec2.amazonaws.com","eventName":"RunInstances",
        "userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::123456789012:user/alice","sessionContext":{"attributes":{"mfaAuthenticated":"false"}}},
        "requestParameters":{"set":{"items":[{"id":"a","ports":[22,443]},{"id":null},{"id":"b\"c","flag":true}]},"empty":[]},
        "responseElements":null,"tlsDetails":{"tlsVersion":"TLSv1.3"}}"#;

    fn values(name: &str) -> Vec<String> {
        let event = Event::from_cloudtrail(RECORD).unwrap();
        let mut values = Vec::new();
        Field::new(name).any(&event, |value| {
            values.push(value.as_str().to_owned());
            false
        });
        values
    }

    #[test]
    fn values_of_all_places_are_found() {
        assert_eq!(values("eventName"), ["RunInstances"]);
        assert_eq!(values("userIdentity.type"), ["IAMUser"]);
        assert_eq!(values("userIdentity.sessionContext.attributes.mfaAuthenticated"), ["false"]);
        assert_eq!(values("tlsDetails.tlsVersion"), ["TLSv1.3"]);
        assert_eq!(values("eventTime"), ["2026-03-02T10:00:00Z"]);
    }

    #[test]
    fn lists_are_passed_through() {
        assert_eq!(values("requestParameters.set.items.id"), ["a", "b\"c"]);
        assert_eq!(values("requestParameters.set.items.ports"), ["22", "443"]);
        assert_eq!(values("requestParameters.set.items.flag"), ["true"]);
        assert_eq!(values("requestParameters.set").len(), 1, "an object is one value, its JSON");
    }

    #[test]
    fn absent_null_and_empty_have_no_value() {
        for name in ["errorCode", "responseElements", "responseElements.x", "requestParameters.empty", "x.y"] {
            assert_eq!(values(name), [""; 0], "{name}");
        }
        assert_eq!(values("userIdentity.arn.x"), [""; 0]);
    }
}

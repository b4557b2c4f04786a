//! Which events a detector is shown. Part of the build too, which works out the selectors of our own rules.

use serde::{Deserialize, Serialize};

use crate::label::Label;

/// Which events a detector is shown. Texts match whole but for case; `None` matches everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
pub struct Selector {
    /// CloudTrail records, or notifications.
    pub notification: bool,
    /// `eventSource`, or the EventBridge source.
    pub source: Option<Label>,
    /// `eventName`, or the detail type.
    pub name: Option<Label>,
    /// Only what the root user did.
    pub root: bool,
}

impl Selector {
    /// Every CloudTrail record.
    pub const ANY_CALL: Self = Self { notification: false, source: None, name: None, root: false };
}

/// Source and name with `*` for everything: `iam.amazonaws.com/CreateUser`, `*/* by the root user`.
impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [source, name] = [&self.source, &self.name].map(|text| text.as_deref().unwrap_or("*"));
        write!(f, "{source}/{name}{}", if self.root { " by the root user" } else { "" })
    }
}

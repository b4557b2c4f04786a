//! The machinery around action plug-ins: one object-safe face for all of them, and what the registry knows of each.
//!
//! [`crate::actions`] holds the list; nothing here names a plug-in.

use serde_json::Value;
use shared::config::Document;
use shared::{Action, ActionMeta, ApiCall, Finding, NotApplicable, Plan, SettingsError, Settled};

use crate::action_settings::{self, ActionSettings};
pub use crate::actions::REGISTRY;

/// An action without its settings type.
pub trait DynAction: Send + Sync {
    /// Its declaration.
    fn meta(&self) -> ActionMeta;
    /// See [`Action::plan`].
    ///
    /// # Errors
    /// As there.
    fn plan(&self, finding: &Finding) -> Result<Vec<(String, Plan)>, NotApplicable>;
    /// See [`Action::follow`].
    fn follow(&self, plan: &Plan, seen: &[Value]) -> Option<Plan>;
    /// See [`Action::settle`].
    ///
    /// # Errors
    /// As there.
    fn settle(&self, finding: &Finding, plan: &Plan, seen: &[Value]) -> Result<Settled, NotApplicable>;
    /// See [`Action::left`].
    ///
    /// # Errors
    /// As there.
    fn left(&self, call: &ApiCall, seen: &[Value]) -> Result<Option<ApiCall>, NotApplicable>;
    /// See [`Action::undo_of`].
    fn undo_of(&self, undo: &ApiCall, made: &ApiCall) -> ApiCall;
}

impl<A: Action> DynAction for A {
    fn meta(&self) -> ActionMeta {
        A::META
    }

    fn plan(&self, finding: &Finding) -> Result<Vec<(String, Plan)>, NotApplicable> {
        Action::plan(self, finding)
    }

    fn follow(&self, plan: &Plan, seen: &[Value]) -> Option<Plan> {
        Action::follow(self, plan, seen)
    }

    fn settle(&self, finding: &Finding, plan: &Plan, seen: &[Value]) -> Result<Settled, NotApplicable> {
        Action::settle(self, finding, plan, seen)
    }

    fn left(&self, call: &ApiCall, seen: &[Value]) -> Result<Option<ApiCall>, NotApplicable> {
        Action::left(self, call, seen)
    }

    fn undo_of(&self, undo: &ApiCall, made: &ApiCall) -> ApiCall {
        Action::undo_of(self, undo, made)
    }
}

/// One line of the registry: how to configure and build an action.
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    /// The action's declaration; its permissions feed the generated IAM policies.
    pub meta: ActionMeta,
    /// What `[actions.<id>]` is when the file says nothing.
    pub defaults: fn() -> ActionSettings,
    /// Reads `[actions.<id>]`; mistakes are kept by the document.
    pub configure: fn(&mut Document<'_>) -> ActionSettings,
    /// Makes the action from its own settings, [`ActionSettings::own`].
    pub build: fn(&Value) -> Result<Box<dyn DynAction>, SettingsError>,
}

impl Registered {
    /// The line for the plug-in `A`.
    pub const fn of<A: Action>() -> Self {
        Self {
            meta: A::META,
            defaults: action_settings::action_defaults::<A>,
            configure: action_settings::configure_action::<A>,
            build: build::<A>,
        }
    }
}

fn build<A: Action>(own: &Value) -> Result<Box<dyn DynAction>, SettingsError> {
    let settings =
        serde_json::from_value(own.clone()).map_err(|error| SettingsError::new(A::META.id, error.to_string()))?;
    Ok(Box::new(A::new(settings)?))
}

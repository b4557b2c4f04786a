//! What makes a [`Classifier`] a plug-in: the erased form the engine holds, and how it is built from settings.

use shared::classifier::{Classifier, Evidence, Malformed, Meta, SettingsError};
use shared::config::Document;
use shared::event::Event;
use shared::observation::{Known, Observations};
use shared::ports::Files;

/// A classifier without its type: what the engine calls.
pub trait Detector: Send + Sync {
    /// Its declaration.
    fn meta(&self) -> &'static Meta;
    /// See [`Classifier::wants`].
    fn wants(&self, event: &Event<'_>) -> bool;
    /// See [`Classifier::follow_up_s`].
    fn follow_up_s(&self, event: &Event<'_>) -> Option<u32>;
    /// See [`Classifier::observe`].
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed>;
    /// See [`Classifier::observe_further`].
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    fn observe_further(&self, event: &Event<'_>, known: &Known) -> Result<Observations, Malformed>;
    /// See [`Classifier::classify`].
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed>;
}

impl<C: Classifier> Detector for C {
    fn meta(&self) -> &'static Meta {
        const { &C::META }
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        Classifier::wants(self, event)
    }

    fn follow_up_s(&self, event: &Event<'_>) -> Option<u32> {
        Classifier::follow_up_s(self, event)
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        Classifier::observe(self, event)
    }

    fn observe_further(&self, event: &Event<'_>, known: &Known) -> Result<Observations, Malformed> {
        Classifier::observe_further(self, event, known)
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        Classifier::classify(self, event, known)
    }
}

/// A classifier built from its settings, or what is wrong with them.
pub type Built = Result<Box<dyn Detector>, SettingsError>;

/// One entry of the list of classifiers.
#[derive(Clone, Copy)]
pub struct Plugin {
    /// The classifier's declaration.
    pub meta: &'static Meta,
    /// Builds it from the `[classifiers.<id>]` section of a configuration file.
    pub configure: fn(&mut Document<'_>, &dyn Files) -> Built,
    /// Builds it from settings written as JSON, as fixtures carry them.
    pub from_json: fn(serde_json::Value, &dyn Files) -> Built,
    /// Its default settings.
    pub defaults: fn() -> serde_json::Value,
}

/// The list entry of a classifier.
pub const fn plugin<C: Classifier>() -> Plugin {
    Plugin {
        meta: const { &C::META },
        configure: |document, files| {
            let settings: C::Settings = document.section(&format!("classifiers.{}", C::META.id));
            Ok(Box::new(C::new(settings, files)?))
        },
        from_json: |settings, files| {
            let settings = serde_json::from_value::<C::Settings>(settings)
                .map_err(|e| SettingsError::new(C::META.id, e.to_string()))?;
            Ok(Box::new(C::new(settings, files)?))
        },
        defaults: || {
            serde_json::to_value(<C::Settings as Default>::default()).expect("settings are tables of plain values")
        },
    }
}

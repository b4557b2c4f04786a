//! What the engine holds: detectors with their declarations. A [`Classifier`] is made one by [`plugin`]; rules written
//! as data are detectors too (see [`crate::rules`]).

use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::config::Document;
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, Observations};
use shared::places::{Half, Places};
use shared::ports::Files;

pub use crate::label::Label;
pub use crate::selector::Selector;

/// What a detector declares about itself: the [`Meta`] of a plug-in, or the head of a rule. For what the fields mean
/// see [`Meta`].
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "they are the fields of Meta")]
pub struct Declaration {
    pub id: Label,
    pub title: Label,
    pub severity: Severity,
    pub techniques: Vec<Label>,
    pub selectors: Vec<Selector>,
    pub failed_calls: FailedCalls,
    pub responses: Vec<Label>,
    pub references: Vec<Label>,
}

impl From<&Meta> for Declaration {
    fn from(meta: &Meta) -> Self {
        let labels = |texts: &[&'static str]| texts.iter().map(|&text| text.into()).collect();
        Self {
            id: meta.id.into(),
            title: meta.title.into(),
            severity: meta.severity,
            techniques: labels(meta.techniques),
            selectors: meta.patterns.iter().flat_map(selectors).collect(),
            failed_calls: meta.failed_calls,
            responses: labels(meta.responses),
            references: labels(meta.references),
        }
    }
}

/// What a pattern selects.
fn selectors(pattern: &Pattern) -> Vec<Selector> {
    let exact = |notification, source: &'static str, name: &'static str| Selector {
        notification,
        source: Some(source.into()),
        name: Some(name.into()),
        root: false,
    };
    match *pattern {
        Pattern::Api { source, names } => names.iter().map(|name| exact(false, source, name)).collect(),
        Pattern::Notification { source, detail_type: name } | Pattern::Intake { source, name } => {
            vec![exact(true, source, name)]
        }
        Pattern::Root => vec![Selector { root: true, ..Selector::ANY_CALL }],
        Pattern::AnyApi => vec![Selector::ANY_CALL],
    }
}

/// What the engine calls: a classifier without its type, or a rule.
pub trait Detector: Send + Sync {
    /// Its declaration.
    fn declaration(&self) -> &Declaration;
    /// See [`Classifier::PLACES`].
    fn places(&self) -> &'static [Half] {
        &[]
    }
    /// See [`Classifier::use_places`].
    fn use_places(&mut self, _places: &Places) {}
    /// See [`Classifier::wants`]. Asked only about events that one of its selectors selects.
    fn wants(&self, event: &Event<'_>) -> bool;
    /// See [`Classifier::follow_up_s`].
    fn follow_up_s(&self, _event: &Event<'_>) -> Option<u32> {
        None
    }
    /// See [`Classifier::observe`].
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed>;
    /// See [`Classifier::observe_further`].
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    fn observe_further(&self, _event: &Event<'_>, _known: &Known) -> Result<Observations, Malformed> {
        Ok(Observations::none())
    }
    /// See [`Classifier::classify`].
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed>;
    /// See [`Classifier::why_not`].
    fn why_not(&self, _event: &Event<'_>, _known: &Known) -> Option<String> {
        None
    }
}

/// A classifier with its declaration.
struct Plugged<C> {
    declaration: Declaration,
    classifier: C,
}

impl<C: Classifier> Detector for Plugged<C> {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn places(&self) -> &'static [Half] {
        C::PLACES
    }

    fn use_places(&mut self, places: &Places) {
        self.classifier.use_places(places);
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        self.classifier.wants(event)
    }

    fn follow_up_s(&self, event: &Event<'_>) -> Option<u32> {
        self.classifier.follow_up_s(event)
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        self.classifier.observe(event)
    }

    fn observe_further(&self, event: &Event<'_>, known: &Known) -> Result<Observations, Malformed> {
        self.classifier.observe_further(event, known)
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        self.classifier.classify(event, known)
    }

    fn why_not(&self, event: &Event<'_>, known: &Known) -> Option<String> {
        self.classifier.why_not(event, known)
    }
}

fn plugged<C: Classifier>(settings: C::Settings, files: &dyn Files) -> Built {
    Ok(Box::new(Plugged { declaration: Declaration::from(&C::META), classifier: C::new(settings, files)? }))
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
            plugged::<C>(settings, files)
        },
        from_json: |settings, files| {
            let settings = serde_json::from_value::<C::Settings>(settings)
                .map_err(|e| SettingsError::new(C::META.id, e.to_string()))?;
            plugged::<C>(settings, files)
        },
        defaults: || {
            serde_json::to_value(<C::Settings as Default>::default()).expect("settings are tables of plain values")
        },
    }
}

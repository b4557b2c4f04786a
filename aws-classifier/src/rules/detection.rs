//! The `detection` of a rule: selections of field tests, joined by a condition. Here it is read and checked; `check`
//! makes of it what is asked about events, for rules that are asked at all.

use std::net::IpAddr;

use ipnet::IpNet;

use super::node::{Node, Order, Pattern, Test, Value, all, any};
use super::text::Place;
use super::yaml::Yaml;

/// Reads the `detection` of a rule.
///
/// # Errors
/// What in it cannot be understood.
pub fn read(detection: &Yaml<'_>) -> Result<Node, String> {
    let Yaml::Map(members) = detection else { return Err("detection must be a map".to_owned()) };
    let mut selections = Vec::with_capacity(members.len());
    for (name, body) in members.iter().filter(|(name, _)| !matches!(&**name, "condition" | "timeframe")) {
        selections.push((&**name, selection(body).map_err(|why| format!("{name}: {why}"))?));
    }
    if members.iter().any(|(name, _)| name == "timeframe") {
        return Err("timeframe belongs to aggregations, which are written as correlation rules".to_owned());
    }
    let conditions = detection.get("condition").map(Yaml::items).unwrap_or_default();
    let nodes = conditions
        .iter()
        .map(|text| super::condition::parse(text.text().unwrap_or_default(), &selections))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| format!("condition: {why}"))?;
    if nodes.is_empty() {
        return Err("condition is missing".to_owned());
    }
    Ok(any(nodes).flat())
}

/// A map is all of its fields; a list is any of its maps and keywords.
fn selection(body: &Yaml<'_>) -> Result<Node, String> {
    match body {
        Yaml::Map(fields) if fields.is_empty() => Err("is empty".to_owned()),
        Yaml::Map(fields) => Ok(all(fields.iter().map(|(key, value)| item(key, value)).collect::<Result<_, _>>()?)),
        Yaml::List(items) if items.is_empty() => Err("is empty".to_owned()),
        Yaml::List(items) => Ok(any(items.iter().map(selection).collect::<Result<_, _>>()?)),
        keyword => self::keyword(keyword),
    }
}

fn keyword(value: &Yaml<'_>) -> Result<Node, String> {
    Ok(Node::Keyword(value.text().ok_or("a keyword must be a text")?.to_owned()))
}

/// What the modifiers behind a field name ask for.
struct Modifiers {
    place: Place,
    kind: Kind,
    all: bool,
    every: bool,
    negated: bool,
    cased: bool,
    any_case: bool,
    lines: bool,
    dot_all: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Regex,
    Network,
    Exists,
    Field,
    Account,
    Number(Order),
}

impl Modifiers {
    fn of<'k>(names: impl Iterator<Item = &'k str>) -> Result<Self, String> {
        let mut this = Self {
            place: Place::Whole,
            kind: Kind::Text,
            all: false,
            every: false,
            negated: false,
            cased: false,
            any_case: false,
            lines: false,
            dot_all: false,
        };
        for name in names {
            match name {
                "contains" => this.place = Place::Anywhere,
                "startswith" => this.place = Place::Start,
                "endswith" => this.place = Place::End,
                "all" => this.all = true,
                "every" => this.every = true,
                "neq" => this.negated = true,
                "cased" => this.cased = true,
                "re" => this.kind = Kind::Regex,
                "i" if this.kind == Kind::Regex => this.any_case = true,
                "m" if this.kind == Kind::Regex => this.lines = true,
                "s" if this.kind == Kind::Regex => this.dot_all = true,
                "cidr" => this.kind = Kind::Network,
                "exists" => this.kind = Kind::Exists,
                "fieldref" => this.kind = Kind::Field,
                "account" => this.kind = Kind::Account,
                "lt" => this.kind = Kind::Number(Order::Less),
                "lte" => this.kind = Kind::Number(Order::AtMost),
                "gt" => this.kind = Kind::Number(Order::Greater),
                "gte" => this.kind = Kind::Number(Order::AtLeast),
                other => return Err(format!("the modifier {other:?} is not supported")),
            }
        }
        Ok(this)
    }

    fn value(&self, value: &Yaml<'_>) -> Result<Value, String> {
        if value.is_null() {
            return Ok(Value::Null);
        }
        let text = value.text().ok_or("a value must be a text, a number, a truth value or null")?;
        match self.kind {
            Kind::Text => Ok(Value::Text { text: text.to_owned(), place: self.place, cased: self.cased }),
            Kind::Regex => Ok(Value::Regex(Pattern {
                text: text.to_owned(),
                any_case: self.any_case,
                lines: self.lines,
                dot_all: self.dot_all,
            })),
            Kind::Network => text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map(Value::Network)
                .map_err(|_| format!("{text:?} is not a network such as 192.0.2.0/24")),
            Kind::Exists => match text {
                "true" | "yes" => Ok(Value::Exists(true)),
                "false" | "no" => Ok(Value::Exists(false)),
                _ => Err(format!("exists takes true or false, not {text:?}")),
            },
            Kind::Field => Ok(Value::Field(text.to_owned(), self.place)),
            Kind::Account => Ok(Value::Account(text.to_owned())),
            Kind::Number(order) => {
                let number = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
                Ok(Value::Number(order, number))
            }
        }
    }
}

/// One `field|modifier: values`.
fn item(key: &str, value: &Yaml<'_>) -> Result<Node, String> {
    read_item(key, value).map_err(|why| format!("{key}: {why}"))
}

fn read_item(key: &str, value: &Yaml<'_>) -> Result<Node, String> {
    let mut parts = key.split('|');
    let name = parts.next().unwrap_or_default();
    let modifiers = Modifiers::of(parts)?;
    let values = match value {
        Yaml::List(values) if values.is_empty() => return Err("has no values".to_owned()),
        Yaml::List(values) => &values[..],
        single => std::slice::from_ref(single),
    };
    if name.is_empty() {
        let keywords = values.iter().map(keyword).collect::<Result<Vec<_>, _>>()?;
        return Ok(if modifiers.all { all(keywords) } else { any(keywords) });
    }
    let values: Vec<Value> = values.iter().map(|v| modifiers.value(v)).collect::<Result<_, _>>()?;
    let test = |values| Node::Test(Test { field: name.to_owned(), values, every: modifiers.every });
    let node = if modifiers.all { all(values.into_iter().map(|v| test(vec![v])).collect()) } else { test(values) };
    Ok(if modifiers.negated { Node::Not(Box::new(node)) } else { node })
}

//! What the functions may do, read from their templates: `deploy/generated/function-permissions.json`, by which
//! `pipeline doctor` asks IAM whether they still may. And which items of the state table they use, as their crates declare it:
//! `deploy/generated/state-keys.json`, with which the templates are compared.
//!
//! A template is read as CloudFormation reads it, as far as these roles need it: `!Ref`, `!GetAtt X.Arn`, `!Sub`, and
//! parameters that another template writes into SSM. Statements with an `!If` depend on parameters of a deployment and
//! are left out.

use std::collections::BTreeMap;
use std::path::Path;

use granit_parser::{Event, Parser, StrInput};
use serde::Serialize;

use shared::state_table::{LEDGER, STATE};

use crate::read;

/// The components, each a template with the resource `FunctionRole`.
const COMPONENTS: [&str; 4] = ["classifier", "responder", "notifier", "logger"];
/// Templates that write parameters.
const WRITERS: [&str; 5] = ["foundation", "classifier", "responder", "notifier", "logger"];
/// Parameters refer to resources and those to parameters; more than this is a circle.
const DEPTH_MAX: usize = 8;

/// A statement of a role: these actions on these resources. `${Name}`, `${AWS::Partition}`, `${AWS::Region}` and
/// `${AWS::AccountId}` stand in the resources.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Statement {
    sid: String,
    actions: Vec<String>,
    resources: Vec<String>,
    /// Patterns of the hash keys that it is for; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    leading_keys: Vec<String>,
}

/// The statements of each component's role that hold in every deployment.
///
/// # Errors
/// When a template says something that is not understood here.
pub fn of_functions(root: &Path) -> Result<BTreeMap<&'static str, Vec<Statement>>, String> {
    let mut templates = Templates::default();
    for name in WRITERS {
        let text = read(&root.join("deploy").join(name).join("template.yaml"))?;
        templates.0.insert(name, parse(&text).map_err(|why| format!("deploy/{name}/template.yaml: {why}"))?);
    }
    COMPONENTS.into_iter().map(|component| Ok((component, templates.statements(component)?))).collect()
}

/// Patterns of the hash keys of the state table that each function reads and writes, as its crate declares them.
pub fn state_keys() -> BTreeMap<&'static str, Vec<String>> {
    let ledger = |kinds: &[&str]| kinds.iter().map(|kind| format!("{LEDGER}/{kind}/*")).collect();
    BTreeMap::from([
        ("classifier", vec![format!("{STATE}/*")]),
        ("responder", ledger(&aws_responder::journal::LEDGER_KINDS)),
        ("notifier", ledger(&aws_notifier::LEDGER_KINDS)),
        ("logger", ledger(&aws_logger::LEDGER_KINDS)),
    ])
}

#[derive(Default)]
struct Templates(BTreeMap<&'static str, Node>);

impl Templates {
    fn template(&self, name: &str) -> Result<&Node, String> {
        self.0.get(name).ok_or_else(|| format!("there is no template {name}"))
    }

    fn statements(&self, component: &str) -> Result<Vec<Statement>, String> {
        let policies = ["Resources", "FunctionRole", "Properties", "Policies"];
        let role = policies.iter().try_fold(self.template(component)?, |node, key| node.get(key));
        let policies = role.ok_or_else(|| format!("{component} has no FunctionRole with policies"))?;
        let mut statements = Vec::new();
        for policy in policies.items() {
            let listed = policy.get("PolicyDocument").and_then(|document| document.get("Statement"));
            let listed = listed.ok_or_else(|| format!("{component}: a policy without statements"))?;
            for statement in listed.items().iter().filter(|statement| !statement.is_conditional()) {
                let of =
                    |key: &str| statement.get(key).ok_or_else(|| format!("{component}: a statement without {key}"));
                let texts = |key: &str| -> Result<Vec<String>, String> {
                    of(key)?.items().iter().map(|node| self.text(component, node, 0)).collect()
                };
                if of("Effect")?.scalar() != Some("Allow") {
                    return Err(format!("{component}: only Allow is understood"));
                }
                let sid = of("Sid")?.scalar().unwrap_or_default().to_owned();
                let condition = ["Condition", "ForAllValues:StringLike", "dynamodb:LeadingKeys"];
                let keys = condition.iter().try_fold(statement, |node, key| node.get(key));
                if statement.get("Condition").is_some() && keys.is_none() {
                    return Err(format!("{component}: the condition of {sid} is not understood"));
                }
                let keys = keys.map_or(&[][..], Node::items);
                let leading_keys = keys.iter().map(|node| self.text(component, node, 0)).collect::<Result<_, _>>()?;
                let (actions, resources) = (texts("Action")?, texts("Resource")?);
                statements.push(Statement { sid, actions, resources, leading_keys });
            }
        }
        Ok(statements)
    }

    /// What a value comes to.
    fn text(&self, template: &str, node: &Node, depth: usize) -> Result<String, String> {
        let text = node.scalar().ok_or_else(|| format!("{template}: a value that is no text"))?;
        if depth > DEPTH_MAX {
            return Err(format!("{template}: {text} refers to itself"));
        }
        match node.tag.as_deref() {
            None => Ok(text.to_owned()),
            Some("Ref") => self.reference(template, text, depth),
            Some("GetAtt") => {
                let name = text.strip_suffix(".Arn").ok_or_else(|| format!("{template}: {text} is not understood"))?;
                let (kind, name) = self.resource(template, name, depth)?;
                let service = match kind {
                    "AWS::SQS::Queue" => "sqs",
                    _ => return Err(format!("{template}: the ARN of a {kind} is not understood")),
                };
                Ok(format!("arn:${{AWS::Partition}}:{service}:${{AWS::Region}}:${{AWS::AccountId}}:{name}"))
            }
            Some("Sub") => self.substituted(template, text, depth),
            Some(tag) => Err(format!("{template}: !{tag} is not understood")),
        }
    }

    fn substituted(&self, template: &str, text: &str, depth: usize) -> Result<String, String> {
        let mut parts = text.split("${");
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').ok_or_else(|| format!("{template}: {text} does not end"))?;
            whole += &self.reference(template, name, depth)?;
            whole += rest;
        }
        Ok(whole)
    }

    fn reference(&self, template: &str, name: &str, depth: usize) -> Result<String, String> {
        if name == "Name" || name.starts_with("AWS::") {
            return Ok(format!("${{{name}}}"));
        }
        let document = self.template(template)?;
        let Some(parameter) = document.get("Parameters").and_then(|all| all.get(name)) else {
            let (kind, name) = self.resource(template, name, depth)?;
            return match kind {
                "AWS::DynamoDB::Table" | "AWS::S3::Bucket" => Ok(name),
                "AWS::SNS::Topic" => {
                    Ok(format!("arn:${{AWS::Partition}}:sns:${{AWS::Region}}:${{AWS::AccountId}}:{name}"))
                }
                _ => Err(format!("{template}: !Ref of a {kind} is not understood")),
            };
        };
        let path = parameter.get("Default").and_then(Node::scalar).filter(|path| path.starts_with('/'));
        let path = path.ok_or_else(|| format!("{template}: the parameter {name} is not understood"))?;
        self.parameter(path, depth)
    }

    /// What some template writes into the SSM parameter.
    fn parameter(&self, path: &str, depth: usize) -> Result<String, String> {
        let rest = path.trim_start_matches('/').split_once('/').map_or("", |(_, rest)| rest);
        let written = format!("/${{Name}}/{rest}");
        for (template, document) in &self.0 {
            let Some(resources) = document.get("Resources") else { continue };
            for (_, resource) in resources.members() {
                let Some(properties) = resource.get("Properties") else { continue };
                if resource.get("Type").and_then(Node::scalar) == Some("AWS::SSM::Parameter")
                    && properties.get("Name").and_then(Node::scalar) == Some(&written)
                    && let Some(value) = properties.get("Value")
                {
                    return self.text(template, value, depth + 1);
                }
            }
        }
        Err(format!("no template writes {written}"))
    }

    /// Type and name of a resource.
    fn resource(&self, template: &str, id: &str, depth: usize) -> Result<(&str, String), String> {
        let resource = self.template(template)?.get("Resources").and_then(|all| all.get(id));
        let resource = resource.ok_or_else(|| format!("{template} has no resource {id}"))?;
        let kind = resource.get("Type").and_then(Node::scalar).unwrap_or_default();
        let key = match kind {
            "AWS::SQS::Queue" => "QueueName",
            "AWS::DynamoDB::Table" => "TableName",
            "AWS::S3::Bucket" => "BucketName",
            "AWS::SNS::Topic" => "TopicName",
            _ => return Err(format!("{template}: {id}, a {kind}, is not understood")),
        };
        let name = resource.get("Properties").and_then(|properties| properties.get(key));
        let name = name.ok_or_else(|| format!("{template}: {id} has no {key}"))?;
        Ok((kind, self.text(template, name, depth + 1)?))
    }
}

/// A node of YAML with its tag, such as `Ref`.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    tag: Option<String>,
    content: Content,
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn get(&self, key: &str) -> Option<&Self> {
        self.members().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    fn members(&self) -> &[(String, Self)] {
        if let Content::Map(members) = &self.content { members } else { &[] }
    }

    /// The items of a list; anything else, a function with its arguments too, is a list of itself.
    fn items(&self) -> &[Self] {
        match &self.content {
            Content::List(items) if self.tag.is_none() => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// Whether it, or something in it, depends on a condition.
    fn is_conditional(&self) -> bool {
        self.tag.as_deref() == Some("If")
            || match &self.content {
                Content::Scalar(_) => false,
                Content::List(items) => items.iter().any(Self::is_conditional),
                Content::Map(members) => members.iter().any(|(_, node)| node.is_conditional()),
            }
    }

    fn scalar(&self) -> Option<&str> {
        if let Content::Scalar(text) = &self.content { Some(text) } else { None }
    }
}

fn parse(text: &str) -> Result<Node, String> {
    let mut parser = Parser::new_from_str(text);
    loop {
        match next(&mut parser)? {
            Event::StreamStart | Event::DocumentStart(..) => {}
            event => return node(&mut parser, event),
        }
    }
}

fn next<'t>(parser: &mut Parser<'t, StrInput<'t>>) -> Result<Event<'t>, String> {
    match parser.next() {
        Some(Ok((event, _))) => Ok(event),
        Some(Err(error)) => Err(format!("line {}: {}", error.marker().line(), error.info())),
        None => Err("ends too early".to_owned()),
    }
}

fn node<'t>(parser: &mut Parser<'t, StrInput<'t>>, event: Event<'t>) -> Result<Node, String> {
    let (tag, content) = match event {
        Event::Scalar(text, _, _, tag) => (tag, Content::Scalar(text.into_owned())),
        Event::SequenceStart(_, _, tag) => {
            let mut items = Vec::new();
            loop {
                match next(parser)? {
                    Event::SequenceEnd => break,
                    event => items.push(node(parser, event)?),
                }
            }
            (tag, Content::List(items))
        }
        Event::MappingStart(_, _, tag) => {
            let mut members = Vec::new();
            loop {
                let key = match next(parser)? {
                    Event::MappingEnd => break,
                    Event::Scalar(text, ..) => text.into_owned(),
                    _ => return Err("a key that is no text".to_owned()),
                };
                let event = next(parser)?;
                members.push((key, node(parser, event)?));
            }
            (tag, Content::Map(members))
        }
        _ => return Err("something that is no value".to_owned()),
    };
    Ok(Node { tag: tag.map(|tag| tag.suffix().to_owned()), content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_through_parameters_of_other_templates() {
        let all = of_functions(&crate::root()).unwrap();
        let of = |component: &str, sid: &str| {
            all[component].iter().find(|statement| statement.sid == sid).unwrap_or_else(|| panic!("{component} {sid}"))
        };
        let queue = "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:${Name}";
        assert_eq!(of("classifier", "Findings").resources, [format!("{queue}-responder")]);
        assert_eq!(of("responder", "Onward").resources, [format!("{queue}-notifier"), format!("{queue}-logger")]);
        let alerts = "arn:${AWS::Partition}:sns:${AWS::Region}:${AWS::AccountId}:${Name}-alerts";
        assert_eq!(of("notifier", "Alerts").resources, [alerts]);
        let archive = "arn:${AWS::Partition}:s3:::${Name}-archive-${AWS::AccountId}-${AWS::Region}/lines/*";
        assert_eq!(of("logger", "Archive").resources, [archive]);
        assert_eq!(of("classifier", "State").actions, ["dynamodb:BatchGetItem", "dynamodb:PutItem"]);
    }

    /// What a crate claims and its role does not allow would fail in AWS only.
    #[test]
    fn roles_allow_the_items_of_the_state_table_that_their_crates_declare_and_no_others() {
        let all = of_functions(&crate::root()).unwrap();
        for (component, mut declared) in state_keys() {
            let keyed: Vec<&Statement> = all[component].iter().filter(|s| !s.leading_keys.is_empty()).collect();
            let [statement] = keyed[..] else { panic!("{component}: {keyed:?}") };
            let mut allowed = statement.leading_keys.clone();
            declared.sort();
            allowed.sort();
            assert_eq!(allowed, declared, "{component}");
        }
    }

    #[test]
    fn what_depends_on_a_deployments_parameters_is_left_out() {
        let all = of_functions(&crate::root()).unwrap();
        assert!(all.values().flatten().all(|statement| !["Key", "LogFiles", "Uploads"].contains(&&*statement.sid)));
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_it() {
        let mut templates = Templates::default();
        let text = "Resources:\n  FunctionRole:\n    Properties:\n      Policies:\n      - PolicyDocument:\n          \
                    Statement:\n          - {Sid: A, Effect: Allow, Action: 'x:Y', Resource: !Select [0, a]}\n";
        templates.0.insert("classifier", parse(text).unwrap());
        assert!(templates.statements("classifier").is_err());
        let text = text.replace("!Select [0, a]", "!Ref Missing");
        templates.0.insert("classifier", parse(&text).unwrap());
        assert_eq!(templates.statements("classifier").unwrap_err(), "classifier has no resource Missing");
    }
}

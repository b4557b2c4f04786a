//! The condition of a rule: `and`, `or`, `not`, brackets, and `1 of`, `any of`, `all of` with `them` or a pattern.

use super::node::{Node, all, any};
use super::text::{Place, Subject, TextPattern};

/// Brackets and `not`s deeper than this are refused.
const DEPTH_MAX: usize = 32;

/// Compiles a condition over named selections.
///
/// # Errors
/// What in it cannot be understood.
pub fn parse(text: &str, selections: &[(&str, Node)]) -> Result<Node, String> {
    if text.contains('|') {
        return Err("aggregations are not supported here: write a correlation rule".to_owned());
    }
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut parser = Parser { tokens: spaced.split_whitespace().collect(), at: 0, depth: 0, selections };
    let node = parser.or()?;
    match parser.peek() {
        None => Ok(node),
        Some(token) => Err(format!("{token:?} does not belong there")),
    }
}

struct Parser<'p> {
    tokens: Vec<&'p str>,
    at: usize,
    depth: usize,
    selections: &'p [(&'p str, Node)],
}

impl<'p> Parser<'p> {
    fn peek(&self) -> Option<&'p str> {
        self.tokens.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.and()?];
        while self.take("or") {
            nodes.push(self.and()?);
        }
        Ok(any(nodes))
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.not()?];
        while self.take("and") {
            nodes.push(self.not()?);
        }
        Ok(all(nodes))
    }

    fn not(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("is nested too deep".to_owned());
        }
        let node = if self.take("not") { Node::Not(Box::new(self.not()?)) } else { self.primary()? };
        self.depth -= 1;
        Ok(node)
    }

    fn primary(&mut self) -> Result<Node, String> {
        if self.take("(") {
            let node = self.or()?;
            return if self.take(")") { Ok(node) } else { Err("a bracket is not closed".to_owned()) };
        }
        let Some(token) = self.peek() else { return Err("ends too early".to_owned()) };
        self.at += 1;
        if self.take("of") {
            return self.of(token);
        }
        self.selections
            .iter()
            .find(|(name, _)| *name == token)
            .map(|(_, node)| node.clone())
            .ok_or_else(|| format!("there is no selection {token}"))
    }

    fn of(&mut self, quantity: &str) -> Result<Node, String> {
        let Some(which) = self.peek() else { return Err("ends behind `of`".to_owned()) };
        self.at += 1;
        let pattern = TextPattern::new(if which == "them" { "*" } else { which }, Place::Whole, true);
        let nodes: Vec<Node> = self
            .selections
            .iter()
            .filter(|(name, _)| pattern.matches(&Subject::new(name)) && !(which == "them" && name.starts_with('_')))
            .map(|(_, node)| node.clone())
            .collect();
        if nodes.is_empty() {
            return Err(format!("no selection is meant by {which}"));
        }
        match quantity.to_ascii_lowercase().as_str() {
            "all" => Ok(all(nodes)),
            "any" => Ok(any(nodes)),
            other => match other.parse() {
                Ok(1) => Ok(any(nodes)),
                Ok(least) if least > 0 => Ok(Node::Some(least, nodes)),
                _ => Err(format!("{quantity:?} is not a number, `any` or `all`")),
            },
        }
    }
}

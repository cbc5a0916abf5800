//! Texts with variables: `${home}/.cargo`.
//!
//! A template is checked when the profile is read, so filling it in later cannot meet an unknown variable. The built-in
//! variables are a fixed list; a file may define more from them, for itself alone, and not from each other.

use std::collections::BTreeMap;

use super::expand::Vars;
use super::problem::ProblemKind;
use crate::suggest::nearest;

/// The variables that every profile has.
pub(crate) const BUILT_IN: [&str; 5] = ["workspace", "home", "user", "tmp", "uid"];

/// A checked text: literal pieces and variables in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(String),
}

impl Template {
    /// Cuts a text at its variables. `own` are those that the file defines.
    pub(crate) fn parse<'a>(
        text: &'a str,
        own: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Template, ProblemKind> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let unclosed = || ProblemKind::UnclosedVariable { text: text.to_owned() };
            let (name, after) = after.split_once('}').ok_or_else(unclosed)?;
            if !BUILT_IN.into_iter().chain(own.clone()).any(|known| known == name) {
                let known: Vec<String> = BUILT_IN.into_iter().chain(own.clone()).map(|k| format!("${{{k}}}")).collect();
                let suggestion = nearest(name, BUILT_IN.into_iter().chain(own)).map(str::to_owned);
                return Err(ProblemKind::UnknownVariable { name: name.to_owned(), known: known.join(" "), suggestion });
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Variable(name.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Template { pieces })
    }

    /// Whether a variable occurs in it, directly or through the file's own variables.
    pub(crate) fn uses(&self, variable: &str, own: &BTreeMap<String, Template>) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Text(_) => false,
            Piece::Variable(name) => name == variable || own.get(name).is_some_and(|t| t.uses(variable, own)),
        })
    }

    /// The text with every variable replaced. Ends, because a file's own variables use only built-in ones.
    pub(crate) fn fill(&self, vars: &Vars, own: &BTreeMap<String, Template>) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Variable(name) => match own.get(name) {
                    Some(template) => text.push_str(&template.fill(vars, own)),
                    None => text.push_str(&vars.value(name)),
                },
            }
        }
        text
    }
}

//! What is wrong with a profile, and what would be right?

use std::fmt;

use agentd_model::{BudgetError, NetRuleError, Rights, RightsError};

use super::{MAX_PROFILE_BYTES, MAX_PROFILE_RULES};
use crate::path::PathError;
use crate::suggest::did_you_mean;

/// A place in a text; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A text that is not a profile: every mistake in it, in the order of the text. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct Rejected {
    /// The mistakes.
    pub problems: Vec<Problem>,
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One mistake and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Position,
    /// What.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.kind)
    }
}

/// What can be wrong in the text of a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The text is not TOML.
    #[error("not TOML: {message}")]
    Toml {
        /// What the TOML parser says.
        message: String,
    },
    /// The text is longer than any sensible profile.
    #[error("the profile is longer than {MAX_PROFILE_BYTES} bytes")]
    TooLong,
    /// More paths than any sensible profile has.
    #[error("the profile has more than {MAX_PROFILE_RULES} paths")]
    TooManyRules,
    /// A key that no profile has.
    #[error("unknown key {key:?} in {table}; keys are {known}{}", did_you_mean(.suggestion.as_deref()))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands.
        table: &'static str,
        /// Keys that may stand there.
        known: String,
        /// The nearest of them.
        suggestion: Option<String>,
    },
    /// A value of another type.
    #[error("{key} is {found}; write {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// What was found.
        found: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
    /// A key that is needed.
    #[error("{table} has no {key}; write {example}")]
    Missing {
        /// The key.
        key: &'static str,
        /// Where it is missing.
        table: &'static str,
        /// How it would be right.
        example: &'static str,
    },
    /// Not a name of a profile.
    #[error("{name:?} is not a name; names are 1 to 48 of a-z, 0-9, '-', '_', and begin with a letter")]
    Name {
        /// What was written.
        name: String,
    },
    /// A word that is not a right.
    #[error("{error}{}", did_you_mean(.suggestion.as_deref()))]
    Rights {
        /// What the reader of rights says.
        error: RightsError,
        /// The nearest right.
        suggestion: Option<String>,
    },
    /// Not a path of a rule.
    #[error("{0}")]
    Path(PathError),
    /// A variable that is neither built in nor defined in the file.
    #[error("unknown variable ${{{name}}}; variables are {known}{}", did_you_mean(.suggestion.as_deref()))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// Those there are.
        known: String,
        /// The nearest of them.
        suggestion: Option<String>,
    },
    /// A `${` without its `}`.
    #[error("{text:?} has a ${{ without a }}")]
    UnclosedVariable {
        /// What was written.
        text: String,
    },
    /// A file's own variable with an unusable name.
    #[error("{name:?} cannot be the name of a variable: it is built in, or not of a-z, 0-9, '_'")]
    VariableName {
        /// The name.
        name: String,
    },
    /// A pattern that allows.
    #[error("the pattern {path} cannot allow; patterns only deny, name the place to be allowed")]
    AllowPattern {
        /// The pattern.
        path: String,
    },
    /// A rule that says nothing.
    #[error("the rule neither allows nor denies; write allow = \"read\" or deny = \"change\"")]
    NothingSaid,
    /// The same right on both sides of a rule.
    #[error("{rights} is both allowed and denied; a denial would win")]
    Contradiction {
        /// The right.
        rights: Rights,
    },
    /// The same thing twice.
    #[error("{what} is already there in line {line}; write it once")]
    Duplicate {
        /// What.
        what: String,
        /// Where it was first.
        line: u32,
    },
    /// `optional` where it means nothing.
    #[error("optional is for what is allowed; a denial holds by name where the path does not exist")]
    OptionalDenial,
    /// Not a rule about the network.
    #[error("{0}")]
    Net(NetRuleError),
    /// Not a name of an environment variable.
    #[error("{name:?} is not the name of an environment variable; write A-Z, a-z, 0-9, '_'{}", .rest)]
    EnvName {
        /// The name.
        name: String,
        /// What else is possible here.
        rest: &'static str,
    },
    /// A value that no environment can hold.
    #[error("the value contains a NUL character")]
    EnvValue,
    /// Not a directory below `${tmp}`.
    #[error(
        "{path:?} is not a directory of the private tmp; write a relative path without \"..\", as in \"cache/pip\""
    )]
    TmpDirectory {
        /// What was written.
        path: String,
    },
    /// Not a budget.
    #[error("{0}")]
    Budget(BudgetError),
}

//! What did they type?
//!
//! `--allow RIGHTS:PATH`, `--deny RIGHTS:PATH` and `--net RULE` become rules. A shell has expanded little of this, so paths
//! may be relative to the directory in which the command was typed, or begin with `~/`. Both are arguments: this module
//! knows no directory.
//!
//! `..` is taken only where it cannot surprise: at the front of a relative path, which leaves the current directory by
//! its real parents. Behind a name it would be resolved by text here and through symbolic links by the kernel.
//!
//! What is allowed must exist when the agent starts. What is denied need not.

use agentd_model::{NetRule, NetRuleError, Origin, PathRule, Rights, RightsError};

use crate::path::{self, PathError, Pattern};

/// Where paths on a command line start from.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Current directory of the caller, absolute, as `getcwd` gives it.
    pub cwd: &'a str,
    /// Home directory of the caller, absolute.
    pub home: &'a str,
}

/// Why an option is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// No `rights:path`.
    #[error("{text:?} is not RIGHTS:PATH; write for example {example}")]
    Shape {
        /// What was typed.
        text: String,
        /// How it would be right.
        example: &'static str,
    },
    /// The rights cannot be read.
    #[error("cannot read the rights of {text:?}")]
    Rights {
        /// What was typed.
        text: String,
        /// Why.
        #[source]
        source: RightsError,
    },
    /// The path cannot be used in a rule.
    #[error("cannot use the path of {text:?}")]
    Path {
        /// What was typed.
        text: String,
        /// Why.
        #[source]
        source: PathError,
    },
    /// The home directory of somebody else.
    #[error("cannot use the path of {text:?}: only the caller's own home has a short form, ~/")]
    Tilde {
        /// What was typed.
        text: String,
    },
    /// A pattern that allows.
    #[error("the pattern {path} cannot allow; patterns only deny, name the place to be allowed")]
    AllowPattern {
        /// The pattern.
        path: String,
    },
    /// The network rule cannot be read.
    #[error("cannot read the network rule {text:?}")]
    Net {
        /// What was typed.
        text: String,
        /// Why.
        #[source]
        source: NetRuleError,
    },
}

/// Reads the value of one `--allow`.
pub fn allow(text: &str, places: Places<'_>) -> Result<PathRule, OptionError> {
    let (rights, path) = rights_and_path(text, places, "--allow read,write:/srv/data")?;
    if Pattern::of(&path).is_some() {
        return Err(OptionError::AllowPattern { path });
    }
    let origin = Origin::CommandLine { option: format!("--allow {text}") };
    Ok(PathRule { path, allow: rights, deny: Rights::NONE, optional: false, origin })
}

/// Reads the value of one `--deny`.
pub fn deny(text: &str, places: Places<'_>) -> Result<PathRule, OptionError> {
    let (rights, path) = rights_and_path(text, places, "--deny change:**/Cargo.lock")?;
    let origin = Origin::CommandLine { option: format!("--deny {text}") };
    Ok(PathRule { path, allow: Rights::NONE, deny: rights.closed_for_denial(), optional: true, origin })
}

/// Reads the value of one `--net`.
pub fn net(text: &str) -> Result<Vec<NetRule>, OptionError> {
    let origin = Origin::CommandLine { option: format!("--net {text}") };
    NetRule::parse(text, &origin).map_err(|source| OptionError::Net { text: text.to_owned(), source })
}

fn rights_and_path(text: &str, places: Places<'_>, example: &'static str) -> Result<(Rights, String), OptionError> {
    let typed = || text.to_owned();
    let (rights, path) = text.split_once(':').ok_or_else(|| OptionError::Shape { text: typed(), example })?;
    let rights = rights.parse().map_err(|source| OptionError::Rights { text: typed(), source })?;
    let absolute = absolute(path, places).ok_or_else(|| OptionError::Tilde { text: typed() })?;
    let path = path::normal(&absolute).map_err(|source| OptionError::Path { text: typed(), source })?;
    Ok((rights, path))
}

/// The path from the root; `None` for somebody else's home. What is wrong with the rest of it, `normal` says.
fn absolute(path: &str, places: Places<'_>) -> Option<String> {
    if path.is_empty() || path.starts_with('/') || path.starts_with("**/") {
        return Some(path.to_owned());
    }
    if let Some(rest) = path.strip_prefix('~') {
        let below = rest.is_empty() || rest.starts_with('/');
        return below.then(|| format!("{}{rest}", places.home));
    }
    let (mut start, mut rest) = (places.cwd, path);
    while let Some(after) = rest.strip_prefix("..").filter(|after| after.is_empty() || after.starts_with('/')) {
        start = start.rsplit_once('/').map_or("", |(parent, _)| parent);
        rest = after.trim_start_matches('/');
    }
    Some(format!("{start}/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Places<'static> = Places { cwd: "/home/u/project", home: "/home/u" };

    fn path(text: &str) -> Result<String, OptionError> {
        allow(text, HERE).map(|rule| rule.path)
    }

    #[test]
    fn paths_start_where_they_were_typed() {
        assert_eq!(path("read:/srv/data"), Ok("/srv/data".into()));
        assert_eq!(path("read:src/main.rs"), Ok("/home/u/project/src/main.rs".into()));
        assert_eq!(path("read:."), Ok("/home/u/project".into()));
        assert_eq!(path("read:../lib"), Ok("/home/u/lib".into()));
        assert_eq!(path("read:../../../../.."), Ok("/".into()));
        assert_eq!(path("read:..data"), Ok("/home/u/project/..data".into()));
        assert_eq!(path("read:~"), Ok("/home/u".into()));
        assert_eq!(path("read:~/.cargo"), Ok("/home/u/.cargo".into()));
        assert_eq!(path("read,exec:/opt/a:b"), Ok("/opt/a:b".into()));
    }

    #[test]
    fn options_carry_their_origin() {
        let rule = deny("write:**/Cargo.lock", HERE).unwrap();
        assert_eq!(rule.path, "**/Cargo.lock");
        assert_eq!((rule.allow, rule.deny), (Rights::NONE, Rights::CHANGE), "a denied write denies replacing");
        assert!(rule.optional, "a denial need not exist");
        assert_eq!(rule.origin.to_string(), "--deny write:**/Cargo.lock");
        assert!(!allow("read:x", HERE).unwrap().optional);
        assert_eq!(net("loopback:53").unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(matches!(path("/srv"), Err(OptionError::Shape { .. })));
        assert!(matches!(path("raed:/srv"), Err(OptionError::Rights { .. })));
        assert!(matches!(path("read:"), Err(OptionError::Path { source: PathError::Empty, .. })));
        assert!(matches!(path("read:a/../b"), Err(OptionError::Path { source: PathError::Parent { .. }, .. })));
        assert!(matches!(path("read:/etc/*.conf"), Err(OptionError::Path { .. })));
        assert!(matches!(path("read:~root/x"), Err(OptionError::Tilde { .. })));
        assert!(matches!(path("read:**/x"), Err(OptionError::AllowPattern { .. })));
        assert!(matches!(net("nowhere"), Err(OptionError::Net { .. })));
    }
}

//! What does the path of a rule name?
//!
//! A rule names one place, `/home/u/project`, and everything below it; or a pattern, `**/name` or `**/directory/name`,
//! that holds wherever such a name stands. Nothing else: the kernel knows a file by its object and by the last two
//! names that lead to it, so a pattern with more names, or with a `*` inside a name, could not be kept, and is refused
//! here instead of being half kept there.
//!
//! A checked path is in normal form: absolute, no empty components, no `.`, no slash at the end. `..` is refused, because
//! behind a symbolic link it does not lead where the text says.

use agentd_abi::NAME_BYTES;

/// Why a text is not the path of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Nothing was written.
    #[error("the path is empty; write an absolute path, or a pattern **/name or **/directory/name")]
    Empty,
    /// It depends on a directory that a rule does not know.
    #[error("{path:?} is relative; write an absolute path, or a pattern **/name or **/directory/name")]
    Relative {
        /// What was written.
        path: String,
    },
    /// It contains `..`.
    #[error("{path:?} contains \"..\"; write where it leads to")]
    Parent {
        /// What was written.
        path: String,
    },
    /// It contains a `*` that is not the pattern's own.
    #[error("{path:?} has a * inside; patterns are **/name or **/directory/name, with whole names")]
    Star {
        /// What was written.
        path: String,
    },
    /// A pattern of more than two names.
    #[error("{path:?} has {names} names after **/; the kernel compares the last two: **/name or **/directory/name")]
    Depth {
        /// What was written.
        path: String,
        /// Names after `**/`.
        names: usize,
    },
    /// A name in a pattern that the kernel cannot compare.
    #[error("{name:?} has {} bytes; names in a pattern have at most {}", .name.len(), NAME_BYTES - 1)]
    Long {
        /// The name.
        name: String,
    },
    /// A character that would disturb a terminal or end a C string.
    #[error("{path:?} contains a control character")]
    Control {
        /// What was written.
        path: String,
    },
}

impl PathError {
    /// The same mistake, told about the text that somebody wrote instead of what became of it.
    pub(crate) fn about(self, written: &str) -> PathError {
        let path = written.to_owned();
        match self {
            PathError::Empty | PathError::Long { .. } => self,
            PathError::Relative { .. } => PathError::Relative { path },
            PathError::Parent { .. } => PathError::Parent { path },
            PathError::Star { .. } => PathError::Star { path },
            PathError::Depth { names, .. } => PathError::Depth { path, names },
            PathError::Control { .. } => PathError::Control { path },
        }
    }
}

/// A pattern that holds anywhere: a name, and the name of the directory it stands in, if that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern<'a> {
    /// Name of the directory; `None`: any.
    pub parent: Option<&'a str>,
    /// The last component.
    pub name: &'a str,
}

impl<'a> Pattern<'a> {
    /// The pattern that a checked path is, or `None` where it names one place.
    pub fn of(path: &'a str) -> Option<Pattern<'a>> {
        let names = path.strip_prefix("**/")?;
        Some(match names.rsplit_once('/') {
            Some((parent, name)) => Pattern { parent: Some(parent), name },
            None => Pattern { parent: None, name: names },
        })
    }
}

/// Checks a written path and brings it into normal form.
pub fn normal(text: &str) -> Result<String, PathError> {
    let path = || text.to_owned();
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(PathError::Control { path: path() });
    }
    let (prefix, rest) = match text.strip_prefix("**/") {
        Some(rest) => ("**/", rest),
        None if text.starts_with('/') => ("/", text),
        None if text.starts_with('*') => return Err(PathError::Star { path: path() }),
        None => return Err(PathError::Relative { path: path() }),
    };
    // Every rule of every agent passes here, so nothing is collected on the way.
    let mut normal = String::with_capacity(text.len());
    normal.push_str(prefix);
    let (mut names, mut parent, mut star, mut long) = (0, false, false, None);
    for name in rest.split('/').filter(|name| !name.is_empty() && *name != ".") {
        if names > 0 {
            normal.push('/');
        }
        normal.push_str(name);
        names += 1;
        parent |= name == "..";
        star |= name.contains('*');
        long = long.or_else(|| (name.len() >= NAME_BYTES).then(|| name.to_owned()));
    }
    if parent {
        return Err(PathError::Parent { path: path() });
    }
    if star {
        return Err(PathError::Star { path: path() });
    }
    if prefix == "**/" {
        if names == 0 || names > 2 {
            return Err(PathError::Depth { path: path(), names });
        }
        if let Some(name) = long {
            return Err(PathError::Long { name });
        }
    }
    Ok(normal)
}

/// Whether a path in normal form is a tree's root or lies below it.
pub fn is_within(path: &str, tree: &str) -> bool {
    match path.strip_prefix(tree) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || tree == "/",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_form() {
        assert_eq!(normal("/"), Ok("/".into()));
        assert_eq!(normal("//usr/./lib/"), Ok("/usr/lib".into()));
        assert_eq!(normal("**/.git/hooks"), Ok("**/.git/hooks".into()));
        assert_eq!(normal("**/.ssh/"), Ok("**/.ssh".into()));
        assert_eq!(normal("/a/...b"), Ok("/a/...b".into()));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let long = "x".repeat(64);
        assert!(matches!(normal(""), Err(PathError::Empty)));
        assert!(matches!(normal("etc/passwd"), Err(PathError::Relative { .. })));
        assert!(matches!(normal("/a/../b"), Err(PathError::Parent { .. })));
        assert!(matches!(normal("/etc/*.conf"), Err(PathError::Star { .. })));
        assert!(matches!(normal("**/*.key"), Err(PathError::Star { .. })));
        assert!(matches!(normal("*/x"), Err(PathError::Star { .. })));
        assert!(matches!(normal("**/a/b/c"), Err(PathError::Depth { names: 3, .. })));
        assert!(matches!(normal("**/"), Err(PathError::Depth { names: 0, .. })));
        assert!(matches!(normal(&format!("**/{long}")), Err(PathError::Long { .. })));
        assert!(matches!(normal("/a\nb"), Err(PathError::Control { .. })));
    }

    #[test]
    fn within_is_by_component() {
        assert!(is_within("/a/b", "/a"));
        assert!(is_within("/a", "/a"));
        assert!(is_within("/a", "/"));
        assert!(!is_within("/ab", "/a"));
        assert!(!is_within("/", "/a"));
    }

    #[test]
    fn patterns_are_told_from_places() {
        assert_eq!(Pattern::of("**/a/b"), Some(Pattern { parent: Some("a"), name: "b" }));
        assert_eq!(Pattern::of("**/b"), Some(Pattern { parent: None, name: "b" }));
        assert_eq!(Pattern::of("/a/b"), None);
    }
}

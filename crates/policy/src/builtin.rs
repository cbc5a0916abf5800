//! Which profiles come with this program?
//!
//! `base` is what any program needs to run at all, and what no agent may see; `coding` is `base` and what work on code
//! needs; `careful` is `coding` and more denials, at the price that some repositories cannot be cloned. Each is a file
//! that people read, in `profiles/`, with its reasons in comments; `docs/profiles.md` has them as prose.

/// Name and text of each built-in profile.
pub const TEXTS: [(&str, &str); 3] = [
    ("base", include_str!("../profiles/base.toml")),
    ("coding", include_str!("../profiles/coding.toml")),
    ("careful", include_str!("../profiles/careful.toml")),
];

//! Which profiles are there, and which does one extend?
//!
//! The built-in ones are always there and cannot be replaced: a refusal that says "profile base, line 12" must mean the
//! text that came with this program. Files may be added in any order; that `extends` leads somewhere is looked at when a
//! profile is used or checked.

use std::collections::BTreeMap;

use super::Profile;
use super::expand::ExpandError;
use crate::suggest::nearest;

/// A set of profiles by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    by_name: BTreeMap<String, Profile>,
}

/// A profile whose name another one has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is already a profile {name}; choose another name")]
pub struct NameTaken {
    /// The name.
    pub name: String,
}

impl Profiles {
    /// The profiles that came with this program.
    pub fn built_in() -> Profiles {
        let mut profiles = Profiles::default();
        for (name, text) in crate::builtin::TEXTS {
            let profile = Profile::parse(text).expect("a built-in profile is right, as a test asserts");
            assert_eq!(profile.name, name, "a built-in profile is listed under its own name");
            profiles.add(profile).expect("built-in profiles have different names");
        }
        profiles
    }

    /// Adds one.
    pub fn add(&mut self, profile: Profile) -> Result<(), NameTaken> {
        if self.by_name.contains_key(&profile.name) {
            return Err(NameTaken { name: profile.name });
        }
        self.by_name.insert(profile.name.clone(), profile);
        Ok(())
    }

    /// The profile of a name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.by_name.values()
    }

    /// A profile and everything that it extends, each once, what is extended first.
    pub fn lineage(&self, name: &str) -> Result<Vec<&Profile>, ExpandError> {
        let unknown = || ExpandError::Unknown { name: name.to_owned(), suggestion: self.nearest(name) };
        let mut found = Vec::new();
        self.visit(self.get(name).ok_or_else(unknown)?, &mut Vec::new(), &mut found)?;
        Ok(found)
    }

    fn visit<'s>(
        &'s self,
        profile: &'s Profile,
        way: &mut Vec<&'s str>,
        found: &mut Vec<&'s Profile>,
    ) -> Result<(), ExpandError> {
        if found.iter().any(|other| other.name == profile.name) {
            return Ok(());
        }
        way.push(&profile.name);
        for (name, at) in &profile.extends {
            let (of, at) = (profile.name.clone(), *at);
            let Some(base) = self.get(name) else {
                let suggestion = self.nearest(name);
                return Err(ExpandError::Extends { profile: of, at, name: name.clone(), suggestion });
            };
            if let Some(start) = way.iter().position(|passed| passed == name) {
                let circle = way[start..].iter().chain([&name.as_str()]).map(ToString::to_string).collect();
                return Err(ExpandError::Circle { profile: of, at, circle });
            }
            self.visit(base, way, found)?;
        }
        way.pop();
        found.push(profile);
        Ok(())
    }

    fn nearest(&self, name: &str) -> Option<String> {
        nearest(name, self.by_name.keys().map(String::as_str)).map(str::to_owned)
    }
}

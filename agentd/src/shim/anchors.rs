//! What the rules name, opened in the agent's own view.
//!
//! A rule's object is opened where it is. A denial is kept twice more: as a name in its directory, so that neither
//! renaming another file there nor creating one brings the access back, and by the directories above it, which must stay
//! where they are. Where a path goes through a symbolic link, both the link's place and the place it leads to are named.
//!
//! Many rules share directories; each is opened once and carries all that the rules say of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use agentd_model::{PathRule, Rights};
use nix::fcntl::{OFlag, readlink};

use super::lookup::{Lookup, Opened, is_directory, open_path};
use crate::launch::messages::{Failure, Note, NoteKind};

/// Files are handed on when there are so many.
const BATCH: usize = 100;

/// Symbolic links followed by hand, where they lead nowhere.
const LINKS_LIMIT: usize = 16;

/// An open file, and what it is to the rules.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) file: OwnedFd,
    pub(crate) notes: Vec<Note>,
}

/// A rule about names anywhere, which has no place of its own.
pub(super) fn is_pattern(rule: &PathRule) -> bool {
    rule.path.starts_with("**/")
}

/// Takes files in the order in which they were opened, each once.
pub(super) type HandOn<'a> = dyn FnMut(&[Found]) -> Result<(), Failure> + 'a;

/// What was opened so far.
pub(super) struct Anchors<'a> {
    found: Vec<Found>,
    /// Places in `found` by path; `None`: there is no such directory.
    directories: HashMap<OsString, Option<usize>>,
    /// Directories that denials rely on, each noted once for all rules.
    ways: HashSet<OsString>,
    hand_on: &'a mut HandOn<'a>,
    /// So many were handed on.
    gone: usize,
}

impl<'a> Anchors<'a> {
    pub(super) fn new(hand_on: &'a mut HandOn<'a>) -> Anchors<'a> {
        Anchors { found: Vec::new(), directories: HashMap::new(), ways: HashSet::new(), hand_on, gone: 0 }
    }

    /// Everything, with all that the rules say of it.
    pub(super) fn finish(mut self) -> Result<Vec<Found>, Failure> {
        self.hand_on()?;
        Ok(self.found)
    }

    fn hand_on(&mut self) -> Result<(), Failure> {
        let new = self.found.get(self.gone..).unwrap_or_default();
        self.gone += new.len();
        if new.is_empty() { Ok(()) } else { (self.hand_on)(new) }
    }

    /// Opens what a rule names, given what is at its path.
    pub(super) fn of_rule(&mut self, index: usize, rule: &PathRule, now: Lookup) -> Result<(), Failure> {
        if self.found.len() - self.gone >= BATCH {
            self.hand_on()?;
        }
        let path = Path::new(&rule.path);
        let denies = rule.deny != Rights::NONE;
        match now {
            Lookup::There(Opened { file, real }) => {
                let directory = is_directory(file.as_fd())?;
                self.found
                    .push(Found { file, notes: vec![Note { rule: index, kind: NoteKind::Object { directory } }] });
                if directory {
                    let place = self.found.len() - 1;
                    self.directories.entry(real.clone().into_os_string()).or_insert(Some(place));
                }
                if denies {
                    self.name(index, path)?;
                    self.way(index, path)?;
                    if real != path {
                        self.name(index, &real)?;
                        self.way(index, &real)?;
                    }
                }
            }
            Lookup::Absent | Lookup::Lost if rule.allow != Rights::NONE && !rule.optional => {
                return Err(Failure::Missing { rule: index });
            }
            Lookup::Absent | Lookup::Lost if denies => {
                self.missing(index, path, matches!(now, Lookup::Absent))?;
                self.way(index, path)?;
            }
            Lookup::Absent | Lookup::Lost => {}
        }
        Ok(())
    }

    /// A directory, opened once.
    fn directory(&mut self, path: &Path) -> Result<Option<usize>, Failure> {
        if let Some(known) = self.directories.get(path.as_os_str()) {
            return Ok(*known);
        }
        let place = open_path(path, OFlag::O_DIRECTORY)?.map(|file| {
            self.found.push(Found { file, notes: Vec::new() });
            self.found.len() - 1
        });
        self.directories.insert(path.as_os_str().to_owned(), place);
        Ok(place)
    }

    fn note(&mut self, place: usize, rule: usize, kind: NoteKind) {
        if let Some(found) = self.found.get_mut(place) {
            found.notes.push(Note { rule, kind });
        }
    }

    /// Names the directories above a denied place: the denial holds only while they are what they were.
    fn way(&mut self, rule: usize, path: &Path) -> Result<(), Failure> {
        for above in path.ancestors().skip(1).filter(|above| above.as_os_str() != "/") {
            if self.ways.contains(above.as_os_str()) {
                // And with it all that are above it.
                break;
            }
            self.ways.insert(above.as_os_str().to_owned());
            if let Some(place) = self.directory(above)? {
                self.note(place, rule, NoteKind::Way);
            }
        }
        Ok(())
    }

    /// Names something that exists, in its directory.
    fn name(&mut self, rule: usize, path: &Path) -> Result<(), Failure> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        if let Some(place) = self.directory(parent)? {
            let names = vec![utf8(name, path)?];
            self.note(place, rule, NoteKind::Name { names });
        }
        Ok(())
    }

    /// Names something that does not exist, below the nearest directory that does; through a link that leads nowhere,
    /// also below the nearest directory of where it leads.
    fn missing(&mut self, rule: usize, path: &Path, no_links: bool) -> Result<(), Failure> {
        let mut path = path.to_owned();
        let mut seen = BTreeSet::new();
        while seen.insert(path.clone()) && seen.len() <= LINKS_LIMIT {
            let mut nearest = None;
            for parent in path.ancestors().skip(1) {
                if let Some(place) = self.directory(parent)? {
                    nearest = Some((parent, place));
                    break;
                }
            }
            let Some((parent, place)) = nearest else { return Ok(()) };
            let names = path.strip_prefix(parent).unwrap_or(Path::new("")).iter();
            let names: Vec<String> = names.map(|name| utf8(name, &path)).collect::<Result<_, _>>()?;
            let (Some(first), rest) = (names.first(), names.iter().skip(1)) else { return Ok(()) };
            let link = if no_links { None } else { readlink(parent.join(first).as_path()).ok() };
            let target = link.map(|target| rest.fold(parent.join(target), |path, name| path.join(name)));
            self.note(place, rule, NoteKind::Name { names });
            match target {
                Some(target) => path = target,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

fn utf8(name: &OsStr, path: &Path) -> Result<String, Failure> {
    let what = || format!("deny {}: a name on its way is not UTF-8", path.display());
    name.to_str().map(str::to_owned).ok_or_else(|| Failure::Step { what: what(), errno: libc::EILSEQ })
}

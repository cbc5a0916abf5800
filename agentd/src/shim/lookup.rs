//! Is there something at the path of a rule, and where is it really?
//!
//! Most paths go through no symbolic link, and then they are already where they lead: the kernel is asked for exactly
//! that (`RESOLVE_NO_SYMLINKS`), in one call. Only where it says that there is a link is the path followed and read back.
//!
//! Everything is opened with `O_PATH`: nothing is read, no device is woken, and an automount stays where it is.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2, readlink};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::launch::messages::Failure;

/// So many paths in one directory are worth a look at all its names.
const MANY: usize = 16;

/// More names than these are not worth it.
const NAMES_LIMIT: usize = 2048;

/// An open path.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: OwnedFd,
    /// Where it really is.
    pub(crate) real: PathBuf,
}

/// What is at a path.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Something.
    There(Opened),
    /// Nothing, and no symbolic link had a part in it.
    Absent,
    /// Nothing, at the end of a link or beyond a path that is not written plainly.
    Lost,
}

/// A failure of a step, for `map_err`.
pub(crate) fn step<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    |error| Failure::Step { what: what.into(), errno: error.into().raw_os_error().unwrap_or(libc::EIO) }
}

/// Looks a path up.
pub(crate) fn find(path: &Path, listed: &Listed) -> Result<Lookup, Failure> {
    if is_plain(path) {
        if listed.lacks(path) {
            return Ok(Lookup::Absent);
        }
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(AT_FDCWD, path, how) {
            Ok(file) => return Ok(Lookup::There(Opened { file, real: path.to_owned() })),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Lookup::Absent),
            Err(Errno::ELOOP) => {}
            Err(error) => return Err(step(format!("look up {}", path.display()))(error)),
        }
    }
    let Some(file) = open_path(path, OFlag::empty())? else { return Ok(Lookup::Lost) };
    let real = real_path(file.as_fd())?;
    Ok(Lookup::There(Opened { file, real }))
}

/// Directories that many rules look into, and the names in them: one look at a directory spares one for each name that is
/// not there. What is not listed counts as absent, and so as something that may come: a denial of it is kept by name.
#[derive(Default)]
pub(crate) struct Listed(Vec<(PathBuf, HashSet<Vec<u8>>)>);

impl Listed {
    /// Reads the directories that hold many of these paths.
    pub(crate) fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> Listed {
        let mut counts: HashMap<&OsStr, usize> = HashMap::new();
        for parent in paths.filter_map(Path::parent) {
            *counts.entry(parent.as_os_str()).or_default() += 1;
        }
        let many = counts.into_iter().filter(|(_, count)| *count >= MANY).map(|(directory, _)| Path::new(directory));
        Listed(many.filter_map(|directory| Some((directory.to_owned(), names(directory)?))).collect())
    }

    /// Whether a path leads through a name that is not there.
    fn lacks(&self, path: &Path) -> bool {
        self.0.iter().any(|(directory, names)| {
            let below = below(path, directory).filter(|below| !below.is_empty());
            below.and_then(|below| below.split(|byte| *byte == b'/').next()).is_some_and(|name| !names.contains(name))
        })
    }
}

/// The names in a directory, unless it cannot be read, is beyond a link, or holds too many.
fn names(directory: &Path) -> Option<HashSet<Vec<u8>>> {
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
    let file = openat2(AT_FDCWD, directory, how.resolve(ResolveFlag::RESOLVE_NO_SYMLINKS)).ok()?;
    let mut names = HashSet::new();
    for entry in Dir::from_fd(file).ok()?.iter() {
        names.insert(entry.ok()?.file_name().to_bytes().to_owned());
        if names.len() > NAMES_LIMIT {
            return None;
        }
    }
    Some(names)
}

/// Whether a path says where it leads: absolute, without `.`, `..` and empty parts.
fn is_plain(path: &Path) -> bool {
    let Some(names) = path.as_os_str().as_encoded_bytes().strip_prefix(b"/") else { return false };
    let plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
    names.is_empty() || names.split(|byte| *byte == b'/').all(plain)
}

/// What a plain path says below a plain directory; nothing, if it is that directory. `Path` would compare part by part,
/// and every rule is compared with every place.
fn below<'a>(path: &'a Path, directory: &Path) -> Option<&'a [u8]> {
    let rest = path.as_os_str().as_encoded_bytes().strip_prefix(directory.as_os_str().as_encoded_bytes())?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
}

/// Whether a plain path is a plain directory or something below it.
pub(crate) fn is_within(path: &Path, directory: &Path) -> bool {
    below(path, directory).is_some()
}

/// Opens a path, through links; `None` where there is nothing.
pub(crate) fn open_path(path: &Path, more: OFlag) -> Result<Option<OwnedFd>, Failure> {
    match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC | more, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(error) => Err(step(format!("look up {}", path.display()))(error)),
    }
}

/// Where an open path really is.
pub(crate) fn real_path(file: BorrowedFd<'_>) -> Result<PathBuf, Failure> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    readlink(link.as_str()).map(PathBuf::from).map_err(step(format!("read {link}")))
}

/// Whether an open path is a directory.
pub(crate) fn is_directory(file: BorrowedFd<'_>) -> Result<bool, Failure> {
    let stat = fstat(file).map_err(step("look at an anchor"))?;
    Ok(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_is_found_where_it_really_is() {
        let directory = std::env::temp_dir().join(format!("agentd-lookup-{}", std::process::id()));
        fs::create_dir_all(directory.join("there")).unwrap();
        let directory = directory.canonicalize().unwrap();
        symlink("there", directory.join("link")).unwrap();
        symlink("nowhere", directory.join("dangling")).unwrap();
        let there = directory.join("there");
        for path in [there.clone(), directory.join("link"), directory.join("./there"), directory.join("there/../there")]
        {
            match find(&path, &Listed::default()).unwrap() {
                Lookup::There(Opened { real, file }) => {
                    assert_eq!(real, there, "{}", path.display());
                    assert!(is_directory(file.as_fd()).unwrap());
                }
                other => panic!("{}: {other:?}", path.display()),
            }
        }
        assert!(matches!(find(&directory.join("absent/below"), &Listed::default()).unwrap(), Lookup::Absent));
        for path in ["dangling", "dangling/below", "link/absent", "there/../absent"] {
            assert!(matches!(find(&directory.join(path), &Listed::default()).unwrap(), Lookup::Lost), "{path}");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn plain_paths_are_compared_name_by_name() {
        for (path, directory, within) in
            [("/tmp", "/tmp", true), ("/tmp/a", "/tmp", true), ("/tmpa", "/tmp", false), ("/a/tmp", "/tmp", false)]
        {
            assert_eq!(is_within(Path::new(path), Path::new(directory)), within, "{path} in {directory}");
        }
        for (path, plain) in
            [("/", true), ("/a/b", true), ("/a/", false), ("/a//b", false), ("/a/./b", false), ("a", false)]
        {
            assert_eq!(is_plain(Path::new(path)), plain, "{path}");
        }
        assert!(!is_plain(Path::new("/a/..")) && is_plain(Path::new("/a/..b")));
    }

    #[test]
    fn a_listed_directory_answers_for_what_is_not_in_it() {
        let directory = std::env::temp_dir().join(format!("agentd-listed-{}", std::process::id()));
        fs::create_dir_all(directory.join("there/below")).unwrap();
        let directory = directory.canonicalize().unwrap();
        symlink("there", directory.join("link")).unwrap();
        let paths: Vec<PathBuf> = (0..MANY).map(|number| directory.join(format!("absent-{number}/below"))).collect();
        let listed = Listed::of(paths.iter().map(|path| path.parent().unwrap()));
        assert_eq!(listed.0.len(), 1, "only what many look into is listed");
        fs::create_dir_all(directory.join("absent-0/below")).unwrap();
        assert!(matches!(find(&paths[0], &listed).unwrap(), Lookup::Absent), "looked up although it was not listed");
        for path in ["there", "there/below", "link/below"] {
            assert!(matches!(find(&directory.join(path), &listed).unwrap(), Lookup::There(_)), "{path}");
        }
        assert!(matches!(find(&directory, &listed).unwrap(), Lookup::There(_)));
        fs::remove_dir_all(directory).unwrap();
    }
}

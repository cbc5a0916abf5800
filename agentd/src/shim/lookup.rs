//! Is there something at the path of a rule, and where is it really?
//!
//! Most paths go through no symbolic link, and then they are already where they lead: the kernel is asked for exactly
//! that (`RESOLVE_NO_SYMLINKS`), in one call. Only where it says that there is a link is the path followed and read back.
//!
//! Everything is opened with `O_PATH`: nothing is read, no device is woken, and an automount stays where it is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2, readlink};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::launch::messages::Failure;

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
pub(crate) fn find(path: &Path) -> Result<Lookup, Failure> {
    if is_plain(path) {
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

/// Whether a path says where it leads: absolute, without `.`, `..` and empty parts.
fn is_plain(path: &Path) -> bool {
    let parts: PathBuf = path.components().collect();
    path.is_absolute()
        && parts.as_os_str() == path.as_os_str()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
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
            match find(&path).unwrap() {
                Lookup::There(Opened { real, file }) => {
                    assert_eq!(real, there, "{}", path.display());
                    assert!(is_directory(file.as_fd()).unwrap());
                }
                other => panic!("{}: {other:?}", path.display()),
            }
        }
        assert!(matches!(find(&directory.join("absent/below")).unwrap(), Lookup::Absent));
        for path in ["dangling", "dangling/below", "link/absent", "there/../absent"] {
            assert!(matches!(find(&directory.join(path)).unwrap(), Lookup::Lost), "{path}");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}

//! The file system as the agent sees it, and what the rules name in it.
//!
//! The agent sees the host's tree with some places replaced: its own `/proc`, its own devpts, message queues of its own
//! ipc namespace, private empty `/tmp`, `/var/tmp` and `/dev/shm`, and empty directories where the daemon keeps its own
//! things. What a rule allows *below* a private place (a workspace in `/tmp/build`, say) is mounted back where it was, and
//! so is the working directory. What the daemon hides stays hidden, whatever the rules say.
//!
//! All mounts are private, not slaves of the host's. Rules were compiled against the view as it is now; were mounts
//! propagated in, a disk that somebody mounts tomorrow below an allowed directory would be the agent's without anyone
//! having said so. What it costs: a file system mounted now stays busy, in the agent's view, until the agent ends.
//!
//! Anchors are opened in that view. A denial is kept twice: on the object, and as a name in its directory, so that
//! neither renaming another file there nor creating one brings the access back. Where a path goes through a symbolic
//! link, both the link's place and the place it leads to are named.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, chown};
use std::path::{Component, Path, PathBuf};

use agentd_model::{PathRule, Rights};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlink};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::sys;
use crate::launch::LaunchRequest;
use crate::launch::messages::{Failure, Note, NoteKind};

/// Places that are private to each agent.
const PRIVATE: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Symbolic links followed by hand, where they lead nowhere.
const LINKS_LIMIT: usize = 16;

/// An anchor before it leaves init.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) note: Note,
    pub(crate) file: OwnedFd,
}

pub(crate) fn step<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    |error| Failure::Step { what: what.into(), errno: error.into().raw_os_error().unwrap_or(libc::EIO) }
}

/// A path that was opened before the view was made.
struct Opened {
    file: OwnedFd,
    /// Where it really is.
    real: PathBuf,
}

/// Makes the view in the calling process's own mount namespace and opens what the rules name in it.
pub(crate) fn make(request: &LaunchRequest) -> Result<Vec<Found>, Failure> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(step("make the agent's mounts private"))?;
    let spec = &request.spec;
    let before: Vec<Option<Opened>> =
        spec.paths.iter().map(|rule| open_before(&rule.path)).collect::<Result<_, _>>()?;
    let covers = covers(request)?;
    let kept = keep(request, &before, &covers)?;
    cover(&covers, |kind| kind != CoverKind::Hidden)?;
    // Before anything is mounted back: in an empty place no link of anybody's can lead root astray.
    make_directories(request, &covers)?;
    for (real, tree, directory) in &kept {
        bring_back(real, tree.as_fd(), *directory)?;
    }
    // Last, so that nothing brings them back.
    cover(&covers, |kind| kind == CoverKind::Hidden)?;
    let (mut found, mut ways) = (Vec::new(), BTreeSet::new());
    for (index, (rule, before)) in spec.paths.iter().zip(before).enumerate() {
        if is_pattern(rule) {
            continue;
        }
        let real = anchor(index, rule, before, &covers, &mut found)?;
        if rule.deny != Rights::NONE {
            way_anchors(index, Path::new(&rule.path), &mut ways, &mut found)?;
            real.map_or(Ok(()), |real| way_anchors(index, &real, &mut ways, &mut found))?;
        }
    }
    Ok(found)
}

fn is_pattern(rule: &PathRule) -> bool {
    rule.path.starts_with("**/")
}

/// Opens a path without access to its content; `None` where it does not exist.
fn open_path(path: &Path, more: OFlag) -> Result<Option<OwnedFd>, Failure> {
    match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC | more, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(error) => Err(step(format!("look up {}", path.display()))(error)),
    }
}

fn open_before(path: &str) -> Result<Option<Opened>, Failure> {
    if path.starts_with("**/") {
        return Ok(None);
    }
    let Some(file) = open_path(Path::new(path), OFlag::empty())? else { return Ok(None) };
    let real = real_path(file.as_fd())?;
    Ok(Some(Opened { file, real }))
}

fn real_path(file: BorrowedFd<'_>) -> Result<PathBuf, Failure> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    readlink(link.as_str()).map(PathBuf::from).map_err(step(format!("read {link}")))
}

/// A place that is replaced.
struct Cover {
    place: PathBuf,
    kind: CoverKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CoverKind {
    Private,
    Hidden,
    Proc,
    Terminals,
    Queues,
}

/// The places that exist here, where they really are, outer ones first.
fn covers(request: &LaunchRequest) -> Result<Vec<Cover>, Failure> {
    let wanted = [("/proc", CoverKind::Proc), ("/dev/pts", CoverKind::Terminals), ("/dev/mqueue", CoverKind::Queues)]
        .into_iter()
        .chain(PRIVATE.into_iter().map(|place| (place, CoverKind::Private)))
        .map(|(place, kind)| (Path::new(place), kind))
        .chain(request.hide.iter().map(|place| (place.as_path(), CoverKind::Hidden)));
    let mut covers: Vec<Cover> = Vec::new();
    for (place, kind) in wanted {
        if let Some(file) = open_path(place, OFlag::O_DIRECTORY)? {
            let place = real_path(file.as_fd())?;
            if !covers.iter().any(|cover| cover.place == place) {
                covers.push(Cover { place, kind });
            }
        }
    }
    covers.sort_by(|one, two| one.place.cmp(&two.place));
    Ok(covers)
}

/// Copies of the mounts of everything allowed that will be covered, and of the working directory.
fn keep(
    request: &LaunchRequest,
    before: &[Option<Opened>],
    covers: &[Cover],
) -> Result<Vec<(PathBuf, OwnedFd, bool)>, Failure> {
    let covered = |real: &Path| {
        let below = |cover: &Cover| real != cover.place && real.starts_with(&cover.place);
        covers.iter().any(|cover| cover.kind == CoverKind::Private && below(cover))
    };
    let cwd = open_before(&request.spec.cwd)?;
    let allowed = request.spec.paths.iter().zip(before).filter(|(rule, _)| !rule.allow.is_empty());
    let wanted = allowed.filter_map(|(_, opened)| opened.as_ref()).chain(&cwd);
    let mut wanted: Vec<&Opened> = wanted.filter(|opened| covered(&opened.real)).collect();
    wanted.sort_by(|one, two| one.real.cmp(&two.real));
    let mut kept: Vec<(PathBuf, OwnedFd, bool)> = Vec::new();
    for opened in wanted {
        // What lies below something kept comes with it.
        if !kept.iter().any(|(real, _, _)| opened.real.starts_with(real)) {
            let tree = sys::open_tree(opened.file.as_fd()).map_err(step(format!("keep {}", opened.real.display())))?;
            kept.push((opened.real.clone(), tree, is_directory(opened.file.as_fd())?));
        }
    }
    Ok(kept)
}

fn is_directory(file: BorrowedFd<'_>) -> Result<bool, Failure> {
    let stat = fstat(file).map_err(step("look at an anchor"))?;
    Ok(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR)
}

fn cover(covers: &[Cover], wanted: fn(CoverKind) -> bool) -> Result<(), Failure> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let data = plain | MsFlags::MS_NOEXEC;
    for cover in covers.iter().filter(|cover| wanted(cover.kind)) {
        // A place within one that is covered already is not there any more.
        if !cover.place.is_dir() {
            continue;
        }
        let (kind, flags, options) = match cover.kind {
            CoverKind::Private => ("tmpfs", plain, Some("mode=1777")),
            CoverKind::Hidden => ("tmpfs", data, Some("mode=0555,size=64k")),
            CoverKind::Proc => ("proc", data, None),
            // /dev/ptmx finds the instance that is mounted beside it, whether it is a device or a link to pts/ptmx.
            // Group 5 is "tty" wherever there is one; 0620 lets write(1) in.
            CoverKind::Terminals => {
                ("devpts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("newinstance,ptmxmode=0666,mode=0620,gid=5"))
            }
            CoverKind::Queues => ("mqueue", data, None),
        };
        mount(Some(kind), &cover.place, Some(kind), flags, options)
            .map_err(step(format!("mount {kind} at {}", cover.place.display())))?;
    }
    Ok(())
}

/// Makes the directories that a profile wants in the private places, and gives them to the agent.
fn make_directories(request: &LaunchRequest, covers: &[Cover]) -> Result<(), Failure> {
    let spec = &request.spec;
    for path in spec.tmp_directories.iter().map(Path::new) {
        let what = || format!("make the directory {} for the agent", path.display());
        let private = |cover: &&Cover| cover.kind == CoverKind::Private && path.starts_with(&cover.place);
        let place = covers.iter().find(private);
        let below = place.and_then(|cover| Some((cover, path.strip_prefix(&cover.place).ok()?)));
        let plain = |below: &Path| below.components().all(|part| matches!(part, Component::Normal(_)));
        let Some((cover, below)) = below.filter(|(_, below)| plain(below)) else {
            return Err(Failure::Step { what: format!("{}: it is in no private place", what()), errno: libc::EINVAL });
        };
        let mut made = cover.place.clone();
        for name in below {
            made.push(name);
            match fs::DirBuilder::new().mode(0o700).create(&made) {
                Ok(()) => chown(&made, Some(spec.uid), Some(spec.gid)).map_err(step(what()))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(step(what())(error)),
            }
        }
    }
    Ok(())
}

/// Mounts a kept tree where it was, making what is needed to stand on.
fn bring_back(real: &Path, tree: BorrowedFd<'_>, directory: bool) -> Result<(), Failure> {
    let what = || format!("keep {} in the agent's view", real.display());
    let parent = if directory { Some(real) } else { real.parent() };
    if let Some(parent) = parent {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(step(what()))?;
    }
    if !directory {
        fs::OpenOptions::new().create(true).append(true).open(real).map_err(step(what()))?;
    }
    let target = CString::new(real.as_os_str().as_encoded_bytes());
    let target = target.map_err(|_nul| Failure::Step { what: what(), errno: libc::EINVAL })?;
    sys::attach_tree(tree, &target).map_err(step(what()))
}

/// Opens all that one rule names, and says where its object really is, if there is one.
fn anchor(
    index: usize,
    rule: &PathRule,
    before: Option<Opened>,
    covers: &[Cover],
    found: &mut Vec<Found>,
) -> Result<Option<PathBuf>, Failure> {
    let path = Path::new(&rule.path);
    // What was not covered is what it was; anything else is looked up anew.
    let still = before.filter(|opened| !covers.iter().any(|cover| opened.real.starts_with(&cover.place)));
    let now = match still {
        Some(opened) => Some(opened),
        None => open_before(&rule.path)?,
    };
    let denies = rule.deny != Rights::NONE;
    match now {
        Some(Opened { file, real }) => {
            if denies {
                name_anchor(index, path, found)?;
                if real != path {
                    name_anchor(index, &real, found)?;
                }
            }
            let directory = is_directory(file.as_fd())?;
            found.push(Found { note: Note { rule: index, kind: NoteKind::Object { directory } }, file });
            return Ok(Some(real));
        }
        None if rule.allow != Rights::NONE && !rule.optional => return Err(Failure::Missing { rule: index }),
        None if denies => missing_anchors(index, path, found)?,
        None => {}
    }
    Ok(None)
}

/// Names the directories above a denied place, each once for all rules: a denial holds only while they are what they were.
fn way_anchors(
    index: usize,
    path: &Path,
    ways: &mut BTreeSet<PathBuf>,
    found: &mut Vec<Found>,
) -> Result<(), Failure> {
    for above in path.ancestors().skip(1).filter(|above| *above != Path::new("/")) {
        if !ways.insert(above.to_owned()) {
            continue;
        }
        if let Some(file) = open_path(above, OFlag::O_DIRECTORY)? {
            found.push(Found { note: Note { rule: index, kind: NoteKind::Way }, file });
        }
    }
    Ok(())
}

/// Names something that exists, in its directory.
fn name_anchor(index: usize, path: &Path, found: &mut Vec<Found>) -> Result<(), Failure> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let Some(file) = open_path(parent, OFlag::O_DIRECTORY)? else { return Ok(()) };
    let names = vec![utf8(name, path)?];
    found.push(Found { note: Note { rule: index, kind: NoteKind::Name { names } }, file });
    Ok(())
}

fn utf8(name: &std::ffi::OsStr, path: &Path) -> Result<String, Failure> {
    let what = || format!("deny {}: a name on its way is not UTF-8", path.display());
    name.to_str().map(str::to_owned).ok_or_else(|| Failure::Step { what: what(), errno: libc::EILSEQ })
}

/// Names something that does not exist, below the nearest directory that does; through a link that leads nowhere, also
/// below the nearest directory of where it leads.
fn missing_anchors(index: usize, path: &Path, found: &mut Vec<Found>) -> Result<(), Failure> {
    let mut path = path.to_owned();
    let mut seen = BTreeSet::new();
    while seen.insert(path.clone()) && seen.len() <= LINKS_LIMIT {
        let mut nearest = None;
        for parent in path.ancestors().skip(1) {
            if let Some(file) = open_path(parent, OFlag::O_DIRECTORY)? {
                nearest = Some((parent, file));
                break;
            }
        }
        let Some((parent, file)) = nearest else { return Ok(()) };
        let names = path.strip_prefix(parent).unwrap_or(Path::new("")).iter();
        let names: Vec<String> = names.map(|name| utf8(name, &path)).collect::<Result<_, _>>()?;
        let (Some(first), rest) = (names.first(), names.iter().skip(1)) else { return Ok(()) };
        let link = readlink(parent.join(first).as_path()).ok();
        let target = link.map(|target| rest.fold(parent.join(target), |path, name| path.join(name)));
        found.push(Found { note: Note { rule: index, kind: NoteKind::Name { names } }, file });
        match target {
            Some(target) => path = target,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// The agent's `/dev/null`, for standard streams: from its own view, and really the device.
pub(crate) fn null() -> Result<OwnedFd, Failure> {
    let file = fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(step("open /dev/null"))?;
    match file.metadata() {
        Ok(metadata) if metadata.file_type().is_char_device() => Ok(file.into()),
        _ => Err(Failure::Step { what: "use /dev/null, which is no device".into(), errno: libc::ENODEV }),
    }
}

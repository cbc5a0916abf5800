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
//! What the rules name is opened in that view ([`super::anchors`]).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, chown};
use std::path::{Component, Path, PathBuf};

use agentd_model::PathRule;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::anchors::{Anchors, Found, HandOn, is_pattern};
use super::lookup::{Listed, Lookup, Opened, find, is_directory, is_within, step};
use super::sys;
use crate::launch::LaunchRequest;
use crate::launch::messages::Failure;

/// Places that are private to each agent.
const PRIVATE: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Makes the view in a mount namespace of the calling process's own, and opens what the rules name in it. The files are
/// handed on as they are opened, so that the daemon can look at some while others are looked up.
pub(crate) fn make(request: &LaunchRequest, hand_on: &mut HandOn<'_>) -> Result<Vec<Found>, Failure> {
    // Only now, so that the agent sees what is mounted when it is launched, and a spare keeps nothing busy.
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(step("make the agent's mounts private"))?;
    let spec = &request.spec;
    let covers = covers(request)?;
    let paths = spec.paths.iter().map(|rule| Path::new(&rule.path));
    let listed = Listed::of(paths.filter(|path| !is_covered(path, &covers)));
    let cwd = working_directory(Path::new(&spec.cwd))?;
    let mut anchors = Anchors::new(hand_on);
    // Most of what the rules name is not covered, and the same before and after.
    let mut rest = Vec::new();
    for (index, rule) in spec.paths.iter().enumerate().filter(|(_, rule)| !is_pattern(rule)) {
        let path = Path::new(&rule.path);
        let lookup = match &cwd {
            // Looked up once: whoever exchanges it for a link meanwhile changes nothing.
            Some(cwd) if path == cwd.real => Lookup::There(again(cwd)?),
            _ => find(path, &listed)?,
        };
        if stays(path, &lookup, &covers) && !is_covered(path, &covers) {
            anchors.of_rule(index, rule, lookup)?;
        } else {
            rest.push((index, rule, lookup));
        }
    }
    let kept = keep(&rest, cwd.as_ref(), &covers)?;
    cover(&covers, |kind| kind != CoverKind::Hidden)?;
    // Before anything is mounted back: in an empty place no link of anybody's can lead root astray.
    make_directories(request, &covers)?;
    for (real, tree, directory) in &kept {
        bring_back(real, tree.as_fd(), *directory)?;
    }
    // Last, so that nothing brings them back.
    cover(&covers, |kind| kind == CoverKind::Hidden)?;
    for (index, rule, before) in rest {
        let path = Path::new(&rule.path);
        let now = if stays(path, &before, &covers) { before } else { find(path, &Listed::default())? };
        anchors.of_rule(index, rule, now)?;
    }
    anchors.finish()
}

fn is_covered(place: &Path, covers: &[Cover]) -> bool {
    covers.iter().any(|cover| is_within(place, &cover.place))
}

/// Whether what was at a path before its neighbourhood was covered is what the rule means afterwards.
fn stays(path: &Path, lookup: &Lookup, covers: &[Cover]) -> bool {
    match lookup {
        Lookup::There(opened) => !is_covered(&opened.real, covers),
        Lookup::Absent => !is_covered(path, covers),
        Lookup::Lost => false,
    }
}

/// The directory that an agent starts in, and that a profile may call its workspace. The daemon has judged its path (that
/// it holds nobody's home, for one), so it must be just that: a way through a link could lead anywhere by now. One that
/// is not there is told when the program cannot enter it.
fn working_directory(path: &Path) -> Result<Option<Opened>, Failure> {
    match find(path, &Listed::default())? {
        Lookup::There(opened) if opened.real == path => Ok(Some(opened)),
        Lookup::There(_) => Err(Failure::Step {
            what: format!("work in {}: the way there goes through a symbolic link", path.display()),
            errno: libc::ELOOP,
        }),
        Lookup::Absent | Lookup::Lost => Ok(None),
    }
}

fn again(opened: &Opened) -> Result<Opened, Failure> {
    let file = opened.file.try_clone().map_err(step("hold on to the working directory"))?;
    Ok(Opened { file, real: opened.real.clone() })
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
        if let Lookup::There(Opened { file, real: place }) = find(place, &Listed::default())?
            && is_directory(file.as_fd())?
            && !covers.iter().any(|cover| cover.place == place)
        {
            covers.push(Cover { place, kind });
        }
    }
    covers.sort_by(|one, two| one.place.cmp(&two.place));
    Ok(covers)
}

/// Copies of the mounts of everything allowed that will be covered, and of the working directory.
fn keep(
    rest: &[(usize, &PathRule, Lookup)],
    cwd: Option<&Opened>,
    covers: &[Cover],
) -> Result<Vec<(PathBuf, OwnedFd, bool)>, Failure> {
    let covered = |real: &Path| {
        let below = |cover: &Cover| real != cover.place && real.starts_with(&cover.place);
        covers.iter().any(|cover| cover.kind == CoverKind::Private && below(cover))
    };
    let allowed = rest.iter().filter(|(_, rule, _)| !rule.allow.is_empty());
    let wanted = allowed.filter_map(|(_, _, lookup)| match lookup {
        Lookup::There(opened) => Some(opened),
        Lookup::Absent | Lookup::Lost => None,
    });
    let mut wanted: Vec<&Opened> = wanted.chain(cwd).filter(|opened| covered(&opened.real)).collect();
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

/// The agent's `/dev/null`, for standard streams: from its own view, and really the device.
pub(crate) fn null() -> Result<OwnedFd, Failure> {
    let file = fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(step("open /dev/null"))?;
    match file.metadata() {
        Ok(metadata) if metadata.file_type().is_char_device() => Ok(file.into()),
        _ => Err(Failure::Step { what: "use /dev/null, which is no device".into(), errno: libc::ENODEV }),
    }
}

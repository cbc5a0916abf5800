//! Attempts on names, contents and attributes of files.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, linkat, read, symlinkat, truncate, unlink, write};

use super::{Done, io_errno, number, silent, text};
use crate::sys::{Arg, call, open_call};

pub(super) fn perform(name: &str, words: &[&str]) -> Option<Done> {
    Some(match (name, words) {
        // Made and unmade by a scenario before each try; also things to try.
        ("file", [path]) => fs::write(path, "content\n").map_err(|e| io_errno(&e)).map(|()| String::new()),
        ("file", [path, content]) => fs::write(path, content).map_err(|e| io_errno(&e)).map(|()| String::new()),
        ("directory", [path]) => fs::create_dir_all(path).map_err(|e| io_errno(&e)).map(|()| String::new()),
        ("gone", [path]) => gone(Path::new(path)),
        ("script", [path, interpreter]) => script(path, interpreter),
        ("copy", [from, to]) => fs::copy(from, to).map_err(|e| io_errno(&e)).map(|_| String::new()),
        ("plain", [path]) => set_mode(path, 0o644),

        ("open", [path]) => silent(open(*path, OFlag::O_RDONLY, Mode::empty())),
        ("read", [path]) => read_text(&open_with(path, OFlag::O_RDONLY)),
        ("write", [path]) => open_with(path, OFlag::O_WRONLY).and_then(|file| silent(write(&file, b"written\n"))),
        ("append", [path]) => {
            open_with(path, OFlag::O_WRONLY | OFlag::O_APPEND).and_then(|file| silent(write(&file, b"more\n")))
        }
        ("update", [path]) => silent(open_with(path, OFlag::O_RDWR)),
        ("overwrite", [path]) => silent(open_with(path, OFlag::O_WRONLY | OFlag::O_TRUNC)),
        ("ioctl-only", [path]) => silent(open_with(path, OFlag::from_bits_retain(3))),
        // The bit that the kernel sets on files that it opens to run them.
        ("open-as-exec", [path]) => read_text(&open_with(path, OFlag::from_bits_retain(0x20))),
        ("create", [path]) => silent(open_with(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)),
        ("list", [path]) => list(path),
        ("stat", [path]) => fs::symlink_metadata(path).map_err(|e| io_errno(&e)).map(|_| String::new()),
        ("chdir", [path]) => silent(nix::unistd::chdir(*path)),
        ("mkdir", [path]) => silent(nix::unistd::mkdir(*path, Mode::S_IRWXU)),
        ("rmdir", [path]) => fs::remove_dir(path).map_err(|e| io_errno(&e)).map(|()| String::new()),
        ("unlink", [path]) => silent(unlink(*path)),
        ("symlink", [target, path]) => silent(symlinkat(*target, AT_FDCWD, *path)),
        ("link", [from, to]) => silent(linkat(AT_FDCWD, *from, AT_FDCWD, *to, AtFlags::empty())),
        ("rename", [from, to]) => silent(nix::fcntl::renameat(AT_FDCWD, *from, AT_FDCWD, *to)),
        ("exchange", [one, two]) => silent(renameat2(AT_FDCWD, *one, AT_FDCWD, *two, RenameFlags::RENAME_EXCHANGE)),
        ("mkfifo", [path]) => silent(mknod(*path, SFlag::S_IFIFO, Mode::S_IRUSR, 0)),
        ("truncate", [path]) => silent(truncate(*path, 1)),
        ("chmod", [path]) => set_mode(path, 0o600),
        ("chown", [path]) => silent(nix::unistd::chown(*path, Some(Uid::current()), Some(Gid::current()))),
        ("utimes", [path]) => {
            let past = TimeSpec::new(1, 0);
            silent(utimensat(AT_FDCWD, *path, &past, &past, UtimensatFlags::FollowSymlink))
        }
        ("setxattr", [path]) => xattr(libc::SYS_setxattr, path, true),
        ("removexattr", [path]) => xattr(libc::SYS_removexattr, path, false),
        ("set-flags", [path]) => set_flags(path),

        // Ways round.
        ("reopen", [path]) => reopen(path),
        ("reopen-written", [path]) => {
            let file = open_with(path, OFlag::O_RDONLY);
            file.and_then(|file| silent(open_with(&format!("/proc/self/fd/{}", file.as_raw_fd()), OFlag::O_WRONLY)))
        }
        ("tmpfile", [directory]) => silent(open_with(directory, OFlag::O_TMPFILE | OFlag::O_RDWR)),
        ("tmpfile-link", [directory, to]) => tmpfile_link(directory, to),
        ("path-link", [from, to]) => path_link(from, to),
        ("handle", [path, mount]) => by_handle(path, mount),
        ("open-tree", [directory, name]) => open_tree(directory, name),
        ("openat", [directory, name]) => {
            let directory = open_with(directory, OFlag::O_PATH | OFlag::O_DIRECTORY);
            directory
                .and_then(|directory| read_text(&nix::fcntl::openat(&directory, *name, OFlag::O_RDONLY, Mode::empty())))
        }
        ("chdir-read", [directory, name]) => {
            nix::unistd::chdir(*directory).and_then(|()| read_text(&open_with(name, OFlag::O_RDONLY)))
        }
        ("deep", [directory, levels]) => deep(directory, number(levels)),
        _ => return None,
    })
}

pub(super) fn open_with(path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    open(path, flags | OFlag::O_CLOEXEC, Mode::S_IRUSR | Mode::S_IWUSR)
}

pub(super) fn read_text(file: &Result<OwnedFd, Errno>) -> Done {
    let file = file.as_ref().map_err(|errno| *errno)?;
    let mut bytes = [0; 4096];
    let count = read(file, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

fn gone(path: &Path) -> Done {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(String::new()),
    };
    removed.map_err(|error| io_errno(&error)).map(|()| String::new())
}

fn script(path: &str, interpreter: &str) -> Done {
    let written = fs::write(path, format!("#!{interpreter}\nexit 0\n"));
    written.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755))).map_err(|e| io_errno(&e))?;
    Ok(String::new())
}

fn set_mode(path: &str, mode: u32) -> Done {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| io_errno(&e)).map(|()| String::new())
}

fn list(path: &str) -> Done {
    let names: Result<Vec<String>, _> =
        fs::read_dir(path).and_then(|items| items.map(|i| Ok(i?.file_name().to_string_lossy().into_owned())).collect());
    let mut names = names.map_err(|error| io_errno(&error))?;
    names.sort();
    Ok(names.join(" "))
}

fn xattr(number: libc::c_long, path: &str, set: bool) -> Done {
    let (path, name) = (text(path), text("user.vmtests"));
    let mut args = vec![Arg::Text(&path), Arg::Text(&name)];
    if set {
        args.extend([Arg::In(b"1"), Arg::Int(1), Arg::Int(0)]);
    }
    silent(call(number, &mut args))
}

/// `chattr +A` and back: FS_IOC_SETFLAGS.
fn set_flags(path: &str) -> Done {
    const GET: i64 = 0x8008_6601;
    const SET: i64 = 0x4008_6602;
    let file = open_with(path, OFlag::O_RDONLY)?;
    let mut flags = [0u8; 8];
    call(libc::SYS_ioctl, &mut [Arg::Int(file.as_raw_fd().into()), Arg::Int(GET), Arg::Out(&mut flags)])?;
    silent(call(libc::SYS_ioctl, &mut [Arg::Int(file.as_raw_fd().into()), Arg::Int(SET), Arg::In(&flags)]))
}

/// A descriptor without access to the content, opened again through /proc.
fn reopen(path: &str) -> Done {
    let file = open_with(path, OFlag::O_PATH)?;
    read_text(&open_with(&format!("/proc/self/fd/{}", file.as_raw_fd()), OFlag::O_RDONLY))
}

/// A file without a name gets one.
fn tmpfile_link(directory: &str, to: &str) -> Done {
    let file = open_with(directory, OFlag::O_TMPFILE | OFlag::O_RDWR)?;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    silent(linkat(AT_FDCWD, from.as_str(), AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW))
}

/// A hard link made from a descriptor that gives no access.
fn path_link(from: &str, to: &str) -> Done {
    let file = open_with(from, OFlag::O_PATH)?;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    silent(linkat(AT_FDCWD, from.as_str(), AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW))
}

/// Around every directory: the file's handle, opened on its file system.
fn by_handle(path: &str, mount: &str) -> Done {
    let mut handle = vec![0u8; 8 + 128];
    handle[..4].copy_from_slice(&128u32.to_ne_bytes());
    let mut mount_id = [0u8; 4];
    let path = text(path);
    call(
        libc::SYS_name_to_handle_at,
        &mut [
            Arg::Int(libc::AT_FDCWD.into()),
            Arg::Text(&path),
            Arg::Out(&mut handle),
            Arg::Out(&mut mount_id),
            Arg::Int(0),
        ],
    )?;
    let mount = open_with(mount, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let mut args = [Arg::Int(mount.as_raw_fd().into()), Arg::Out(&mut handle), Arg::Int(libc::O_RDONLY.into())];
    read_text(&open_call(libc::SYS_open_by_handle_at, &mut args))
}

/// A copy of a mount that hangs nowhere.
fn open_tree(directory: &str, name: &str) -> Done {
    const OPEN_TREE_CLONE: i64 = 1;
    let directory = text(directory);
    let mut args = [Arg::Int(libc::AT_FDCWD.into()), Arg::Text(&directory), Arg::Int(OPEN_TREE_CLONE)];
    let tree = open_call(libc::SYS_open_tree, &mut args)?;
    read_text(&nix::fcntl::openat(&tree, name, OFlag::O_RDONLY, Mode::empty()))
}

/// A file many directories down.
fn deep(directory: &str, levels: i64) -> Done {
    let mut path = directory.to_owned();
    for _ in 0..levels {
        path += "/d";
        match nix::unistd::mkdir(path.as_str(), Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    silent(open_with(&format!("{path}/f"), OFlag::O_RDWR | OFlag::O_CREAT))
}

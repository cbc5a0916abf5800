//! Attempts on the kernel itself: mounts, namespaces, bpf, perf, io_uring, modules, keys, settings.

use std::fs;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::files::open_with;
use super::{Done, io_errno, number, silent, text};
use crate::sys::{Arg, call, open_call};

pub(super) fn perform(name: &str, words: &[&str]) -> Option<Done> {
    let none = None::<&str>;
    Some(match (name, words) {
        ("bind-mount", [from, to]) => silent(mount(Some(*from), *to, none, MsFlags::MS_BIND, none)),
        ("mount-tmpfs", [to]) => silent(mount(Some("none"), *to, Some("tmpfs"), MsFlags::empty(), none)),
        ("mount-proc", [to]) => silent(mount(Some("none"), *to, Some("proc"), MsFlags::empty(), none)),
        ("mount-overlay", [lower, upper, work, to]) => {
            let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
            silent(mount(Some("none"), *to, Some("overlay"), MsFlags::empty(), Some(options.as_str())))
        }
        ("remount", [path]) => silent(mount(none, *path, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none)),
        ("move-mount", [from, to]) => silent(mount(Some(*from), *to, none, MsFlags::MS_MOVE, none)),
        ("make-shared", [path]) => silent(mount(none, *path, none, MsFlags::MS_SHARED, none)),
        ("umount", [path]) => silent(umount2(*path, MntFlags::MNT_DETACH)),
        ("fsopen", [kind]) => new_mount(kind),
        ("open-tree-attach", [from, to]) => attach_tree(from, to),
        ("mount-setattr", [path]) => {
            let path = text(path);
            let attributes = [0u8; 32];
            silent(call(
                libc::SYS_mount_setattr,
                &mut [
                    Arg::Int(libc::AT_FDCWD.into()),
                    Arg::Text(&path),
                    Arg::Int(0),
                    Arg::In(&attributes),
                    Arg::Int(32),
                ],
            ))
        }
        ("pivot-root", [new, old]) => silent(nix::unistd::pivot_root(*new, *old)),
        ("chroot", [path]) => silent(nix::unistd::chroot(*path)),
        ("unshare", [kind]) => namespace(kind).and_then(|flags| silent(unshare(flags))),
        ("clone-user", []) => clone_user(false),
        ("clone3-user", []) => clone_user(true),
        ("setns", [path, kind]) => open_with(path, OFlag::O_RDONLY)
            .and_then(|file| namespace(kind).and_then(|flags| silent(setns(&file, flags)))),
        ("swap-root", [directory]) => silent(unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS))
            .and_then(|_| silent(nix::unistd::chroot(*directory))),

        ("bpf-map", []) => bpf_map(),
        ("bpf-get", [path]) => bpf_get(path),
        ("bpf-program", []) => bpf_program(),
        ("perf", []) => perf(0),
        ("perf-all", []) => perf(-1),
        ("uring", []) => uring(0),
        ("uring-polled", []) => uring(2),
        ("userfaultfd", []) => silent(open_call(libc::SYS_userfaultfd, &mut [Arg::Int(1)])),
        ("kexec", []) => silent(call(libc::SYS_kexec_load, &mut [Arg::Int(0), Arg::Int(0), Arg::Int(0), Arg::Int(0)])),
        ("module", []) => {
            let options = text("");
            silent(call(libc::SYS_init_module, &mut [Arg::In(b"\x7fELF"), Arg::Int(4), Arg::Text(&options)]))
        }
        ("module-delete", [name]) => {
            let name = text(name);
            silent(call(libc::SYS_delete_module, &mut [Arg::Text(&name), Arg::Int(libc::O_NONBLOCK.into())]))
        }
        ("reboot", []) => {
            // LINUX_REBOOT_CMD_CAD_OFF: harms nobody where it works.
            let magic = [0xfee1_dead_u32 as i32, 0x2812_1969, 0];
            silent(call(libc::SYS_reboot, &mut magic.map(|number| Arg::Int(number.into()))))
        }
        ("key-add", []) => key_add(),
        ("key-join", [name]) => {
            let name = text(name);
            silent(call(libc::SYS_keyctl, &mut [Arg::Int(1), Arg::Text(&name)]))
        }
        ("key-read", [id]) => key_read(number(id)),
        ("key-find", []) => key_find(),
        ("key-invalidate", [id]) => silent(call(libc::SYS_keyctl, &mut [Arg::Int(21), Arg::Int(number(id))])),
        ("set-hostname", []) => silent(nix::unistd::sethostname("renamed")),
        ("set-clock", []) => {
            let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME);
            now.and_then(|now| silent(nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, now)))
        }
        ("write-to", [path, content]) => {
            fs::write(path, content).map_err(|error| io_errno(&error)).map(|()| String::new())
        }
        _ => return None,
    })
}

fn namespace(kind: &str) -> Result<CloneFlags, Errno> {
    Ok(match kind {
        "user" => CloneFlags::CLONE_NEWUSER,
        "mnt" => CloneFlags::CLONE_NEWNS,
        "pid" => CloneFlags::CLONE_NEWPID,
        "net" => CloneFlags::CLONE_NEWNET,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "uts" => CloneFlags::CLONE_NEWUTS,
        "cgroup" => CloneFlags::CLONE_NEWCGROUP,
        _ => return Err(Errno::EINVAL),
    })
}

/// A child in a user namespace of its own, where it has every capability.
fn clone_user(third: bool) -> Done {
    let flags = libc::CLONE_NEWUSER as u64;
    let child = if third {
        // struct clone_args: flags first, exit_signal fifth.
        let mut args = [0u64; 11];
        (args[0], args[4]) = (flags, libc::SIGCHLD as u64);
        let args: Vec<u8> = args.iter().flat_map(|word| word.to_ne_bytes()).collect();
        call(libc::SYS_clone3, &mut [Arg::In(&args), Arg::Int(88)])?
    } else {
        call(libc::SYS_clone, &mut [Arg::Int(flags as i64 | i64::from(libc::SIGCHLD)), Arg::Int(0)])?
    };
    if child == 0 {
        std::process::exit(0);
    }
    Ok(String::new())
}

/// fsopen, fsconfig, fsmount: a mount without a place.
fn new_mount(kind: &str) -> Done {
    const FSCONFIG_CMD_CREATE: i64 = 6;
    let kind = text(kind);
    let context = open_call(libc::SYS_fsopen, &mut [Arg::Text(&kind), Arg::Int(0)])?;
    let fd = i64::from(context.as_raw_fd());
    let mut create = [Arg::Int(fd), Arg::Int(FSCONFIG_CMD_CREATE), Arg::Int(0), Arg::Int(0), Arg::Int(0)];
    call(libc::SYS_fsconfig, &mut create)?;
    silent(open_call(libc::SYS_fsmount, &mut [Arg::Int(fd), Arg::Int(0), Arg::Int(0)]))
}

/// A copy of a mount, put somewhere else.
fn attach_tree(from: &str, to: &str) -> Done {
    const OPEN_TREE_CLONE: i64 = 1;
    const MOVE_MOUNT_F_EMPTY_PATH: i64 = 4;
    let (from, to, empty) = (text(from), text(to), text(""));
    let here = i64::from(libc::AT_FDCWD);
    let tree = open_call(libc::SYS_open_tree, &mut [Arg::Int(here), Arg::Text(&from), Arg::Int(OPEN_TREE_CLONE)])?;
    silent(call(
        libc::SYS_move_mount,
        &mut [
            Arg::Int(tree.as_raw_fd().into()),
            Arg::Text(&empty),
            Arg::Int(here),
            Arg::Text(&to),
            Arg::Int(MOVE_MOUNT_F_EMPTY_PATH),
        ],
    ))
}

/// `union bpf_attr` is longer than anything used here.
const BPF_ATTR: usize = 128;

fn bpf(command: i64, words: &[(usize, u64, usize)]) -> Result<std::os::fd::OwnedFd, Errno> {
    let mut attributes = [0u8; BPF_ATTR];
    for (at, value, length) in words {
        attributes[*at..at + length].copy_from_slice(&value.to_ne_bytes()[..*length]);
    }
    open_call(libc::SYS_bpf, &mut [Arg::Int(command), Arg::In(&attributes), Arg::Int(BPF_ATTR as i64)])
}

/// BPF_MAP_CREATE of an array of one.
fn bpf_map() -> Done {
    silent(bpf(0, &[(0, 2, 4), (4, 4, 4), (8, 4, 4), (12, 1, 4)]))
}

/// BPF_PROG_LOAD of a socket filter that says 0.
fn bpf_program() -> Done {
    let instructions: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
    let license = text("GPL");
    let words = [(0, 1, 4), (4, 2, 4), (8, instructions.as_ptr() as u64, 8), (16, license.as_ptr() as u64, 8)];
    silent(bpf(5, &words))
}

/// BPF_OBJ_GET of a pin.
fn bpf_get(path: &str) -> Done {
    let path = text(path);
    silent(bpf(7, &[(0, path.as_ptr() as u64, 8)]))
}

/// A count of page faults, of this process or of a whole processor.
fn perf(pid: i64) -> Done {
    let mut attributes = [0u8; 128];
    attributes[0..4].copy_from_slice(&1u32.to_ne_bytes()); // PERF_TYPE_SOFTWARE
    attributes[4..8].copy_from_slice(&128u32.to_ne_bytes());
    attributes[8..16].copy_from_slice(&2u64.to_ne_bytes()); // PERF_COUNT_SW_PAGE_FAULTS
    attributes[40..48].copy_from_slice(&0x60u64.to_ne_bytes()); // exclude_kernel, exclude_hv
    let cpu = if pid < 0 { 0 } else { -1 };
    let mut args = [Arg::In(&attributes), Arg::Int(pid), Arg::Int(cpu), Arg::Int(-1), Arg::Int(0)];
    silent(open_call(libc::SYS_perf_event_open, &mut args))
}

/// A ring; flag 2 gives it a thread of the kernel's.
fn uring(flags: u32) -> Done {
    let mut parameters = [0u8; 120];
    parameters[8..12].copy_from_slice(&flags.to_ne_bytes());
    silent(open_call(libc::SYS_io_uring_setup, &mut [Arg::Int(4), Arg::Out(&mut parameters)]))
}

/// Puts a secret into the user's keyring; its number is the answer.
fn key_add() -> Done {
    const USER_KEYRING: i64 = -4;
    let (kind, name) = (text("user"), text("vm-tests"));
    let mut args = [Arg::Text(&kind), Arg::Text(&name), Arg::In(b"secret"), Arg::Int(6), Arg::Int(USER_KEYRING)];
    call(libc::SYS_add_key, &mut args).map(|id| id.to_string())
}

fn key_read(id: i64) -> Done {
    const KEYCTL_READ: i64 = 11;
    let mut value = [0u8; 64];
    let mut args = [Arg::Int(KEYCTL_READ), Arg::Int(id), Arg::Out(&mut value), Arg::Int(64)];
    let count = call(libc::SYS_keyctl, &mut args)? as usize;
    Ok(String::from_utf8_lossy(&value[..count.min(64)]).into_owned())
}

/// The same secret by its name, wherever it is in the user's keyring.
fn key_find() -> Done {
    const KEYCTL_SEARCH: i64 = 10;
    const USER_KEYRING: i64 = -4;
    let (kind, name) = (text("user"), text("vm-tests"));
    let mut args = [Arg::Int(KEYCTL_SEARCH), Arg::Int(USER_KEYRING), Arg::Text(&kind), Arg::Text(&name), Arg::Int(0)];
    call(libc::SYS_keyctl, &mut args).and_then(key_read)
}

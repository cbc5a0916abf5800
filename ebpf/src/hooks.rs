//! Which hooks are there, and which of them must be?
//!
//! The table behind `ebpf/README.md`. A mandatory hook that the kernel lacks makes the load fail by name; an optional one
//! is left out, and the line says what holds in its place.

use crate::object::KernelTypes;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bpf_lsm_NAME`.
    Lsm,
    /// Entry or exit of a kernel function.
    Function,
}

/// What a kernel without the hook means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing is enforced without it.
    Mandatory,
    /// Something else holds on kernels without it.
    Optional {
        /// First kernel that has it.
        since: &'static str,
        /// What holds before.
        instead: &'static str,
    },
    /// The hook's arguments differ between kernels: this program is for kernels where it takes so many.
    Arguments(usize),
}

/// One program of the guard object.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Name of the C function.
    pub program: &'static str,
    /// Name of the hook or function.
    pub hook: &'static str,
    /// How it is attached.
    pub kind: Kind,
    /// What it is for.
    pub duty: &'static str,
    /// Whether it must be there.
    pub need: Need,
}

impl Hook {
    /// The kernel function whose presence in BTF says that the hook is there.
    pub fn symbol(&self) -> String {
        match self.kind {
            Kind::Lsm => format!("bpf_lsm_{}", self.hook),
            Kind::Function => self.hook.to_owned(),
        }
    }
}

const fn must(program: &'static str, hook: &'static str, duty: &'static str) -> Hook {
    Hook { program, hook, kind: Kind::Lsm, duty, need: Need::Mandatory }
}

const fn may(
    program: &'static str,
    hook: &'static str,
    duty: &'static str,
    since: &'static str,
    instead: &'static str,
) -> Hook {
    Hook { program, hook, kind: Kind::Lsm, duty, need: Need::Optional { since, instead } }
}

const fn traced(program: &'static str, hook: &'static str, duty: &'static str) -> Hook {
    Hook { program, hook, kind: Kind::Function, duty, need: Need::Mandatory }
}

const fn variant(program: &'static str, hook: &'static str, duty: &'static str, arguments: usize) -> Hook {
    Hook { program, hook, kind: Kind::Lsm, duty, need: Need::Arguments(arguments) }
}

/// Every program of the guard object.
pub const HOOKS: &[Hook] = &[
    must("open_check", "file_open", "open: read, write, create (O_TMPFILE); none when exhausted"),
    must("receive_check", "file_receive", "a descriptor received through a socket: as an open"),
    must("use_check", "file_permission", "reading and writing what is open, once rights were lent: as an open"),
    must("truncate_check", "path_truncate", "truncate: write"),
    may("ftruncate_check", "file_truncate", "ftruncate: write", "6.2", "path_truncate is called for ftruncate too"),
    must(
        "exec_check",
        "bprm_check_security",
        "execve: exec; none when exhausted; none without identity in an agent's cgroup",
    ),
    must("mmap_check", "mmap_file", "executable mapping: exec"),
    must("mprotect_check", "file_mprotect", "mapping that becomes executable: exec"),
    must("mknod_check", "path_mknod", "open(O_CREAT), mknod: create"),
    must("mkdir_check", "path_mkdir", "mkdir: create"),
    must("symlink_check", "path_symlink", "symlink: create"),
    must("unlink_check", "path_unlink", "unlink: delete"),
    must("rmdir_check", "path_rmdir", "rmdir: delete"),
    must("link_check", "path_link", "link: create, and no right gained by the new place"),
    must("rename_check", "path_rename", "rename: delete, create, and no right gained by the new place"),
    traced("rename_begins", "vfs_rename", "the decision cache pauses while a directory moves"),
    traced("rename_ended", "vfs_rename", "and goes on with other keys"),
    must("chmod_check", "path_chmod", "chmod: write"),
    must("chown_check", "path_chown", "chown: write"),
    variant("setattr_check", "inode_setattr", "utimes: write", 3),
    variant("setattr_check_2", "inode_setattr", "utimes: write", 2),
    must("setxattr_check", "inode_setxattr", "setxattr: write"),
    must("removexattr_check", "inode_removexattr", "removexattr: write"),
    may("set_acl_check", "inode_set_acl", "ACLs: write", "6.2", "inode_setxattr is called for ACLs too"),
    may("remove_acl_check", "inode_remove_acl", "ACLs: write", "6.2", "inode_removexattr is called for ACLs too"),
    may("file_setattr_check", "inode_file_setattr", "chattr: write", "6.17", "file_ioctl"),
    must("ioctl_check", "file_ioctl", "chattr: write; subvolumes and other commands of a file system: never"),
    may("ioctl_compat_check", "file_ioctl_compat", "the same asked by a 32-bit program", "6.8", "file_ioctl"),
    must("fork_check", "task_alloc", "child gets the identity or is not born; none when exhausted"),
    must("ptrace_check", "ptrace_access_check", "ptrace, process_vm_*, /proc of strangers"),
    must("traceme_check", "ptrace_traceme", "being traced by a stranger"),
    must("kill_check", "task_kill", "signals to strangers"),
    must("scheduler_check", "task_setscheduler", "strangers; own only without a way to real time"),
    must("nice_check", "task_setnice", "priority of strangers"),
    must("ioprio_check", "task_setioprio", "I/O priority of strangers"),
    must("rlimit_check", "task_setrlimit", "limits of strangers"),
    must("movememory_check", "task_movememory", "memory of strangers"),
    must("socket_check", "socket_create", "only families and types that can be checked"),
    must("listen_check", "socket_listen", "TCP: only with an address that bind() was asked for"),
    must("unix_connect_check", "unix_stream_connect", "write on a socket's path; abstract ones of the same agent"),
    must("unix_send_check", "unix_may_send", "the same for datagrams"),
    must("mount_guard", "sb_mount", "never"),
    must("move_mount_guard", "move_mount", "never"),
    must("umount_guard", "sb_umount", "never"),
    must("remount_guard", "sb_remount", "never"),
    must("pivot_root_guard", "sb_pivotroot", "never"),
    must("new_mount_guard", "sb_kern_mount", "never"),
    must("chroot_guard", "path_chroot", "never"),
    must("userns_guard", "userns_create", "never"),
    must("bpf_guard", "bpf", "never"),
    must("perf_guard", "perf_event_open", "never"),
    may("uring_guard", "uring_allowed", "never", "6.15", "the launcher's seccomp filter refuses io_uring_setup"),
    must("read_file_guard", "kernel_read_file", "modules, kexec, firmware: never"),
    must("load_data_guard", "kernel_load_data", "modules, kexec, firmware: never"),
];

/// The mandatory hooks that this kernel lacks.
pub(crate) fn missing(types: &KernelTypes) -> Vec<&'static Hook> {
    let lacks = |hook: &&Hook| hook.need == Need::Mandatory && types.arguments(&hook.symbol()).is_none();
    HOOKS.iter().filter(lacks).collect()
}

/// Whether this kernel has the hook that a program is for, with the arguments it is for.
pub(crate) fn fits(types: &KernelTypes, hook: &Hook) -> bool {
    match (types.arguments(&hook.symbol()), hook.need) {
        (None, _) => false,
        (Some(found), Need::Arguments(wanted)) => found == wanted,
        (Some(_), _) => true,
    }
}

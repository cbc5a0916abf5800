//! Which system calls an agent finds refused by number.
//!
//! A deny list, because agents run everything: what is not refused here is still subject to the kernel's own checks for
//! a process without any capability. Where LSM programs load, the filter is about what they do not see: keys, faults
//! handled in user space, and io_uring on older kernels; the long list is for hosts without them.
//!
//! Not refused, though it looks like it should be: `ptrace`, `process_vm_readv`, `process_vm_writev`. They name their
//! victim by pid, an agent has its own pid namespace, so all they can name is the agent itself; and debuggers are daily
//! work. Init is out of their reach, because it is not dumpable. `pidfd_getfd` and `process_madvise` name it by
//! descriptor, which could have been received from outside, and are refused.
//!
//! 32-bit calls (i386, x32) have other numbers, so they would slip through: x32 gets `ENOSYS`, i386 is killed.

use std::collections::BTreeMap;

use libc::{EPERM, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use super::request::Seccomp;

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Calls that are refused whatever their arguments, on hosts without LSM programs.
const REFUSED: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    SYS_OPEN_TREE_ATTR,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_sched_setattr,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
];

/// Calls that no agent has business with, on any host. `request_key` has the kernel start a helper of the host, as root
/// and outside every agent, with arguments of the caller's choice; keys of the user outlive the agent and reach others.
const UNSEEN: [c_long; 4] = [libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_userfaultfd];

/// Newer than libc's table (Linux 6.15); the number is the same on every architecture.
const SYS_OPEN_TREE_ATTR: c_long = 467;

const URING: [c_long; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// New namespaces, as `clone` and `unshare` take them.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Shares its bit with the exit signal of `clone`, so only `unshare` has it.
const CLONE_NEWTIME: i32 = 0x80;

/// Bit that marks an x32 call.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// Why a filter could not be made or installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a system call filter")]
pub(crate) struct FilterError(#[from] seccompiler::BackendError);

/// The filter of a level; empty for [`Seccomp::Nothing`].
pub(crate) fn filter(level: Seccomp) -> Result<BpfProgram, FilterError> {
    let whole = |calls: &[c_long]| calls.iter().map(|call| (*call, Vec::new())).collect::<Rules>();
    let mut rules = whole(&UNSEEN);
    match level {
        Seccomp::Nothing => Ok(Vec::new()),
        Seccomp::Unseen => compile(rules, &[]),
        Seccomp::UnseenAndUring => {
            rules.extend(whole(&URING));
            compile(rules, &[])
        }
        Seccomp::Fallback => {
            rules.extend(whole(&URING));
            rules.extend(REFUSED.iter().map(|call| (*call, Vec::new())));
            add_namespaces(&mut rules)?;
            add_scheduling(&mut rules)?;
            add_sockets(&mut rules)?;
            // clone3 keeps its flags in memory, where a filter cannot look. ENOSYS sends libc back to clone.
            compile(rules, &[libc::SYS_clone3])
        }
    }
}

/// Installs a filter on the calling thread, for good.
pub(crate) fn install(filter: &BpfProgram) -> Result<(), seccompiler::Error> {
    if filter.is_empty() { Ok(()) } else { seccompiler::apply_filter(filter) }
}

/// System calls in one part of a filter. The kernel walks the filter once for every call there is when it is installed,
/// and a part is all that it walks then: installing the longest filter takes 0.1 ms instead of 0.3.
const PART: usize = 8;

const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, at offset 0 of seccomp_data
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const GO_ON: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// The head, then which part a number belongs to, then the parts, each of which is a whole filter.
fn compile(rules: Rules, unknown: &[c_long]) -> Result<BpfProgram, FilterError> {
    let target = std::env::consts::ARCH.try_into()?;
    let refuse = SeccompAction::Errno(EPERM as u32);
    let mut rules: Vec<(c_long, Vec<SeccompRule>)> = rules.into_iter().collect();
    let mut parts: Vec<(c_long, BpfProgram)> = Vec::new();
    while !rules.is_empty() {
        let part: Rules = rules.drain(..rules.len().min(PART)).collect();
        let first = part.keys().next().copied().unwrap_or_default();
        let filter = SeccompFilter::new(part, SeccompAction::Allow, refuse.clone(), target)?;
        parts.push((first, filter.try_into()?));
    }
    let mut program = unknown_calls(unknown);
    // From the last part down: a number that is at least its first belongs to it. What is left belongs to the first part,
    // so every number comes to some part, and that looks at the architecture.
    let mut start: usize = parts.iter().map(|(_, body)| body.len()).sum();
    for (index, (first, body)) in parts.iter().enumerate().skip(1).rev() {
        start -= body.len();
        let choices_between = 2 * (index - 1);
        program.push(sock_filter { code: IF_AT_LEAST, jt: 0, jf: 1, k: *first as u32 });
        program.push(sock_filter { code: GO_ON, jt: 0, jf: 0, k: (choices_between + start) as u32 });
    }
    program.extend(parts.into_iter().flat_map(|(_, body)| body));
    Ok(program)
}

/// The head of a filter, which the crate cannot express beside another errno: these calls, and all of x32, do not exist.
fn unknown_calls(calls: &[c_long]) -> BpfProgram {
    let answer = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let mut program = vec![sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 }];
    #[cfg(target_arch = "x86_64")]
    {
        program.push(sock_filter { code: IF_AT_LEAST, jt: 0, jf: 1, k: X32_BIT });
        program.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: answer });
    }
    for call in calls {
        program.push(sock_filter { code: IF_EQUAL, jt: 0, jf: 1, k: *call as u32 });
        program.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: answer });
    }
    program
}

fn add_namespaces(rules: &mut Rules) -> Result<(), FilterError> {
    for flag in NAMESPACES {
        add(rules, libc::SYS_clone, &[has_bits(0, flag)])?;
        add(rules, libc::SYS_unshare, &[has_bits(0, flag)])?;
    }
    add(rules, libc::SYS_unshare, &[has_bits(0, CLONE_NEWTIME)])
}

/// Only fair scheduling; the limits on real-time priority refuse the rest too, but not `SCHED_EXT`.
fn add_scheduling(rules: &mut Rules) -> Result<(), FilterError> {
    const WITHOUT_RESET_ON_FORK: u64 = !(libc::SCHED_RESET_ON_FORK as u64) & 0xffff_ffff;
    const EXT: i32 = 7;
    for policy in [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE, EXT] {
        let masked = (1, SeccompCmpOp::MaskedEq(WITHOUT_RESET_ON_FORK), policy as u64);
        add(rules, libc::SYS_sched_setscheduler, &[masked])?;
    }
    Ok(())
}

/// TCP, UDP, unix sockets, and netlink for routes: the rules on addresses are checked for these and no others.
fn add_sockets(rules: &mut Rules) -> Result<(), FilterError> {
    const PACKET: i32 = 10; // libc calls its own SOCK_PACKET deprecated
    const TYPE: u64 = 0xf; // the rest of the argument is SOCK_CLOEXEC and SOCK_NONBLOCK
    let not = |arg, value: i32| (arg, SeccompCmpOp::Ne, value as u64);
    let is = |arg, value: i32| (arg, SeccompCmpOp::Eq, value as u64);
    let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(|family| not(0, family));
    add(rules, libc::SYS_socket, &known)?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, PACKET] {
            add(rules, libc::SYS_socket, &[is(0, family), (1, SeccompCmpOp::MaskedEq(TYPE), kind as u64)])?;
        }
        let protocols = [is(0, family), not(2, 0), not(2, libc::IPPROTO_TCP), not(2, libc::IPPROTO_UDP)];
        add(rules, libc::SYS_socket, &protocols)?;
    }
    add(rules, libc::SYS_socket, &[is(0, libc::AF_NETLINK), not(2, libc::NETLINK_ROUTE)])?;
    // A first packet with data leaves before the hook on connect is asked.
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        add(rules, call, &[has_bits(flags, libc::MSG_FASTOPEN)])?;
    }
    Ok(())
}

type Condition = (u8, SeccompCmpOp, u64);

fn has_bits(arg: u8, bits: i32) -> Condition {
    (arg, SeccompCmpOp::MaskedEq(bits as u32 as u64), bits as u32 as u64)
}

/// Adds: refuse the call where all conditions hold. The kernel takes all these arguments as 32-bit numbers.
fn add(rules: &mut Rules, call: c_long, conditions: &[Condition]) -> Result<(), FilterError> {
    let conditions: Result<Vec<_>, _> = conditions
        .iter()
        .map(|(arg, op, value)| SeccompCondition::new(*arg, SeccompCmpArgLen::Dword, op.clone(), *value))
        .collect();
    rules.entry(call).or_default().push(SeccompRule::new(conditions?)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_compile_and_fit() {
        assert!(filter(Seccomp::Nothing).unwrap().is_empty());
        let small = filter(Seccomp::UnseenAndUring).unwrap().len();
        let large = filter(Seccomp::Fallback).unwrap().len();
        assert!(small < 48, "{small}");
        assert!(large < 1024, "{large} of the kernel's 4096");
    }
}

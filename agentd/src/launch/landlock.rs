//! The rules on files as far as Landlock can say them: what is allowed, where, from now on.
//!
//! Landlock knows no denial, so rules that deny are not in here; the daemon has refused them, or was told to go on
//! without (`Gap::DenyInsideAllow`). Everything Landlock handles in this kernel's version is handled: a right that no
//! rule gives is refused. It is fixed once and for all; nothing can be given or taken later.
//!
//! | right | Landlock |
//! |---|---|
//! | read | read a file, list a directory |
//! | write | write, truncate, ioctl on devices |
//! | exec | execute (not: map executable, so a program can still be run through `ld.so` that may be read) |
//! | create | make a file, directory, symlink, socket, fifo |
//! | delete | remove a file, directory |
//! | create and delete | also: move and link between directories |
//! | read and write | also: connect to a unix socket (Linux 7.1) |

use std::io;
use std::os::fd::OwnedFd;

use agentd_model::Rights;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope,
};

/// The kernel's version of Landlock, where there is one.
#[allow(unsafe_code, reason = "the landlock crate keeps this question to itself until a process restricts itself")]
pub(crate) fn kernel_abi() -> Option<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let nothing = std::ptr::null::<u8>();
    // SAFETY: with this flag the kernel takes no attributes and only answers with a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, LANDLOCK_CREATE_RULESET_VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// Restricts the calling process, for good, to what the objects' rights allow; gives the version that does it.
pub(crate) fn restrict(objects: &[(Rights, &OwnedFd, bool)]) -> io::Result<u32> {
    let version = kernel_abi().ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))?;
    let abi = ABI::from(version as i32);
    let build = || -> Result<(), landlock::RulesetError> {
        // Everything asked for is in this kernel's version: a kernel that then refuses some of it is an error.
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(abi))?;
        if abi >= ABI::V6 {
            ruleset = ruleset.scope(Scope::from_all(abi))?;
        }
        let mut ruleset = ruleset.create()?;
        for (rights, file, directory) in objects {
            let access = accesses(*rights, *directory, abi);
            if !access.is_empty() {
                ruleset = ruleset.add_rule(PathBeneath::new(file, access))?;
            }
        }
        ruleset.restrict_self().map(drop)
    };
    build().map_err(io::Error::other)?;
    Ok(version)
}

/// What Landlock calls these rights on such an object.
fn accesses(rights: Rights, directory: bool, abi: ABI) -> BitFlags<AccessFs> {
    let mut access = BitFlags::EMPTY;
    for (right, is) in [
        (Rights::READ, AccessFs::ReadFile | AccessFs::ReadDir),
        (Rights::WRITE, AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev),
        (Rights::EXEC, AccessFs::Execute.into()),
        (
            Rights::CREATE,
            AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::MakeSym | AccessFs::MakeSock | AccessFs::MakeFifo,
        ),
        (Rights::DELETE, AccessFs::RemoveFile | AccessFs::RemoveDir),
        (Rights::CREATE.union(Rights::DELETE), AccessFs::Refer.into()),
        (Rights::READ.union(Rights::WRITE), AccessFs::ResolveUnix.into()),
    ] {
        if rights.contains(right) {
            access |= is;
        }
    }
    access & if directory { AccessFs::from_all(abi) } else { AccessFs::from_file(abi) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_become_what_the_version_knows() {
        assert_eq!(accesses(Rights::WRITE, true, ABI::V1), AccessFs::WriteFile);
        assert_eq!(accesses(Rights::ALL, false, ABI::V3).bits(), AccessFs::from_file(ABI::V3).bits());
        let all = AccessFs::from_all(ABI::V9) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
        assert_eq!(accesses(Rights::ALL, true, ABI::V9), all, "all but device nodes");
        assert!(accesses(Rights::CREATE, false, ABI::V9).is_empty());
        assert!(!accesses(Rights::CREATE, true, ABI::V9).contains(AccessFs::Refer));
        assert!(accesses(Rights::NONE, true, ABI::V9).is_empty());
    }
}

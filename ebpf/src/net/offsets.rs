//! Where the fields that the audit programs read stand in this kernel's structures.
//!
//! aya-ebpf makes no CO-RE relocations, so the offsets are looked up in the kernel's BTF and handed over as constants.
//! To the verifier they are as good: it checks each access against the same BTF.

use libbpf_rs::btf::types::{Composite, MemberAttr};
use libbpf_rs::btf::{Btf, BtfType};

/// Byte offsets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offsets {
    /// `task_struct.pid`: the thread.
    pub(super) pid: u32,
    /// `task_struct.tgid`: the process.
    pub(super) tgid: u32,
    /// `task_struct.real_parent`.
    pub(super) parent: u32,
    /// `task_struct.exit_code`.
    pub(super) exit_code: u32,
    /// `linux_binprm.filename`.
    pub(super) filename: u32,
}

/// Why the offsets are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OffsetsError {
    /// This kernel has no BTF.
    #[error("this kernel does not describe its types (CONFIG_DEBUG_INFO_BTF)")]
    NoBtf(#[source] libbpf_rs::Error),
    /// This kernel's structure has no such field.
    #[error("this kernel has no field {structure}.{field}")]
    Missing {
        /// The structure.
        structure: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// Reads the offsets from the running kernel.
pub(super) fn read() -> Result<Offsets, OffsetsError> {
    let btf = Btf::from_vmlinux().map_err(OffsetsError::NoBtf)?;
    let at = |structure, field| offset(&btf, structure, field).ok_or(OffsetsError::Missing { structure, field });
    Ok(Offsets {
        pid: at("task_struct", "pid")?,
        tgid: at("task_struct", "tgid")?,
        parent: at("task_struct", "real_parent")?,
        exit_code: at("task_struct", "exit_code")?,
        filename: at("linux_binprm", "filename")?,
    })
}

fn offset(btf: &Btf<'_>, structure: &str, field: &str) -> Option<u32> {
    let structure = btf.type_by_name::<Composite<'_>>(structure)?;
    bits(btf, &structure, field).map(|bits| bits / 8)
}

/// Looks through members without a name too: the randomised part of a task is one.
fn bits(btf: &Btf<'_>, structure: &Composite<'_>, field: &str) -> Option<u32> {
    structure.iter().find_map(|member| {
        let MemberAttr::Normal { offset } = member.attr else { return None };
        match member.name {
            Some(name) if !name.is_empty() => (name == field).then_some(offset),
            _ => {
                let inner = btf.type_by_id::<BtfType<'_>>(member.ty)?.skip_mods_and_typedefs();
                bits(btf, &Composite::try_from(inner).ok()?, field).map(|bits| offset + bits)
            }
        }
    })
}

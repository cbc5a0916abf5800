//! From embedded bytes to an opened object with its settings.

use std::ffi::OsStr;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, FuncProto};
use libbpf_rs::{ObjectBuilder, OpenObject, ReferencesType};
use zerocopy::IntoBytes;

use crate::settings::{SECTION, Settings};

/// Bytes at an address that an ELF reader may take apart in place.
#[repr(C, align(16))]
pub(crate) struct Aligned<T: ?Sized>(T);

macro_rules! embed {
    ($name:ident, $file:literal) => {
        pub(crate) static $name: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", $file)));
    };
}

embed!(MAPS, "maps.bpf.o");
embed!(GUARD, "guard.bpf.o");
embed!(BUDGET, "budget.bpf.o");
embed!(IDENTIFY, "identify.bpf.o");
embed!(PROBE, "probe.bpf.o");
embed!(TRIAL, "trial.bpf.o");

impl Aligned<[u8]> {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A number that changes when any of the programs changes (FNV-1a; not against anybody, only against mix-ups).
pub(crate) fn build_number() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for object in [MAPS, GUARD, BUDGET] {
        for byte in object.bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    hash
}

/// Opens an object and writes the settings into it, if it has any.
pub(crate) fn open(bytes: &Aligned<[u8]>, settings: &Settings) -> Result<OpenObject, libbpf_rs::Error> {
    let mut object = ObjectBuilder::default().open_memory(bytes.bytes())?;
    for mut map in object.maps_mut() {
        if map.name() == OsStr::new(SECTION) {
            map.set_initial_value(settings.as_bytes())?;
        }
    }
    Ok(object)
}

/// The kernel's own description of its types.
pub(crate) struct KernelTypes(Btf<'static>);

impl KernelTypes {
    pub(crate) fn read() -> Result<Self, libbpf_rs::Error> {
        Btf::from_vmlinux().map(Self)
    }

    /// Whether there is such a function, and how many arguments it takes.
    pub(crate) fn arguments(&self, function: &str) -> Option<usize> {
        let function: Func<'_> = self.0.type_by_name(function)?;
        let prototype: FuncProto<'_> = self.0.type_by_id(function.referenced_type_id())?;
        Some(prototype.iter().count())
    }

    /// Whether programs may make pointers readable (6.2 on).
    pub(crate) fn can_cast(&self) -> bool {
        self.arguments("bpf_rdonly_cast").is_some()
    }
}

//! What does the loader decide for the programs?
//!
//! Mirror of `lsm/settings.h`: the content of the section `.rodata.settings`, constant after the load.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the section, and of the map that libbpf makes of it.
pub(crate) const SECTION: &str = ".rodata.settings";

/// The section's content.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Settings {
    pub(crate) secret_a: u64,
    pub(crate) secret_b: u64,
    pub(crate) agents_cgroup: u64,
    pub(crate) agents_level: u32,
    pub(crate) can_cast: u32,
    pub(crate) no_cache: u32,
    pub(crate) reserved: u32,
}

//! Which boot of which kernel is this?

/// The kernel's random id of this boot.
pub fn boot_id() -> String {
    read("/proc/sys/kernel/random/boot_id")
}

/// The kernel's release, as `uname -r` prints it.
pub fn kernel_release() -> String {
    read("/proc/sys/kernel/osrelease")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

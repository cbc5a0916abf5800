//! Whether KVM really runs our kernels.
//!
//! An open /dev/kvm proves nothing: on some hosts the first instructions of a stock kernel never end. So the probe boots
//! one, with a few seconds to reach its first program. The answer holds until the host reboots, and is remembered so.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kernels::Kernel;
use super::qemu::Qemu;
use crate::clock::Deadline;
use crate::hash::Parts;
use crate::{paths, signal, store, ui};

/// How the guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    /// By the processor.
    Kvm,
    /// By QEMU's translator.
    Tcg,
}

impl Accel {
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    pub(super) fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }
}

/// Decides, booting if the answer is not known yet.
pub(super) fn probe(qemu: &Qemu, kernel: &Kernel, initrd: &Path) -> Result<Accel> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accel::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read the boot id")?;
    let key = qemu.add_to(Parts::of("kvm 1").with("boot", boot.trim()).with("kernel", &kernel.label))?.key();
    let memo = paths::cache()?.join("kvm").join(&key);
    let _lock = store::lock(&paths::cache()?.join("kvm/lock"))?;
    if let Ok(answer) = fs::read_to_string(&memo) {
        return Ok(if answer == "yes" { Accel::Kvm } else { Accel::Tcg });
    }
    let works = ui::step("does KVM run our kernel? (at most 8 s)", || boots(qemu, kernel, initrd))?;
    ui::note(if works { "     yes" } else { "     no: machines are emulated (TCG)" });
    fs::write(&memo, if works { "yes" } else { "no" }).context("cannot remember the answer")?;
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}

fn boots(qemu: &Qemu, kernel: &Kernel, initrd: &Path) -> Result<bool> {
    let scratch = store::scratch("kvm")?;
    let socket = scratch.path().join("serial.sock");
    let mut program = qemu.program();
    program.args(["-M", "pc,usb=off", "-m", "256", "-accel", "kvm", "-cpu", "host", "-nodefaults", "-no-reboot"]);
    program.args(["-display", "none", "-serial", "null", "-serial"]);
    program.arg(format!("unix:{},server=on,wait=off", socket.display()));
    program.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initrd);
    program.args(["-append", "quiet panic=-1 agentd.probe"]);
    let mut child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let deadline = Deadline::after(Duration::from_secs(8));
    let mut said = Vec::new();
    let mut serial = None;
    while !deadline.passed() && !signal::pending() && !said.windows(8).any(|w| w == b"PROBE-OK") {
        match &mut serial {
            None => serial = UnixStream::connect(&socket).ok(),
            Some(stream) => {
                stream.set_read_timeout(Some(Duration::from_millis(100)))?;
                let mut buffer = [0; 256];
                if let Ok(count @ 1..) = stream.read(&mut buffer) {
                    said.extend_from_slice(&buffer[..count]);
                    continue;
                }
            }
        }
        if child.try_wait()?.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    signal::check()?;
    Ok(said.windows(8).any(|w| w == b"PROBE-OK"))
}

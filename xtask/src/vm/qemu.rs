//! QEMU: which one, and the machine it emulates.
//!
//! Version 10 is the oldest used: 7.2 was seen to crash guests at random in emulation. The host's own serves if it is new
//! enough; else the one from Debian's line for this release is unpacked into the cache, with the libraries that the host
//! lacks, and installed nowhere.
//!
//! The machine is a plain PC. Its four channels: ttyS0 is the console log, ttyS1 carries requests and replies, two virtio
//! ports carry the running command's output, and hvc0 is the terminal of `vm shell`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::accel::Accel;
use crate::apt::{self, Line};
use crate::hash::Parts;
use crate::{paths, sh, store, toolchain, ui};

const OLDEST: u32 = 10;
const MEMORY_MIB: u64 = 1024;
/// Sizes are part of a template, so they are fixed. All disks are sparse.
pub(super) const JOB_DISK: u64 = 4 << 30;
pub(super) const BTRFS_DISK: u64 = 512 << 20;
pub(super) const DATA_DISK: u64 = 512 << 20;
pub(super) const MEMORY: u64 = MEMORY_MIB << 20;

/// Quiet, and without the calibrations and self-tests that take an emulated processor seconds.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 lsm=landlock,lockdown,yama,integrity,apparmor,bpf \
     tsc_early_khz=2500000 tsc=reliable no_timer_check mitigations=off nokaslr cryptomgr.notests \
     random.trust_cpu=on raid=noautodetect";

const BINARY: &str = "usr/bin/qemu-system-x86_64";

/// A QEMU that can be started.
pub(crate) struct Qemu {
    binary: PathBuf,
    /// Root of the unpacked packages; `None` for the host's own.
    unpacked: Option<PathBuf>,
    pub(crate) record: Value,
}

/// The files of one machine.
pub(super) struct Files<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a Path,
    pub(super) root: &'a Path,
    pub(super) ram: &'a Path,
    /// Sockets, console log and disks of this machine alone.
    pub(super) dir: &'a Path,
}

/// What happens with the memory file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// Writes go to the file: a template in the making.
    Written,
    /// Writes stay private: a machine made from a template, or a cold one.
    Private,
}

/// Finds or unpacks one.
pub(super) fn ensure() -> Result<Qemu> {
    if let Some(binary) = paths::program("qemu-system-x86_64") {
        let version = version_of(&mut Command::new(&binary))?;
        if major(&version) >= OLDEST {
            return Ok(Qemu {
                binary,
                unpacked: None,
                record: json!({ "qemu": "the host's own", "version": version }),
            });
        }
    }
    let host = apt::host_suite()?;
    let backports = format!("{host}-backports");
    let security = format!("{host}-security");
    let key = Parts::of("qemu 1").with("host", &host).key();
    let dir = store::ensure("qemu", &key, |dir| {
        ui::step(&format!("QEMU from {host} and {backports}"), || {
            let line = Line::open(&[&host, &security, &backports])?;
            let package = line.find("qemu-system-x86", |version| {
                major(version.split_once(':').map_or(version, |(_, rest)| rest)) >= OLDEST
            })?;
            line.unpack_with_missing(&package, &backports, dir)?;
            let qemu = Qemu { binary: dir.join(BINARY), unpacked: Some(dir.to_owned()), record: Value::Null };
            sh::quiet(qemu.program().arg("--version"))?;
            toolchain::write_record(dir, &package.record())
        })
    })?;
    let text = fs::read_to_string(dir.join("record.json")).context("cannot read QEMU's record")?;
    let record = serde_json::from_str(&text).context("cannot read QEMU's record")?;
    Ok(Qemu { binary: dir.join(BINARY), unpacked: Some(dir), record })
}

impl Qemu {
    /// What identifies this program in a key.
    pub(super) fn add_to(&self, parts: Parts) -> Result<Parts> {
        Ok(parts.with_file("qemu", &self.binary)?.with("qemu record", self.record.to_string()))
    }

    /// The program with its libraries and firmware. It dies with the thread that starts it, whatever becomes of us.
    pub(super) fn program(&self) -> Command {
        let mut command = sh::command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.binary);
        if let Some(root) = &self.unpacked {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|place| root.join(place));
            command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap_or_default());
            command.env("QEMU_MODULE_DIR", root.join("usr/lib/x86_64-linux-gnu/qemu"));
            for place in ["share/qemu", "share/seabios", "lib/ipxe/qemu"] {
                for root in [root.join("usr"), PathBuf::from("/usr")] {
                    command.arg("-L").arg(root.join(place));
                }
            }
        }
        command
    }
}

/// The machine's arguments.
pub(super) fn arguments(files: &Files<'_>, accel: Accel, memory: Memory) -> Vec<String> {
    let show = |path: &Path| path.display().to_string();
    let own = |name: &str| show(&files.dir.join(name));
    let share = if memory == Memory::Written { "on" } else { "off" };
    let disk = |file: String, rest: &str| format!("if=virtio,format=raw,file={file},{rest}");
    let socket = |id: &str| format!("socket,id={id},path={},server=on,wait=off", own(&format!("{id}.sock")));
    let mut words: Vec<String> = Vec::new();
    let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
    add("-M", "pc,memory-backend=ram,usb=off,hpet=off".into());
    add("-m", MEMORY_MIB.to_string());
    add("-object", format!("memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={},share={share}", show(files.ram)));
    add("-accel", accel.flag().into());
    add("-cpu", accel.cpu().into());
    // As hosts have: on one processor nothing runs side by side, and no race of that kind is ever seen.
    add("-smp", "2".into());
    words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
    let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
    add("-display", "none".into());
    // A new generation id at every start makes the guest reseed its random numbers: two restores never share them.
    add("-device", "vmgenid,guid=auto".into());
    add("-qmp", format!("unix:{},server=on,wait=off", own("qmp.sock")));
    add("-chardev", format!("file,id=console,path={}", own("console.log")));
    add("-serial", "chardev:console".into());
    add("-chardev", socket("control"));
    add("-serial", "chardev:control".into());
    add("-device", "virtio-serial-pci,id=ports".into());
    for (number, id) in [(1, "out"), (2, "err")] {
        add("-chardev", socket(id));
        add("-device", format!("virtserialport,bus=ports.0,nr={number},chardev={id},name={id}"));
    }
    add("-chardev", socket("terminal"));
    add("-device", "virtconsole,bus=ports.0,nr=3,chardev=terminal".into());
    add("-drive", disk(show(files.root), "readonly=on"));
    add("-drive", disk(own("job.img"), "readonly=on"));
    add("-drive", disk(own("btrfs.img"), "cache=unsafe"));
    // Empty, unless it is handed on from a machine whose power was cut.
    add("-drive", disk(own("data.img"), "cache=writeback"));
    add("-kernel", show(files.kernel));
    add("-initrd", show(files.initrd));
    add("-append", CMDLINE.into());
    words
}

fn version_of(command: &mut Command) -> Result<String> {
    let text = sh::output(command.arg("--version"))?;
    let version = text.split_whitespace().nth(3).unwrap_or_default();
    Ok(version.to_owned())
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

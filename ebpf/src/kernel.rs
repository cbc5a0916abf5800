//! From files in this binary to programs that enforce, and back after a restart.
//!
//! Opened → loaded → attached → pinned, and last the `config` map is written: it is the mark that everything before it is
//! whole. Once that is there, the enforcement belongs to bpffs and not to us: our death changes nothing, and the next
//! daemon finds the mark, compares it with what it would have loaded, and takes the maps over without touching a program.
//! If it is a newer daemon, it replaces the programs only while no agent lives; otherwise it says so and keeps them.

use std::ffi::OsStr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use agentd_abi::{ABI_VERSION, Config};
use libbpf_rs::{Object, OpenObject};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use crate::capture::Capture;
use crate::hooks::{self, HOOKS};
use crate::maps::{Maps, OpenMapsError, WriteError};
use crate::object::{self, Aligned, KernelTypes};
use crate::settings::Settings;

/// Where programs are pinned if nobody says otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/agentd";

const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// The cgroup whose children are agents' cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentsCgroup {
    /// Its id, which is its inode number.
    pub id: u64,
    /// Its level: 0 is the root of the hierarchy. Agents are one below.
    pub level: u32,
}

impl AgentsCgroup {
    /// Looks at an existing cgroup v2 directory. The mount must show the whole hierarchy (no cgroup namespace).
    pub fn at(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let meta = fs::metadata(&path)?;
        let inside = |dir: &&Path| fs::metadata(dir).is_ok_and(|parent| parent.dev() == meta.dev());
        let level = path.ancestors().skip(1).take_while(inside).count();
        Ok(Self { id: meta.ino(), level: level as u32 })
    }
}

/// Which programs to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domains {
    /// Files, processes and the CPU budget.
    All,
    /// Only the CPU budget: this host takes no LSM programs.
    CpuOnly,
}

/// What to load, and where to pin it.
#[derive(Clone, Debug)]
pub struct Options {
    /// A directory of bpffs that belongs to us alone; made if it is not there.
    pub bpffs: PathBuf,
    /// Where agents' cgroups will be made.
    pub agents_cgroup: AgentsCgroup,
    /// Which programs.
    pub domains: Domains,
    /// Every decision walks; for measurements.
    pub no_cache: bool,
}

/// Whether programs were loaded or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Loaded by this call.
    Loaded,
    /// Found pinned and whole.
    Adopted,
}

/// Why nothing is enforced by this call. What was pinned before is still there, untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no bpffs, and it could not be mounted.
    #[error("{} is not on a bpf file system", .path.display())]
    NoBpffs {
        /// Where it should be.
        path: PathBuf,
        /// Why it could not be mounted.
        #[source]
        source: io::Error,
    },
    /// The kernel does not describe its types.
    #[error("the kernel does not describe its types (CONFIG_DEBUG_INFO_BTF)")]
    Types(#[source] libbpf_rs::Error),
    /// The kernel lacks mandatory hooks.
    #[error("the kernel lacks the hooks {}", .hooks.join(", "))]
    Hooks {
        /// Their names.
        hooks: Vec<&'static str>,
    },
    /// The verifier or the kernel refused.
    #[error("cannot {step} the {object} programs: {said}")]
    Refused {
        /// `open`, `load`, `attach NAME` or `pin NAME`.
        step: String,
        /// Which object.
        object: &'static str,
        /// The end of what libbpf and the verifier said.
        said: String,
        /// The error.
        #[source]
        source: libbpf_rs::Error,
    },
    /// Another build's programs are pinned, and agents live under them.
    #[error("programs of another build are pinned in {} and {agents} agents run under them", .path.display())]
    OtherBuild {
        /// Where.
        path: PathBuf,
        /// How many.
        agents: usize,
    },
    /// The pinned maps could not be opened.
    #[error("cannot open what was pinned")]
    Maps(#[from] OpenMapsError),
    /// The mark could not be written.
    #[error("cannot mark the pinned programs as whole")]
    Mark(#[source] WriteError),
    /// The pins could not be listed, made or removed.
    #[error("cannot change the pins in {}", .path.display())]
    Pins {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The programs in the kernel, and the maps they share with us.
///
/// `Send` and `Sync`. Dropping it detaches nothing.
pub struct Kernel {
    maps: Maps,
    origin: Origin,
    links: Vec<String>,
}

impl Kernel {
    /// Finds the programs pinned and whole, or loads, attaches and pins them.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        ensure_bpffs(&options.bpffs)?;
        let types = KernelTypes::read().map_err(LoadError::Types)?;
        let links = wanted_links(&types, options.domains)?;

        match standing(options, &links)? {
            Standing::Ours(maps) => return Ok(Self { maps: *maps, origin: Origin::Adopted, links }),
            Standing::Other { agents } if agents > 0 => {
                return Err(LoadError::OtherBuild { path: options.bpffs.clone(), agents });
            }
            Standing::Other { .. } => unpin_all(&options.bpffs)?,
            Standing::Nothing => {}
        }

        let maps = fresh(options, &types).inspect_err(|_| {
            // Half of the programs are worse than none: nobody would notice which half.
            let _ = unpin_all(&options.bpffs);
        })?;
        Ok(Self { maps, origin: Origin::Loaded, links })
    }

    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Whether they were loaded now or found.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Names of the programs that are attached.
    pub fn links(&self) -> &[String] {
        &self.links
    }
}

/// Detaches every program and forgets every map: for uninstalling. Agents that run are free then.
pub fn unpin_all(bpffs: &Path) -> Result<(), LoadError> {
    let pins = |path: &Path, source| LoadError::Pins { path: path.to_owned(), source };
    // Links first: maps that programs use stay alive anyway. The mark is in a map, so break that before all.
    let mark = maps_dir(bpffs).join("config");
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(pins(&mark, error)),
        _ => {}
    }
    for directory in [links_dir(bpffs), maps_dir(bpffs)] {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(pins(&directory, error)),
        };
        for entry in entries.flatten() {
            fs::remove_file(entry.path()).map_err(|error| pins(&entry.path(), error))?;
        }
        fs::remove_dir(&directory).map_err(|error| pins(&directory, error))?;
    }
    Ok(())
}

/// Where the maps are pinned.
pub fn maps_dir(bpffs: &Path) -> PathBuf {
    bpffs.join("maps")
}

fn links_dir(bpffs: &Path) -> PathBuf {
    bpffs.join("links")
}

/// What is pinned already.
enum Standing {
    Nothing,
    Ours(Box<Maps>),
    Other { agents: usize },
}

fn standing(options: &Options, links: &[String]) -> Result<Standing, LoadError> {
    let directory = maps_dir(&options.bpffs);
    if !directory.exists() {
        return Ok(Standing::Nothing);
    }
    // Maps of another layout cannot be read; then nobody can say how many agents there are, so count the links.
    let Ok(maps) = Maps::open(&directory) else {
        let attached = fs::read_dir(links_dir(&options.bpffs)).map_or(0, |entries| entries.flatten().count());
        return Ok(Standing::Other { agents: usize::from(attached > 0 && directory.join("config").exists()) });
    };
    let mark = maps.config();
    let same = mark.is_some_and(|mark| {
        mark.abi_version == ABI_VERSION
            && mark.build == object::build_number()
            && mark.agents_cgroup == options.agents_cgroup.id
            && mark.agents_level == options.agents_cgroup.level + 1
    });
    let whole = links.iter().all(|link| links_dir(&options.bpffs).join(link).exists());
    if same && whole {
        return Ok(Standing::Ours(Box::new(maps)));
    }
    let agents = if mark.is_some_and(|mark| mark.abi_version != 0) { maps.agents().count() } else { 0 };
    Ok(Standing::Other { agents })
}

fn wanted_links(types: &KernelTypes, domains: Domains) -> Result<Vec<String>, LoadError> {
    let mut links = vec!["charge".to_owned()];
    if domains == Domains::All {
        let missing: Vec<_> = hooks::missing(types).iter().map(|hook| hook.hook).collect();
        if !missing.is_empty() {
            return Err(LoadError::Hooks { hooks: missing });
        }
        links.extend(HOOKS.iter().filter(|hook| hooks::fits(types, hook)).map(|hook| hook.program.to_owned()));
    }
    Ok(links)
}

fn fresh(options: &Options, types: &KernelTypes) -> Result<Maps, LoadError> {
    let pins = |path: &Path, source| LoadError::Pins { path: path.to_owned(), source };
    for directory in [options.bpffs.clone(), maps_dir(&options.bpffs), links_dir(&options.bpffs)] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|error| pins(&directory, error))?;
    }
    // Only a loaded module describes its types; without them every file on btrfs would be refused.
    let _ = Command::new("modprobe").args(["-q", "btrfs"]).stdin(Stdio::null()).stderr(Stdio::null()).status();

    let settings = Settings {
        secret_a: random()?,
        secret_b: random()?,
        agents_cgroup: options.agents_cgroup.id,
        agents_level: options.agents_cgroup.level + 1,
        can_cast: u32::from(types.can_cast()),
        no_cache: u32::from(options.no_cache),
        reserved: 0,
    };
    let everything = |_: &str| true;
    bring_up("map", object::MAPS, &settings, options, everything)?;
    bring_up("budget", object::BUDGET, &settings, options, everything)?;
    if options.domains == Domains::All {
        let fits = |program: &str| HOOKS.iter().any(|hook| hook.program == program && hooks::fits(types, hook));
        bring_up("guard", object::GUARD, &settings, options, fits)?;
    }

    let maps = Maps::open(&maps_dir(&options.bpffs))?;
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
    });
    let mark = Config {
        abi_version: ABI_VERSION,
        agents_level: settings.agents_level,
        agents_cgroup: settings.agents_cgroup,
        build: object::build_number(),
        loaded_ns: now,
    };
    maps.set_config(&mark).map_err(LoadError::Mark)?;
    Ok(maps)
}

/// Opens, loads, attaches and pins one object. Its shared maps are pinned by the load.
fn bring_up(
    name: &'static str,
    bytes: &Aligned<[u8]>,
    settings: &Settings,
    options: &Options,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), LoadError> {
    let capture = Capture::start();
    let refused = |step: String, source| LoadError::Refused { step, object: name, said: capture.tail(12), source };

    let mut open = object::open(bytes, settings).map_err(|error| refused("open".into(), error))?;
    pin_shared_maps(&mut open, &maps_dir(&options.bpffs)).map_err(|error| refused("open".into(), error))?;
    for mut program in open.progs_mut() {
        let load = wanted(&program.name().to_string_lossy());
        program.set_autoload(load);
    }
    let object: Object = open.load().map_err(|error| refused("load".into(), error))?;
    for program in object.progs_mut() {
        let program_name = program.name().to_string_lossy().into_owned();
        if !wanted(&program_name) {
            continue;
        }
        let mut link = program.attach().map_err(|error| refused(format!("attach {program_name} of"), error))?;
        link.pin(links_dir(&options.bpffs).join(&program_name))
            .map_err(|error| refused(format!("pin {program_name} of"), error))?;
    }
    Ok(())
}

/// Every map that is declared as pinned by its name goes into our directory instead of bpffs's root.
fn pin_shared_maps(open: &mut OpenObject, directory: &Path) -> Result<(), libbpf_rs::Error> {
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        // The object's own sections (`.rodata`, `.bss`) have dots in their names.
        if !name.contains('.') && map.name() != OsStr::new("") {
            map.set_pin_path(directory.join(name))?;
        }
    }
    Ok(())
}

fn random() -> Result<u64, LoadError> {
    let mut bytes = [0u8; 8];
    let path = Path::new("/dev/urandom");
    fs::File::open(path)
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|source| LoadError::Pins { path: path.to_owned(), source })?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Makes sure that the directory's nearest existing ancestor is on a bpf file system; mounts one on /sys/fs/bpf.
fn ensure_bpffs(path: &Path) -> Result<(), LoadError> {
    let no = |source| LoadError::NoBpffs { path: path.to_owned(), source };
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let on_bpffs = |path: &Path| statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if on_bpffs(existing) {
        return Ok(());
    }
    let usual = Path::new("/sys/fs/bpf");
    if path.starts_with(usual) && existing == usual {
        return mount(Some("bpf"), usual, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|errno| no(errno.into()));
    }
    Err(no(io::Error::from_raw_os_error(libc::ENODEV)))
}

//! The network programs of the agents: found, loaded, attached, pinned, found again.
//!
//! ```text
//!   Net::load ── same build, same maps, same cgroup? ── yes ──▶ net/net-<key>/ as it stands       (Origin::Adopted)
//!                             │ no
//!                             ▼
//!             load, attach, pin in net/new-<key>/ ──▶ rename to net/net-<key>/ ──▶ remove all others  (Loaded)
//! ```
//!
//! The links live in bpffs, not in the daemon: `kill -9` changes nothing for a confined agent. `<key>` is a hash of all that
//! the links were made from. While two generations are attached both must agree, so a replacement refuses at least what
//! either refuses and there is no moment without rules; a load that dies half-way leaves a `new-…` folder behind, which
//! the next load removes.
//!
//! The refusals are the promise, the audit is not: if the audit programs cannot be loaded, [`Net::audit`] says why and
//! the rest stands.
//!
//! The maps `agents`, `cgroup_agents`, `nets` and `events` are shared with the C programs by their pins. Load those first
//! ([`crate::Kernel::load`]): it starts afresh where it finds maps without its mark. Maps that are missing are made here
//! all the same; a pin that is not as `agentd-abi` has it is refused by name, never replaced. Not here: what is
//! written into those maps, and reading `events`.

mod cgroup;
mod error;
mod links;
mod log;
mod offsets;
mod shared;

use std::fs::File;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapError};
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, ProgramError,
    links::FdLink,
};
use aya::{Btf, Ebpf, EbpfLoader};

use crate::Origin;

pub use cgroup::CgroupError;
use error::BoxError;
pub use error::{AuditError, LoadError, NetProbeError};
pub use log::{LogLine, NetLog};
pub use offsets::OffsetsError;
pub use shared::MapMismatch;

/// The compiled programs of `ebpf/net`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agentd-net.o"));

/// The programs that refuse; all of them or none.
const ENFORCING: [&str; 9] = [
    "net_connect4",
    "net_connect6",
    "net_sendmsg4",
    "net_sendmsg6",
    "net_bind4",
    "net_bind6",
    "net_socket",
    "net_egress",
    "net_ingress",
];
/// The programs that only tell, with their tracepoints.
const AUDITING: [(&str, &str); 3] =
    [("net_fork", "sched_process_fork"), ("net_exec", "sched_process_exec"), ("net_exit", "sched_process_exit")];

/// What [`Net::load`] works with.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// The compiled programs; [`OBJECT`], if no test brings its own.
    pub object: &'a [u8],
    /// Our folder in bpffs, for example `/sys/fs/bpf/agentd`; `maps/` and `net/` below it are made if missing.
    pub bpffs: PathBuf,
    /// The cgroup whose children are the agents' cgroups, in a cgroup v2 file system.
    pub agents_cgroup: PathBuf,
}

/// How often what happened since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls judged inside agents.
    pub judged: u64,
    /// Calls refused because the task is in no registered agent.
    pub unregistered: u64,
    /// Forks, execs and exits that were not reported, because the ring was nearly full.
    pub processes_lost: u64,
    /// Entries of `cgroup_agents` that `agents` does not confirm; should stay 0.
    pub broken: u64,
}

/// The network programs, attached and pinned. Dropping it detaches nothing.
pub struct Net {
    origin: Origin,
    counters: Array<MapData, u64>,
    log: Option<NetLog>,
    audit: Option<AuditError>,
}

/// Finds out whether this host can confine the network of agents, by loading the programs and attaching them to a cgroup
/// of its own, which is gone when it returns.
pub fn probe() -> Result<(), NetProbeError> {
    let cgroup = cgroup::Private::create().map_err(NetProbeError::Cgroup)?;
    let attach = || -> Result<(), LoadError> {
        let mut programs = load_object(OBJECT, &EbpfSettings { level: 1, pins: None, offsets: None })?;
        // The links go with `programs`, at the end of this block.
        attach(&mut programs, &open(cgroup.path())?).map(drop)
    };
    attach().map_err(NetProbeError::Refused)
}

impl Net {
    /// Attaches the programs to the cgroup of the agents, or finds them attached.
    pub fn load(options: &Options<'_>) -> Result<Net, LoadError> {
        let cgroup = open(&options.agents_cgroup)?;
        let at = |source| LoadError::Cgroup { path: options.agents_cgroup.clone(), source };
        let place = cgroup::place(&options.agents_cgroup).map_err(at)?;
        let maps = options.bpffs.join("maps");
        let folder = options.bpffs.join("net");
        for path in [&maps, &folder] {
            std::fs::create_dir_all(path).map_err(|source| LoadError::Bpffs { path: path.clone(), source })?;
        }

        let key = |maps: &[u32]| links::key(options.object, place, maps);
        if let Some(maps) = shared::present(&maps)? {
            let links = folder.join(key(&maps));
            if links::complete(&links) {
                links::remove_all_but(&folder, &links)?;
                return Net::adopt(&links);
            }
        }

        let offsets = offsets::read();
        let settings = EbpfSettings { level: place.level + 1, pins: Some(&maps), offsets: offsets.as_ref().ok() };
        let mut programs = load_object(options.object, &settings)?;
        let links = folder.join(key(&shared::present(&maps)?.unwrap_or_default()));
        let fresh = links::begin(&links)?;
        for (name, link) in attach(&mut programs, &cgroup)? {
            links::pin(link, &fresh.join(name))?;
        }
        let audit = offsets.map_err(AuditError::from).and_then(|_| audit(&mut programs, &fresh)).err();
        let counters = counters(&mut programs, &fresh)?;
        links::finish(&fresh, &links)?;
        links::remove_all_but(&folder, &links)?;
        Ok(Net { origin: Origin::Loaded, counters, log: NetLog::of(&mut programs), audit })
    }

    /// Finds what a daemon before this one has left attached.
    fn adopt(links: &Path) -> Result<Net, LoadError> {
        let path = links.join(links::COUNTERS);
        let at = |source| LoadError::Map { path: path.clone(), source };
        let counters = MapData::from_pin(&path).and_then(|map| Array::try_from(Map::Array(map))).map_err(at)?;
        let log = links::program_id(&links.join(ENFORCING[0])).and_then(NetLog::of_program);
        Ok(Net { origin: Origin::Adopted, counters, log, audit: None })
    }

    /// Detaches the programs and removes their pins, for an uninstallation. Agents that still run are unconfined then.
    pub fn detach(bpffs: &Path) -> Result<(), LoadError> {
        links::remove_all(&bpffs.join("net"))
    }

    /// Where the attached programs come from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether forks, execs and exits are reported; if not, why.
    pub fn audit(&self) -> Result<(), &AuditError> {
        self.audit.as_ref().map_or(Ok(()), Err)
    }

    /// How often what happened since the programs were loaded.
    pub fn counters(&self) -> Result<Counters, MapError> {
        let get = |at| self.counters.get(&at, 0);
        Ok(Counters { judged: get(0)?, unregistered: get(1)?, processes_lost: get(2)?, broken: get(3)? })
    }

    /// What the programs say about themselves; the daemon polls its descriptor and drains it. `None` after the first
    /// call, or if the log of a reused build cannot be found.
    pub fn take_log(&mut self) -> Option<NetLog> {
        self.log.take()
    }
}

/// What the object is told before it is loaded.
struct EbpfSettings<'a> {
    /// Level of an agent's own cgroup.
    level: u32,
    /// Folder of the shared maps; `None` makes private ones.
    pins: Option<&'a Path>,
    /// `None`: the audit programs will not be loaded.
    offsets: Option<&'a offsets::Offsets>,
}

/// Makes or opens the maps and prepares the programs.
fn load_object(object: &[u8], settings: &EbpfSettings<'_>) -> Result<Ebpf, LoadError> {
    let offsets = settings.offsets.copied().unwrap_or_default();
    let mut loader = EbpfLoader::new();
    loader
        .override_global("AGENT_LEVEL", &settings.level, true)
        .override_global("TASK_PID", &offsets.pid, true)
        .override_global("TASK_TGID", &offsets.tgid, true)
        .override_global("TASK_PARENT", &offsets.parent, true)
        .override_global("TASK_EXIT_CODE", &offsets.exit_code, true)
        .override_global("BPRM_FILENAME", &offsets.filename, true);
    if let Some(pins) = settings.pins {
        for name in shared::names() {
            loader.map_pin_path(name, pins.join(name));
        }
    }
    loader.load(object).map_err(|error| LoadError::Object(Box::new(error)))
}

/// Loads the refusing programs and attaches each to the cgroup. The links detach when they are dropped without a pin.
fn attach(programs: &mut Ebpf, cgroup: &File) -> Result<Vec<(&'static str, FdLink)>, LoadError> {
    ENFORCING.iter().map(|&name| Ok((name, attach_one(programs, name, cgroup)?))).collect()
}

fn attach_one(programs: &mut Ebpf, name: &'static str, cgroup: &File) -> Result<FdLink, LoadError> {
    // Links always join those that are there already ("multi"), so `Single` takes nobody's place.
    let mode = CgroupAttachMode::Single;
    let refused = |source| LoadError::Program { name, source: Box::new(source) };
    let attached: Result<FdLink, BoxError> = if name == "net_socket" {
        let program: &mut CgroupSock = find(programs, name).map_err(refused)?;
        program.load().map_err(refused)?;
        let id = program.attach(cgroup, mode);
        id.and_then(|id| program.take_link(id)).map_err(Into::into).and_then(|link| Ok(link.try_into()?))
    } else if let Some(direction) = direction(name) {
        let program: &mut CgroupSkb = find(programs, name).map_err(refused)?;
        program.load().map_err(refused)?;
        let id = program.attach(cgroup, direction, mode);
        id.and_then(|id| program.take_link(id)).map_err(Into::into).and_then(|link| Ok(link.try_into()?))
    } else {
        let program: &mut CgroupSockAddr = find(programs, name).map_err(refused)?;
        program.load().map_err(refused)?;
        let id = program.attach(cgroup, mode);
        id.and_then(|id| program.take_link(id)).map_err(Into::into).and_then(|link| Ok(link.try_into()?))
    };
    attached.map_err(|source| LoadError::Attach { name, source })
}

/// Which packets a program sees, if it sees packets.
fn direction(name: &str) -> Option<CgroupSkbAttachType> {
    match name {
        "net_egress" => Some(CgroupSkbAttachType::Egress),
        "net_ingress" => Some(CgroupSkbAttachType::Ingress),
        _ => None,
    }
}

/// Loads, attaches and pins the audit programs.
fn audit(programs: &mut Ebpf, links: &Path) -> Result<(), AuditError> {
    let btf = Btf::from_sys_fs().map_err(|error| AuditError::Btf(Box::new(error)))?;
    for (name, tracepoint) in AUDITING {
        let place = |programs| -> Result<(), BoxError> {
            let program: &mut BtfTracePoint = find(programs, name)?;
            program.load(tracepoint, &btf)?;
            let id = program.attach()?;
            Ok(links::pin(program.take_link(id)?.into(), &links.join(name))?)
        };
        place(programs).map_err(|source| AuditError::Program { name, source })?;
    }
    Ok(())
}

fn counters(programs: &mut Ebpf, links: &Path) -> Result<Array<MapData, u64>, LoadError> {
    let path = links.join(links::COUNTERS);
    let missing =
        || LoadError::Map { path: path.clone(), source: MapError::InvalidName { name: "net_counters".into() } };
    let map = programs.take_map("net_counters").ok_or_else(missing)?;
    map.pin(&path).map_err(|source| LoadError::Pin { path: path.clone(), source: Box::new(source) })?;
    Array::try_from(map).map_err(|source| LoadError::Map { path: path.clone(), source })
}

fn find<'a, P>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    programs.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

fn open(cgroup: &Path) -> Result<File, LoadError> {
    File::open(cgroup).map_err(|source| LoadError::Cgroup { path: cgroup.to_owned(), source: CgroupError::Io(source) })
}

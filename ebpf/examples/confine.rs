//! Runs a command as an agent, without the daemon: for trying the programs by hand and in the VM tests of this crate.
#![allow(unsafe_code, reason = "fork and exec, as the launcher does it")]
//!
//! ```text
//! confine [--cgroups DIR] [--bpffs DIR] [--no-cache] [--cpu MS] [--events] [RULE]… -- COMMAND…
//! confine --probe | --load | --counts | --unpin
//!
//! RULE  +rwxcd:/path   allow on the object and below      -rwxcd:/path   deny
//!       +r@MS:/path    allow for so many milliseconds     -cw=/dir/name  deny by name, existing or not
//!       -k:/path       must keep its place               -k~/name      nothing comes to or goes from that name
//!       -w~dir/name    deny the name below any directory of that name; -w~/name anywhere
//! ```
//!
//! The command waits on a pipe until it is in the cgroup and carries its identity. Exit status: the command's; 99 for ours.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agentd_abi::{
    ALL_RIGHTS, ANYWHERE, Agent, Event, F_FILE_RULES, F_NAMES, Identity, NEVER, NameKey, R_KEEP, R_NAMES, Rule,
    RuleKey, name_hash,
};
use agentd_ebpf::{AgentsCgroup, DEFAULT_BPFFS, Domains, Identifier, Kernel, Limits, Options, probe, unpin_all};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, execvp, fork, pipe};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("confine: {error}");
            let mut cause = error.source();
            while let Some(inner) = cause {
                eprintln!("cause: {inner}");
                cause = inner.source();
            }
            ExitCode::from(99)
        }
    }
}

#[derive(Default)]
struct Rules {
    objects: BTreeMap<(u32, u64), Rule>,
    names: BTreeMap<(u32, u64, u64), Rule>,
    lengths: u64,
    flags: u32,
}

fn run() -> Fallible<u8> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let command = match args.iter().position(|arg| arg == "--") {
        Some(at) => args.split_off(at).into_iter().skip(1).collect(),
        None => Vec::new(),
    };
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1).cloned());
    let bpffs = PathBuf::from(value("--bpffs").unwrap_or_else(|| DEFAULT_BPFFS.into()));

    if has("--probe") {
        println_out(&format!("{:#?}", probe()));
        return Ok(0);
    }
    if has("--unpin") {
        unpin_all(&bpffs)?;
        return Ok(0);
    }
    let parent = PathBuf::from(value("--cgroups").unwrap_or_else(|| "/sys/fs/cgroup/agents".into()));
    fs::create_dir_all(&parent)?;
    let options = Options {
        bpffs,
        agents_cgroup: AgentsCgroup::at(&parent)?,
        domains: Domains::All,
        no_cache: has("--no-cache"),
    };
    let kernel = Kernel::load(&options)?;
    if has("--counts") {
        for program in libbpf_rs::query::ProgInfoIter::default() {
            let name = program.name.to_string_lossy().into_owned();
            // The kernel keeps 15 bytes of a name.
            if kernel.links().iter().any(|link| link.starts_with(&name)) {
                println_out(&format!("{name} {}", program.verified_insns));
            }
        }
        return Ok(0);
    }
    if has("--load") {
        println_out(&format!("{:?}, {} programs attached", kernel.origin(), kernel.links().len()));
        return Ok(0);
    }

    let identifier = Identifier::load()?;
    let mut rules = Rules::default();
    for arg in args.iter().filter(|arg| arg.starts_with(['+', '-']) && !arg.starts_with("--")) {
        add_rule(&mut rules, arg, &identifier)?;
    }
    let cpu = value("--cpu").map(|ms| ms.parse::<u64>()).transpose()?.unwrap_or(0) * 1_000_000;
    confine(&kernel, &parent, &rules, cpu, has("--events"), &command)
}

fn confine(kernel: &Kernel, parent: &Path, rules: &Rules, cpu: u64, show: bool, command: &[String]) -> Fallible<u8> {
    let maps = kernel.maps();
    let number = std::process::id();
    let used: Vec<u32> = maps.agents().map(|(slot, _)| slot).collect();
    let slot = (1..1024).find(|slot| !used.contains(slot)).ok_or("no free slot")?;
    let cgroup = parent.join(format!("a{number}"));
    fs::create_dir(&cgroup)?;
    let cgroup_id = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&cgroup)?);

    let key = |(dev, ino): &(u32, u64)| RuleKey { agent: number, dev: *dev, ino: *ino };
    let objects: Vec<_> = rules.objects.iter().map(|(at, rule)| (key(at), *rule)).collect();
    let names: Vec<_> = rules
        .names
        .iter()
        .map(|((dev, parent, name), rule)| (NameKey { agent: number, dev: *dev, parent: *parent, name: *name }, *rule))
        .collect();
    maps.put_rules(&objects)?;
    maps.put_names(&names)?;
    let limits = Limits { limit_ns: cpu, warn_ns: cpu / 5 * 4, kill_ns: cpu * 2 };
    maps.put_agent(
        slot,
        &Agent {
            number,
            flags: rules.flags,
            generation: now_ns() ^ (u64::from(number) << 40),
            cgroup_id,
            name_lengths: rules.lengths,
            ..Default::default()
        },
    );
    maps.set_limits(slot, limits);
    maps.put_cgroup(cgroup_id, slot)?;

    let mut events = maps.events()?;
    let (go_read, mut go_write) = pipe().map(|(read, write)| (fs::File::from(read), fs::File::from(write)))?;
    let argv: Vec<CString> = command.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<_, _>>()?;
    // SAFETY: this process has one thread.
    let status = match unsafe { fork() }? {
        ForkResult::Child => {
            drop(go_write);
            let mut go = go_read;
            let _ = go.read(&mut [0u8]);
            let error = execvp(&argv[0], &argv).err();
            eprintln!("confine: cannot run {}: {error:?}", command[0]);
            std::process::exit(126);
        }
        ForkResult::Parent { child } => {
            fs::write(cgroup.join("cgroup.procs"), child.to_string())?;
            // SAFETY: pidfd_open takes two numbers.
            let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
            if fd < 0 {
                return Err(std::io::Error::last_os_error().into());
            }
            // SAFETY: the descriptor was just made for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
            maps.set_identity(pidfd.as_fd(), Identity { slot, number })?;
            go_write.write_all(b"g")?;
            waitpid(child, None)?
        }
    };
    events.drain(|event| {
        if show && let Ok(event) = event {
            print_event(&event);
        }
    })?;
    let agent = maps.read_agent(slot);
    if show {
        println_out(&format!(
            "agent: denials {} suppressed {} spent {} us exhausted {}",
            agent.denials,
            agent.suppressed,
            agent.cpu_spent_ns / 1000,
            agent.exhausted
        ));
    }
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    maps.remove_cgroup(cgroup_id)?;
    maps.remove_rules_of(number)?;
    maps.free_agent(slot);
    let _ = fs::remove_dir(&cgroup);
    Ok(match status {
        WaitStatus::Exited(_, code) => u8::try_from(code)?,
        WaitStatus::Signaled(_, signal, _) => 128 + u8::try_from(signal as i32)?,
        _ => 98,
    })
}

fn add_rule(rules: &mut Rules, text: &str, identifier: &Identifier) -> Fallible<()> {
    let at = text.find([':', '=', '~']).ok_or("a rule is +rights:path")?;
    let (head, place) = (&text[1..at], &text[at + 1..]);
    let (letters, after) = head.split_once('@').unwrap_or((head, ""));
    // k: what carries the rule keeps its place.
    let keep = if letters.contains('k') { R_KEEP } else { 0 };
    let letters = letters.replace('k', "");
    let rights = letters.chars().try_fold(0, |sum, letter| Some(sum | (1 << "rwxcd".find(letter)?)));
    let rights = rights.ok_or("rights are of rwxcdk")? & ALL_RIGHTS;
    let expires_ns = if after.is_empty() { NEVER } else { now_ns() + after.parse::<u64>()? * 1_000_000 };
    let add = |rule: &mut Rule, id: u32| {
        rule.expires_ns = expires_ns;
        rule.flags |= keep;
        if text.starts_with('+') {
            rule.allow |= rights;
            rule.allow_id = id;
        } else {
            rule.deny |= rights;
            rule.deny_id = id;
        }
    };
    let id = u32::try_from(rules.objects.len() + rules.names.len() + 1)?;
    match &text[at..=at] {
        ":" => {
            let (object, directory) = identify(identifier, Path::new(place))?;
            add(rules.objects.entry(object).or_default(), id);
            if !directory {
                rules.flags |= F_FILE_RULES;
            }
        }
        separator => {
            let (directory, name) = place.rsplit_once('/').ok_or("a name rule is dir/name")?;
            let hash = name_hash(name.as_bytes()).ok_or("the name is too long")?;
            let (dev, parent) = if separator == "=" {
                let (object, _) = identify(identifier, Path::new(directory))?;
                let of_parent = rules.objects.entry(object).or_default();
                of_parent.flags |= R_NAMES;
                if of_parent.allow_id == 0 {
                    of_parent.expires_ns = NEVER;
                }
                object
            } else {
                (ANYWHERE, name_hash(directory.as_bytes()).unwrap_or(0))
            };
            add(rules.names.entry((dev, parent, hash)).or_default(), id);
            rules.lengths |= 1 << name.len();
            rules.flags |= F_NAMES;
        }
    }
    Ok(())
}

fn identify(identifier: &Identifier, path: &Path) -> Fallible<((u32, u64), bool)> {
    let file = std::os::unix::fs::OpenOptionsExt::custom_flags(fs::OpenOptions::new().read(true), libc::O_PATH)
        .open(path)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let found = identifier.identify(&[file.as_fd()])?[0];
    Ok(((found.object.dev, found.object.ino), found.directory))
}

fn print_event(event: &Event<'_>) {
    let head = event.head();
    let comm = String::from_utf8_lossy(&head.comm).trim_end_matches('\0').to_owned();
    let text = match event {
        Event::File(file) => {
            let used = &file.path[..(file.path_bytes as usize).min(file.path.len())];
            let mut names: Vec<_> = used.split(|byte| *byte == 0).take(file.levels as usize).collect();
            names.reverse();
            let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
            format!(
                "file hook {} reason {} right {} rule {} object {}:{} /{}",
                file.hook,
                file.reason,
                file.right,
                file.rule_id,
                file.object.dev,
                file.object.ino,
                names.join("/")
            )
        }
        Event::Guard(guard) => {
            format!("guard hook {} reason {} detail {} {}", guard.hook, guard.reason, guard.detail, guard.detail2)
        }
        Event::Budget(budget) => format!("budget kind {} spent {} us", head.kind, budget.spent_ns / 1000),
        other => format!("{other:?}"),
    };
    println_out(&format!("event: {comm}[{}] {text} (suppressed {})", head.pid, head.suppressed));
}

fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}

fn println_out(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

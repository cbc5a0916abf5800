//! Users of this host: homes, groups, and who may operate the daemon.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::clock::{Clock as _, HostClock};

/// Group whose members may spawn and steer agents, besides root.
pub const OPERATORS: &str = "agentd";

/// First of the user ids that agents get whose root caller names no user; the agent's number is added.
const DEDICATED: u32 = 1_879_048_192;

/// A user as an agent runs as it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Name, or the number as text.
    pub name: String,
    /// Home directory; `None`: the agent gets one of its own.
    pub home: Option<String>,
}

impl Account {
    /// The account of a user id, whether or not the host knows a name for it.
    pub fn of(uid: u32) -> Account {
        remembered(&format!("uid {uid}"), || Some(Account::look_up(uid))).unwrap_or_else(|| Account::look_up(uid))
    }

    fn look_up(uid: u32) -> Account {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => Account::from_user(user),
            _ => Account { uid, gid: uid, groups: vec![], name: uid.to_string(), home: None },
        }
    }

    /// The account with a name or a number; `None`: there is no such user.
    pub fn named(name: &str) -> Option<Account> {
        remembered(&format!("name {name}"), || match User::from_name(name) {
            Ok(Some(user)) => Some(Account::from_user(user)),
            _ => name.parse().ok().map(Account::look_up),
        })
    }

    /// An account of the agent's own, that nobody else has.
    pub fn dedicated(agent: u32) -> Account {
        let uid = DEDICATED + agent;
        Account { uid, gid: uid, groups: vec![], name: uid.to_string(), home: None }
    }

    fn from_user(user: User) -> Account {
        let groups = CString::new(user.name.clone()).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
        // The operators' group is left out: an agent must not be able to steer agents through its user.
        let operators = operators_gid();
        let keep = |gid: &Gid| *gid != user.gid && Some(*gid) != operators;
        Account {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.unwrap_or_default().iter().filter(|gid| keep(gid)).map(|gid| gid.as_raw()).collect(),
            home: Some(user.dir.to_string_lossy().into_owned()),
            name: user.name,
        }
    }
}

/// How long an account is remembered: looking one up can take milliseconds where names come from a service, and a new
/// membership may take so long to be seen.
const REMEMBERED_NS: u64 = 5_000_000_000;

/// Answers from memory, or looks up and remembers. Who does not exist is looked up again.
fn remembered(key: &str, look_up: impl FnOnce() -> Option<Account>) -> Option<Account> {
    static MEMORY: Mutex<BTreeMap<String, (u64, Account)>> = Mutex::new(BTreeMap::new());
    let now = HostClock.stamp().mono_ns;
    // A panic elsewhere does not make the memory wrong: every change to it is one call.
    let memory = || MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    memory().retain(|_, (at, _)| now.saturating_sub(*at) < REMEMBERED_NS);
    if let Some((_, account)) = memory().get(key) {
        return Some(account.clone());
    }
    let account = look_up()?;
    memory().insert(key.to_owned(), (now, account.clone()));
    Some(account)
}

fn operators_gid() -> Option<Gid> {
    Group::from_name(OPERATORS).ok().flatten().map(|group| group.gid)
}

/// Whether a user may spawn and steer agents.
pub fn is_operator(uid: u32, gid: u32) -> bool {
    // Asked first, because looking names up can take milliseconds.
    uid == 0 || operators_gid().is_some_and(|operators| gid == operators.as_raw() || is_member(uid, operators))
}

fn is_member(uid: u32, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let groups = CString::new(user.name).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
    groups.is_some_and(|groups| groups.contains(&group))
}

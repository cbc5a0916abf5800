//! Who calls?

use agentd_model::{AgentNumber, Principal};
use agentd_protocol::{ErrorCode, ErrorObject};
use tokio::net::UnixStream;

use super::seats::Account;
use super::{Door, peer};
use crate::cgroup::Cgroups;
use crate::users::{OPERATORS, is_operator};

/// Somebody at the other end of a connection, as the kernel vouches for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) principal: Principal,
    uid: u32,
    gid: u32,
}

impl Caller {
    /// Asks the kernel. `None`: the peer is gone already, or has no business at this door.
    ///
    /// The number of a process that connected and ended can be another's by now, and an agent can bring that about. So
    /// the process is held by a descriptor, and must still live after its cgroup was read. Kernels before 6.5 have none;
    /// there the number would have to come round between a connect and its accept, which nobody can delay.
    pub(super) fn of(stream: &UnixStream, door: Door, cgroups: &Cgroups) -> Option<Caller> {
        let credentials = stream.peer_cred().ok()?;
        let (uid, gid, pid) = (credentials.uid(), credentials.gid(), credentials.pid()?);
        let held = peer::of(stream).ok()?;
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        if held.is_some_and(|held| !peer::lives(&held)) {
            return None;
        }
        let principal = match (cgroups.agent_in(&cgroup), door) {
            (Some(agent), _) => Principal::Agent { agent },
            (None, Door::Everybody) => Principal::User { uid },
            (None, Door::Agents) => return None,
        };
        Some(Caller { principal, uid, gid })
    }

    /// On whose account a connection is.
    pub(super) fn account(&self) -> Account {
        match self.principal {
            Principal::Agent { agent } => Account::Agent(agent),
            _ if self.uid == 0 => Account::Root,
            _ => Account::User(self.uid),
        }
    }

    /// The uid, where it is a person or program outside every agent.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Refuses everybody but operators.
    pub(super) fn must_operate(&self) -> Result<(), ErrorObject> {
        match self.principal {
            Principal::Agent { .. } => {
                Err(ErrorObject::new(ErrorCode::Refused, "an agent may ask about itself and nothing else"))
            }
            _ if is_operator(self.uid, self.gid) => Ok(()),
            _ => Err(ErrorObject::new(ErrorCode::Refused, format!("uid {} is not in the group {OPERATORS}", self.uid))
                .hint(format!("sudo usermod --append --groups {OPERATORS} $(id -un {})", self.uid))),
        }
    }

    /// Refuses everybody but operators and the agent itself.
    pub(super) fn must_see(&self, agent: AgentNumber) -> Result<(), ErrorObject> {
        match self.principal {
            Principal::Agent { agent: own } if own == agent => Ok(()),
            _ => self.must_operate(),
        }
    }
}

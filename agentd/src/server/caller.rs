//! Who calls?

use agentd_model::{AgentNumber, Principal};
use agentd_protocol::{ErrorCode, ErrorObject};
use tokio::net::UnixStream;

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
    /// Asks the kernel. `None`: the peer is gone already.
    pub(super) fn of(stream: &UnixStream, cgroups: &Cgroups) -> Option<Caller> {
        let credentials = stream.peer_cred().ok()?;
        let (uid, gid, pid) = (credentials.uid(), credentials.gid(), credentials.pid()?);
        // The peer holds the connection open, so its pid is still its own unless it handed the socket on and ended; then
        // the file is gone, or it is another process's and the worst is a caller taken for less than it is.
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let principal = match cgroups.agent_in(&cgroup) {
            Some(agent) => Principal::Agent { agent },
            None => Principal::User { uid },
        };
        Some(Caller { principal, uid, gid })
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

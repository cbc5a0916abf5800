//! The socket: who calls, what they may ask, and the way there and back.
//!
//! A connection carries requests one after another; `audit.follow` and `agent.wait` keep theirs until they are done. A
//! slow or silent client costs a task and a buffer, nothing of the core. Lines are bounded.
//!
//! Whoever calls is known by the kernel's word: the user by `SO_PEERCRED`, an agent by the cgroup that the calling process
//! is in. The socket's mode lets everybody connect, because a clear refusal explains itself and a closed door does not.
//! Agents have a socket of their own, at which nobody is an operator, and their rules keep them from the other one.

mod audit;
mod caller;
mod capability;
mod connection;
mod methods;
mod peer;
mod seats;
mod views;
mod why;
mod worlds;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixListener;

use self::caller::Caller;
use self::seats::Seats;
use crate::core::World;
use crate::host::Host;
use crate::places::Places;
use crate::worlds::Worlds;
use crate::worlds::adapter::Outside;

pub(crate) use self::methods::start;

/// What every connection needs.
pub struct Service {
    /// The core.
    pub world: World,
    /// The host, for what the core does not know: counters, logs, streams.
    pub host: Arc<Host>,
    /// Where things are.
    pub places: Places,
    /// Worlds beside the host's.
    pub worlds: Arc<Worlds>,
    /// What their effects reach.
    pub outside: Arc<dyn Outside>,
    uploads: worlds::Uploads,
    seats: Arc<Seats>,
}

impl Service {
    /// What connections need, and room for them.
    pub fn new(
        world: World,
        host: Arc<Host>,
        places: Places,
        worlds: Arc<Worlds>,
        outside: Arc<dyn Outside>,
    ) -> Service {
        let (uploads, seats) = (worlds::Uploads::default(), Arc::default());
        Service { world, host, places, worlds, outside, uploads, seats }
    }
}

/// Which of the two sockets somebody came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Operators, other users, and agents on hosts that cannot keep them from it.
    Everybody,
    /// Agents only: the one that their rules let them connect to. Nobody is an operator here.
    Agents,
}

/// Makes a socket. Nobody is served until [`serve`].
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    // The lock is held, so whatever is there is of a daemon that is gone.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves until the task is dropped.
pub async fn serve(listener: UnixListener, door: Door, service: Arc<Service>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Who it is is asked now, and not when there is time: a process that has ended is nobody.
                let caller = Caller::of(&stream, door, &service.host.cgroups);
                let seat = caller.and_then(|caller| Some((caller, service.seats.take(caller.account())?)));
                let Some((caller, seat)) = seat else { continue };
                let service = service.clone();
                tokio::spawn(async move {
                    connection::serve(stream, caller, &service).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

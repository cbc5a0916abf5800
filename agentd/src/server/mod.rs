//! The socket: who calls, what they may ask, and the way there and back.
//!
//! A connection carries requests one after another; `audit.follow` and `agent.wait` keep theirs until they are done. A
//! slow or silent client costs a task and a buffer, nothing of the core. Lines are bounded.
//!
//! Whoever calls is known by the kernel's word: the user by `SO_PEERCRED`, an agent by the cgroup that the calling process
//! is in. The socket's mode lets everybody connect, because a clear refusal explains itself and a closed door does not.

mod audit;
mod caller;
mod connection;
mod methods;
mod views;
mod why;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use crate::core::World;
use crate::host::Host;
use crate::places::Places;

/// Connections at one time; more wait in the listener's queue.
const CONNECTIONS: usize = 1024;

/// What every connection needs.
pub struct Service {
    /// The core.
    pub world: World,
    /// The host, for what the core does not know: counters, logs, streams.
    pub host: Arc<Host>,
    /// Where things are.
    pub places: Places,
}

/// Makes the socket. Nobody is served until [`serve`].
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
pub async fn serve(listener: UnixListener, service: Arc<Service>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    connection::serve(stream, &service).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

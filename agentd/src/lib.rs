//! The daemon: ports and adapters around one owner of state.
//!
//! Read in this order: [`core`] owns the state and the journal; [`server`] brings requests to it; [`host`] performs what it
//! decides, through [`launch`], [`cgroup`] and [`enforcer`], whose real side is [`kernel`]; [`run`] puts it all together.
//! [`worlds`] keeps the worlds beside the host's. [`shim`] is the other program in this binary: the small process that stays with each agent when the daemon goes.

pub mod assemble;
pub mod boot;
pub mod cgroup;
pub mod clock;
pub mod core;
pub mod enforcer;
pub mod errors;
pub mod host;
pub mod journal;
pub mod kernel;
pub mod keyring;
pub mod launch;
pub mod places;
pub mod reports;
pub mod run;
pub mod server;
pub mod shim;
pub mod users;
pub mod worlds;

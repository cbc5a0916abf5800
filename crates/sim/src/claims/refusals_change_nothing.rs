//! What is refused leaves no trace: not in the state, not in the journal. What cannot be taken is refused. And a turn that
//! the disk would not have leaves the world as it was.

use super::{Claim, Fact};
use crate::recovery::Row;

/// The claim.
pub(super) struct Watch;

impl Claim for Watch {
    fn see(&mut self, fact: &Fact<'_>, _: &[Row]) -> Result<(), String> {
        match fact {
            Fact::Refused { before, after } if before != after => {
                Err(format!("everything was refused, and the state changed at {}", before.height()))
            }
            Fact::Taken { answered, recorded } if answered != recorded => {
                Err(format!("{answered} inputs were taken, and {recorded} are recorded"))
            }
            Fact::CameToNothing { before, after } if before != after => {
                Err(format!("a turn failed, and the state changed at {}", before.height()))
            }
            Fact::Impossible { what, taken: true } => Err(format!("{what} was taken")),
            _ => Ok(()),
        }
    }
}

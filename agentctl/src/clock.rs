//! The only place in this crate that reads a clock.
//!
//! A person wants local times and a program must notice that nothing happens; neither is ever replayed.

#![expect(clippy::disallowed_methods, reason = "a command line shows times and waits; no replay depends on it")]

use std::time::{Duration, Instant};

use agentd_model::Stamp;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Measures from its start.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A moment as a person reads it: local time, with the date if that is not today's.
pub(crate) fn local(stamp: Stamp) -> String {
    show(stamp, Timestamp::now(), &TimeZone::system())
}

/// The same of nanoseconds since 1970.
pub(crate) fn local_ns(wall_ns: u64) -> String {
    local(Stamp { wall_ns, ..Stamp::default() })
}

fn show(stamp: Stamp, now: Timestamp, zone: &TimeZone) -> String {
    let Ok(then) = Timestamp::from_nanosecond(i128::from(stamp.wall_ns)) else {
        return format!("{} ns", stamp.wall_ns);
    };
    let (then, now) = (then.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let time = then.strftime("%H:%M:%S");
    if then.date() == now.date() { time.to_string() } else { format!("{} {time}", then.date()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_shown_on_another_day_only() {
        let stamp = |wall_ns| Stamp { wall_ns, ..Stamp::default() };
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let then = now.as_nanosecond() as u64;
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(show(stamp(then), now, &zone), "13:00:00");
        assert_eq!(show(stamp(then - 86_400_000_000_000), now, &zone), "2026-11-20 13:00:00");
        assert_eq!(show(stamp(then + 11 * 3_600_000_000_000), now, &zone), "2026-11-22 00:00:00");
        assert_eq!(show(stamp(u64::MAX), now, &zone), "2554-07-22 00:34:33");
    }
}

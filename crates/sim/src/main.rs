//! Tells stories: many, to find one that does not hold, or one, to read it.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use agentd_sim::{Options, STEPS, Tally, Told, tell};
use lexopt::{Arg, Parser, ValueExt as _};

mod ui;

const HELP: &str = "\
Tell stories of worlds that everything happens to, and check what must hold.

Usage: agentd-sim [--seeds FROM..TO] [--steps N] [--jobs N]
       agentd-sim --seed SEED [-v] [--steps N]

  --seeds FROM..TO  these seeds (0..1000 if nothing is said); TO is not one of them
  --seed SEED       this one, decimal or 0x…
  --steps N         steps of a story (45)
  --jobs N          at a time (2)
  -v                print the story

The status is 1 if a claim does not hold.
";

/// What the command line asks for.
struct Asked {
    from: u64,
    to: u64,
    steps: u64,
    jobs: u64,
    print: bool,
}

fn main() -> ExitCode {
    match arguments() {
        Ok(Some(asked)) => run(&asked),
        Ok(None) => {
            ui::say(HELP.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            ui::note(format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

fn arguments() -> Result<Option<Asked>, lexopt::Error> {
    let mut asked = Asked { from: 0, to: 1000, steps: STEPS, jobs: 2, print: false };
    let mut words = Parser::from_env();
    while let Some(word) = words.next()? {
        match word {
            Arg::Long("seed") => {
                asked.from = number(&words.value()?.string()?)?;
                asked.to = asked.from.saturating_add(1);
            }
            Arg::Long("seeds") => {
                let range = words.value()?.string()?;
                let (from, to) =
                    range.split_once("..").ok_or_else(|| format!("{range:?} is no range; write 0..1000"))?;
                (asked.from, asked.to) = (number(from)?, number(to)?);
            }
            Arg::Long("steps") => asked.steps = number(&words.value()?.string()?)?,
            Arg::Long("jobs") => asked.jobs = number(&words.value()?.string()?)?.clamp(1, 64),
            Arg::Short('v') => asked.print = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(asked))
}

fn number(text: &str) -> Result<u64, lexopt::Error> {
    let read = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    read.map_err(|error| format!("{text:?} is no number: {error}").into())
}

fn run(asked: &Asked) -> ExitCode {
    let options = Options { steps: asked.steps, ..Options::default() };
    let (next, stop) = (AtomicU64::new(asked.from), AtomicBool::new(false));
    let work = || {
        let (mut tally, mut failed) = (Tally::default(), None::<(u64, String)>);
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= asked.to {
                break;
            }
            let told = told(seed, &options);
            if asked.print {
                told.lines.iter().for_each(ui::say);
            }
            tally.add(&told.tally);
            if let Some(why) = told.why {
                stop.store(true, Ordering::Relaxed);
                failed = Some((seed, why));
            }
        }
        (tally, failed)
    };
    let ended: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..asked.jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut sum = Tally::default();
    ended.iter().for_each(|(tally, _)| sum.add(tally));
    // Of several, always the same one: that with the smallest seed.
    match ended.into_iter().filter_map(|(_, failed)| failed).min_by_key(|(seed, _)| *seed) {
        Some((seed, why)) => {
            let steps = if asked.steps == STEPS { String::new() } else { format!(" --steps {}", asked.steps) };
            ui::say(why);
            ui::say(format!("cargo xtask sim --seed {seed:#x}{steps}"));
            ExitCode::FAILURE
        }
        None => {
            ui::say(summary(asked, &sum));
            ExitCode::SUCCESS
        }
    }
}

/// A story, and why it does not hold; a broken assertion of the engine is a reason like any other.
struct Ended {
    lines: Vec<String>,
    tally: Tally,
    why: Option<String>,
}

fn told(seed: u64, options: &Options) -> Ended {
    match catch_unwind(AssertUnwindSafe(|| tell(seed, options))) {
        Ok(Told { lines, tally, broken }) => Ended { lines, tally, why: broken.map(|broken| broken.to_string()) },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a broken invariant");
            Ended { lines: Vec::new(), tally: Tally::default(), why: Some(format!("the engine broke off: {text}")) }
        }
    }
}

fn summary(asked: &Asked, sum: &Tally) -> String {
    let of = |what| sum.of(what);
    format!(
        "{} stories hold: {} records, {} refusals, {} effects done, {} kills, {} failed turns, {} torn writes cut, {} rotten \
         platters refused",
        asked.to - asked.from,
        of("records"),
        of("refused"),
        of("done"),
        of("killed"),
        of("failed"),
        of("torn writes cut"),
        of("rotten"),
    )
}

//! Do stories hold, are they the same each time they are told, and can every claim fail?

use crate::{CLAIMS, Options, STEPS, Sabotage, Tally, tell};

/// Stories within which a sabotage must be found.
const SEEDS: u64 = 200;

#[test]
fn some_stories_hold_and_everything_happens_in_them() {
    let mut tally = Tally::default();
    for seed in 0..20 {
        let told = tell(seed, &Options::default());
        assert_eq!(told.broken, None, "seed {seed:#x}\n{}", told.lines.join("\n"));
        tally.add(&told.tally);
    }
    let all = [
        "a host event",
        "a proposal",
        "a receipt",
        "a rehearsal",
        "a vote",
        "an answer",
        "an application",
        "an attempt",
        "an event",
        "clock",
        "closed",
        "done",
        "failed",
        "fenced",
        "given up",
        "key",
        "killed",
        "left behind",
        "plans ended",
        "refused",
        "rotten",
        "saved",
        "taken over",
        "torn writes cut",
        "wanted again",
    ];
    for what in all {
        assert!(tally.of(what) > 0, "nothing of this in 20 stories: {what}\n{tally:?}");
    }
}

#[test]
fn one_seed_is_one_story() {
    for seed in [0x5f1c, u64::MAX] {
        let (once, again) = (tell(seed, &Options::default()), tell(seed, &Options::default()));
        assert_eq!(once, again);
        assert!(once.lines.len() as u64 > STEPS / 2);
        assert_ne!(once.lines, tell(seed ^ 1, &Options::default()).lines);
    }
}

#[test]
fn every_claim_can_fail() {
    for (sabotage, claim) in Sabotage::ALL {
        let options = Options { sabotage: Some(*sabotage), only: Some(claim), ..Options::default() };
        let found = (0..SEEDS).find_map(|seed| tell(seed, &options).broken.map(|broken| (seed, broken)));
        let (seed, broken) = found.unwrap_or_else(|| panic!("{claim} finds nothing wrong with {sabotage:?}"));
        assert_eq!(broken.claim, *claim, "{sabotage:?}, seed {seed:#x}: {broken}");
        eprintln!("{sabotage:?}: seed {seed:#x}: {broken}");
    }
    for claim in CLAIMS {
        assert!(Sabotage::ALL.iter().any(|(_, found_by)| *found_by == claim), "nothing makes {claim} fail");
    }
}

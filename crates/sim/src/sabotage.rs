//! Ways to break the loop on purpose, one for each claim at least. A claim that finds nothing here would find nothing.

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// An adapter does what is due before the attempt is on disk.
    ActsBeforeTheCommit,
    /// Opening folds everything but receipts.
    ForgetsReceipts,
    /// The drive says that it has flushed, and has not.
    FlushLies,
    /// Opening cuts whatever does not check, also below what was acknowledged.
    CutsDamage,
    /// A reducer's answer depends on how often it was asked.
    ReducerRemembers,
    /// Opening folds everything but steps.
    ForgetsSteps,
    /// The loop takes a note of every refusal.
    NotesRefusals,
    /// An adapter does again what it had when the daemon was killed, without asking.
    DoesItAgain,
    /// An adapter begins what waits without looking whether it still may.
    IgnoresTheFence,
}

impl Sabotage {
    /// Each, with the claim that must find it.
    pub const ALL: &'static [(Sabotage, &'static str)] = &[
        (Sabotage::ActsBeforeTheCommit, "no_effect_before_its_event"),
        (Sabotage::ForgetsReceipts, "one_receipt_per_effect"),
        (Sabotage::FlushLies, "acknowledged_is_durable"),
        (Sabotage::CutsDamage, "acknowledged_is_durable"),
        (Sabotage::ReducerRemembers, "replay_gives_the_same_hash"),
        (Sabotage::ForgetsSteps, "replay_gives_the_same_hash"),
        (Sabotage::NotesRefusals, "refusals_change_nothing"),
        (Sabotage::DoesItAgain, "nothing_done_twice_unsaid"),
        (Sabotage::IgnoresTheFence, "fenced_effects_stay_fenced"),
    ];
}

//! Records, of the host's world and of others.

use agentd_engine::{Entry, State, project};
use agentd_journal::{Body, Chain, Record, hash_of_record};
use agentd_model::{Event, Hash, Stamp};

/// A record with either body: strictly read, chained, folded.
pub fn journal_record(data: &[u8]) {
    if let Some(record) = one::<Event>(data) {
        serde_json::to_value(&record.event).expect("an event prints");
        if let Some((schema, value)) = project(&record, |_| None) {
            let of = agentd_air::schemas().get(&schema).expect("worlds know what the host tells them");
            // Texts of any length reach the journal, and a value ends at a megabyte.
            if agentd_air::encoded_len(&value) <= agentd_air::MAX_VALUE_BYTES {
                assert_eq!(
                    agentd_air::check(agentd_air::schemas(), of, &value),
                    Ok(()),
                    "a projection is of its schema"
                );
            }
        }
    }
    if let Some(record) = one::<Entry>(data) {
        serde_json::to_value(&record.event).expect("an entry prints");
        let mut state = State::default();
        state.fold(record.seq, record.stamp, &record.event);
        assert_eq!(State::restore(&state.save()).as_ref(), Some(&state), "what is folded can be saved");
    }
}

fn one<B: Body + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<Record<B>> {
    let mut chain = Chain::EMPTY;
    if let Ok(record) = chain.check::<B>(data) {
        assert_eq!((chain.seq, chain.head), (record.seq, hash_of_record(data)), "the chain ends with it");
    }
    let record = match Record::<B>::decode(data) {
        Ok(record) => record,
        Err(error) => {
            drop(error.to_string());
            return None;
        }
    };
    assert_eq!(record.clone().encode(), data, "a record has one encoding");
    // Begun in the middle, as a file that says so is read.
    let state = record.event.saved_state().map_or(Hash::ZERO, |(state, _)| state);
    if let Ok(mut chain) = Chain::resume::<B>(record.seq, data, state) {
        assert!(chain.check::<B>(data).is_err(), "no record follows itself");
        let next =
            Record { seq: agentd_model::Seq(record.seq.0.wrapping_add(1)), previous: chain.head, ..record.clone() };
        let _ = chain.check::<B>(&Record { stamp: Stamp::default(), ..next }.encode());
    }
    Some(record)
}

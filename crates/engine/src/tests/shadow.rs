//! What a rehearsal reports: what would have been added, gone, decided otherwise, and where it cannot know.

use super::*;

/// A world, the state before its last inputs, and these.
struct Past {
    world: World,
    then: State,
    from: usize,
}

impl Past {
    fn begin() -> Past {
        let world = World::new();
        Past { then: world.state.clone(), from: world.records.len(), world }
    }

    fn inputs(&self) -> Vec<(Stamp, Entry)> {
        let inputs = self.world.records[self.from..].iter().filter(|record| record.event.is_input());
        inputs.map(|record| (record.stamp, record.event.clone())).collect()
    }

    /// Under what is made of the definitions of test worlds.
    fn under(&self, change: impl FnOnce(&mut Vec<Json>, &mut Json)) -> Report {
        self.with(change, &[])
    }

    fn with(&self, change: impl FnOnce(&mut Vec<Json>, &mut Json), heard: &[(Stamp, Input)]) -> Report {
        let (mut nodes, mut wiring) = ([&nodes()[..], &[rules()]].concat(), wiring());
        change(&mut nodes, &mut wiring);
        let report = crate::shadow(&self.then, definitions(&nodes, &wiring), &self.inputs(), heard, &Puppets).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
        report
    }
}

fn policy(nodes: &mut [Json], rules: Json) {
    let node = nodes.iter_mut().find(|node| node.get("defpolicy").is_some()).unwrap();
    node["rules"] = rules;
}

fn module<'a>(nodes: &'a mut [Json], name: &str) -> &'a mut Json {
    nodes.iter_mut().find(|node| node["defmodule"] == name).unwrap()
}

fn short(effects: &[Effect]) -> Vec<(&str, &str, &str)> {
    effects.iter().map(|effect| (effect.kind.as_str(), effect.origin.as_str(), effect.decision.as_str())).collect()
}

#[test]
fn under_the_same_definitions_nothing_is_different() {
    let mut past = Past::begin();
    past.world.put(&note("a"));
    past.world.put(&grant(1));
    past.world.put_bytes(b"trap");
    let report = past.under(|_, _| ());
    assert_eq!(report.differences(), 0, "{report:?}");
    assert_eq!((report.inputs, report.host_events, report.beyond), (3, 0, 2));
}

#[test]
fn another_policy_decides_otherwise() {
    let mut past = Past::begin();
    past.world.put(&note("a"));
    past.world.put(&grant(1));
    let report = past.under(|nodes, _| {
        policy(nodes, json!([{"when": {"effect": "sys/host.notify@1"}, "decide": "deny"}, {"decide": "allow"}]));
    });
    let expected = [("sys/host.grant@1", "t/puppet@1", "allow"), ("sys/host.notify@1", "t/puppet@1", "deny")];
    assert_eq!(short(&report.decided), expected);
    assert_eq!(report.decided[1].params, r#"{"agent":null,"body":"","subject":"a"}"#);
    assert_eq!((report.added.len(), report.gone.len(), report.beyond), (0, 0, 1));
    // Whoever asked is told that it was refused, which is another state.
    assert_eq!((report.cells, report.differences()), (1, 3));
}

#[test]
fn what_nobody_asks_for_any_more_is_gone_and_what_others_ask_for_is_added() {
    let mut past = Past::begin();
    past.world.put(&note("a"));
    let report = past.under(|nodes, wiring| {
        module(nodes, "t/mute@1")["effects"] = json!(["sys/host.notify@1"]);
        wiring["routes"][0]["module"] = json!("t/mute@1");
    });
    assert_eq!(short(&report.gone), [("sys/host.notify@1", "t/puppet@1", "allow")]);
    let why = "refused: t/mute@1 does not hold capability t/notify@1";
    assert_eq!(short(&report.added), [("sys/host.notify@1", "t/mute@1", why)]);
    assert_eq!(report.beyond, 0);
}

#[test]
fn a_rehearsal_counts_what_would_fail_beyond_what_failed() {
    let mut past = Past::begin();
    past.world.put_bytes(b"trap");
    past.world.put(&note("a"));
    past.world.put(&note("b"));
    let report = past.under(|nodes, _| module(nodes, "t/puppet@1")["raises"] = json!([]));
    assert!(report.failures.is_empty(), "{report:?}");
    past.world.put(&Output::keep().raise("t/do@1", &(ByteVec::from(bytes(&Output::keep())),)));
    let report = past.under(|nodes, _| module(nodes, "t/puppet@1")["raises"] = json!([]));
    let why = "t/puppet@1: it does not say that it raises t/do@1".to_owned();
    assert_eq!(report.failures, [(why, 1)].into());
}

#[test]
fn cells_are_compared_by_their_bytes() {
    let mut past = Past::begin();
    for cell in 0..3 {
        past.world.put_at(cell, &Output::keep().set(&Told { told: cell, last: "x".into() }));
    }
    let other = |nodes: &mut Vec<Json>, _: &mut Json| module(nodes, "t/cells@1")["wasm"] = json!(wasm("other"));
    assert_eq!(past.under(other).cells, 3);
    let report = past.under(|_, wiring| {
        wiring["routes"].as_array_mut().unwrap().retain(|route| route["event"] != "t/at@1");
    });
    assert_eq!(report.cells, 3);
}

#[test]
fn what_would_have_been_refused_is_counted_with_the_reason() {
    let mut past = Past::begin();
    past.world.put(&Output::keep());
    past.world.put(&Output::keep());
    // The schema is another one, and what was sent is no value of it.
    let report = past.under(|nodes, _| nodes[0]["type"] = json!({"record": [["output", "text"]]}));
    let why = "the value is not a t/do@1: output: expected text, found bytes".to_owned();
    assert_eq!(report.refused, [(why, 2)].into());
    let report = past.under(|nodes, wiring| {
        nodes.retain(|node| node["defschema"] != "t/do@1");
        for node in nodes.iter_mut().filter(|node| node.get("takes").is_some()) {
            node["takes"].as_array_mut().unwrap().retain(|name| name != "t/do@1");
            node.as_object_mut().unwrap().remove("raises");
        }
        wiring["routes"].as_array_mut().unwrap().retain(|route| route["event"] != "t/do@1");
    });
    assert_eq!(report.refused, [("there is no schema t/do@1".to_owned(), 2)].into());
    assert_eq!(report.differences(), 2);
}

#[test]
fn receipts_that_came_are_told_and_the_rest_is_beyond_the_horizon() {
    let mut past = Past::begin();
    let intent = past.world.wanted(&note("a"));
    past.world.attempt(intent).unwrap();
    past.world.settle(&past.world.receipt(intent, 1)).unwrap();
    past.world.put(&note("b"));
    assert_eq!(past.under(|_, _| ()).beyond, 1);
    // Another program's effects are other effects: of theirs, no receipt is known.
    let other =
        |nodes: &mut Vec<Json>, _: &mut Json| module(nodes, "t/puppet@1")["wasm"] = json!(wasm("same but other"));
    let report = past.under(other);
    assert_eq!((report.added.len(), report.gone.len(), report.beyond), (0, 0, 2));
    assert_eq!(report.cells, 1, "nobody was told");
}

#[test]
fn host_events_that_only_the_candidate_hears_come_in_their_time() {
    let mut past = Past::begin();
    past.world.put(&Output::keep());
    let heard = [(Stamp { wall_ns: NOW - 1, ..Stamp::default() }, paused(6, 3))];
    let report = past.with(|_, _| (), &heard);
    assert_eq!((report.host_events, report.cells), (1, 1));
    // One that the world has heard is not heard again.
    let twice = [heard[0].clone(), heard[0].clone()];
    let report = past.with(|_, _| (), &twice);
    assert_eq!(report.refused, [("record 3 of the host was taken in before".to_owned(), 1)].into());
}

#[test]
fn a_rehearsal_leaves_everything_as_it_is() {
    let mut past = Past::begin();
    past.world.put(&note("a"));
    let before = (past.world.state.clone(), past.then.clone());
    past.under(|nodes, _| policy(nodes, json!([])));
    assert_eq!((past.world.state, past.then), before);
}

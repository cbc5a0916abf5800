//! Every reason of a capability, and what policies say.

use agentd_air::Decision;

use super::*;

/// What is said of an effect that the puppet asks for: the reason why not, or the decision.
fn said(world: &mut World, output: &Output) -> String {
    let drafts = world.put(output);
    let answer = drafts.iter().find_map(|draft| match &draft.entry {
        Entry::Wanted { grant: Grant::Refused { why }, ruling: None, .. } => Some(why.clone()),
        Entry::Wanted { grant: Grant::Covered { .. }, ruling: Some(ruling), .. } => {
            Some(format!("{:?}", ruling.decision))
        }
        _ => None,
    });
    answer.unwrap()
}

fn ruling(drafts: &[Draft]) -> &Ruling {
    let found = drafts.iter().find_map(|draft| match &draft.entry {
        Entry::Wanted { ruling, .. } => ruling.as_ref(),
        _ => None,
    });
    found.unwrap()
}

/// A world in which the puppet also has this capability.
fn having(capability: Json) -> World {
    World::with(&[&nodes()[..], &[capability, rules()]].concat())
}

#[test]
fn the_capability_says_why_not() {
    let mut world = World::new();
    let effect = |kind: &str, capability: &str| Output::keep().effect(kind, capability, &("a", "b", None::<u64>));
    let cases = [
        (effect("no name", "t/notify@1"), "\"no name\" is not a name; write ns/name@1"),
        (effect("sys/teleport@1", "t/notify@1"), "there is no kind of effect sys/teleport@1"),
        (effect("sys/host.notify@1", "?"), "\"?\" is not a name; write ns/name@1"),
        (effect("sys/host.notify@1", "t/no@1"), "there is no capability t/no@1"),
        (effect("sys/host.notify@1", "t/timer@1"), "capability t/timer@1 is for sys/timer@1"),
        (effect("sys/timer@1", "t/timer@1"), "the parameters are not those of sys/timer@1: "),
    ];
    for (output, expected) in cases {
        let why = said(&mut world, &output);
        assert!(why.starts_with(expected), "{why}");
    }
    // What its definition does not name, a module does not get, even if it holds the capability.
    let asks = Output::keep().effect("sys/timer@1", "t/timer@1", &(1_u64,));
    let drafts = world.put_at(1, &asks);
    let why = "t/cells@1 does not say that it asks for sys/timer@1";
    assert!(drafts.iter().any(
        |draft| matches!(&draft.entry, Entry::Wanted { grant: Grant::Refused { why: found }, .. } if found == why)
    ));
    let mut other = having(json!({"defcap": "t/own@1", "effect": "sys/timer@1", "holders": ["t/mute@1"]}));
    let asks = Output::keep().effect("sys/timer@1", "t/own@1", &(1_u64,));
    assert_eq!(said(&mut other, &asks), "t/puppet@1 does not hold capability t/own@1");
}

#[test]
fn the_first_rule_that_matches_decides_and_none_is_a_no() {
    let cases = [
        (json!([{"decide": "allow"}, {"decide": "deny"}]), Some(0), Decision::Allow),
        (json!([{"when": {"effect": "sys/timer@1"}, "decide": "allow"}]), None, Decision::Deny),
        (
            json!([{"when": {"origin": "t/plan@1"}, "decide": "allow"}, {"when": {"origin": "t/pup*"}, "decide": "require_approval"}]),
            Some(1),
            Decision::RequireApproval,
        ),
        (
            json!([{"when": {"effect": "sys/host.*", "capability": "t/grant@1"}, "decide": "allow"}, {"when": {"effect": "sys/host.*"}, "decide": "deny"}]),
            Some(1),
            Decision::Deny,
        ),
        (json!([]), None, Decision::Deny),
    ];
    for (rules, rule, decision) in cases {
        let policy = json!({"defpolicy": "t/rules@1", "rules": rules});
        let mut world = World::with(&[&nodes()[..], &[policy]].concat());
        let drafts = world.put(&note("a"));
        assert_eq!(*ruling(&drafts), Ruling { policy: Some(name("t/rules@1")), rule, decision });
        let phase = world.phase(intents(&drafts)[0].id);
        let expected = match decision {
            Decision::Allow => Some(Phase::Ready),
            Decision::Deny => None,
            Decision::RequireApproval => Some(Phase::Asked),
        };
        assert_eq!(phase, expected, "{rules}");
    }
    let mut lawless = World::with(&nodes());
    let drafts = lawless.put(&note("a"));
    assert_eq!(*ruling(&drafts), Ruling { policy: None, rule: None, decision: Decision::Deny });
}

#[test]
fn a_capability_ends_by_the_clock_that_never_goes_back() {
    let mut world = having(
        json!({"defcap": "t/short@1", "effect": "sys/timer@1", "holders": ["t/puppet@1"], "expires_ns": NOW + 10}),
    );
    let asks = Output::keep().effect("sys/timer@1", "t/short@1", &(1_u64,));
    world.wall_ns = NOW + 9;
    assert_eq!(said(&mut world, &asks), "Allow");
    world.wall_ns = NOW + 10;
    assert_eq!(said(&mut world, &asks), "capability t/short@1 has expired");
    world.wall_ns = NOW;
    assert_eq!(said(&mut world, &asks), "capability t/short@1 has expired");
    assert_eq!(world.state.logical_ns(), NOW + 10);
}

#[test]
fn a_capability_that_has_changed_is_named_by_another_hash() {
    let mut world = World::new();
    let by = |drafts: &[Draft]| match &drafts[2].entry {
        Entry::Wanted { grant: Grant::Covered { by }, .. } => *by,
        other => panic!("{other:?}"),
    };
    let first = by(&world.put(&note("a")));
    let mut changed = nodes();
    changed.push(rules());
    let at = changed.iter().position(|node| node["defcap"] == "t/notify@1").unwrap();
    changed[at]["expires_ns"] = json!(u64::MAX);
    world.become_(&definitions(&changed, &wiring()));
    assert_ne!(by(&world.put(&note("a"))), first);
}

type Request<'a> = (&'a str, &'a str, std::collections::BTreeMap<String, String>, ByteVec);

fn get(url: &str) -> Output {
    let request: Request<'_> = ("GET", url, Default::default(), vec![].into());
    Output::keep().effect("sys/http@1", "t/scoped@1", &request)
}

#[test]
fn http_is_covered_by_method_and_host() {
    let scope = json!({"http": {"hosts": ["api.example.org", "127.0.0.1:*"], "methods": ["GET"]}});
    let mut world =
        having(json!({"defcap": "t/scoped@1", "effect": "sys/http@1", "holders": ["t/puppet@1"], "scope": scope}));
    for url in ["https://api.example.org/a?b#c", "http://API.example.org", "http://127.0.0.1:8080/x"] {
        assert_eq!(said(&mut world, &get(url)), "Allow", "{url}");
    }
    let refused = [
        "https://example.org/",
        "https://api.example.org.evil.com/",
        "https://api.example.org:8443/",
        "http://127.0.0.1:80@evil.com/",
        "http://127.0.0.1:80\\@evil.com/",
        "http://user@api.example.org/",
        "api.example.org",
        "",
    ];
    for url in refused {
        let why = said(&mut world, &get(url));
        assert!(why.starts_with("capability t/scoped@1: "), "{url}: {why}");
    }
    let request: Request<'_> = ("POST", "https://api.example.org/", Default::default(), vec![].into());
    let post = Output::keep().effect("sys/http@1", "t/scoped@1", &request);
    assert_eq!(said(&mut world, &post), "capability t/scoped@1: it does not cover method POST");
}

#[test]
fn programs_are_covered_by_path_and_directory() {
    let scope = json!({"exec": {"programs": ["/usr/bin/git", "/opt/tools/*"], "profile": "coding",
        "directories": ["/srv/work", "/tmp/"]}});
    let mut world =
        having(json!({"defcap": "t/scoped@1", "effect": "sys/exec@1", "holders": ["t/puppet@1"], "scope": scope}));
    let run = |argv: &[&str], directory: &str| {
        let params = (argv.to_vec(), directory.to_owned(), ByteVec::from(vec![]));
        Output::keep().effect("sys/exec@1", "t/scoped@1", &params)
    };
    for (argv, directory) in [
        (&["/usr/bin/git", "status"][..], "/srv/work"),
        (&["/opt/tools/x"], "/srv/work/a"),
        (&["/usr/bin/git"], "/tmp/b"),
    ] {
        assert_eq!(said(&mut world, &run(argv, directory)), "Allow", "{argv:?} in {directory}");
    }
    for (argv, directory, why) in [
        (&["/bin/sh"][..], "/srv/work", "it does not cover program /bin/sh"),
        (&["git"], "/srv/work", "it does not cover program git"),
        (&[], "/srv/work", "there is no program"),
        (&["/usr/bin/git"], "/srv/workshop", "it does not cover directory /srv/workshop"),
        (&["/usr/bin/git"], "/srv/work/../../etc", "it does not cover directory /srv/work/../../etc"),
        (&["/usr/bin/git"], "srv/work", "it does not cover directory srv/work"),
        (&["/usr/bin/git"], "", "it does not cover directory "),
    ] {
        assert_eq!(said(&mut world, &run(argv, directory)), format!("capability t/scoped@1: {why}"));
    }
}

#[test]
fn models_are_covered_by_provider_name_and_length() {
    let scope = json!({"llm": {"providers": ["local"], "models": ["small-*"], "max_tokens": 100}});
    let mut world =
        having(json!({"defcap": "t/scoped@1", "effect": "sys/llm@1", "holders": ["t/puppet@1"], "scope": scope}));
    let ask = |provider: &str, model: &str, tokens: u64| {
        let params = (provider, model, None::<String>, "hello", tokens);
        Output::keep().effect("sys/llm@1", "t/scoped@1", &params)
    };
    assert_eq!(said(&mut world, &ask("local", "small-1", 100)), "Allow");
    let why = |text: &str| format!("capability t/scoped@1: {text}");
    assert_eq!(said(&mut world, &ask("far", "small-1", 1)), why("it does not cover provider far"));
    assert_eq!(said(&mut world, &ask("local", "large", 1)), why("it does not cover model large"));
    assert_eq!(said(&mut world, &ask("local", "small-1", 101)), why("it covers at most 100 tokens"));
}

#[test]
fn a_scope_of_another_kind_covers_nothing() {
    let agents = json!({"agents": {"names": ["*"]}});
    let http = json!({"http": {"hosts": ["*"], "methods": ["*"]}});
    let of = |scope: Option<&Json>, effect: &str| {
        let mut capability = json!({"defcap": "t/scoped@1", "effect": effect, "holders": ["t/puppet@1"]});
        if let Some(scope) = scope {
            capability["scope"] = scope.clone();
        }
        having(capability)
    };
    let asks = |kind: &str| Output::keep().effect(kind, "t/scoped@1", &(1_u64,));
    let why = "capability t/scoped@1: its scope is not one for sys/timer@1";
    assert_eq!(said(&mut of(Some(&http), "sys/timer@1"), &asks("sys/timer@1")), why);
    assert_eq!(said(&mut of(Some(&agents), "sys/timer@1"), &asks("sys/timer@1")), why);
    assert_eq!(said(&mut of(None, "sys/timer@1"), &asks("sys/timer@1")), "Allow");
    let why = "capability t/scoped@1: it needs a scope for this kind of effect";
    assert_eq!(said(&mut of(None, "sys/http@1"), &get("http://a/")), why);
}

//! Do rules, written by people and compiled for the kernel, decide as they are meant?

#![allow(clippy::unwrap_used, reason = "a test; helpers of an integration test are not seen as tests")]

use std::collections::BTreeMap;

use agentd_abi::{ANYWHERE, F_FILE_RULES, F_NAMES, NEVER, NameKey, Object, R_KEEP, R_NAMES, RuleKey, name_hash};
use agentd_model::{AgentNumber, NetRule, PathRule, Rights};
use agentd_policy::compile::{CompileError, Compiled, Resolved, Target, compile};
use agentd_policy::decide::{DeniedBy, Level, Verdict, decide, full_rights, kept};
use agentd_policy::net::{NetNeed, NetVerdict, Transport, decide_net};
use agentd_policy::profile::{Profiles, Vars};
use agentd_policy::{Pattern, parse};
use proptest::prelude::*;

const AGENT: AgentNumber = AgentNumber(7);
const NOW: u64 = 1_000_000;

/// A file system of directories: every path exists unless its last name begins with "new"; inodes are by path.
fn ino(path: &str) -> u64 {
    path.bytes().fold(5, |hash: u64, b| hash.wrapping_mul(131).wrapping_add(u64::from(b)))
}

fn object(path: &str) -> Object {
    Object { dev: 1, reserved: 0, ino: ino(path) }
}

fn exists(path: &str) -> bool {
    !path.split('/').any(|name| name.starts_with("new"))
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

fn levels(path: &str) -> Vec<Level> {
    let mut levels = Vec::new();
    let mut rest = path;
    while rest != "/" {
        let name = rest.rsplit('/').next().unwrap().as_bytes().to_owned();
        levels.push(Level { object: exists(rest).then(|| object(rest)), name: Some(name) });
        rest = parent(rest);
    }
    levels.push(Level { object: Some(object("/")), name: None });
    levels
}

/// What the launcher would find.
fn resolve(rules: &[PathRule]) -> Vec<Resolved> {
    let mut resolved = Vec::new();
    for (rule, PathRule { path, deny, .. }) in rules.iter().enumerate() {
        if Pattern::of(path).is_some() {
            continue;
        }
        if exists(path) {
            resolved.push(Resolved { rule, target: Target::Object { object: object(path), directory: true } });
        }
        if deny.is_empty() || path == "/" {
            continue;
        }
        let name = path.rsplit('/').next().unwrap().as_bytes().to_owned();
        if exists(parent(path)) {
            resolved.push(Resolved { rule, target: Target::Name { directory: object(parent(path)), name } });
            let mut way = parent(path);
            while way != "/" {
                resolved.push(Resolved { rule, target: Target::Way { directory: object(way) } });
                way = parent(way);
            }
        } else {
            let directory = parent(path).rsplit('/').next().map(|name| name.as_bytes().to_owned());
            resolved.push(Resolved { rule, target: Target::Pattern { parent: directory, name } });
        }
    }
    resolved
}

/// Rules from options: `+read:/a` allows, `-read:/a` denies.
fn rules(options: &[&str]) -> Vec<PathRule> {
    let places = parse::Places { cwd: "/", home: "/home/u" };
    let rule = |option: &&str| match option.strip_prefix('+') {
        Some(allow) => parse::allow(allow, places).unwrap(),
        None => parse::deny(&option[1..], places).unwrap(),
    };
    options.iter().map(rule).collect()
}

fn compiled(options: &[&str]) -> Compiled {
    let rules = rules(options);
    compile(AGENT, &rules, &resolve(&rules), &[]).unwrap()
}

fn may(options: &[&str], right: Rights, path: &str) -> bool {
    decide(&compiled(options), &levels(path), right, NOW) == Verdict::Allowed
}

#[test]
fn deny_inside_allow_and_allow_inside_deny() {
    let options = ["+read,write:/w", "-all:/w/secret", "+read:/w/secret/public"];
    assert!(may(&options, Rights::READ, "/w/a/b"));
    assert!(!may(&options, Rights::READ, "/w/secret/key"));
    assert!(may(&options, Rights::READ, "/w/secret/public/x"));
    assert!(!may(&options, Rights::WRITE, "/w/secret/public/x"), "only what the nearer rule mentions");
    assert!(!may(&options, Rights::READ, "/elsewhere"));
    assert!(may(&options, Rights::READ.union(Rights::WRITE), "/w/a"));
    assert!(!may(&options, Rights::READ.union(Rights::EXEC), "/w/a"), "every needed right");
}

#[test]
fn a_denial_wins_on_the_same_object() {
    assert!(!may(&["+read:/w", "-read:/w"], Rights::READ, "/w/x"));
    let compiled = compiled(&["+all:/w", "-exec:/w"]);
    assert_eq!(full_rights(&compiled, &levels("/w/x"), NOW), Rights::ALL.minus(Rights::EXEC));
}

#[test]
fn names_hold_where_nothing_exists_yet() {
    let options = ["+all:/w", "-change:/w/new-file", "-change:**/.git/hooks", "-all:**/.ssh", "-read:/w/newdir/key"];
    let denied = |right, path: &str| match decide(&compiled(&options), &levels(path), right, NOW) {
        Verdict::Denied { rule, by, .. } => Some((rule, by)),
        _ => None,
    };
    assert_eq!(denied(Rights::CREATE, "/w/new-file"), Some((2, DeniedBy::Name)));
    assert_eq!(denied(Rights::CREATE, "/w/new-other"), None);
    assert_eq!(denied(Rights::CREATE, "/w/sub/.git/hooks/new-commit"), Some((3, DeniedBy::Name)));
    assert_eq!(denied(Rights::EXEC, "/w/sub/.git/hooks/pre-commit"), None, "only change is denied");
    assert_eq!(denied(Rights::WRITE, "/w/src/hooks/x"), None, "only below .git");
    assert_eq!(denied(Rights::READ, "/w/a/.ssh/id"), Some((4, DeniedBy::Name)));
    assert_eq!(denied(Rights::READ, "/w/other/newdir/key"), Some((5, DeniedBy::Name)), "wider, never narrower");
}

#[test]
fn an_existing_denied_file_is_denied_by_object_and_by_name() {
    let compiled = compiled(&["+all:/w", "-read:/w/key"]);
    let verdict = decide(&compiled, &levels("/w/key"), Rights::READ, NOW);
    assert_eq!(verdict, Verdict::Denied { rights: Rights::READ, rule: 2, by: DeniedBy::Object });
    let mut moved = levels("/w/other");
    moved[0].object = Some(object("/w/key"));
    assert!(matches!(decide(&compiled, &moved, Rights::READ, NOW), Verdict::Denied { by: DeniedBy::Object, .. }));
    let mut replaced = levels("/w/key");
    replaced[0].object = Some(object("/replaced"));
    assert!(matches!(decide(&compiled, &replaced, Rights::READ, NOW), Verdict::Denied { by: DeniedBy::Name, .. }));
}

#[test]
fn what_a_denial_by_name_relies_on_is_kept() {
    let compiled = compiled(&["+all:/w", "-change:/w/a/b/key", "-change:**/.git/hooks"]);
    assert_eq!(kept(&compiled, None, b".git"), Some(3), "mv .git g; edit g/hooks; mv g .git");
    assert_eq!(kept(&compiled, Some(object("/w/a")), b"a"), Some(2));
    assert_eq!(kept(&compiled, Some(object("/w/a/b")), b"b"), Some(2));
    assert_eq!(kept(&compiled, Some(object("/w/c")), b"c"), None);
    assert!(
        may(&["+all:/w", "-change:**/.git/hooks"], Rights::CREATE, "/w/.git/new-config"),
        "only a rename is refused"
    );
}

#[test]
fn the_root_of_a_mount_goes_by_the_name_it_is_mounted_on() {
    let compiled = compiled(&["+all:/", "-change:**/.git/hooks"]);
    let mut mounted = levels("/w/.git/hooks");
    mounted.insert(1, Level { object: Some(object("/another root")), name: None });
    assert!(matches!(decide(&compiled, &mounted, Rights::WRITE, NOW), Verdict::Denied { .. }));
}

#[test]
fn an_expired_permission_ends_and_a_denial_stays() {
    let mut compiled = compiled(&["+read:/w", "-write:/w"]);
    for rule in compiled.rules.values_mut() {
        rule.expires_ns = NOW;
    }
    let ask = |right, now| decide(&compiled, &levels("/w/x"), right, now);
    assert_eq!(ask(Rights::READ, NOW - 1), Verdict::Allowed);
    assert_eq!(ask(Rights::READ, NOW), Verdict::NothingFound { rights: Rights::READ, expired: 1 });
    assert_eq!(ask(Rights::EXEC, NOW), Verdict::NothingFound { rights: Rights::EXEC, expired: 0 });
    assert!(matches!(ask(Rights::WRITE, NOW), Verdict::Denied { rule: 2, .. }));
}

#[test]
fn deep_trees_end_the_walk() {
    let compiled = compiled(&["+read:/"]);
    assert_eq!(decide(&compiled, &levels(&"/d".repeat(63)), Rights::READ, NOW), Verdict::Allowed);
    let deeper = levels(&"/d".repeat(64));
    assert_eq!(decide(&compiled, &deeper, Rights::READ, NOW), Verdict::TooDeep { rights: Rights::READ });
    assert_eq!(full_rights(&compiled, &deeper, NOW), Rights::NONE);
}

#[test]
fn entries_on_the_same_object_are_one() {
    let rules = rules(&["-exec:/bin", "+read:/bin", "+exec:/usr/bin", "-read:**/x", "+read:/f"]);
    let target = Target::Object { object: object("/usr/bin"), directory: true };
    let mut resolved: Vec<Resolved> = (0..3).rev().map(|rule| Resolved { rule, target: target.clone() }).collect();
    resolved.push(Resolved { rule: 4, target: Target::Object { object: object("/f"), directory: false } });
    let compiled = compile(AGENT, &rules, &resolved, &[]).unwrap();
    let entry = compiled.rules[&RuleKey { agent: 7, dev: 1, ino: ino("/usr/bin") }];
    assert_eq!((entry.allow, entry.deny, entry.allow_id, entry.deny_id, entry.expires_ns), (5, 4, 2, 1, NEVER));
    assert_eq!(compiled.flags, F_FILE_RULES | F_NAMES);
    assert_eq!(compiled.name_lengths, 1 << 1);
    let key = NameKey { agent: 7, dev: ANYWHERE, parent: 0, name: name_hash(b"x").unwrap() };
    assert_eq!(compiled.names[&key].deny_id, 4);
}

#[test]
fn directories_with_ruled_names_are_marked() {
    let compiled = compiled(&["-read:/w/new"]);
    let entry = compiled.rules[&RuleKey { agent: 7, dev: 1, ino: ino("/w") }];
    assert_eq!((entry.allow, entry.deny, entry.flags), (0, 0, R_NAMES | R_KEEP));
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let told = |options: &[&str], resolved: &[Resolved]| {
        compile(AGENT, &rules(options), resolved, &[]).unwrap_err().to_string()
    };
    assert_eq!(told(&["+read:/srv/x"], &[]), "/srv/x does not exist (--allow read:/srv/x)");
    assert_eq!(told(&["-read:/srv/x"], &[]), "no place was found for the denial on /srv/x (--deny read:/srv/x)");
    let by_name = Target::Name { directory: object("/srv"), name: b"x".to_vec() };
    let found = [Resolved { rule: 0, target: by_name.clone() }];
    assert_eq!(told(&["+read:/srv/x"], &found), "/srv/x does not exist (--allow read:/srv/x)");
    assert!(
        told(&["-read:/srv/x"], &[Resolved { rule: 3, target: by_name }]).starts_with("the launcher reports on rule 3")
    );
    let long = Target::Name { directory: object("/srv"), name: vec![b'x'; 64] };
    let told_long = told(&["-read:/srv/x"], &[Resolved { rule: 0, target: long }]);
    assert!(told_long.contains("is not one of 1 to 63 bytes (--deny read:/srv/x)"), "{told_long}");
    let optional = PathRule { optional: true, ..rules(&["+read:/gone"]).remove(0) };
    assert!(compile(AGENT, &[optional], &[], &[]).unwrap().rules.is_empty());
}

#[test]
fn a_full_table_is_named() {
    let rule = rules(&["-read:/w"]);
    let resolved: Vec<Resolved> = (0..20_000u64)
        .map(|ino| Object { dev: 1, reserved: 0, ino })
        .map(|directory| Resolved { rule: 0, target: Target::Name { directory, name: b"x".to_vec() } })
        .collect();
    let result = compile(AGENT, &rule, &resolved, &[]);
    let limit = agentd_abi::MAX_NAMES as usize;
    let full = CompileError::Full { table: "names", needed: 20_000, limit };
    assert_eq!(result.err(), (limit < 20_000).then_some(full));
}

/// Networks in a compiled form.
fn nets(options: &[&str]) -> Result<Compiled, CompileError> {
    let rules: Vec<NetRule> = options.iter().flat_map(|option| parse::net(option).unwrap()).collect();
    compile(AGENT, &[], &[], &rules)
}

fn reaches(options: &[&str], address: &str, port: u16, need: NetNeed, over: Transport) -> Option<u16> {
    let addr = match address.parse::<std::net::IpAddr>().unwrap() {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(v6) => v6.octets(),
    };
    match decide_net(&nets(options).unwrap(), addr, port, need, over) {
        NetVerdict::Allowed { rule } => Some(rule),
        NetVerdict::NothingFound => None,
    }
}

#[test]
fn networks_add_up_although_the_longest_prefix_decides_alone() {
    use NetNeed::{Bind, Connect};
    use Transport::{Tcp, Udp};
    let options = ["tcp:any:443", "10.0.0.0/8:80-90", "10.1.0.0/16:91", "bind:loopback", "10.1.2.3:5000"];
    assert_eq!(reaches(&options, "10.1.2.3", 443, Connect, Tcp), Some(1));
    assert_eq!(reaches(&options, "10.1.2.3", 443, Connect, Udp), None);
    assert_eq!(reaches(&options, "10.1.2.3", 85, Connect, Udp), Some(2));
    assert_eq!(reaches(&options, "10.1.2.3", 91, Connect, Tcp), Some(2), "adjacent ranges are one, of the first rule");
    assert_eq!(reaches(&options, "10.2.0.1", 91, Connect, Tcp), None);
    assert_eq!(reaches(&options, "2001:db8::1", 443, Connect, Tcp), Some(1));
    assert_eq!(reaches(&options, "127.0.0.1", 9, Bind, Tcp), Some(4));
    assert_eq!(reaches(&options, "127.0.0.1", 9, Connect, Tcp), None);
    assert_eq!(reaches(&options, "::1", 9, Bind, Udp), Some(5));
    assert_eq!(reaches(&[], "127.0.0.1", 9, Connect, Tcp), None);
}

#[test]
fn ranges_are_merged_only_where_that_gives_nothing_more() {
    let ports = |options: &[&str]| nets(options).unwrap().nets[0].1.count;
    assert_eq!(ports(&["10.0.0.1:1-5", "10.0.0.1:6-9", "10.0.0.1:3"]), 1);
    assert_eq!(ports(&["10.0.0.1", "bind:10.0.0.1"]), 1);
    assert_eq!(ports(&["tcp:10.0.0.1:1", "bind:udp:10.0.0.1:1"]), 2);
    assert_eq!(reaches(&["tcp:10.0.0.1:1", "bind:udp:10.0.0.1:1"], "10.0.0.1", 1, NetNeed::Bind, Transport::Tcp), None);
    assert_eq!(ports(&["10.0.0.1:65535", "10.0.0.1:0"]), 2);
}

#[test]
fn too_many_port_ranges_name_the_rule() {
    let options: Vec<String> = (0..9).map(|n| format!("10.0.0.1:{}", n * 10)).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    assert_eq!(nets(&options[..8]).unwrap().nets[0].1.count, 8);
    assert_eq!(
        nets(&options).unwrap_err().to_string(),
        "10.0.0.1/32 has 9 different port ranges, 8 is the limit; the last is 10.0.0.1/32:80 (--net 10.0.0.1:80)"
    );
}

/// The built-in profile, on a host on which everything exists.
fn coding() -> (Compiled, usize) {
    let vars =
        Vars { workspace: "/home/u/p".into(), home: "/home/u".into(), user: "u".into(), tmp: "/tmp".into(), uid: 1000 };
    let expanded = Profiles::built_in().expand("coding", &vars).unwrap();
    let compiled = compile(AGENT, &expanded.paths, &resolve(&expanded.paths), &expanded.nets).unwrap();
    (compiled, expanded.paths.len())
}

#[test]
fn coding_lets_work_run_and_keeps_its_line() {
    let (compiled, _) = coding();
    let may =
        |rights: &str, path: &str| decide(&compiled, &levels(path), rights.parse().unwrap(), NOW) == Verdict::Allowed;
    for (rights, path) in [
        ("all", "/home/u/p/src/main.rs"),
        ("create", "/home/u/p/new/.git/new-HEAD"),
        ("all", "/home/u/p/.git/config"),
        ("read,exec", "/home/u/p/.git/hooks/pre-commit"),
        ("read", "/home/u/p/.claude/settings.json"),
        ("write", "/home/u/p/.claude/commands/x.md"),
        ("all", "/home/u/p/.vscode/settings.json"),
        ("all", "/home/u/p/.npmrc"),
        ("all", "/home/u/p/.envrc"),
        ("read,exec", "/usr/bin/gcc"),
        ("read,exec", "/nix/store/x/bin/sh"),
        ("read", "/etc/passwd"),
        ("read,write", "/dev/null"),
        ("read,write", "/proc/1/oom_score_adj"),
        ("read", "/proc/sys/kernel/osrelease"),
        ("all", "/tmp/claude/settings.json"),
        ("all", "/tmp/codex/config.toml"),
        ("read,exec", "/home/u/.cargo/bin/cargo"),
        ("read", "/home/u/.cargo/registry/src/x.rs"),
        ("read", "/home/u/.gitconfig"),
        ("read,exec", "/home/u/.rustup/toolchains/t/bin/rustc"),
    ] {
        assert!(
            may(rights, path),
            "{rights}:{path}: {:?}",
            decide(&compiled, &levels(path), rights.parse().unwrap(), NOW)
        );
    }
    for (rights, path) in [
        ("create", "/home/u/p/.git/hooks/new-hook"),
        ("write", "/home/u/p/sub/.git/hooks/pre-commit"),
        ("write", "/home/u/p/.claude/settings.json"),
        ("create", "/home/u/p/.claude/settings.local.json"),
        ("create", "/home/u/p/.mcp.json"),
        ("create", "/home/u/p/.bashrc"),
        ("read", "/home/u/p/.ssh/id_ed25519"),
        ("read", "/home/u/.ssh/id_ed25519"),
        ("read", "/home/u/.bashrc"),
        ("read", "/home/u"),
        ("read", "/home/v/x"),
        ("read", "/root/x"),
        ("write", "/home/u/.cargo/bin/cargo"),
        ("create", "/home/u/.cargo/registry/src/new"),
        ("write", "/home/u/.gitconfig"),
        ("read", "/home/u/.cargo/credentials.toml"),
        ("write", "/usr/bin/gcc"),
        ("read", "/etc/shadow"),
        ("read", "/etc/ssh/ssh_host_ed25519_key"),
        ("read", "/etc/ssl/private/key.pem"),
        ("write", "/proc/sys/kernel/core_pattern"),
        ("write", "/proc/sysrq-trigger"),
        ("read", "/run/docker.sock"),
        ("read", "/sys/fs/bpf/agentd"),
        ("exec", "/etc/x"),
        ("exec", "/dev/shm/x"),
    ] {
        assert!(!may(rights, path), "{rights}:{path}");
    }
}

#[test]
fn coding_fits_for_many_agents() {
    let (compiled, rules) = coding();
    println!("{rules} rules, {} entries, {} names", compiled.rules.len(), compiled.names.len());
    assert!(rules < 200, "{rules} rules");
    assert!(compiled.names.len() < 140, "{} names", compiled.names.len());
    assert!(compiled.rules.len() < 160, "{} entries", compiled.rules.len());
}

fn any_option() -> impl Strategy<Value = String> {
    let rights = prop::sample::select(vec!["read", "write", "exec", "create", "delete", "change", "all", "read,exec"]);
    let place = prop::sample::select(vec![
        "/",
        "/a",
        "/a/b",
        "/a/b/c",
        "/a/.git",
        "/a/.git/hooks",
        "/b",
        "/a/new",
        "/a/newd/x",
        "**/b",
        "**/.git/hooks",
        "**/x",
    ]);
    (any::<bool>(), rights, place).prop_map(|(allow, rights, place)| {
        let sign = if allow && !place.starts_with('*') && !place.contains("new") { '+' } else { '-' };
        format!("{sign}{rights}:{place}")
    })
}

fn any_question() -> impl Strategy<Value = (Rights, String)> {
    let path = prop::sample::select(vec![
        "/",
        "/a",
        "/a/b",
        "/a/b/c/d",
        "/a/.git/hooks/x",
        "/b/.git/hooks",
        "/b/new",
        "/a/new",
        "/a/newd/x",
        "/c/x/y",
        "/b/b",
    ]);
    (1u32..32, path).prop_map(|(bits, path)| (Rights::from_bits_truncate(bits), path.to_owned()))
}

fn texts(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn the_order_of_rules_never_matters(
        (options, shuffled) in prop::collection::vec(any_option(), 0..9)
            .prop_flat_map(|options| (Just(options.clone()), Just(options).prop_shuffle())),
        (need, path) in any_question(),
    ) {
        let kind = |options: &[String]| {
            // Which of two denying rules is named depends on the order; that and what is denied does not.
            match decide(&compiled(&texts(options)), &levels(&path), need, NOW) {
                Verdict::Denied { rights, by, .. } => Verdict::Denied { rights, by, rule: 0 },
                other => other,
            }
        };
        prop_assert_eq!(kind(&options), kind(&shuffled));
    }

    #[test]
    fn a_denial_never_allows_more(
        options in prop::collection::vec(any_option(), 0..8), denial in any_option(), (_, path) in any_question(),
    ) {
        let denial = denial.replace('+', "-");
        let more: Vec<&str> = texts(&options).into_iter().chain([denial.as_str()]).collect();
        let before = full_rights(&compiled(&texts(&options)), &levels(&path), NOW);
        let after = full_rights(&compiled(&more), &levels(&path), NOW);
        prop_assert!(before.contains(after), "{before} became {after}");
    }

    #[test]
    fn full_rights_are_those_that_are_allowed(
        options in prop::collection::vec(any_option(), 0..9), (need, path) in any_question(),
    ) {
        let compiled = compiled(&texts(&options));
        let allowed = decide(&compiled, &levels(&path), need, NOW) == Verdict::Allowed;
        prop_assert_eq!(allowed, full_rights(&compiled, &levels(&path), NOW).contains(need));
    }

    #[test]
    fn an_exception_inside_a_denial_gives_exactly_itself(
        options in prop::collection::vec(any_option(), 0..6), (need, _) in any_question(),
    ) {
        // Nothing else is about /z.
        let mut all = texts(&options);
        all.extend(["-all:/z", "+read,write:/z/open", "-write:/z/open/shut"]);
        let compiled = compiled(&all);
        let rights = |path: &str| full_rights(&compiled, &levels(path), NOW);
        prop_assert_eq!(rights("/z/other"), Rights::NONE);
        prop_assert_eq!(rights("/z/open/x/y"), if options.iter().any(|o| o.ends_with("**/x")) { rights("/z/open/x") } else { Rights::READ.union(Rights::WRITE) });
        prop_assert!(!rights("/z/open/shut/f").contains(Rights::WRITE));
        prop_assert_eq!(decide(&compiled, &levels("/z/other"), need, NOW) == Verdict::Allowed, false);
    }

    #[test]
    fn networks_do_not_depend_on_order_and_mean_the_sum_of_their_rules(
        (options, shuffled) in prop::collection::vec(any_net(), 0..7)
            .prop_flat_map(|options| (Just(options.clone()), Just(options).prop_shuffle())),
        address in prop::sample::select(vec!["10.1.2.3", "10.1.9.9", "10.9.9.9", "127.0.0.1", "::1", "2001:db8::1"]),
        port in prop::sample::select(vec![0u16, 79, 80, 85, 90, 443, 65535]),
        bind in any::<bool>(), udp in any::<bool>(),
    ) {
        let need = if bind { NetNeed::Bind } else { NetNeed::Connect };
        let over = if udp { Transport::Udp } else { Transport::Tcp };
        let asked = |options: &[&str]| reaches(options, address, port, need, over).is_some();
        let alone = options.iter().any(|option| asked(&[option.as_str()]));
        prop_assert_eq!(asked(&texts(&options)), alone);
        prop_assert_eq!(asked(&texts(&shuffled)), alone);
    }
}

fn any_net() -> impl Strategy<Value = String> {
    let operation = prop::sample::select(vec!["", "bind:", "connect:"]);
    let transport = prop::sample::select(vec!["", "tcp:", "udp:"]);
    let place =
        prop::sample::select(vec!["any", "loopback", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "[2001:db8::]/32"]);
    let ports = prop::sample::select(vec!["", ":80", ":80-90", ":443", ":0-79"]);
    (operation, transport, place, ports).prop_map(|(o, t, p, r)| format!("{o}{t}{p}{r}"))
}

#[test]
fn generated_keys_do_not_collide_in_this_file_system() {
    let mut seen = BTreeMap::new();
    for path in ["/", "/a", "/a/b", "/a/b/c", "/a/.git", "/a/.git/hooks", "/b", "/z", "/z/open", "/z/open/shut", "/w"] {
        assert_eq!(seen.insert(ino(path), path), None);
    }
}

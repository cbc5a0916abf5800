//! What does the text of a profile mean, and what is said about a wrong one?

#![allow(clippy::unwrap_used, reason = "a test; helpers of an integration test are not seen as tests")]

use agentd_model::{Origin, Rights};
use agentd_policy::profile::{ExpandError, Expanded, Profile, Profiles, Vars};

fn vars() -> Vars {
    Vars {
        workspace: "/home/u/project".into(),
        home: "/home/u".into(),
        user: "u".into(),
        tmp: "/tmp".into(),
        uid: 1000,
    }
}

/// The problems of a text, one a line.
fn problems(text: &str) -> String {
    Profile::parse(text).map(|_| "none".to_owned()).unwrap_or_else(|rejected| rejected.to_string())
}

fn expand(texts: &[&str], name: &str) -> Result<Expanded, ExpandError> {
    let mut profiles = Profiles::built_in();
    for text in texts {
        profiles.add(Profile::parse(text).unwrap()).unwrap();
    }
    profiles.expand(name, &vars())
}

const WHOLE: &str = r#"
name = "mine"
about = "an example"

[vars]
data = "${home}/data"

[[files]]
path = ["${workspace}/", "${data}//x"]
allow = "read,write"

[[files]]
path = "**/.git/hooks"
deny = "write"

[[files]]
path = "/srv"
allow = "read"
deny = "change"
optional = true

[[net]]
allow = "loopback:8080"

[env]
pass = ["LANG", "LC_*"]
set = { DATA = "${data}", WHO = "${user}-${uid}" }

[tmp]
directories = ["a/b", "c"]

[budget]
default = "cpu:8h"
"#;

#[test]
fn everything_a_profile_can_say() {
    let expanded = expand(&[WHOLE], "mine").unwrap();
    let shown: Vec<String> = expanded
        .paths
        .iter()
        .map(|rule| format!("{} +{} -{} {} {}", rule.path, rule.allow, rule.deny, rule.optional, rule.origin))
        .collect();
    assert_eq!(
        shown,
        [
            "/home/u/project +read,write -nothing false profile mine, line 9",
            "/home/u/data/x +read,write -nothing false profile mine, line 9",
            "**/.git/hooks +nothing -write,create,delete true profile mine, line 13",
            "/srv +read -write,create,delete true profile mine, line 17",
        ]
    );
    assert_eq!(expanded.nets.len(), 2);
    assert_eq!(expanded.nets[0].origin, Origin::Profile { name: "mine".into(), line: 23 });
    assert_eq!(expanded.tmp_directories, ["/tmp/a", "/tmp/a/b", "/tmp/c"]);
    assert_eq!(expanded.budget.to_string(), "cpu:8h");
    let caller = [("LANG", "C"), ("LC_ALL", "C"), ("DATA", "caller"), ("SECRET", "x"), ("LANGUAGE", "de")];
    let env = expanded.environment(caller);
    let shown: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(shown, ["DATA=/home/u/data", "LANG=C", "LC_ALL=C", "WHO=u-1000"]);
}

#[test]
fn every_mistake_has_a_place_and_a_correction() {
    let file = |line: &str| problems(&format!("name = \"x\"\n[[files]]\n{line}\n"));
    for (text, expected) in [
        (
            file("path = \"/a\"\nalow = \"read\""),
            "line 4, column 1: unknown key \"alow\" in [[files]]; keys are path, allow, deny, optional; did you mean \"allow\"?",
        ),
        (
            file("path = \"/a\"\nallow = \"raed\""),
            "line 4, column 9: \"raed\" is not a right; rights are read, write, exec, create, delete, change (write, create and delete), all; did you mean \"read\"?",
        ),
        (
            file("path = \"a/b\"\nallow = \"read\""),
            "line 3, column 8: \"a/b\" is relative; write an absolute path, or a pattern **/name or **/directory/name",
        ),
        (
            file("path = \"${hoem}/x\"\nallow = \"read\""),
            "line 3, column 8: unknown variable ${hoem}; variables are ${workspace} ${home} ${user} ${tmp} ${uid}; did you mean \"home\"?",
        ),
        (file("path = \"${home/x\"\nallow = \"read\""), "line 3, column 8: \"${home/x\" has a ${ without a }"),
        (
            file("path = [\"/a\", \"**/b\"]\nallow = \"read\""),
            "line 3, column 15: the pattern **/b cannot allow; patterns only deny, name the place to be allowed",
        ),
        (
            file("path = \"**/a/b/c\"\ndeny = \"read\""),
            "line 3, column 8: \"**/a/b/c\" has 3 names after **/; the kernel compares the last two: **/name or **/directory/name",
        ),
        (
            file("path = \"/a/../b\"\nallow = \"read\""),
            "line 3, column 8: \"/a/../b\" contains \"..\"; write where it leads to",
        ),
        (
            file("path = \"${home}/*.key\"\ndeny = \"read\""),
            "line 3, column 8: \"${home}/*.key\" has a * inside; patterns are **/name or **/directory/name, with whole names",
        ),
        (
            file("path = \"/a\"\nallow = \"read\"\n[[files]]\npath = \"/a/\"\nallow = \"exec\""),
            "line 6, column 8: a rule for /a/ is already there in line 3; write it once",
        ),
        (
            file("path = \"/a\""),
            "line 2, column 1: the rule neither allows nor denies; write allow = \"read\" or deny = \"change\"",
        ),
        (file("allow = \"read\""), "line 2, column 1: [[files]] has no path; write path = \"${workspace}\""),
        (
            file("path = \"/a\"\nallow = \"all\"\ndeny = \"write\""),
            "line 2, column 1: write,create,delete is both allowed and denied; a denial would win",
        ),
        (
            file("path = \"/a\"\ndeny = \"write\"\noptional = true"),
            "line 5, column 1: optional is for what is allowed; a denial holds by name where the path does not exist",
        ),
        (file("path = 7\nallow = \"read\""), "line 3, column 8: path is a number; write a string or a list of strings"),
        (
            file("path = \"/a\"\nallow = [\"read\"]"),
            "line 4, column 9: allow is a list; write a string, in quotation marks",
        ),
        (
            problems("name = \"x\"\n[[net]]\nallow = \"example.org:80\""),
            "line 3, column 9: \"example.org:80\" is not an address; write 10.0.0.0/8:443, [::1]:8080, loopback or any",
        ),
        (
            problems("name = \"x\"\n[budget]\ndefault = \"gpu:1\""),
            "line 3, column 11: \"gpu\" is not a budget dimension; dimensions are cpu, mem, pids",
        ),
        (
            problems("name = \"x\"\n[env]\npass = [\"A-B\"]"),
            "line 3, column 9: \"A-B\" is not the name of an environment variable; write A-Z, a-z, 0-9, '_', and a * at the end for any rest",
        ),
        (
            problems("name = \"x\"\n[tmp]\ndirectories = [\"../x\"]"),
            "line 3, column 16: \"../x\" is not a directory of the private tmp; write a relative path without \"..\", as in \"cache/pip\"",
        ),
        (
            problems("name = \"x\"\n[vars]\nhome = \"/x\""),
            "line 3, column 1: \"home\" cannot be the name of a variable: it is built in, or not of a-z, 0-9, '_'",
        ),
        (problems("about = \"x\""), "line 1, column 1: the profile has no name; write name = \"my-profile\""),
        (
            problems("name = \"X Y\""),
            "line 1, column 8: \"X Y\" is not a name; names are 1 to 48 of a-z, 0-9, '-', '_', and begin with a letter",
        ),
        (problems("name = \"x\"\nfiles = 3"), "line 2, column 9: files is a number; write [[files]] tables"),
    ] {
        assert_eq!(text, expected);
    }
    assert!(problems("name = \"x\"\nname = \"y\"").starts_with("line 2, column 1: not TOML: duplicate key"));
    assert!(problems("name = ").starts_with("line 1, column 8: not TOML: "));
    assert!(problems(&"#".repeat(300_000)).contains("longer than"));
}

#[test]
fn mistakes_are_told_together_and_in_order() {
    let text =
        "nmae = \"x\"\n[[files]]\npath = \"ä/b\"\nallow = \"raed\"\n[[files]]\npath = \"**/ö\"\nallow = \"read\"\n";
    let told = problems(text);
    let places: Vec<&str> = told.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(
        places,
        ["line 1, column 1", "line 1, column 1", "line 3, column 8", "line 4, column 9", "line 6, column 8"]
    );
}

#[test]
fn columns_count_characters() {
    assert!(problems("name = \"x\"\nabout = \"äöü\"\nextends = [\"äöü\", 7]").starts_with("line 3, column 19: "));
}

#[test]
fn extending_adds_each_profile_once() {
    let a = "name = \"a\"\nextends = [\"b\", \"c\"]\n[[files]]\npath = \"/a\"\nallow = \"read\"";
    let b = "name = \"b\"\nextends = \"d\"\n[[files]]\npath = \"/b\"\nallow = \"read\"\n[budget]\ndefault = \"cpu:1h,pids:9\"";
    let c = "name = \"c\"\nextends = \"d\"\n[[files]]\npath = \"/c\"\nallow = \"read\"\n[budget]\ndefault = \"cpu:2h\"";
    let d = "name = \"d\"\n[[files]]\npath = \"/d\"\nallow = \"read\"";
    let expanded = expand(&[a, b, c, d], "a").unwrap();
    let paths: Vec<&str> = expanded.paths.iter().map(|rule| rule.path.as_str()).collect();
    assert_eq!(paths, ["/d", "/b", "/c", "/a"]);
    assert_eq!(expanded.budget.to_string(), "cpu:2h,pids:9");
}

#[test]
fn extending_nothing_or_oneself_is_refused() {
    let a = "name = \"a\"\nextends = [\"b\"]";
    let b = "name = \"b\"\n\nextends = [\"base\", \"a\"]";
    let lost = "name = \"lost\"\nextends = [\"codign\"]";
    let told = |name| expand(&[a, b, lost], name).unwrap_err().to_string();
    assert_eq!(told("a"), "profile b, line 3, column 20: extends in a circle: a → b → a");
    assert_eq!(
        told("lost"),
        "profile lost, line 2, column 12: extends \"codign\", which does not exist; did you mean \"coding\"?"
    );
    assert_eq!(told("bsae"), "there is no profile \"bsae\"; did you mean \"base\"?");
}

#[test]
fn a_built_in_profile_is_not_replaced() {
    let taken = Profiles::built_in().add(Profile::parse("name = \"base\"").unwrap()).unwrap_err();
    assert_eq!(taken.to_string(), "there is already a profile base; choose another name");
}

#[test]
fn a_workspace_that_is_too_wide_is_refused() {
    let profiles = Profiles::built_in();
    for (workspace, holds) in
        [("/", "the whole system"), ("/home/u", "the home"), ("/home", "the home"), ("/home/u/", "the home")]
    {
        let vars = Vars { workspace: workspace.into(), ..vars() };
        let told = profiles.expand("coding", &vars).unwrap_err().to_string();
        assert!(told.contains(holds), "{workspace}: {told}");
        assert!(profiles.expand("base", &vars).is_ok(), "base has no workspace");
    }
    let bad = Vars { home: "home/u".into(), ..vars() };
    assert!(matches!(profiles.expand("base", &bad), Err(ExpandError::Variable { name: "home", .. })));
    let bad = Vars { user: "../x".into(), ..vars() };
    assert!(matches!(profiles.expand("base", &bad), Err(ExpandError::User { .. })));
}

#[test]
fn built_in_profiles_hold_their_line() {
    let profiles = Profiles::built_in();
    for name in ["base", "coding", "careful"] {
        let expanded = profiles.expand(name, &vars()).unwrap();
        assert!(!profiles.get(name).unwrap().about.is_empty());
        for rule in &expanded.paths {
            let changes = !rule.allow.intersection(Rights::CHANGE).is_empty();
            let own = ["/home/u/project", "/tmp", "/var/tmp", "/dev", "/proc"];
            assert!(
                !changes || own.iter().any(|tree| agentd_policy::is_within(&rule.path, tree)),
                "{name} lets {} be changed, which is not the agent's own",
                rule.path
            );
            assert!(rule.deny == rule.deny.closed_for_denial());
        }
        assert!(
            !expanded
                .environment([("SSH_AUTH_SOCK", "/x"), ("LD_PRELOAD", "/x"), ("GITHUB_TOKEN", "x")])
                .iter()
                .any(|(name, _)| name == "SSH_AUTH_SOCK" || name == "LD_PRELOAD" || name == "GITHUB_TOKEN")
        );
    }
    let base = profiles.expand("base", &vars()).unwrap();
    assert!(base.nets.is_empty(), "base has no network");
    let home = |rule: &&agentd_model::PathRule| agentd_policy::is_within(&rule.path, "/home") && !rule.allow.is_empty();
    assert_eq!(base.paths.iter().find(home), None, "base allows nothing of a home");
}

//! `agentctl profile`

use std::path::{Path, PathBuf};

use agentd_policy::builtin;
use agentd_policy::profile::{ExpandError, Profile, Profiles, Rejected};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Context;
use crate::failure::{Exit, Failure};
use crate::table::Table;
use crate::terminal;
use crate::text::{clean, count};
use crate::ui::Tone;

/// Where the profiles of this host are; the daemon reads the same ones.
const DIRECTORY: &str = "/etc/agentd/profiles";

/// See and check profiles
///
/// A profile is a named set of rules, environment and budget in TOML: built in, or a file of /etc/agentd/profiles. No daemon
/// is needed to see or check them.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl profile list\n  agentctl profile check strict.toml")]
pub(crate) struct ProfileArgs {
    #[command(subcommand)]
    command: ProfileCommand,
    /// Directory of this host's profiles
    #[arg(long, global = true, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
}

#[derive(Subcommand)]
enum ProfileCommand {
    List(List),
    Show(Show),
    Check(Check),
}

/// List all profiles
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl profile list")]
struct List {}

/// Print the text of a profile
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl profile show coding\n  agentctl profile show base > mine.toml")]
struct Show {
    /// Name
    name: String,
}

/// Check files before somebody spawns with them
///
/// Says every mistake with its line and column. Exits with 1 if there is one.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl profile check strict.toml\n  agentctl profile check --json *.toml")]
struct Check {
    /// Files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl ProfileArgs {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let host = Host::read(&self.dir)?;
        match self.command {
            ProfileCommand::List(List {}) => list(context, &host),
            ProfileCommand::Show(Show { name }) => show(context, &host, &name),
            ProfileCommand::Check(Check { files }) => check(context, &host, &files),
        }
    }
}

/// The profiles of this host: texts, and which of them can be used.
struct Host {
    sources: Vec<Source>,
    set: Profiles,
}

/// One profile and where it comes from.
struct Source {
    name: String,
    /// None: built in.
    file: Option<PathBuf>,
    text: String,
    about: String,
    /// What is wrong with it.
    problem: Option<String>,
}

impl Host {
    /// Reads the built-in profiles and a directory, which need not be there.
    fn read(directory: &Path) -> Result<Host, Failure> {
        let mut host = Host { sources: Vec::new(), set: Profiles::built_in() };
        for (name, text) in builtin::TEXTS {
            let about = host.set.get(name).map(|profile| profile.about.clone()).unwrap_or_default();
            host.sources.push(Source {
                name: name.to_owned(),
                file: None,
                text: text.to_owned(),
                about,
                problem: None,
            });
        }
        let cannot = |error| Failure::io(format!("cannot read {}", directory.display()), &error);
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(host),
            Err(error) => return Err(cannot(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            files.push(entry.map_err(cannot)?.path());
        }
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        files.into_iter().for_each(|file| host.add(file));
        // Only now is everything there that a profile may extend.
        for source in host.sources.iter_mut().filter(|source| source.problem.is_none()) {
            source.problem = host.set.lineage(&source.name).err().map(|error| error.to_string());
        }
        Ok(host)
    }

    fn add(&mut self, file: PathBuf) {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut source =
            Source { name: stem, file: Some(file.clone()), text: String::new(), about: String::new(), problem: None };
        let result = std::fs::read_to_string(&file).map_err(|error| crate::text::os_error(&error)).and_then(|text| {
            source.text = text;
            let profile = Profile::parse(&source.text).map_err(|error| error.to_string())?;
            (source.name, source.about) = (profile.name.clone(), profile.about.clone());
            self.set.add(profile).map_err(|error| error.to_string())
        });
        source.problem = result.err();
        self.sources.push(source);
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    about: &'a str,
    file: Option<&'a Path>,
    extends: Vec<&'a str>,
    problem: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

impl<'a> Listed<'a> {
    fn of(host: &'a Host, source: &'a Source) -> Listed<'a> {
        let extends = host.set.get(&source.name).map(|p| p.extends.iter().map(|(name, _)| name.as_str()).collect());
        Listed {
            name: &source.name,
            about: &source.about,
            file: source.file.as_deref(),
            extends: extends.unwrap_or_default(),
            problem: source.problem.as_deref(),
            text: None,
        }
    }
}

fn list(context: &Context, host: &Host) -> Result<u8, Failure> {
    if context.ui.is_json() {
        host.sources.iter().try_for_each(|source| context.ui.object(&Listed::of(host, source)))?;
        return Ok(0);
    }
    let mut table = Table::new(&["NAME", "FROM", "ABOUT"]);
    for source in &host.sources {
        let from = source.file.as_ref().map_or("built in".to_owned(), |file| file.display().to_string());
        let problem = source.problem.as_deref().and_then(|problem| problem.lines().next());
        table.row([
            (clean(&source.name).into_owned(), Tone::Heading),
            (clean(&from).into_owned(), Tone::Plain),
            match problem {
                Some(problem) => (format!("cannot be used: {}", clean(problem)), Tone::Bad),
                None => (clean(&source.about).into_owned(), Tone::Plain),
            },
        ]);
    }
    context.ui.answer(&table.print(terminal::columns()))?;
    Ok(0)
}

fn show(context: &Context, host: &Host, name: &str) -> Result<u8, Failure> {
    let Some(source) = host.sources.iter().find(|source| source.name == name) else {
        let unknown = host.set.lineage(name).err();
        let message = unknown.map_or_else(|| format!("there is no profile {name:?}"), |error| error.to_string());
        return Err(Failure::new(Exit::Failed, message).hint("agentctl profile list"));
    };
    if context.ui.is_json() {
        context.ui.object(&Listed { text: Some(&source.text), ..Listed::of(host, source) })?;
    } else {
        context.ui.pass_out(source.text.as_bytes())?;
    }
    Ok(0)
}

/// What `check --json` prints: one object a mistake, or one for a file without any.
#[derive(Serialize)]
struct Checked<'a> {
    file: &'a Path,
    profile: Option<&'a str>,
    line: Option<u32>,
    column: Option<u32>,
    problem: Option<String>,
}

fn check(context: &Context, host: &Host, files: &[PathBuf]) -> Result<u8, Failure> {
    let mut status = 0;
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::io(format!("cannot read {}", file.display()), &error))?;
        let mistakes = match Profile::parse(&text) {
            Ok(profile) => match whole(host, file, &profile) {
                Ok(()) => {
                    right(context, file, &profile)?;
                    continue;
                }
                Err(mistake) => vec![mistake],
            },
            Err(Rejected { problems }) => {
                problems.iter().map(|p| (Some((p.at.line, p.at.column)), p.kind.to_string())).collect()
            }
        };
        status = Exit::Failed.code();
        if context.ui.is_json() {
            for (at, problem) in mistakes {
                let (line, column) = at.unzip();
                context.ui.object(&Checked { file, profile: None, line, column, problem: Some(problem) })?;
            }
        } else {
            let places = mistakes.iter().map(|(at, problem)| match at {
                Some((line, column)) => format!("{}:{line}:{column}: {problem}", file.display()),
                None => format!("{}: {problem}", file.display()),
            });
            let message = format!("{} has {}", file.display(), count(mistakes.len() as u64, "mistake"));
            context.ui.failure(&Failure { causes: places.collect(), ..Failure::new(Exit::Failed, message) });
        }
    }
    Ok(status)
}

type Mistake = (Option<(u32, u32)>, String);

/// Checks what a file alone cannot tell: its name is free, and what it extends is there.
fn whole(host: &Host, file: &Path, profile: &Profile) -> Result<(), Mistake> {
    let mut set = host.set.clone();
    let same =
        |source: &&Source| source.name == profile.name && source.file.as_deref().is_some_and(|f| is_same(f, file));
    // A file that is already in the directory is not in its own way.
    if !host.sources.iter().any(|source| same(&source)) {
        set.add(profile.clone()).map_err(|error| (None, error.to_string()))?;
    }
    set.lineage(&profile.name).map(drop).map_err(|error| {
        let text = error.to_string();
        match &error {
            ExpandError::Extends { profile: name, at, .. } | ExpandError::Circle { profile: name, at, .. } => {
                // The place stands before it already.
                let text = text.strip_prefix(&format!("profile {name}, {at}: ")).unwrap_or(&text);
                let here = *name == profile.name;
                (here.then_some((at.line, at.column)), text.to_owned())
            }
            _ => (None, text),
        }
    })
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn right(context: &Context, file: &Path, profile: &Profile) -> Result<(), Failure> {
    if context.ui.is_json() {
        return context.ui.object(&Checked {
            file,
            profile: Some(&profile.name),
            line: None,
            column: None,
            problem: None,
        });
    }
    context.ui.note(format!("{}: profile {} has no mistakes", clean(&file.display().to_string()), profile.name));
    Ok(())
}

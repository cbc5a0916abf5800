//! `agentctl world replay|fork|export|import`

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use agentd_protocol::{CopyParams, Method, ReplayView, UploadReply, WorldView};
use clap::Args;

use super::{not_read, params};
use crate::cli::Context;
use crate::failure::{Exit, Failure};

/// Run every input again and compare every record
///
/// A world by its name, or a bundle by its path, which needs no daemon and no rights. The first record that comes out
/// differently is named.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl world replay watch
  agentctl world replay ./watch.world --state 3f1c…")]
pub(super) struct Replay {
    /// Which world, or the path of a bundle
    world: String,
    /// The hash that the state is claimed to have
    #[arg(long, value_name = "HASH")]
    state: Option<String>,
}

/// Copy a world, to go on by itself
///
/// The copy has the same past, record for record, and another future. It begins with no policy, so every effect is denied,
/// and hears nothing of the host, until definitions are applied to it.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world fork watch what-if\n  agentctl world fork watch what-if --at 40")]
pub(super) struct Fork {
    /// Which world
    world: String,
    /// Name of the copy
    name: String,
    /// As it was after this record, or at the signed head before it
    #[arg(long, value_name = "SEQ")]
    at: Option<u64>,
}

/// Write a world to one file
///
/// Records, signatures and values, so that whoever has the file can verify and replay it.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world export watch -o watch.world")]
pub(super) struct Export {
    /// Which world
    world: String,
    /// File to write; - is standard output [default: WORLD.world]
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
}

/// Take over the world in a bundle
///
/// Everything in it is verified first. From here on this host's key signs; what was before stays signed by the other. It
/// begins with no policy, so every effect is denied, and hears nothing of the host, until definitions are applied to it.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl world import watch.world theirs")]
pub(super) struct Import {
    /// The bundle
    file: String,
    /// What it is to be called here
    name: String,
}

/// Whether a bundle is meant and not a world.
pub(super) fn is_file(text: &str) -> bool {
    text.contains(['/', '.'])
}

/// Asks the daemon's program to read a bundle; no daemon is needed.
pub(super) fn offline<T: serde::de::DeserializeOwned>(options: &[&str], file: &str) -> Result<T, Failure> {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("agentd")).filter(|path| path.exists());
    let program = beside.unwrap_or_else(|| "agentd".into());
    let output = Command::new(&program).arg("replay").args(options).arg(file).output();
    let output = output.map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot run {}", program.display())).cause(error.to_string())
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = |kind: &str| text.lines().find_map(|line| Some(line.strip_prefix(kind)?.trim().to_owned()));
        let failure = Failure::new(Exit::Failed, line("error:").unwrap_or_else(|| text.trim().to_owned()));
        return Err(line("cause:").into_iter().fold(failure, Failure::cause));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(Exit::Bug, "agentd replay answers with something else").cause(error.to_string()))
}

impl Replay {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let view: ReplayView = if is_file(&self.world) {
            offline(&[], &self.world)?
        } else {
            let mut client = context.client()?;
            context.ask(&mut client, &Method::WorldReplay(params(&self.world)), "replaying")?
        };
        if let Some(claimed) = self.state.filter(|claimed| *claimed != view.state) {
            let text = format!("the state is {}, and was claimed to be {claimed}", view.state);
            return Err(Failure::new(Exit::Failed, text));
        }
        if context.ui.is_json() {
            context.ui.object(&view)?;
        } else {
            context.ui.line(format!(
                "{} records of {} come out as they were\nstate  {}",
                view.records, view.world, view.state
            ))?;
        }
        Ok(0)
    }
}

fn made(context: &Context, view: &WorldView) -> Result<u8, Failure> {
    if context.ui.is_json() {
        context.ui.object(view)?;
    } else {
        let state = view.state.as_deref().unwrap_or_default();
        context.ui.line(format!("world {} goes on from record {}\nstate  {state}", view.world, view.seq))?;
    }
    Ok(0)
}

impl Fork {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let params = CopyParams { world: Some(self.world), at: self.at, upload: None, name: self.name };
        let view: WorldView = context.ask(&mut client, &Method::WorldFork(params), "copying")?;
        made(context, &view)
    }
}

impl Export {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let output = self.output.unwrap_or_else(|| format!("{}.world", self.world));
        let (head, file): (serde_json::Value, _) = client.call_for_file(&Method::WorldExport(params(&self.world)))?;
        let mut from = File::from(file);
        let written =
            |error: io::Error| Failure::new(Exit::Failed, format!("cannot write {output}")).cause(error.to_string());
        if output == "-" {
            let mut bytes = Vec::new();
            io::copy(&mut from, &mut bytes).map_err(written)?;
            return context.ui.pass_out(&bytes).map(|()| 0);
        }
        // Whole or not at all.
        let new = format!("{output}.new");
        let mut to = File::create(&new).map_err(written)?;
        io::copy(&mut from, &mut to).and_then(|_| to.flush()).and_then(|()| to.sync_all()).map_err(written)?;
        std::fs::rename(&new, &output).map_err(written)?;
        if context.ui.is_json() {
            context.ui.object(&head)?;
        } else {
            context.ui.line(format!("{output}: records 1 to {}", head["seq"]))?;
        }
        Ok(0)
    }
}

impl Import {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut from = File::open(Path::new(&self.file)).map_err(|error| not_read(&self.file, &error))?;
        let mut client = context.client()?;
        let (reply, to): (UploadReply, _) = client.call_for_file(&Method::WorldUpload {})?;
        let mut to = File::from(to);
        io::copy(&mut from, &mut to).map_err(|error| not_read(&self.file, &error))?;
        let params = CopyParams { world: None, at: None, upload: Some(reply.upload), name: self.name };
        let view: WorldView = context.ask(&mut client, &Method::WorldImport(params), "verifying and taking over")?;
        made(context, &view)
    }
}

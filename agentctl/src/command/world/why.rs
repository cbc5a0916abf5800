//! `agentctl world why`

use agentd_protocol::{Method, RecordParams, WhyGraph};
use clap::{Args, ValueEnum};

use crate::cli::Context;
use crate::failure::Failure;
use crate::text::clean;
use crate::ui::Tone;

/// Show what led to a record, and what came of it
///
/// From the event where it began, through the decisions with the rules that made them, to effects, receipts and state;
/// across to the host's own journal where an event came from there or an effect went there.
#[derive(Args)]
#[command(after_help = "\
Examples:
  agentctl world why watch 17
  agentctl world why watch 17 --format dot | dot -Tsvg > why.svg")]
pub(super) struct Why {
    /// Which world
    world: String,
    /// Which record
    record: u64,
    /// How it is written; --json is another way to say json
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Text,
    Json,
    Dot,
}

impl Why {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let method = Method::WorldWhy(RecordParams { world: self.world, record: self.record });
        let graph: WhyGraph = context.ask(&mut client, &method, "asking")?;
        match self.format {
            _ if context.ui.is_json() => context.ui.object(&graph)?,
            Format::Json => context.ui.object(&graph)?,
            Format::Dot => context.ui.answer(&dot(&graph))?,
            Format::Text => context.ui.answer(&text(&graph))?,
        }
        Ok(0)
    }
}

/// A tree from where it began; the record that was asked for is marked.
fn text(graph: &WhyGraph) -> String {
    let has_cause = |id: &str| graph.edges.iter().any(|(_, to)| to == id);
    let mut lines = String::new();
    let mut seen = Vec::new();
    for node in graph.nodes.iter().filter(|node| !has_cause(&node.id)) {
        branch(graph, &node.id, 0, &mut seen, &mut lines);
    }
    lines
}

fn branch<'a>(graph: &'a WhyGraph, id: &'a str, depth: usize, seen: &mut Vec<&'a str>, lines: &mut String) {
    if seen.contains(&id) {
        return;
    }
    seen.push(id);
    let Some(node) = graph.nodes.iter().find(|node| node.id == id) else { return };
    let mark = if *id == graph.record.to_string() { "▶" } else { " " };
    let number = Tone::Dim.paint(format!("{id:>9}"));
    *lines += &format!("{mark}{number}  {}{}\n", "  ".repeat(depth), clean(&node.text));
    for (_, to) in graph.edges.iter().filter(|(from, _)| from == id) {
        branch(graph, to, depth + 1, seen, lines);
    }
}

/// For graphviz.
fn dot(graph: &WhyGraph) -> String {
    let quoted = |text: &str| format!("\"{}\"", clean(text).replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = "digraph why {\n  rankdir=TB; node [shape=box, fontname=monospace];\n".to_owned();
    for node in &graph.nodes {
        let style = match () {
            () if node.id == graph.record.to_string() => ", penwidth=2",
            () if node.id.starts_with("host:") => ", style=dashed",
            () => "",
        };
        out += &format!("  {} [label={}{style}];\n", quoted(&node.id), quoted(&format!("{}: {}", node.id, node.text)));
    }
    for (from, to) in &graph.edges {
        out += &format!("  {} -> {};\n", quoted(from), quoted(to));
    }
    out + "}\n"
}

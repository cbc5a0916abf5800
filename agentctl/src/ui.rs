//! The only writer to the terminal.
//!
//! Standard output is the answer; notes, progress and errors go to standard error. Colour carries meaning only, and is
//! off under `NO_COLOR`, `--no-color`, a dumb terminal or a pipe. A reader that has gone away ends the program with 0:
//! every write to standard output says so with [`Exit::ClosedPipe`], and nobody else has to think of it.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::text;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;

/// Progress shorter than this is not worth a line.
const PATIENCE: Duration = Duration::from_millis(250);

/// What a colour means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Refused, broken, over.
    Bad,
    /// Beside the point.
    Dim,
    /// The name of what follows.
    Heading,
}

impl Tone {
    /// The text in this tone. Standard output and standard error take the colour out where it is not wanted.
    pub(crate) fn paint(self, text: impl Display) -> String {
        let style = self.style();
        format!("{style}{text}{style:#}")
    }

    fn style(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Dim => Style::new().dimmed(),
            Tone::Heading => Style::new().bold(),
        }
    }
}

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    color: ColorChoice,
    quiet: bool,
    json: bool,
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u32,
    #[serde(flatten)]
    value: &'a T,
}

impl Ui {
    /// A writer with colour where it is wanted.
    pub(crate) fn new(no_color: bool, quiet: bool, json: bool) -> Ui {
        Ui { color: if no_color { ColorChoice::Never } else { ColorChoice::Auto }, quiet, json }
    }

    /// Whether answers are to be JSON, one object a line.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints a piece of the answer; the text ends its own lines.
    pub(crate) fn answer(self, text: &str) -> Result<(), Failure> {
        let mut out = AutoStream::new(io::stdout().lock(), self.color);
        written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }

    /// Prints one line of the answer.
    pub(crate) fn line(self, text: impl Display) -> Result<(), Failure> {
        self.answer(&format!("{text}\n"))
    }

    /// Prints one object of the answer, with the version of its shape.
    pub(crate) fn object<T: Serialize>(self, value: &T) -> Result<(), Failure> {
        match serde_json::to_string(&Versioned { v: JSON_VERSION, value }) {
            Ok(text) => self.pass_out(format!("{text}\n").as_bytes()),
            Err(error) => unreachable!("an answer is plain data and always prints: {error}"),
        }
    }

    /// Copies bytes to standard output, unchanged and at once.
    pub(crate) fn pass_out(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        written(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// Copies bytes to standard error. A reader that has gone away there ends nothing.
    pub(crate) fn pass_err(self, bytes: &[u8]) {
        let _ = io::stderr().lock().write_all(bytes);
    }

    /// Says something beside the answer.
    pub(crate) fn note(self, text: impl Display) {
        if !self.quiet {
            self.say(&format!("{text}\n"));
        }
    }

    /// A note as bytes for standard error, for a caller that writes there itself; on lines of its own for a terminal in
    /// raw mode.
    pub(crate) fn note_bytes(self, text: &str, raw: bool) -> Vec<u8> {
        if self.quiet {
            return Vec::new();
        }
        let choice = match self.color {
            ColorChoice::Auto => AutoStream::choice(&io::stderr()),
            forced => forced,
        };
        let (text, end) = (Tone::Warn.paint(text), if raw { "\r\n" } else { "\n" });
        let mut out = AutoStream::new(Vec::new(), choice);
        let written = write!(out, "{}{text}{end}", if raw { end } else { "" });
        assert!(written.is_ok(), "memory takes every byte");
        out.into_inner()
    }

    /// Prints a failure: a heading, the causes, then one hint.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.exit == Exit::ClosedPipe {
            return;
        }
        let heading = if failure.exit == Exit::Bug { "bug:  " } else { "error:" };
        let mut out = format!("{} {}\n", Tone::Bad.paint(heading), text::clean(&failure.message));
        for cause in &failure.causes {
            out += &format!("{} {}\n", Tone::Dim.paint("cause:"), text::clean(cause));
        }
        if let Some(hint) = &failure.hint {
            out += &format!("{}  {}\n", Tone::Good.paint("hint:"), text::clean(hint));
        }
        self.say(&out);
    }

    fn say(self, text: &str) {
        let _ = AutoStream::new(io::stderr().lock(), self.color).write_all(text.as_bytes());
    }

    /// Shows that something takes its time, from 250 ms on and on a terminal only, until the answer is dropped.
    pub(crate) fn waiting(self, what: impl Into<String>) -> Waiting {
        if self.quiet || !io::stderr().is_terminal() {
            return Waiting(None);
        }
        let (done, over) = mpsc::channel();
        let what = what.into();
        let thread = std::thread::spawn(move || {
            let (mut wait, mut drawn) = (PATIENCE, false);
            for mark in ["-", "\\", "|", "/"].iter().cycle() {
                if over.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
                self.say(&format!("\r{} {what}", Tone::Dim.paint(mark)));
                (wait, drawn) = (Duration::from_millis(120), true);
            }
            if drawn {
                self.say("\r\x1b[K");
            }
        });
        Waiting(Some((done, thread)))
    }
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Exit::ClosedPipe, "nobody reads the answer any more"),
        _ => Failure::io("cannot write the answer", &error),
    })
}

/// A line of progress; gone when this is dropped.
pub(crate) struct Waiting(Option<(Sender<()>, JoinHandle<()>)>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.0.take() {
            drop(done);
            let _ = thread.join();
        }
    }
}

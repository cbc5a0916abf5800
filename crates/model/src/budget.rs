//! Budgets: how much of what an agent may use, as people write it.
//!
//! Only what some host can enforce is a dimension here. A dimension that this host cannot enforce parses, and is refused
//! at spawn by name, because that is a fact about the host and not about the text.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A length of time in nanoseconds; written `300ms`, `90s`, `5m`, `1h`, `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Duration(#[n(0)] pub u64);

/// A text that is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a length of time; write 300ms, 90s, 5m, 1h or 1h30m")]
pub struct DurationError {
    /// The text.
    pub text: String,
}

const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let bad = || DurationError { text: text.to_owned() };
        let (mut rest, mut total) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
            let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)).ok_or_else(bad)?;
            total = total.checked_add(part).ok_or_else(bad)?;
            rest = after;
        }
        if text.is_empty() { Err(bad()) } else { Ok(Duration(total)) }
    }
}

impl fmt::Display for Duration {
    /// Prints up to two units, the way one would say it: `1h30m`, `2.5s`, `300ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0;
        if ns == 0 {
            return f.write_str("0s");
        }
        if ns < 1_000_000 {
            return write!(f, "{}us", ns / 1_000);
        }
        if ns < 1_000_000_000 {
            return write!(f, "{}ms", ns / 1_000_000);
        }
        if ns < 60_000_000_000 {
            let tenths = ns / 100_000_000;
            return if tenths.is_multiple_of(10) {
                write!(f, "{}s", tenths / 10)
            } else {
                write!(f, "{}.{}s", tenths / 10, tenths % 10)
            };
        }
        let mut shown = 0;
        let mut rest = ns;
        for (unit, factor) in &UNITS[..4] {
            let count = rest / factor;
            if count > 0 && shown < 2 {
                write!(f, "{count}{unit}")?;
                shown += 1;
            }
            rest %= factor;
        }
        Ok(())
    }
}

/// Limits of one agent. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Budget {
    /// CPU time, cumulative, of the whole process tree.
    #[n(0)]
    pub cpu: Option<Duration>,
    /// Memory in bytes, at any one time.
    #[n(1)]
    pub memory: Option<u64>,
    /// Processes and threads at any one time.
    #[n(2)]
    pub pids: Option<u64>,
}

/// Why a text is not a budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// No `dimension:amount`.
    #[error("{text:?} is not a budget; write cpu:1h, mem:4G, pids:512, separated by commas")]
    Shape {
        /// What was written.
        text: String,
    },
    /// A dimension that does not exist.
    #[error("{dimension:?} is not a budget dimension; dimensions are cpu, mem, pids")]
    Dimension {
        /// What was written.
        dimension: String,
    },
    /// A dimension given twice.
    #[error("{dimension} is given twice")]
    Twice {
        /// Which.
        dimension: String,
    },
    /// An amount that cannot be read.
    #[error("{amount:?} is not an amount of {dimension}; write {example}")]
    Amount {
        /// Which dimension.
        dimension: &'static str,
        /// What was written.
        amount: String,
        /// How it would be right.
        example: &'static str,
    },
}

impl FromStr for Budget {
    type Err = BudgetError;

    /// Reads `cpu:1h,mem:4G,pids:512`.
    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let mut budget = Budget::default();
        for part in text.split(',') {
            let (dimension, amount) =
                part.trim().split_once(':').ok_or_else(|| BudgetError::Shape { text: part.to_owned() })?;
            let bad = |dimension, example| BudgetError::Amount { dimension, amount: amount.to_owned(), example };
            let twice = match dimension {
                "cpu" => {
                    let limit = amount.parse().ok().filter(|d: &Duration| d.0 > 0);
                    budget.cpu.replace(limit.ok_or_else(|| bad("cpu", "cpu:90s or cpu:1h"))?).is_some()
                }
                "mem" => {
                    budget.memory.replace(bytes(amount).ok_or_else(|| bad("mem", "mem:512M or mem:4G"))?).is_some()
                }
                "pids" => {
                    let limit = amount.parse().ok().filter(|n| *n > 0);
                    budget.pids.replace(limit.ok_or_else(|| bad("pids", "pids:512"))?).is_some()
                }
                _ => return Err(BudgetError::Dimension { dimension: dimension.to_owned() }),
            };
            if twice {
                return Err(BudgetError::Twice { dimension: dimension.to_owned() });
            }
        }
        Ok(budget)
    }
}

/// Reads `512M`, `4G`, `1048576`: powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        b'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    number.parse::<u64>().ok().filter(|n| *n > 0)?.checked_mul(1 << shift)
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(cpu) = self.cpu {
            parts.push(format!("cpu:{cpu}"));
        }
        if let Some(memory) = self.memory {
            parts.push(match memory {
                m if m.is_multiple_of(1 << 30) => format!("mem:{}G", m >> 30),
                m if m.is_multiple_of(1 << 20) => format!("mem:{}M", m >> 20),
                m => format!("mem:{m}"),
            });
        }
        if let Some(pids) = self.pids {
            parts.push(format!("pids:{pids}"));
        }
        f.write_str(if parts.is_empty() { "none" } else { "" })?;
        f.write_str(&parts.join(","))
    }
}

/// What an agent has used of one cumulative dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Spend {
    /// Nanoseconds of CPU time.
    #[n(0)]
    pub cpu_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_read_and_print() {
        let budget: Budget = "cpu:1h30m,mem:4G,pids:512".parse().unwrap();
        assert_eq!(budget.cpu, Some(Duration(5_400_000_000_000)));
        assert_eq!(budget.to_string(), "cpu:1h30m,mem:4G,pids:512");
        assert_eq!("cpu:300ms".parse::<Budget>().unwrap().to_string(), "cpu:300ms");
    }

    #[test]
    fn a_wrong_budget_says_what_is_wrong() {
        let shown = |text: &str| text.parse::<Budget>().unwrap_err().to_string();
        assert!(shown("gpu:1").contains("dimensions are cpu, mem, pids"));
        assert!(shown("cpu:1parsec").contains("write cpu:90s or cpu:1h"));
        assert!(shown("cpu:0s").contains("not an amount"));
        assert!(shown("mem:4Q").contains("mem:512M"));
        assert!(shown("cpu:1h,cpu:2h").contains("twice"));
        assert!(shown("cpu").contains("not a budget"));
        assert!(shown("cpu:99999999999h").contains("not an amount"));
    }
}

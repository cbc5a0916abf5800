//! Decimal numbers, exactly.
//!
//! A number is `mantissa × 10^exponent`. One number has one pair: the mantissa does not end in a zero, and zero is `[0, 0]`.
//! So equal numbers have equal bytes, and `12.50` is `12.5`. There is no arithmetic here, only order.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use minicbor::data::IanaTag;
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Largest exponent, and smallest with its sign turned.
pub const MAX_EXPONENT: i8 = 18;

/// A decimal number of at most 18 places after the point and 64 bits of digits. Ordered as numbers are.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Dec {
    exponent: i8,
    mantissa: i64,
}

/// Why something is not a decimal number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecError {
    /// A text of another form.
    #[error("{text:?} is not a decimal number; write 12.5")]
    Text {
        /// The text.
        text: String,
    },
    /// Too many digits, or an exponent that is too large or too small.
    #[error("a decimal number has at most {MAX_EXPONENT} places and 64 bits of digits")]
    Range,
}

impl Dec {
    /// The number `mantissa × 10^exponent`, whatever the form in which it comes.
    pub fn new(exponent: i64, mantissa: i64) -> Result<Dec, DecError> {
        if mantissa == 0 {
            return Ok(Dec::default());
        }
        let (mut exponent, mut mantissa) = (exponent, mantissa);
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent = exponent.checked_add(1).ok_or(DecError::Range)?;
        }
        let exponent = i8::try_from(exponent).ok().filter(|exponent| exponent.abs() <= MAX_EXPONENT);
        Ok(Dec { exponent: exponent.ok_or(DecError::Range)?, mantissa })
    }

    /// The power of ten, -18 to 18.
    pub fn exponent(self) -> i8 {
        self.exponent
    }

    /// The digits; does not end in a zero.
    pub fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// How many digits stand before the point; negative while the first digit is further behind it.
    fn magnitude(self) -> i64 {
        let digits = self.mantissa.unsigned_abs().checked_ilog10().map_or(0, |log| i64::from(log) + 1);
        digits + i64::from(self.exponent)
    }
}

impl PartialOrd for Dec {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Dec {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = self.mantissa.signum();
        if sign != other.mantissa.signum() {
            return sign.cmp(&other.mantissa.signum());
        }
        let size = self.magnitude().cmp(&other.magnitude());
        if size != Ordering::Equal {
            return if sign < 0 { size.reverse() } else { size };
        }
        // Of one magnitude: the exponents differ by less than 19, and shifted to one of them both have at most 19 digits.
        let lower = self.exponent.min(other.exponent);
        let shifted = |dec: &Dec| i128::from(dec.mantissa) * 10i128.pow(u32::from(dec.exponent.abs_diff(lower)));
        shifted(self).cmp(&shifted(other))
    }
}

impl From<i64> for Dec {
    fn from(number: i64) -> Dec {
        // The exponent of a whole number is at most 18, so this is never refused.
        Dec::new(0, number).unwrap_or_default()
    }
}

impl FromStr for Dec {
    type Err = DecError;

    /// Reads `12.50`, `-3`, `0.001`: digits on both sides of the point, no exponent, no `+`.
    fn from_str(text: &str) -> Result<Self, DecError> {
        let bad = || DecError::Text { text: text.to_owned() };
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, places) = digits.split_once('.').unwrap_or((digits, "0"));
        if [whole, places].iter().any(|part| part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(bad());
        }
        let places = places.trim_end_matches('0');
        let all = format!("{whole}{places}");
        let kept = all.trim_end_matches('0');
        if kept.is_empty() {
            return Ok(Dec::default());
        }
        // Zeros taken off a whole number raise the exponent; digits behind the point lower it. Never both.
        let length = |text: &str| i64::try_from(text.len()).ok().ok_or(DecError::Range);
        let exponent = length(&all)? - length(kept)? - length(places)?;
        let sign = if digits.len() < text.len() { "-" } else { "" };
        let mantissa = format!("{sign}{kept}").parse().ok().ok_or(DecError::Range)?;
        Dec::new(exponent, mantissa)
    }
}

impl fmt::Display for Dec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = usize::from(self.exponent.min(0).unsigned_abs());
        let zeros = usize::from(self.exponent.max(0).unsigned_abs());
        let digits = format!("{:0>width$}", self.mantissa.unsigned_abs(), width = places + 1);
        let (whole, places) = digits.split_at(digits.len() - places);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}{:0<zeros$}", "")?;
        if places.is_empty() { Ok(()) } else { write!(f, ".{places}") }
    }
}

impl fmt::Debug for Dec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<C> Encode<C> for Dec {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.tag(IanaTag::Decimal)?.array(2)?.i8(self.exponent)?.i64(self.mantissa)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Dec {
    /// Reads the canonical pair alone.
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        if d.tag()? != IanaTag::Decimal.tag() || d.array()? != Some(2) {
            return Err(decode::Error::message("expected dec").at(at));
        }
        let (exponent, mantissa) = (d.i8()?, d.i64()?);
        let dec = Dec::new(exponent.into(), mantissa).map_err(|error| decode::Error::message(error).at(at))?;
        if dec == (Dec { exponent, mantissa }) {
            Ok(dec)
        } else {
            Err(decode::Error::message("not in canonical form").at(at))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form() {
        let forms = [
            ("0", 0, 0),
            ("-0.00", 0, 0),
            ("12.50", -1, 125),
            ("012.5", -1, 125),
            ("100", 2, 1),
            ("-0.001", -3, -1),
            ("9223372036854775807", 0, i64::MAX),
            ("-9223372036854775808", 0, i64::MIN),
            ("1000000000000000000", 18, 1),
            ("0.000000000000000001", -18, 1),
            ("120.00", 1, 12),
            ("10.0500", -2, 1005),
        ];
        for (text, exponent, mantissa) in forms {
            let dec: Dec = text.parse().unwrap();
            assert_eq!((dec.exponent(), dec.mantissa()), (exponent, mantissa), "{text}");
            assert_eq!(dec.to_string().parse(), Ok(dec), "{text}");
            assert_eq!(minicbor::decode::<Dec>(&minicbor::to_vec(dec).unwrap()).unwrap(), dec);
        }
        assert_eq!("12.50".parse::<Dec>().unwrap().to_string(), "12.5");
        assert_eq!("0.05".parse::<Dec>().unwrap().to_string(), "0.05");
        assert_eq!("-1200".parse::<Dec>().unwrap().to_string(), "-1200");
        assert_eq!(Dec::new(-20, 100), Dec::new(-18, 1));
        assert_eq!(Dec::from(i64::MIN).mantissa(), i64::MIN);
    }

    #[test]
    fn what_is_too_large_is_refused_not_rounded() {
        for text in ["10000000000000000000", "9223372036854775808", "0.0000000000000000001", "1.0000000000000000001"] {
            assert_eq!(text.parse::<Dec>(), Err(DecError::Range), "{text}");
        }
        for text in ["", "-", ".5", "5.", "1e3", "+1", "1,5", " 1", "--1", "1.2.3", "NaN", "1_000", "٣"] {
            assert!(matches!(text.parse::<Dec>(), Err(DecError::Text { .. })), "{text}");
        }
        assert_eq!(Dec::new(i64::MAX, 10), Err(DecError::Range));
    }

    #[test]
    fn numbers_are_ordered_as_numbers() {
        let sorted = [
            "-1000000000000000000",
            "-9.5",
            "-9",
            "-0.1",
            "-0.01",
            "0",
            "0.000000000000000001",
            "0.5",
            "9.4",
            "9.41",
            "9.5",
            "10",
            "9223372036854775807",
            "12000000000000000000",
        ];
        let sorted: Vec<Dec> = sorted.iter().map(|text| text.parse().unwrap()).collect();
        assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

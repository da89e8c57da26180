//! Rates, as people write them.
//!
//! Knows units. Does not know what is limited.
//! Invariant: a rate that exists is one that transfers can live with.
//!
//! The crates that read sizes take `20Mb` for megabytes, which is eight times what an administrator of
//! networks means by it; so the few units are read here, and that one is asked back.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{RATE_MAX, RATE_MIN};
use crate::names::clean;

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Rate(u64);

/// Why something is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRate {
    #[error("`{text}` is no rate")]
    NoRate { text: String },
    #[error("`{text}` may mean bits or bytes")]
    BitOrByte { text: String, amount: String },
    #[error("less than {} a second is too little for transfers to live on", Rate(RATE_MIN))]
    TooLow,
    #[error("more than {} a second is no limit", Rate(RATE_MAX))]
    TooHigh,
}

impl BadRate {
    /// What to write instead.
    pub fn hint(&self) -> String {
        match self {
            BadRate::NoRate { .. } => "write it like `10MB`, `500kB/s`, `1.5MiB` or `200Mbit`".to_owned(),
            BadRate::BitOrByte { amount, .. } => format!("write `{amount}bit` or `{amount}B`"),
            BadRate::TooLow => "to let nothing through, stop the daemon: `hffs daemon stop`".to_owned(),
            BadRate::TooHigh => "`hffs conf limit reset` removes all limits".to_owned(),
        }
    }
}

impl Rate {
    /// A rate of so many bytes a second.
    pub fn new(bytes: u64) -> Result<Self, BadRate> {
        match bytes {
            ..RATE_MIN => Err(BadRate::TooLow),
            RATE_MIN..=RATE_MAX => Ok(Self(bytes)),
            _ => Err(BadRate::TooHigh),
        }
    }

    /// Bytes a second.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// The same, to calculate with.
    pub(super) fn per_sec(self) -> f64 {
        self.0 as f64
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    /// A number and a unit: `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`, or the same of bits, as `kbit` or `Mibit`;
    /// with or without `/s`, and `bps` for bits. A bare number is bytes.
    fn from_str(text: &str) -> Result<Self, BadRate> {
        let no_rate = || BadRate::NoRate { text: clean(text, 40) };
        let written = text.trim();
        let bps = written.strip_suffix("bps").map(|amount| format!("{amount}bit"));
        let amount = bps.as_deref().unwrap_or(written.strip_suffix("/s").unwrap_or(written)).trim_end();
        let unit_at = amount.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(amount.len());
        let (number, unit) = amount.split_at(unit_at);
        let unit = unit.trim_start();
        let bits = unit.strip_suffix("bits").or_else(|| unit.strip_suffix("bit"));
        // A lower-case `b` is bits to one half of the world and bytes to the other.
        if let Some(prefix) = unit.strip_suffix('b').filter(|prefix| !prefix.is_empty() && bits.is_none()) {
            factor(prefix).ok_or_else(no_rate)?;
            return Err(BadRate::BitOrByte { text: clean(text, 40), amount: clean(&format!("{number}{prefix}"), 40) });
        }
        let prefix = bits.unwrap_or_else(|| unit.strip_suffix('B').unwrap_or(unit));
        let factor = factor(prefix).ok_or_else(no_rate)?;
        let number: f64 = number.parse().map_err(|_| no_rate())?;
        // Rounded, because 2.3 MB are 2,299,999.9999999995 bytes to a computer. What is too large becomes
        // the largest there is, and is refused as that.
        let bytes = number * factor / if bits.is_some() { 8.0 } else { 1.0 };
        Self::new(bytes.round() as u64)
    }
}

fn factor(prefix: &str) -> Option<f64> {
    Some(match prefix {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" | "m" => 1e6,
        "G" | "g" => 1e9,
        "T" | "t" => 1e12,
        "Ki" | "ki" => 1_024.0,
        "Mi" | "mi" => 1_048_576.0,
        "Gi" | "gi" => 1_073_741_824.0,
        _ => return None,
    })
}

impl fmt::Display for Rate {
    /// Exactly, in the largest decimal unit of which it is a multiple.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
        let (unit, name) = units.into_iter().find(|(unit, _)| self.0.is_multiple_of(*unit)).unwrap_or((1, "B"));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl TryFrom<u64> for Rate {
    type Error = BadRate;

    fn try_from(bytes: u64) -> Result<Self, BadRate> {
        Self::new(bytes)
    }
}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> u64 {
        rate.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("10MB", 10_000_000),
            ("10 MB", 10_000_000),
            (" 10MB/s ", 10_000_000),
            ("10M", 10_000_000),
            ("500kB/s", 500_000),
            ("500KB", 500_000),
            ("1.5MiB", 1_572_864),
            ("2.3MB", 2_300_000),
            ("64KiB/s", 65_536),
            ("2GiB", 2_147_483_648),
            ("1GB", 1_000_000_000),
            ("200Mbit", 25_000_000),
            ("200Mbit/s", 25_000_000),
            ("200 Mbits/s", 25_000_000),
            ("200Mbps", 25_000_000),
            ("1Gbit", 125_000_000),
            ("800kbit", 100_000),
            ("8Mibit", 1_048_576),
            ("65536", 65_536),
            ("65536B", 65_536),
        ] {
            assert_eq!(text.parse::<Rate>().map(Rate::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_what_to_write_instead() {
        for text in ["", " ", "MB", "fast", "10XB", "-5MB", "+5MB", "1e6", "10MB/h", "10,5MB", "1.2.3MB", "10MB/s/s"] {
            assert!(matches!(text.parse::<Rate>(), Err(BadRate::NoRate { .. })), "{text}: {:?}", text.parse::<Rate>());
        }
        let ambiguous = "20Mb/s".parse::<Rate>().unwrap_err().hint();
        assert!(ambiguous.contains("`20Mbit`") && ambiguous.contains("`20MB`"), "{ambiguous}");
        for text in ["0", "0MB", "0.0", "1B", "9kB"] {
            assert_eq!(text.parse::<Rate>(), Err(BadRate::TooLow), "{text}");
        }
        for text in ["5TB", "99999999999999999999999GB"] {
            assert_eq!(text.parse::<Rate>(), Err(BadRate::TooHigh), "{text}");
        }
        assert!(!"\u{1b}[2J".parse::<Rate>().unwrap_err().to_string().contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn a_rate_is_read_back_as_it_is_shown(bytes in RATE_MIN..=RATE_MAX) {
            let rate = Rate::new(bytes).unwrap();
            prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate), "{}", rate);
        }

        #[test]
        fn nothing_that_is_written_breaks_the_reader(text in ".*") {
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert!((RATE_MIN..=RATE_MAX).contains(&rate.bytes()));
            }
        }
    }
}

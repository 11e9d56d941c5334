//! Durations (`250ms`, `5s`, `1h`) and sizes (`64KiB`) as written in the file; "no limit" is `none`.

use std::time::Duration;

/// A duration.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => {
            return Err(format!(
                "`{text}` is not a duration: write a number with a unit, as in 250ms, 5s, 10m, 1h"
            ));
        }
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration: `{number}` is not a number"))?;
    let duration = Duration::try_from_secs_f64(number * seconds);
    duration.map_err(|_| format!("`{text}` is out of range"))
}

/// A number of bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => {
            return Err(format!(
                "`{text}` is not a size: write a number with a unit, as in 64KiB, 256MiB, 1GiB"
            ));
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a size: `{number}` is not a whole number"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("`{text}` is out of range"))
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|letter: char| letter.is_ascii_alphabetic())
        .unwrap_or(text.len());
    (text[..end].trim(), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_a_unit() {
        for (text, expected) in [
            ("250ms", 250_000),
            ("5s", 5_000_000),
            ("1.5s", 1_500_000),
            ("1h", 3_600_000_000),
        ] {
            assert_eq!(
                duration(text).unwrap(),
                Duration::from_micros(expected),
                "{text}"
            );
        }
        for text in ["5", "", "s", "-1s", "5 parsecs", "NaNs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_carry_a_unit() {
        assert_eq!(size("64KiB").unwrap(), 65_536);
        assert_eq!(size("1GiB").unwrap(), 1 << 30);
        for text in ["64", "64KB", "1.5MiB", "-1KiB", "99999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}

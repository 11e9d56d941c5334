//! What a check says: plain values, ready to be shown to people and to programs.

use serde::Serialize;

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The host does not show it here, as in a container.
    Unknown,
    /// Ringway runs, with less than was asked for or than the host could give.
    Warn,
    /// Ringway does not run.
    Fail,
}

/// What a check is about; findings are shown in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The configuration file itself.
    File,
    /// Kernel and io_uring.
    Kernel,
    /// Limits of this process and of the host.
    Limits,
    /// Settings of the network.
    Network,
    /// What the file asks for: its addresses, ports and privileges.
    Addresses,
    /// CPUs, memory, clock.
    Machine,
}

impl Area {
    /// All of them, in order.
    pub const ALL: [Area; 6] = [
        Area::File,
        Area::Kernel,
        Area::Limits,
        Area::Network,
        Area::Addresses,
        Area::Machine,
    ];

    /// Its headline.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Area::File => "File",
            Area::Kernel => "Kernel",
            Area::Limits => "Limits",
            Area::Network => "Network",
            Area::Addresses => "Addresses",
            Area::Machine => "Machine",
        }
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// The name of the check, the same on every host.
    pub check: &'static str,
    /// How it stands.
    pub level: Level,
    /// What was found, with its value.
    pub finding: String,
    /// Why it matters.
    pub why: String,
    /// Lines for a shell that mend it; those that begin with `#` say where or when.
    pub mend: Vec<String>,
}

/// What a check is, before it is known how it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) area: Area,
    pub(super) name: &'static str,
    pub(super) why: &'static str,
}

impl Check {
    pub(super) fn ok(self, finding: impl Into<String>) -> Finding {
        self.finding(Level::Ok, finding)
    }

    pub(super) fn warn(self, finding: impl Into<String>) -> Finding {
        self.finding(Level::Warn, finding)
    }

    pub(super) fn fail(self, finding: impl Into<String>) -> Finding {
        self.finding(Level::Fail, finding)
    }

    /// `what` is a setting or a file that this host does not show.
    pub(super) fn unknown(self, what: &str) -> Finding {
        self.finding(Level::Unknown, format!("not known here: {what}"))
    }

    fn finding(self, level: Level, finding: impl Into<String>) -> Finding {
        Finding {
            area: self.area,
            check: self.name,
            level,
            finding: finding.into(),
            why: self.why.to_owned(),
            mend: Vec::new(),
        }
    }
}

impl Finding {
    /// Adds a line that mends it.
    pub(super) fn mend(mut self, line: impl Into<String>) -> Finding {
        self.mend.push(line.into());
        self
    }
}

/// A number as people read it: 28,232.
pub(super) fn grouped(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the greatest unit of which it is at least one.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut rest = bytes;
    let mut unit = "bytes";
    for greater in UNITS {
        if rest < 1024 {
            break;
        }
        (rest, unit) = (rest / 1024, greater);
    }
    format!("{rest} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_are_readable() {
        for (number, text) in [
            (0_u64, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_048_576, "1,048,576"),
        ] {
            assert_eq!(grouped(number), text);
        }
        for (bytes, text) in [
            (12, "12 bytes"),
            (4096, "4 KiB"),
            (256 << 20, "256 MiB"),
            (8 << 30, "8 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}

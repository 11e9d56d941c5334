//! The kernel's version, and io_uring.

use crate::doctor::facts::Facts;
use crate::doctor::finding::{Area, Check, Finding};
use crate::ring::{ReceiveTier, SetupError};

const VERSION: Check = Check {
    area: Area::Kernel,
    name: "version",
    why: "Ringway needs Linux 6.1 (io_uring with DEFER_TASKRUN); what newer kernels bring is used where it is there.",
};
const IO_URING: Check = Check {
    area: Area::Kernel,
    name: "io_uring",
    why: "Every byte goes through io_uring; without it Ringway does not start.",
};

/// Oldest kernel that Ringway runs on.
const FLOOR: (u32, u32) = (6, 1);
/// `IORING_SETUP_NO_SQARRAY`.
const NO_SQARRAY: (u32, u32) = (6, 6);

pub(super) fn checks(facts: &Facts) -> Vec<Finding> {
    vec![version(facts), io_uring(facts)]
}

fn version(facts: &Facts) -> Finding {
    let Some(release) = &facts.kernel else {
        return VERSION.unknown("kernel.osrelease");
    };
    let here = format!("Linux {release} on {}", std::env::consts::ARCH);
    let Some(version) = parse(release) else {
        return VERSION.unknown(&format!("the number of {here}"));
    };
    let upgrade = "# install a newer kernel: Debian 12, Ubuntu 24.04 and RHEL 10 have at least 6.1";
    if version < FLOOR {
        return if facts.ring.is_ok() {
            let backported = "older than 6.1, although its io_uring has what is needed";
            VERSION.warn(format!("{here}: {backported}")).mend(upgrade)
        } else {
            VERSION
                .fail(format!("{here}: older than 6.1"))
                .mend(upgrade)
        };
    }
    let lacks = lacks(version, facts);
    VERSION.ok(if lacks.is_empty() {
        format!("{here}; it has everything that Ringway can use")
    } else {
        format!("{here}; newer kernels bring {}", lacks.join(", "))
    })
}

/// What Ringway would use if it was there.
fn lacks(version: (u32, u32), facts: &Facts) -> Vec<&'static str> {
    let mut lacks = Vec::new();
    if version < NO_SQARRAY {
        lacks.push("rings without an index array (6.6)");
    }
    if let Ok(findings) = &facts.ring {
        if !findings.support.gathers {
            lacks.push("waits that gather completions (6.12)");
        }
        if !findings.support.no_iowait {
            lacks.push("idle rings that do not count as iowait (6.15)");
        }
        if findings.tier == ReceiveTier::Single {
            lacks.push("multishot receives that end at a limit (about 6.17)");
        }
    }
    lacks
}

fn io_uring(facts: &Facts) -> Finding {
    match &facts.ring {
        Ok(findings) => allowed(facts, findings.tier),
        Err(error) => denied(error),
    }
}

fn allowed(facts: &Facts, tier: ReceiveTier) -> Finding {
    let tier = match tier {
        ReceiveTier::Limited => "receive tier `limited` (multishot, ended at a limit)",
        ReceiveTier::Single => "receive tier `single` (one read at a time)",
    };
    if facts.sysctls.io_uring_disabled != Some(1) {
        return IO_URING.ok(format!("allowed; {tier}"));
    }
    let group = facts.sysctls.io_uring_group.unwrap_or(-1);
    let member = facts.groups.iter().any(|own| i64::from(*own) == group);
    if member {
        return IO_URING.ok(format!(
            "allowed for group {group}, which user {} is in; {tier}",
            facts.user
        ));
    }
    let text = format!(
        "kernel.io_uring_disabled = 1: user {} is privileged, others are not allowed; {tier}",
        facts.user
    );
    IO_URING
        .warn(text)
        .mend("sysctl -w kernel.io_uring_disabled=0")
        .mend("# or only for the group of the user that runs it")
        .mend("sysctl -w kernel.io_uring_group=$(id -g ringway)")
}

fn denied(error: &SetupError) -> Finding {
    let fail = |text: &str| IO_URING.fail(text);
    match error {
        SetupError::Missing => fail("this kernel has no io_uring")
            .mend("# a kernel of 6.1 or newer, built with CONFIG_IO_URING"),
        SetupError::Disabled(value) => fail(&format!(
            "switched off: kernel.io_uring_disabled = {value}"
        ))
        .mend("sysctl -w kernel.io_uring_disabled=0"),
        SetupError::Denied => fail(
            "not permitted although kernel.io_uring_disabled is 0: by a seccomp filter (Docker and containerd have \
             one by default), SELinux or a container",
        )
        .mend("# Docker: a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register")
        .mend("docker run --security-opt seccomp=FILE ..."),
        SetupError::Memory => fail("no memory for a ring")
            .mend("ulimit -l unlimited")
            .mend("# or LimitMEMLOCK=infinity in the unit; or more MemoryMax="),
        SetupError::Flags | SetupError::Operation(_) | SetupError::Buffers(_) => {
            fail(&error.to_string()).mend("# install a newer kernel")
        }
        SetupError::Other(_) => fail(&error.to_string()).mend("dmesg | tail"),
    }
}

/// `6.18.44-amd64`: 6 and 18.
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect, find, good_host};
    use super::*;
    use crate::doctor::finding::Level;
    use crate::ring::{Findings, Support};

    #[test]
    fn the_version_says_what_is_missing() {
        let old_ring = Findings {
            tier: ReceiveTier::Single,
            support: Support {
                no_iowait: false,
                gathers: false,
            },
        };
        for (release, ring, level, text) in [
            ("6.18.4", None, Level::Ok, "it has everything"),
            (
                "6.1.0-28-amd64",
                Some(Ok(old_ring)),
                Level::Ok,
                "end at a limit",
            ),
            (
                "6.1.0-28-amd64",
                Some(Ok(old_ring)),
                Level::Ok,
                "index array",
            ),
            ("6.11.1", Some(Ok(old_ring)), Level::Ok, "bring waits that"),
            (
                "5.14.0-503.el9",
                Some(Ok(old_ring)),
                Level::Warn,
                "older than 6.1, although",
            ),
            (
                "5.10.0",
                Some(Err(SetupError::Flags)),
                Level::Fail,
                "older than 6.1",
            ),
            ("strange", None, Level::Unknown, "strange"),
        ] {
            let mut facts = good_host();
            facts.kernel = Some(release.to_owned());
            facts.ring = ring.unwrap_or(facts.ring);
            let finding = find(&checks(&facts), "version");
            expect(&finding, level, text, "");
        }
    }

    #[test]
    fn io_uring_says_why_it_is_not_there() {
        let other = || std::io::Error::from_raw_os_error(libc::EIO);
        for (error, text, mend) in [
            (SetupError::Missing, "no io_uring", "CONFIG_IO_URING"),
            (SetupError::Disabled(2), "= 2", "io_uring_disabled=0"),
            (SetupError::Denied, "seccomp", "--security-opt"),
            (SetupError::Memory, "no memory", "ulimit -l"),
            (SetupError::Flags, "DEFER_TASKRUN", "newer kernel"),
            (SetupError::Operation("X"), "lacks X", "newer kernel"),
            (
                SetupError::Buffers(other()),
                "receive buffers",
                "newer kernel",
            ),
            (SetupError::Other(other()), "could not be set up", "dmesg"),
        ] {
            let mut facts = good_host();
            facts.ring = Err(error);
            expect(&find(&checks(&facts), "io_uring"), Level::Fail, text, mend);
        }
    }

    #[test]
    fn io_uring_for_a_group_only_is_fine_for_its_members() {
        for (group, level, text, mend) in [
            (988, Level::Ok, "group 988", ""),
            (-1, Level::Warn, "is privileged", "io_uring_group"),
            (4, Level::Warn, "is privileged", "io_uring_disabled=0"),
        ] {
            let mut facts = good_host();
            facts.sysctls.io_uring_disabled = Some(1);
            facts.sysctls.io_uring_group = Some(group);
            expect(&find(&checks(&facts), "io_uring"), level, text, mend);
        }
    }
}

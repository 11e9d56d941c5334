//! File descriptors, locked memory, pipes.

use super::{SESSIONS_USUAL, bounds, demand, workers};
use crate::doctor::facts::{Facts, Limit};
use crate::doctor::finding::{Area, Check, Finding, grouped, size};
use crate::doctor::wanted::Wanted;
use crate::worker::PIPE_SIZE;

const OPEN_FILES: Check = Check {
    area: Area::Limits,
    name: "open files",
    why: "A session takes two file descriptors. Ringway raises the soft limit to the hard one at start; clients \
          beyond that wait in the kernel's backlog.",
};
const FLOWS: Check = Check {
    area: Area::Limits,
    name: "udp flows",
    why: "A UDP flow takes a file descriptor and a source port of its own until it ends. When all are taken, a new \
          one takes the place of the oldest that is not proven, or is not served.",
};
const MOST_FILES: Check = Check {
    area: Area::Limits,
    name: "fs.nr_open",
    why: "The limit of open files of a process cannot be set higher than this.",
};
const ALL_FILES: Check = Check {
    area: Area::Limits,
    name: "fs.file-max",
    why: "All processes of the host share this many open files; when they are used up, nobody is accepted.",
};
const LOCKED_MEMORY: Check = Check {
    area: Area::Limits,
    name: "locked memory",
    why: "Kernels from 5.12 on charge rings to the memory of the cgroup; a few still want locked memory for them.",
};
const PIPES: Check = Check {
    area: Area::Limits,
    name: "splice pipes",
    why: "Large transfers go through pipes without a copy. Without full-size pipes they cost more CPU.",
};

/// `fs.nr_open` of most hosts.
const NR_OPEN_USUAL: u64 = 1 << 20;

pub(super) fn checks(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = vec![open_files(facts, wanted)];
    findings.extend((wanted.datagram_addresses() > 0).then(|| flows(facts, wanted)));
    findings.extend([
        most_files(facts, wanted),
        all_files(facts, wanted),
        locked_memory(facts),
        pipes(facts, wanted),
    ]);
    findings
}

fn flows(facts: &Facts, wanted: &Wanted) -> Finding {
    let ports = demand(facts, wanted).ports_for_flows();
    let (Some(bounds), Some(ports)) = (bounds(facts, wanted), ports) else {
        return FLOWS.unknown("RLIMIT_NOFILE, net.ipv4.ip_local_port_range");
    };
    let possible = bounds.possible_flows;
    let text = format!("{} are possible", grouped(possible));
    match wanted.max_flows {
        None => FLOWS.ok(text),
        Some(asked) if asked <= possible => {
            FLOWS.ok(format!("{text}, global.max_flows is {}", grouped(asked)))
        }
        Some(asked) => {
            let asked_text = grouped(asked);
            let finding = FLOWS.warn(format!("{text}, fewer than global.max_flows {asked_text}"));
            if ports < asked {
                finding
                    .mend("# more source ports: `source` addresses for the pool, or a wider range")
                    .mend("sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\"")
            } else {
                finding
                    .mend("# more open files, in the [Service] part of the unit")
                    .mend(format!("LimitNOFILE={}", NR_OPEN_USUAL))
            }
        }
    }
}

fn open_files(facts: &Facts, wanted: &Wanted) -> Finding {
    let (Some(limit), Some(bounds)) = (facts.files, bounds(facts, wanted)) else {
        return OPEN_FILES.unknown("RLIMIT_NOFILE");
    };
    let possible = bounds.possible_sessions;
    let limits = limits(limit, grouped);
    let makes = format!("{limits}; that makes {} sessions", grouped(possible));
    let finding = match wanted.max_sessions {
        _ if limit.hard < demand(facts, wanted).files_least() => {
            OPEN_FILES.fail(format!("{limits}; that is not enough for one session"))
        }
        Some(asked) if asked > possible => OPEN_FILES.warn(format!(
            "{makes}, fewer than global.max_sessions {}",
            grouped(asked)
        )),
        Some(asked) => {
            return OPEN_FILES.ok(format!(
                "{makes}, global.max_sessions is {}",
                grouped(asked)
            ));
        }
        None if possible < SESSIONS_USUAL && !wanted.is_udp_only() => {
            OPEN_FILES.warn(format!("{makes}, fewer than {}", grouped(SESSIONS_USUAL)))
        }
        None => return OPEN_FILES.ok(makes),
    };
    let files = files_advised(facts, wanted);
    let finding = if facts.sysctls.nr_open.is_some_and(|most| most < files) {
        finding.mend(format!("sysctl -w fs.nr_open={files}"))
    } else {
        finding
    };
    finding
        .mend("# as root, in the shell that starts ringway")
        .mend(format!("ulimit -n {files}"))
        .mend("# or in the [Service] part of its unit")
        .mend(format!("LimitNOFILE={files}"))
}

/// What the limit of open files should be for what the file asks; as high as is usual if it says nothing.
fn files_advised(facts: &Facts, wanted: &Wanted) -> u64 {
    match wanted.max_sessions {
        Some(sessions) => demand(facts, wanted).files_for(sessions),
        None => facts.sysctls.nr_open.unwrap_or(NR_OPEN_USUAL),
    }
}

fn limits(limit: Limit, show: impl Fn(u64) -> String) -> String {
    let show = |value| match value {
        u64::MAX => "unlimited".to_owned(),
        value => show(value),
    };
    if limit.soft == limit.hard {
        show(limit.hard)
    } else {
        format!("{} soft, {} hard", show(limit.soft), show(limit.hard))
    }
}

fn most_files(facts: &Facts, wanted: &Wanted) -> Finding {
    let Some(most) = facts.sysctls.nr_open else {
        return MOST_FILES.unknown("fs.nr_open");
    };
    let files = demand(facts, wanted).files_for(wanted.max_sessions.unwrap_or(SESSIONS_USUAL));
    if most < files {
        MOST_FILES
            .warn(format!("{}; {} are wanted", grouped(most), grouped(files)))
            .mend(format!("sysctl -w fs.nr_open={files}"))
    } else {
        MOST_FILES.ok(grouped(most))
    }
}

fn all_files(facts: &Facts, wanted: &Wanted) -> Finding {
    let (Some(max), Some(open)) = (facts.sysctls.file_max, facts.sysctls.files_open) else {
        return ALL_FILES.unknown("fs.file-max, fs.file-nr");
    };
    let ours = demand(facts, wanted)
        .files_for(bounds(facts, wanted).map_or(SESSIONS_USUAL, |bounds| bounds.max_sessions));
    let used = format!("{} are open", grouped(open));
    if max.saturating_sub(open) < ours {
        ALL_FILES
            .warn(format!(
                "{}, of which {used}; the greatest number of sessions takes {}",
                grouped(max),
                grouped(ours)
            ))
            .mend(format!("sysctl -w fs.file-max={}", open + 2 * ours))
    } else if max > i64::MAX.unsigned_abs() / 2 {
        ALL_FILES.ok(format!("no limit; {used}"))
    } else {
        ALL_FILES.ok(format!("{}, of which {used}", grouped(max)))
    }
}

fn locked_memory(facts: &Facts) -> Finding {
    match facts.memlock {
        None => LOCKED_MEMORY.unknown("RLIMIT_MEMLOCK"),
        // Rings were tried; whether there is memory for them is said there.
        Some(limit) => LOCKED_MEMORY.ok(limits(limit, size)),
    }
}

fn pipes(facts: &Facts, wanted: &Wanted) -> Finding {
    let sysctls = &facts.sysctls;
    let (Some(max_size), Some(soft), Some(hard), Some(bounds)) = (
        sysctls.pipe_max_size,
        sysctls.pipe_user_pages_soft,
        sysctls.pipe_user_pages_hard,
        bounds(facts, wanted),
    ) else {
        return PIPES.unknown("fs.pipe-max-size, fs.pipe-user-pages-soft, -hard");
    };
    let pipes = (bounds.pipes * workers(facts, wanted)) as u64;
    let pages_each = u64::from(PIPE_SIZE).div_ceil(facts.page_size);
    let pages = pipes * pages_each;
    let asked = format!("{} of {}", grouped(pipes), size(PIPE_SIZE.into()));
    let resource = facts.privileges.sys_resource == Some(true);
    if pipes == 0 {
        return PIPES.ok("none: open files are too few for them");
    }
    if resource {
        return PIPES.ok(format!("{asked}; CAP_SYS_RESOURCE lifts all limits"));
    }
    let exempt = facts.privileges.sys_admin == Some(true);
    // Pipes of other processes of the same user count, too.
    let enough = pages + pages / 4;
    let too_few = |limit: u64| limit != 0 && limit < pages && !exempt;
    let (text, mend) = if max_size < u64::from(PIPE_SIZE) {
        let text = format!(
            "{asked} wanted; fs.pipe-max-size allows {} each",
            size(max_size)
        );
        (text, format!("sysctl -w fs.pipe-max-size={PIPE_SIZE}"))
    } else if too_few(hard) {
        let text = format!(
            "{asked} wanted; fs.pipe-user-pages-hard = {hard} ends that at {}",
            grouped(hard / pages_each)
        );
        (text, format!("sysctl -w fs.pipe-user-pages-hard={enough}"))
    } else if too_few(soft) {
        let text = format!(
            "{asked} wanted; fs.pipe-user-pages-soft = {soft} makes those after the first {} small",
            grouped(soft / pages_each)
        );
        (text, format!("sysctl -w fs.pipe-user-pages-soft={enough}"))
    } else {
        return PIPES.ok(format!("{asked}, which user {} may have", facts.user));
    };
    PIPES.warn(text).mend(mend)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect, find, good_host};
    use super::*;
    use crate::doctor::finding::Level;

    fn wanted(max_sessions: Option<u32>) -> Wanted {
        Wanted {
            max_sessions,
            ..Wanted::default()
        }
    }

    #[test]
    fn the_limit_of_open_files_is_told_in_sessions() {
        for (hard, max_sessions, level, text, mend) in [
            (524_288, None, Level::Ok, "that makes 261,", ""),
            (
                524_288,
                Some(50_000),
                Level::Ok,
                "max_sessions is 50,000",
                "",
            ),
            (
                524_288,
                Some(500_000),
                Level::Warn,
                "fewer than global.max_sessions 500,000",
                "ulimit -n 1001",
            ),
            (
                524_288,
                Some(600_000),
                Level::Warn,
                "fewer than",
                "fs.nr_open=1201",
            ),
            (
                4096,
                None,
                Level::Warn,
                "1,024 soft, 4,096 hard; that makes",
                "LimitNOFILE=1048576",
            ),
            (4096, Some(100), Level::Ok, "max_sessions is 100", ""),
            (
                100,
                None,
                Level::Fail,
                "not enough for one session",
                "ulimit -n 1048576",
            ),
        ] {
            let mut facts = good_host();
            facts.files = Some(Limit { soft: 1024, hard });
            let findings = checks(&facts, &wanted(max_sessions));
            expect(&find(&findings, "open files"), level, text, mend);
        }
    }

    #[test]
    fn the_files_of_the_host_must_be_enough() {
        for (nr_open, file_max, max_sessions, check, level, mend) in [
            (1 << 20, 1 << 22, None, "fs.nr_open", Level::Ok, ""),
            (1 << 20, 1 << 22, None, "fs.file-max", Level::Ok, ""),
            (
                20_000,
                1 << 22,
                None,
                "fs.nr_open",
                Level::Warn,
                "fs.nr_open=",
            ),
            (
                1 << 20,
                1 << 22,
                Some(600_000),
                "fs.nr_open",
                Level::Warn,
                "fs.nr_open=1201",
            ),
            (
                1 << 20,
                100_000,
                None,
                "fs.file-max",
                Level::Warn,
                "fs.file-max=",
            ),
            (1 << 20, 100_000, Some(1_000), "fs.file-max", Level::Ok, ""),
            (
                1 << 20,
                2_100,
                Some(100),
                "fs.file-max",
                Level::Warn,
                "fs.file-max=",
            ),
        ] {
            let mut facts = good_host();
            facts.sysctls.nr_open = Some(nr_open);
            facts.sysctls.file_max = Some(file_max);
            let findings = checks(&facts, &wanted(max_sessions));
            expect(&find(&findings, check), level, "", mend);
        }
    }

    #[test]
    fn locked_memory_is_only_told() {
        let mut facts = good_host();
        let finding = |facts: &Facts| find(&checks(facts, &wanted(None)), "locked memory");
        expect(&finding(&facts), Level::Ok, "8 MiB", "");
        facts.memlock = Some(Limit {
            soft: 65_536,
            hard: u64::MAX,
        });
        expect(
            &finding(&facts),
            Level::Ok,
            "64 KiB soft, unlimited hard",
            "",
        );
    }

    #[test]
    fn pipes_that_the_user_may_not_have_are_a_warning() {
        // 512 pipes of 64 pages are 32,768 pages.
        for (max_size, soft, hard, privileged, level, text, mend) in [
            (1 << 20, 65_536, 0, false, Level::Ok, "512 of 256 KiB", ""),
            (1 << 20, 0, 0, false, Level::Ok, "512 of 256 KiB", ""),
            (
                1 << 20,
                16_384,
                0,
                false,
                Level::Warn,
                "first 256 small",
                "soft=40960",
            ),
            (1 << 20, 16_384, 0, true, Level::Ok, "CAP_SYS_RESOURCE", ""),
            (
                1 << 20,
                0,
                16_384,
                false,
                Level::Warn,
                "ends that at 256",
                "hard=40960",
            ),
            (
                65_536,
                0,
                0,
                false,
                Level::Warn,
                "64 KiB each",
                "fs.pipe-max-size=262144",
            ),
            (65_536, 0, 0, true, Level::Ok, "CAP_SYS_RESOURCE", ""),
        ] {
            let mut facts = good_host();
            facts.sysctls.pipe_max_size = Some(max_size);
            facts.sysctls.pipe_user_pages_soft = Some(soft);
            facts.sysctls.pipe_user_pages_hard = Some(hard);
            facts.privileges.sys_resource = Some(privileged);
            let findings = checks(&facts, &wanted(None));
            expect(&find(&findings, "splice pipes"), level, text, mend);
        }
        let mut facts = good_host();
        facts.files = Some(Limit { soft: 39, hard: 39 });
        let findings = checks(&facts, &wanted(None));
        expect(&find(&findings, "splice pipes"), Level::Ok, "too few", "");
        let mut facts = good_host();
        facts.sysctls.pipe_user_pages_soft = Some(16_384);
        facts.privileges.sys_admin = Some(true);
        let findings = checks(&facts, &wanted(None));
        expect(
            &find(&findings, "splice pipes"),
            Level::Ok,
            "ringway may have",
            "",
        );
    }
}

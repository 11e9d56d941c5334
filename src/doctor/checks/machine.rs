//! CPUs, memory and the clock.

use super::{count, workers};
use crate::doctor::facts::{Facts, Quota};
use crate::doctor::finding::{Area, Check, Finding, size};
use crate::doctor::wanted::Wanted;

const CPUS: Check = Check {
    area: Area::Machine,
    name: "workers",
    why: "One worker per CPU is best: two on one CPU wait for each other, and a CPU without one \
          does nothing for the traffic.",
};
const QUOTA: Check = Check {
    area: Area::Machine,
    name: "CPU quota",
    why: "When the quota is used up, the kernel stops all workers for the rest of the period (usually 100 ms) and \
          every session stands still.",
};
const MEMORY: Check = Check {
    area: Area::Machine,
    name: "memory limit",
    why: "Pipes, spilled bytes and the kernel's socket buffers are charged to it; beyond it the kernel kills Ringway.",
};
const TIME: Check = Check {
    area: Area::Machine,
    name: "time",
    why: "Logs of several hosts can only be read together when their clocks agree. Timeouts do not depend on it.",
};
const CLOCK_SOURCE: Check = Check {
    area: Area::Machine,
    name: "clock source",
    why: "A worker reads the clock in every turn; with a slow source each reading is a system call.",
};

/// 1 January 2026, before the first Ringway; and 1 January 2100.
const SANE: std::ops::Range<u64> = 1_767_225_600..4_102_444_800;

/// They are read from a device, and by a system call.
const SLOW_CLOCKS: [&str; 5] = ["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"];

pub(super) fn checks(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    vec![
        cpus(facts, wanted),
        quota(facts, wanted),
        memory(facts, wanted),
        time(facts),
        clock_source(facts),
    ]
}

fn cpus(facts: &Facts, wanted: &Wanted) -> Finding {
    let Some(cpus) = facts.cpus else {
        return CPUS.unknown("the CPUs of this process");
    };
    let workers = workers(facts, wanted);
    let text = format!("{} on {}", count(workers, "worker"), count(cpus, "CPU"));
    if workers > cpus {
        CPUS.warn(text)
            .mend("# in the file; `auto` is one per CPU")
            .mend("global: {workers: auto}")
    } else {
        CPUS.ok(text)
    }
}

fn quota(facts: &Facts, wanted: &Wanted) -> Finding {
    let workers = workers(facts, wanted);
    match facts.cpu_quota {
        Quota::Unknown => QUOTA.unknown("cpu.max of the cgroup"),
        Quota::None => QUOTA.ok("none"),
        Quota::At(thousandths) => {
            let cpus = format!("{}.{:02} CPUs", thousandths / 1000, thousandths % 1000 / 10);
            let text = format!("{cpus} for {}", count(workers, "worker"));
            if thousandths < workers as u64 * 1000 {
                QUOTA
                    .warn(text)
                    .mend("# in the file, so that no worker is stopped")
                    .mend(format!(
                        "global: {{workers: {}}}",
                        (thousandths / 1000).max(1)
                    ))
                    .mend("# or a greater quota, with systemd")
                    .mend(format!(
                        "systemctl set-property ringway.service CPUQuota={workers}00%"
                    ))
            } else {
                QUOTA.ok(text)
            }
        }
    }
}

fn memory(facts: &Facts, wanted: &Wanted) -> Finding {
    match facts.memory_max {
        Quota::Unknown => MEMORY.unknown("memory.max of the cgroup"),
        Quota::None => MEMORY.ok("none"),
        Quota::At(bytes) => {
            // As much again for the sockets.
            let least = wanted.pipe_memory.saturating_mul(2);
            let pipes = format!("global.pipe_memory is {}", size(wanted.pipe_memory));
            let text = format!("{}; {pipes}", size(bytes));
            if bytes < least {
                let wanted_mib = least >> 20;
                MEMORY
                    .warn(text)
                    .mend("# less pipe_memory in the file, or a greater limit, with systemd")
                    .mend(format!(
                        "systemctl set-property ringway.service MemoryMax={wanted_mib}M"
                    ))
            } else {
                MEMORY.ok(text)
            }
        }
    }
}

fn time(facts: &Facts) -> Finding {
    let Some(seconds) = facts.clock.seconds else {
        return TIME.unknown("the time");
    };
    if !SANE.contains(&seconds) {
        let year = 1970 + seconds / 31_556_952;
        return TIME
            .warn(format!("the clock says it is {}", year))
            .mend("timedatectl set-ntp true");
    }
    match facts.clock.synchronised {
        None => TIME.unknown("whether the clock is synchronised"),
        Some(true) => TIME.ok("synchronised"),
        Some(false) => TIME
            .warn("not synchronised")
            .mend("timedatectl set-ntp true"),
    }
}

fn clock_source(facts: &Facts) -> Finding {
    const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0";
    let Some(source) = &facts.clock.source else {
        return CLOCK_SOURCE.unknown("current_clocksource");
    };
    if !SLOW_CLOCKS.contains(&source.as_str()) {
        return CLOCK_SOURCE.ok(source);
    }
    let fast = facts
        .clock
        .sources
        .iter()
        .find(|other| !SLOW_CLOCKS.contains(&other.as_str()));
    let finding = CLOCK_SOURCE.warn(format!("{source}, which is slow"));
    match fast {
        Some(fast) => finding
            .mend(format!("cd {FOLDER}"))
            .mend(format!("echo {fast} > current_clocksource")),
        None => finding
            .mend("# why the kernel gave up a faster one")
            .mend("dmesg | grep -i -e clocksource -e tsc"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect, find, good_host};
    use super::*;
    use crate::doctor::finding::Level;

    fn with_workers(workers: u16) -> Wanted {
        Wanted {
            workers: Some(workers),
            ..Wanted::default()
        }
    }

    #[test]
    fn more_workers_than_cpus_are_a_warning() {
        for (workers, level, text, mend) in [
            (1, Level::Ok, "1 worker on 4 CPUs", ""),
            (4, Level::Ok, "4 workers", ""),
            (5, Level::Warn, "5 workers on 4 CPUs", "workers: auto"),
        ] {
            let findings = checks(&good_host(), &with_workers(workers));
            expect(&find(&findings, "workers"), level, text, mend);
        }
    }

    #[test]
    fn a_quota_that_stops_workers_is_a_warning() {
        for (quota, workers, level, text, mend) in [
            (Quota::None, 4, Level::Ok, "none", ""),
            (
                Quota::At(2_500),
                2,
                Level::Ok,
                "2.50 CPUs for 2 workers",
                "",
            ),
            (
                Quota::At(2_500),
                3,
                Level::Warn,
                "2.50 CPUs for 3 workers",
                "workers: 2",
            ),
            (
                Quota::At(500),
                1,
                Level::Warn,
                "0.50 CPUs for 1 worker",
                "CPUQuota=100%",
            ),
            (Quota::Unknown, 1, Level::Unknown, "cpu.max", ""),
        ] {
            let mut facts = good_host();
            facts.cpu_quota = quota;
            let findings = checks(&facts, &with_workers(workers));
            expect(&find(&findings, "CPU quota"), level, text, mend);
        }
    }

    #[test]
    fn memory_must_be_enough_for_the_pipes() {
        for (limit, level, text, mend) in [
            (Quota::None, Level::Ok, "none", ""),
            (
                Quota::At(1 << 30),
                Level::Ok,
                "1 GiB; global.pipe_memory is 256 MiB",
                "",
            ),
            (
                Quota::At(300 << 20),
                Level::Warn,
                "300 MiB",
                "MemoryMax=512M",
            ),
            (Quota::Unknown, Level::Unknown, "memory.max", ""),
        ] {
            let mut facts = good_host();
            facts.memory_max = limit;
            let findings = checks(&facts, &Wanted::default());
            expect(&find(&findings, "memory limit"), level, text, mend);
        }
    }

    #[test]
    fn the_time_must_be_sane_and_kept() {
        const NOW: u64 = 1_795_000_000;
        for (seconds, synchronised, level, text, mend) in [
            (NOW, Some(true), Level::Ok, "synchronised", ""),
            (NOW, Some(false), Level::Warn, "not synchronised", "set-ntp"),
            (NOW, None, Level::Unknown, "synchronised", ""),
            (3_600, Some(true), Level::Warn, "it is 1970", "set-ntp"),
            (
                5_000_000_000,
                Some(true),
                Level::Warn,
                "it is 2128",
                "set-ntp",
            ),
        ] {
            let mut facts = good_host();
            facts.clock.seconds = Some(seconds);
            facts.clock.synchronised = synchronised;
            let findings = checks(&facts, &Wanted::default());
            expect(&find(&findings, "time"), level, text, mend);
        }
    }

    #[test]
    fn a_slow_clock_is_a_warning() {
        for (source, sources, level, mend) in [
            ("tsc", vec!["tsc"], Level::Ok, ""),
            ("arch_sys_counter", vec![], Level::Ok, ""),
            ("hpet", vec!["hpet", "acpi_pm"], Level::Warn, "dmesg"),
            ("hpet", vec!["hpet", "tsc"], Level::Warn, "echo tsc >"),
        ] {
            let mut facts = good_host();
            facts.clock.source = Some(source.to_owned());
            facts.clock.sources = sources.into_iter().map(str::to_owned).collect();
            let findings = checks(&facts, &Wanted::default());
            expect(&find(&findings, "clock source"), level, source, mend);
        }
    }
}

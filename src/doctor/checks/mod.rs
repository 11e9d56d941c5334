//! Judges the facts: plain values in, findings out. Nothing is read or tried here.
//!
//! A failure is what keeps Ringway from starting. A warning is what it runs with, but with less than was asked for, or
//! with a surprise later. What the host does not show is not known: never fine, never a failure.

mod addresses;
mod kernel;
mod limits;
mod machine;
mod network;
mod vrrp;

use super::facts::Facts;
use super::finding::Finding;
use super::wanted::Wanted;
use crate::control::bounds::{Bounds, Demand};
use crate::sys::ports;

/// Unless the file says how many sessions there may be, fewer than this are worth a warning.
const SESSIONS_USUAL: u32 = 10_000;

/// All findings, in the order in which they are shown; without a configuration, the host only.
#[must_use]
pub fn checks(facts: &Facts, wanted: Option<&Wanted>) -> Vec<Finding> {
    let defaults = Wanted::default();
    let wanted = wanted.unwrap_or(&defaults);
    let mut findings = kernel::checks(facts);
    findings.extend(limits::checks(facts, wanted));
    findings.extend(network::checks(facts, wanted));
    findings.extend(addresses::checks(facts, wanted));
    findings.extend(vrrp::checks(facts, wanted));
    findings.extend(machine::checks(facts, wanted));
    findings
}

/// As many as the file says, or as there are CPUs.
fn workers(facts: &Facts, wanted: &Wanted) -> usize {
    let configured = wanted.workers.map(usize::from);
    configured.or(facts.cpus).unwrap_or(1).max(1)
}

fn demand(facts: &Facts, wanted: &Wanted) -> Demand {
    Demand {
        workers: workers(facts, wanted),
        addresses: wanted.listens.len() - wanted.datagram_addresses(),
        datagram_addresses: wanted.datagram_addresses(),
        backends: wanted.backends_in_all,
        pipe_memory: wanted.pipe_memory,
        max_sessions: wanted.max_sessions,
        max_flows: wanted.max_flows,
        flow_ports: flow_ports(facts, wanted),
    }
}

/// Source ports for UDP flows of all pools together, if the range is known.
fn flow_ports(facts: &Facts, wanted: &Wanted) -> Option<u32> {
    let each = ports::count(facts.sysctls.local_ports?, &facts.sysctls.reserved_ports);
    let sources = u32::try_from(wanted.flow_sources).unwrap_or(u32::MAX);
    Some(each.saturating_mul(sources))
}

/// What the limit of open files makes, if it is known.
fn bounds(facts: &Facts, wanted: &Wanted) -> Option<Bounds> {
    let files = facts.files?;
    Some(demand(facts, wanted).bounds(files.hard))
}

/// "1 session", "2 sessions".
fn count(number: usize, word: &str) -> String {
    let number = super::finding::grouped(number as u64);
    if number == "1" {
        format!("1 {word}")
    } else {
        format!("{number} {word}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{Clock, Limit, Privileges, Quota, Sysctls};
    use crate::doctor::finding::Level;
    use crate::ring::{Findings, ReceiveTier, Support};

    /// A host on which everything is fine.
    pub(super) fn good_host() -> Facts {
        Facts {
            host: Some("lb1".to_owned()),
            kernel: Some("6.18.4".to_owned()),
            user: "ringway".to_owned(),
            groups: vec![988],
            ring: Ok(Findings {
                tier: ReceiveTier::Limited,
                support: Support {
                    no_iowait: true,
                    gathers: true,
                },
            }),
            sysctls: Sysctls {
                io_uring_disabled: Some(0),
                io_uring_group: Some(-1),
                nr_open: Some(1 << 20),
                file_max: Some(u64::MAX / 2),
                files_open: Some(2_000),
                pipe_max_size: Some(1 << 20),
                pipe_user_pages_soft: Some(1 << 16),
                pipe_user_pages_hard: Some(0),
                somaxconn: Some(4096),
                rmem_max: Some(4 << 20),
                tcp_max_syn_backlog: Some(4096),
                tcp_syncookies: Some(1),
                tcp_migrate_req: Some(0),
                local_ports: Some((32_768, 60_999)),
                reserved_ports: Vec::new(),
                unprivileged_port_start: Some(1024),
            },
            files: Some(Limit {
                soft: 1024,
                hard: 524_288,
            }),
            memlock: Some(Limit {
                soft: 8 << 20,
                hard: 8 << 20,
            }),
            rtprio: Some(Limit { soft: 0, hard: 0 }),
            privileges: Privileges {
                net_bind_service: Some(false),
                net_admin: Some(false),
                sys_resource: Some(false),
                sys_admin: Some(false),
                ..Privileges::default()
            },
            page_size: 4096,
            cpus: Some(4),
            cpu_quota: Quota::None,
            memory_max: Quota::None,
            clock: Clock {
                seconds: Some(1_795_000_000),
                synchronised: Some(true),
                source: Some("tsc".to_owned()),
                sources: vec!["tsc".to_owned(), "hpet".to_owned()],
            },
            listens: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// The one finding of that name; it must keep what every finding promises.
    pub(super) fn find(findings: &[Finding], check: &str) -> Finding {
        let mut found = findings.iter().filter(|finding| finding.check == check);
        let one = found.next().unwrap_or_else(|| panic!("no {check}"));
        assert!(found.next().is_none(), "two of {check}");
        let trouble = matches!(one.level, Level::Warn | Level::Fail);
        assert_eq!(trouble, !one.mend.is_empty(), "{one:?}");
        assert!(!one.why.is_empty() && !one.finding.is_empty(), "{one:?}");
        one.clone()
    }

    /// Checks the level and a part of the text of a finding, and that of what mends it.
    pub(super) fn expect(finding: &Finding, level: Level, text: &str, mend: &str) {
        assert_eq!(finding.level, level, "{finding:?}");
        assert!(finding.finding.contains(text), "`{text}` in {finding:?}");
        assert!(
            finding.mend.join("\n").contains(mend),
            "`{mend}` mends {finding:?}"
        );
    }

    #[test]
    fn a_good_host_has_nothing_but_good_findings() {
        let findings = checks(&good_host(), None);
        assert!(findings.len() > 15, "{}", findings.len());
        for finding in &findings {
            assert_eq!(finding.level, Level::Ok, "{finding:?}");
            assert!(finding.mend.is_empty() && !finding.why.is_empty());
        }
    }

    #[test]
    fn what_the_host_does_not_show_is_neither_fine_nor_a_failure() {
        let facts = Facts {
            host: None,
            kernel: None,
            sysctls: Sysctls::default(),
            files: None,
            memlock: None,
            rtprio: None,
            privileges: Privileges::default(),
            cpus: None,
            cpu_quota: Quota::Unknown,
            memory_max: Quota::Unknown,
            clock: Clock::default(),
            ..good_host()
        };
        for finding in checks(&facts, None) {
            // Rings were tried, and without a file no port needs a privilege.
            let known = ["io_uring", "privileges"].contains(&finding.check);
            let expected = if known { Level::Ok } else { Level::Unknown };
            assert_eq!(finding.level, expected, "{finding:?}");
        }
    }
}

//! What virtual routers need of this host.

use crate::doctor::facts::{Facts, Limit};
use crate::doctor::finding::{Area, Check, Finding};
use crate::doctor::wanted::Wanted;
use crate::vrrp::thread::PRIORITY;

const NEEDED: Check = Check {
    area: Area::Addresses,
    name: "virtual routers",
    why: "Addresses are put on interfaces and advertisements are sent by raw sockets; neither is for everybody.",
};
const UNDISTURBED: Check = Check {
    area: Area::Addresses,
    name: "advertisements",
    why: "An advertisement that is three intervals late moves the addresses. Real-time priority and locked memory keep \
          a busy or swapping host from that.",
};

pub(super) fn checks(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    if wanted.virtual_routers == 0 {
        return Vec::new();
    }
    let has = &facts.privileges;
    let needed = [
        ("CAP_NET_ADMIN", has.net_admin),
        ("CAP_NET_RAW", has.net_raw),
    ];
    vec![judged(NEEDED, &facts.user, &needed), undisturbed(facts)]
}

/// Either of a capability and a limit gives it.
struct Means {
    what: &'static str,
    capability: (&'static str, Option<bool>),
    limit: (&'static str, Option<bool>),
    /// The limit in the unit.
    in_unit: String,
}

impl Means {
    /// What gives it, if that is known.
    fn given_by(&self) -> Option<&'static str> {
        let both = [self.capability, self.limit].into_iter();
        let mut given = both.filter(|(_, has)| *has == Some(true));
        given.next().map(|(name, _)| name)
    }

    /// It is known that nothing gives it.
    fn is_missing(&self) -> bool {
        (self.capability.1, self.limit.1) == (Some(false), Some(false))
    }
}

fn undisturbed(facts: &Facts) -> Finding {
    let at_least = |limit: Option<Limit>, wanted: u64| limit.map(|limit| limit.soft >= wanted);
    let priority = u64::from(PRIORITY);
    let all = [
        Means {
            what: "real-time priority",
            capability: ("CAP_SYS_NICE", facts.privileges.sys_nice),
            limit: ("RLIMIT_RTPRIO", at_least(facts.rtprio, priority)),
            in_unit: format!("LimitRTPRIO={priority}"),
        },
        Means {
            what: "locked memory",
            capability: ("CAP_IPC_LOCK", facts.privileges.ipc_lock),
            limit: ("RLIMIT_MEMLOCK", at_least(facts.memlock, u64::MAX)),
            in_unit: "LimitMEMLOCK=infinity".to_owned(),
        },
    ];
    let missing: Vec<&Means> = all.iter().filter(|one| one.is_missing()).collect();
    if missing.is_empty() {
        let given: Vec<String> = all
            .iter()
            .filter_map(|one| Some(format!("{} by {}", one.what, one.given_by()?)))
            .collect();
        return match given.len() == all.len() {
            true => UNDISTURBED.ok(format!("user {} has {}", facts.user, given.join(", "))),
            false => UNDISTURBED
                .unknown("the capabilities of this process, RLIMIT_RTPRIO, RLIMIT_MEMLOCK"),
        };
    }
    let told = missing.iter().map(|one| {
        format!(
            "no {} ({} is too low, and there is no {})",
            one.what, one.limit.0, one.capability.0
        )
    });
    let told: Vec<String> = told.collect();
    let finding = UNDISTURBED
        .warn(format!("user {} has {}", facts.user, told.join("; ")))
        .mend("# in the [Service] part of the unit");
    missing
        .iter()
        .fold(finding, |finding, one| finding.mend(one.in_unit.clone()))
}

fn judged(check: Check, user: &str, capabilities: &[(&str, Option<bool>)]) -> Finding {
    let names = |wanted: Option<bool>| -> Vec<&str> {
        let own = capabilities.iter().filter(|(_, has)| *has == wanted);
        own.map(|(name, _)| *name).collect()
    };
    let missing = names(Some(false));
    if !missing.is_empty() {
        let missing = missing.join(" ");
        return check
            .fail(format!("user {user} does not have {missing}"))
            .mend("# in the [Service] part of the unit")
            .mend(format!("AmbientCapabilities={missing}"));
    }
    if !names(None).is_empty() {
        return check.unknown("the capabilities of this process");
    }
    check.ok(format!("user {user} has {}", names(Some(true)).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect, good_host};
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn what_is_missing_is_named_and_what_the_host_does_not_show_is_not_known() {
        for (has, level, text) in [
            (
                [Some(true), Some(true)],
                Level::Ok,
                "has CAP_NET_ADMIN, CAP_NET_RAW",
            ),
            (
                [Some(true), Some(false)],
                Level::Fail,
                "does not have CAP_NET_RAW",
            ),
            ([Some(true), None], Level::Unknown, "capabilities"),
        ] {
            let capabilities = [("CAP_NET_ADMIN", has[0]), ("CAP_NET_RAW", has[1])];
            let finding = judged(NEEDED, "joe", &capabilities);
            assert_eq!(finding.level, level, "{has:?}");
            assert!(finding.finding.contains(text), "{}", finding.finding);
        }
    }
    #[test]
    fn a_capability_or_a_limit_is_enough_and_what_is_missing_is_mended_by_the_unit() {
        let limit = |soft| Some(Limit { soft, hard: soft });
        let facts = |nice, lock, rtprio, memlock| {
            let mut facts = good_host();
            (facts.privileges.sys_nice, facts.privileges.ipc_lock) = (nice, lock);
            (facts.rtprio, facts.memlock) = (rtprio, memlock);
            facts
        };
        let (yes, no) = (Some(true), Some(false));
        for (facts, level, text, mend) in [
            (
                facts(yes, yes, None, None),
                Level::Ok,
                "locked memory by CAP_IPC_LOCK",
                "",
            ),
            (
                facts(no, no, limit(10), limit(u64::MAX)),
                Level::Ok,
                "real-time priority by RLIMIT_RTPRIO, locked memory by RLIMIT_MEMLOCK",
                "",
            ),
            (
                facts(no, no, limit(9), limit(u64::MAX)),
                Level::Warn,
                "no real-time priority (RLIMIT_RTPRIO is too low, and there is no CAP_SYS_NICE)",
                "LimitRTPRIO=10",
            ),
            (
                facts(yes, no, limit(0), limit(8 << 20)),
                Level::Warn,
                "no locked memory",
                "LimitMEMLOCK=infinity",
            ),
            (
                facts(no, no, limit(0), None),
                Level::Warn,
                "no real-time",
                "LimitRTPRIO=10",
            ),
            (
                facts(None, yes, limit(0), limit(0)),
                Level::Unknown,
                "RLIMIT_RTPRIO",
                "",
            ),
        ] {
            expect(&undisturbed(&facts), level, text, mend);
        }
    }
}

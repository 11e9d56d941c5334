//! What virtual routers need of this host.

use crate::doctor::facts::Facts;
use crate::doctor::finding::{Area, Check, Finding};
use crate::doctor::wanted::Wanted;

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
    let undisturbed = [
        ("CAP_SYS_NICE", has.sys_nice),
        ("CAP_IPC_LOCK", has.ipc_lock),
    ];
    vec![
        judged(NEEDED, &facts.user, &needed, Check::fail),
        judged(UNDISTURBED, &facts.user, &undisturbed, Check::warn),
    ]
}

fn judged(
    check: Check,
    user: &str,
    capabilities: &[(&str, Option<bool>)],
    lacks: impl Fn(Check, String) -> Finding,
) -> Finding {
    let names = |wanted: Option<bool>| -> Vec<&str> {
        let own = capabilities.iter().filter(|(_, has)| *has == wanted);
        own.map(|(name, _)| *name).collect()
    };
    let missing = names(Some(false));
    if !missing.is_empty() {
        let missing = missing.join(" ");
        return lacks(check, format!("user {user} does not have {missing}"))
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
            let finding = judged(NEEDED, "joe", &capabilities, Check::fail);
            assert_eq!(finding.level, level, "{has:?}");
            assert!(finding.finding.contains(text), "{}", finding.finding);
        }
    }
}

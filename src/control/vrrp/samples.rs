//! What there is to measure about virtual routers.

use super::{Vrrp, words};
use crate::metrics::exposition::{Label, Samples};
use crate::metrics::list::Metric;
use crate::vrrp::machine::{Readiness, Role};
use crate::vrrp::packet::Kind;
use crate::vrrp::{Description, settings::Settings};

const ROLES: [&str; 3] = ["initialize", "backup", "active"];

impl Vrrp {
    /// How each virtual router was when it was last asked.
    pub(in crate::control) fn sample(&self, out: &mut Samples) {
        for (settings, description) in self.settings.iter().zip(&self.described) {
            sample(settings, description, out);
        }
    }
}

fn sample(settings: &Settings, description: &Description, out: &mut Samples) {
    let name = || Label::Name(settings.name.clone());
    let machine = &description.machine;
    let role = machine.role();
    out.add_states(Metric::RouterState, &[name()], &ROLES, words::role(role));
    let is_well = matches!(description.readiness, Readiness::Well);
    let is_ready =
        role == Role::Active || (role == Role::Backup && is_well && !machine.is_held_back());
    out.add(Metric::RouterReady, [name()], u64::from(is_ready));
    let priority = u64::from(machine.priority(description.at));
    out.add(Metric::RouterPriority, [name()], priority);
    let alarms = machine.alarms(description.at).count();
    out.add(Metric::RouterAlarms, [name()], alarms as u64);
    let counters = machine.counters();
    for (metric, count) in [
        (Metric::RouterTerms, counters.terms),
        (Metric::RouterSent, counters.sent),
        (Metric::RouterSendFailures, description.send_failures),
        (Metric::RouterAccepted, counters.accepted),
        (Metric::RouterLoopsLate, counters.loops_late),
        (Metric::RouterLeasesLate, counters.leases_late),
    ] {
        out.add(metric, [name()], count);
    }
    let unknown = [
        ("unknown_vrid", description.unknown_vrid),
        ("malformed", description.malformed),
    ];
    let rejected = Kind::ALL
        .iter()
        .map(|kind| (kind.as_str(), counters.rejected[kind.index()]));
    for (reason, count) in rejected.chain(unknown) {
        out.add(Metric::RouterRejected, [name(), reason.into()], count);
    }
}

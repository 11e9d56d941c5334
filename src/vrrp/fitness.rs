//! How well this machine could serve the addresses of one virtual router, from everything that has a say in it. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::machine::Readiness;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Fitness {
    /// What control says: pools, scripts, listeners.
    told: Readiness,
    interfaces_down: BTreeSet<Arc<str>>,
    /// Virtual routers, this one or of its group, whose addresses cannot be set.
    unheld: BTreeSet<Arc<str>>,
    /// A member of its group that has no link.
    group: Option<Arc<str>>,
    /// Somebody has done nothing for too long.
    stalled: Option<Arc<str>>,
}

impl Default for Fitness {
    fn default() -> Fitness {
        Fitness {
            told: Readiness::Well,
            interfaces_down: BTreeSet::new(),
            unheld: BTreeSet::new(),
            group: None,
            stalled: None,
        }
    }
}

impl Fitness {
    /// Control says so.
    pub fn told(&mut self, readiness: Readiness) {
        self.told = readiness;
    }

    /// A tracked interface is up or down.
    pub fn interface(&mut self, name: &Arc<str>, is_up: bool) {
        if is_up {
            self.interfaces_down.remove(name);
        } else {
            self.interfaces_down.insert(Arc::clone(name));
        }
    }

    /// Only these interfaces are tracked from now on.
    pub fn tracks(&mut self, is_tracked: impl Fn(&Arc<str>) -> bool) {
        self.interfaces_down.retain(is_tracked);
    }

    /// The addresses of this virtual router, or of one of its group, cannot be set, or may be again.
    pub fn unheld(&mut self, name: &Arc<str>, is_unheld: bool) {
        if is_unheld {
            self.unheld.insert(Arc::clone(name));
        } else {
            self.unheld.remove(name);
        }
    }

    /// Another member of the group has no link, or none is without.
    pub fn group(&mut self, without_link: Option<Arc<str>>) {
        self.group = without_link;
    }

    /// Somebody has done nothing for too long, or everybody is at work.
    pub fn stalled(&mut self, who: Option<Arc<str>>) {
        self.stalled = who;
    }

    /// The worst of it: a hard fault before a soft one.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        if let Some(who) = &self.stalled {
            return Readiness::HardFault(Arc::clone(who));
        }
        if let Readiness::HardFault(_) = self.told {
            return self.told.clone();
        }
        if let Some(name) = &self.group {
            let why = format!("{name}, of the same group, has no link");
            return Readiness::HardFault(Arc::from(why));
        }
        let down = listed("no link on ", &self.interfaces_down);
        let unheld = listed("the kernel does not take the addresses of ", &self.unheld);
        let told = match &self.told {
            Readiness::SoftFault(why) => Some(why.to_string()),
            Readiness::Well | Readiness::HardFault(_) => None,
        };
        let all: Vec<String> = down.into_iter().chain(unheld).chain(told).collect();
        if all.is_empty() {
            return Readiness::Well;
        }
        Readiness::SoftFault(Arc::from(all.join("; ")))
    }
}

fn listed(what: &str, names: &BTreeSet<Arc<str>>) -> Option<String> {
    let all: Vec<&str> = names.iter().map(|name| &**name).collect();
    (!all.is_empty()).then(|| format!("{what}{}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts_and_nothing_hides_behind_it() {
        let name = |text: &str| -> Arc<str> { Arc::from(text) };
        let mut fitness = Fitness::default();
        assert_eq!(fitness.readiness(), Readiness::Well);
        fitness.interface(&name("eth1"), false);
        fitness.told(Readiness::SoftFault(name("pool pg")));
        assert_eq!(
            fitness.readiness(),
            Readiness::SoftFault(name("no link on eth1; pool pg"))
        );
        fitness.unheld(&name("vip"), true);
        let text = "no link on eth1; the kernel does not take the addresses of vip; pool pg";
        assert_eq!(fitness.readiness(), Readiness::SoftFault(name(text)));
        fitness.unheld(&name("vip"), false);
        fitness.group(Some(name("vip6")));
        assert!(matches!(fitness.readiness(), Readiness::HardFault(why) if why.contains("vip6")));
        fitness.stalled(Some(name("control")));
        assert_eq!(fitness.readiness(), Readiness::HardFault(name("control")));
        fitness.stalled(None);
        fitness.group(None);
        fitness.interface(&name("eth1"), true);
        fitness.told(Readiness::Well);
        assert_eq!(fitness.readiness(), Readiness::Well);
    }
}

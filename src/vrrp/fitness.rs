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
        if self.interfaces_down.is_empty() {
            return self.told.clone();
        }
        let down: Vec<&str> = self.interfaces_down.iter().map(|name| &**name).collect();
        let why = format!("no link on {}", down.join(", "));
        match &self.told {
            Readiness::SoftFault(also) => Readiness::SoftFault(Arc::from(format!("{why}; {also}"))),
            Readiness::Well | Readiness::HardFault(_) => Readiness::SoftFault(Arc::from(why)),
        }
    }
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

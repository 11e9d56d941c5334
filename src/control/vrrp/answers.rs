//! What the admin API is answered about virtual routers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{MOVE_MARGIN, PendingMove, Vrrp, words};
use crate::admin::{Move, Refusal};
use crate::time::Time;
use crate::vrrp::machine::{HandOver, Heard, Transition};
use crate::vrrp::packet::{ChecksumForm, Kind};
use crate::vrrp::{Command, Description, RouterId};

impl Vrrp {
    /// Begins what an operator wants, and answers when it is over.
    pub(super) fn move_addresses(
        &mut self,
        name: Option<&str>,
        wanted: Move,
        reply: oneshot::Sender<Result<Value, Refusal>>,
    ) {
        let ids = match name.map(|name| (name, self.id_of(name))) {
            None => self.all().collect(),
            Some((_, Some(id))) => self.group_of(id),
            Some((name, None)) => {
                let names: Vec<&str> = self.settings.iter().map(|one| &*one.name).collect();
                let text = format!(
                    "there is no virtual router `{name}`; there are {}",
                    names.join(", ")
                );
                // Whoever asked may be gone by now.
                let _ = reply.send(Err(Refusal::not_found(text)));
                return;
            }
        };
        let outcomes = ids.iter().map(|id| (*id, None)).collect();
        let all = ids.iter().map(|id| self.settings[id.index()].move_max());
        let until = Instant::now() + all.max().unwrap_or_default() + MOVE_MARGIN;
        for id in ids {
            match wanted {
                Move::Failover => {
                    self.handle.send(Command::Failover(id));
                }
                Move::Hold => {
                    self.handle.send(Command::Failover(id));
                    self.handle.send(Command::Hold(id));
                }
                Move::Release => {
                    self.handle.send(Command::Release(id));
                }
            }
        }
        match wanted {
            Move::Failover | Move::Hold => self.moves.push(PendingMove {
                until,
                outcomes,
                reply,
            }),
            Move::Release => {
                let released = outcomes.iter().map(|(id, _): &(RouterId, Option<HandOver>)| {
                    json!({"name": self.name(*id), "outcome": "released"})
                });
                let _ = reply.send(Ok(released.collect()));
            }
        }
    }

    pub(super) fn handed_over(&mut self, router: RouterId, outcome: HandOver) {
        for pending in &mut self.moves {
            let own = pending.outcomes.iter_mut().find(|(id, _)| *id == router);
            if let Some((_, missing)) = own {
                missing.get_or_insert(outcome);
            }
        }
        self.answer_moves(|pending| {
            let mut outcomes = pending.outcomes.iter();
            outcomes.all(|(_, outcome)| outcome.is_some())
        });
    }

    /// Nobody waits for ever, not even where the thread of the virtual routers stands still.
    pub(super) fn answer_late_moves(&mut self) {
        let now = Instant::now();
        self.answer_moves(|pending| pending.until <= now);
    }

    fn answer_moves(&mut self, is_over: impl Fn(&PendingMove) -> bool) {
        for pending in std::mem::take(&mut self.moves) {
            if !is_over(&pending) {
                self.moves.push(pending);
                continue;
            }
            let all = pending.outcomes.iter();
            let answer = all.map(|(id, outcome)| {
                let (word, to) = outcome.map_or(("under_way", None), words::hand_over);
                json!({"name": self.name(*id), "outcome": word, "to": to})
            });
            let _ = pending.reply.send(Ok(answer.collect()));
        }
    }

    /// How each virtual router was when it was last asked.
    pub(in crate::control) fn status(&self) -> Value {
        let all = self.settings.iter().zip(&self.described);
        let each = all.map(|(settings, description)| {
            let machine = &description.machine;
            let addresses = settings.addresses.iter().map(ToString::to_string);
            let history: Vec<Value> = machine.history().map(|one| self.transition(one)).collect();
            let last = history.last();
            json!({
                "name": &*settings.name,
                "interface": &*settings.interface,
                "vrid": settings.vrid.number(),
                "addresses": addresses.collect::<Vec<_>>(),
                "group": settings.group.as_deref(),
                "state": words::role(machine.role()),
                "since": last.map(|last| last["at"].clone()),
                "why": last.map(|last| last["why"].clone()),
                "waits_for": machine.waits_for(description.at).as_ref().map(words::wait),
                "priority": machine.priority(description.at),
                "priority_configured": settings.priority,
                "version": settings.version.number(),
                "interval_ms": millis(machine.router().interval()),
                "move_max_ms": millis(settings.move_max() + MOVE_MARGIN),
                "fault": words::fault(&description.readiness),
                "held_back": machine.is_held_back(),
                "active_router": machine.active_router().map(|address| address.to_string()),
                "heard": machine.last_heard().map(|heard| self.heard(heard)),
                "alarms": self.alarms(description),
                "history": history,
                "counters": counters(description),
            })
        });
        each.collect()
    }

    fn transition(&self, transition: &Transition) -> Value {
        json!({
            "at": self.seconds(transition.at),
            "from": words::role(transition.from),
            "to": words::role(transition.to),
            "why": words::cause(&transition.cause),
        })
    }

    fn heard(&self, heard: &Heard) -> Value {
        let advertisement = &heard.advertisement;
        let addresses = advertisement.addresses().map(|address| address.to_string());
        json!({
            "at": self.seconds(heard.at),
            "from": heard.from.to_string(),
            "priority": advertisement.priority,
            "interval_ms": millis(advertisement.interval()),
            "addresses": addresses.collect::<Vec<_>>(),
        })
    }

    fn alarms(&self, description: &Description) -> Value {
        let alarms = description.machine.alarms(description.at);
        let each = alarms
            .map(|(alarm, since)| json!({"since": self.seconds(since), "what": alarm.to_string()}));
        each.collect()
    }

    /// Seconds since 1970.
    fn seconds(&self, at: Time) -> u64 {
        let time: SystemTime = self.started + (at - Time::ZERO);
        let since = time.duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn counters(description: &Description) -> Value {
    let counters = description.machine.counters();
    let rejected = Kind::ALL.iter().map(|kind| {
        let count = counters.rejected[kind.index()];
        (kind.as_str().to_owned(), json!(count))
    });
    let checksums = ChecksumForm::ALL.map(|form| counters.accepted_by_checksum[form.index()]);
    json!({
        "sent": counters.sent,
        "sent_leaving": counters.sent_leaving,
        "send_failures": description.send_failures,
        "accepted": counters.accepted,
        "accepted_leaving": counters.accepted_leaving,
        "accepted_checksum_pseudo_header": checksums[0],
        "accepted_checksum_rfc9568": checksums[1],
        "accepted_checksum_group": checksums[2],
        "terms": counters.terms,
        "loops_late": counters.loops_late,
        "leases_late": counters.leases_late,
        "unknown_vrid": description.unknown_vrid,
        "malformed": description.malformed,
        "rejected": rejected.collect::<Map<_, _>>(),
    })
}

//! What people should look at, and how often they are told: each kind at most once per pause, however often it is seen.

use std::mem::discriminant;
use std::time::Duration;

use super::super::packet::{Kind, Rejection};
use super::Alarm;
use crate::time::Time;

/// An alarm is over when it was not seen for so long.
const FRESH: Duration = Duration::from_secs(60);
const ALARM_PAUSE: Duration = Duration::from_secs(1);
const REJECTION_PAUSE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct Seen {
    alarm: Alarm,
    first: Time,
    last: Time,
    /// When people were told last, and whether of what it says now.
    told: Time,
    is_told: bool,
}

/// The alarms of one virtual router, one per kind.
#[derive(Clone, Debug)]
pub(super) struct Alarms {
    seen: Vec<Seen>,
    rejections_told: [Option<Time>; Kind::ALL.len()],
}

impl Alarms {
    pub(super) fn new() -> Alarms {
        Alarms {
            seen: Vec::new(),
            rejections_told: [None; Kind::ALL.len()],
        }
    }

    /// It is (still) so; whether people are to be told.
    pub(super) fn raise(&mut self, alarm: &Alarm, now: Time) -> bool {
        let kind = discriminant(alarm);
        let Some(seen) = self
            .seen
            .iter_mut()
            .find(|seen| discriminant(&seen.alarm) == kind)
        else {
            self.seen.push(Seen {
                alarm: alarm.clone(),
                first: now,
                last: now,
                told: now,
                is_told: true,
            });
            return true;
        };
        let is_fresh = now - seen.last <= FRESH;
        if !is_fresh {
            seen.first = now;
        }
        let is_same = seen.alarm == *alarm;
        if !is_same {
            seen.alarm = alarm.clone();
        }
        seen.is_told &= is_fresh && is_same;
        seen.last = now;
        let tells = !seen.is_told && now - seen.told >= ALARM_PAUSE;
        if tells {
            (seen.is_told, seen.told) = (true, now);
        }
        tells
    }

    /// It is no longer so, as far as `ended` says.
    pub(super) fn clear(&mut self, ended: impl Fn(&Alarm) -> bool) {
        self.seen.retain(|seen| !ended(&seen.alarm));
    }

    /// What was seen of late, and since when.
    pub(super) fn fresh(&self, now: Time) -> impl Iterator<Item = (&Alarm, Time)> {
        let fresh = self
            .seen
            .iter()
            .filter(move |seen| now - seen.last <= FRESH);
        fresh.map(|seen| (&seen.alarm, seen.first))
    }

    /// Whether people are to be told of this rejection.
    pub(super) fn tells(&mut self, rejection: &Rejection, now: Time) -> bool {
        let told = &mut self.rejections_told[rejection.kind().index()];
        let is_told = told.is_none_or(|last| now - last >= REJECTION_PAUSE);
        if is_told {
            *told = Some(now);
        }
        is_told
    }
}

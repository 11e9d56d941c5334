//! Which listeners have a backend that new sessions can go to, and why one has none. Pure: what follows for the
//! listening sockets is [`super::listeners`]' part.

use super::snapshot::{Backend, Listener, OperatorState, Snapshot, Standing, WhenEmpty};
use crate::ids::PoolId;

/// Whether clients are to be let in, by listener: not if no backend is usable and the kernel is to refuse them then.
/// Backends that have all the sessions they may have are usable.
pub(super) fn open(snapshot: &Snapshot) -> Vec<bool> {
    let usable = has_usable(snapshot);
    let both = snapshot.listeners.iter().zip(usable);
    both.map(
        |(listener, is_usable)| match (listener.standing, listener.when_empty) {
            (Standing::Leaving | Standing::Free, _) => false,
            (Standing::Configured, WhenEmpty::Reset | WhenEmpty::Drop) => true,
            (Standing::Configured, WhenEmpty::Refuse) => is_usable,
        },
    )
    .collect()
}

/// Whether a backend is usable, by listener.
pub(super) fn has_usable(snapshot: &Snapshot) -> Vec<bool> {
    let is_usable = |pool: &super::snapshot::Pool| {
        let mut backends = pool.backends.iter();
        backends.any(|id| snapshot.backends[id.index()].takes_sessions())
    };
    let usable: Vec<bool> = snapshot.pools.iter().map(is_usable).collect();
    let has_usable = |listener: &Listener| {
        listener.standing == Standing::Configured
            && pools(listener).any(|pool| usable[pool.index()])
    };
    snapshot.listeners.iter().map(has_usable).collect()
}

/// Why no backend of the listener is usable, in words.
pub(super) fn why_none(snapshot: &Snapshot, listener: &Listener) -> String {
    let backends = pools(listener)
        .flat_map(|pool| &snapshot.pools[pool.index()].backends)
        .map(|id| &snapshot.backends[id.index()]);
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for word in backends.map(why_not) {
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    format!("no backend is usable: {}", counts.join(", "))
}

/// A pool with weight 0 gets no sessions, whatever its backends are like.
fn pools(listener: &Listener) -> impl Iterator<Item = PoolId> {
    let takes_part = |(pool, weight): &(PoolId, u32)| (*weight > 0).then_some(*pool);
    listener.pools.iter().filter_map(takes_part)
}

fn why_not(backend: &Backend) -> &'static str {
    match backend.state {
        OperatorState::Maintenance => "in maintenance",
        OperatorState::Drain => "draining",
        OperatorState::Ready if backend.weight == 0 => "with weight 0",
        OperatorState::Ready if backend.address.is_none() => "without an address",
        OperatorState::Ready if backend.is_up == Some(false) => "down",
        OperatorState::Ready if !backend.takes_sessions() => "not probed yet",
        OperatorState::Ready => "usable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// Two pools with two backends each; a listener for the first, one for both, one for the second that resets.
    fn snapshot() -> Snapshot {
        let text = "listeners:\n\
            - {name: one, bind: \"*:1\", pool: a}\n\
            - {name: both, bind: \"*:2\", split: [{pool: a, weight: 1}, {pool: b, weight: 9}, {pool: c, weight: 0}]}\n\
            - {name: resets, bind: \"*:3\", pool: b, when_empty: reset}\n\
            pools:\n  a: [\"127.0.0.1:11\", \"127.0.0.1:12\"]\n  b: [\"127.0.0.1:21\"]\n  c: [\"127.0.0.1:31\"]\n";
        let (config, _) = config::parse(text, "test", "here")
            .into_result()
            .expect("it is right");
        let mut snapshot = config.snapshot;
        snapshot
            .backends
            .iter_mut()
            .for_each(|backend| backend.is_up = Some(true));
        snapshot
    }

    /// What it is called, and what makes a backend so.
    type Unusable = (&'static str, fn(&mut Backend));

    const UNUSABLE: [Unusable; 6] = [
        ("1 down", |backend| backend.is_up = Some(false)),
        ("1 draining", |backend| backend.state = OperatorState::Drain),
        ("1 in maintenance", |backend| {
            backend.state = OperatorState::Maintenance;
        }),
        ("1 with weight 0", |backend| backend.weight = 0),
        ("1 without an address", |backend| backend.address = None),
        ("1 not probed yet", |backend| backend.is_up = None),
    ];

    #[test]
    fn whatever_makes_the_last_backend_unusable_shuts_the_listener() {
        for (first, make_first) in UNUSABLE {
            for (second, make_second) in UNUSABLE {
                let mut snapshot = snapshot();
                make_first(&mut snapshot.backends[0]);
                assert_eq!(open(&snapshot), [true, true, true], "{first}");
                make_second(&mut snapshot.backends[1]);
                assert_eq!(open(&snapshot), [false, true, true], "{first}, {second}");
                if first != second {
                    assert_eq!(
                        why_none(&snapshot, &snapshot.listeners[0]),
                        format!("no backend is usable: {first}, {second}")
                    );
                }
            }
        }
    }

    #[test]
    fn listener_with_a_split_is_shut_when_no_pool_that_takes_part_has_a_usable_backend() {
        let mut snapshot = snapshot();
        snapshot.backends[2].is_up = Some(false);
        assert_eq!(open(&snapshot), [true, true, true]);
        snapshot.backends[0].is_up = Some(false);
        snapshot.backends[1].is_up = Some(false);
        assert_eq!(
            open(&snapshot),
            [false, false, true],
            "the third pool has weight 0"
        );
        assert_eq!(
            why_none(&snapshot, &snapshot.listeners[1]),
            "no backend is usable: 3 down"
        );
    }

    #[test]
    fn full_unprobed_and_backup_backends_are_usable() {
        let mut snapshot = snapshot();
        snapshot.backends[0].is_up = Some(false);
        snapshot.backends[1].max_sessions = Some(0);
        snapshot.backends[1].backup = true;
        snapshot.backends[1].is_probed = false;
        snapshot.backends[1].is_up = None;
        assert_eq!(open(&snapshot), [true, true, true]);
    }
}

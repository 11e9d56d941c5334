//! Pairs of configurations at random: what is configured is what the target says, and ids that somebody uses go on
//! meaning the same.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

/// A backend: name, port, weight.
type BackendWords = (u8, u16, u8);

/// A configuration in few words: pools with backends, and listeners (port, pool).
#[derive(Clone, Debug)]
struct Words {
    pools: Vec<(u8, Vec<BackendWords>)>,
    listeners: Vec<(u8, u16, usize)>,
    balance: bool,
}

fn words() -> impl Strategy<Value = Words> {
    let backend = (0..4_u8, 1..4_u16, 1..4_u8);
    let backends = prop::collection::vec(backend, 1..4);
    let pools = prop::collection::btree_map(0..4_u8, backends, 1..4);
    let listeners = prop::collection::btree_map(0..4_u8, (1..9_u16, 0..4_usize), 1..4);
    (pools, listeners, any::<bool>()).prop_map(|(pools, listeners, balance)| {
        let unique = |backends: Vec<BackendWords>| {
            let mut seen = BTreeSet::new();
            let backends = backends.into_iter();
            backends.filter(|one| seen.insert(one.0)).collect()
        };
        let mut ports = BTreeSet::new();
        let listeners = listeners.into_iter();
        Words {
            pools: pools
                .into_iter()
                .map(|(name, of)| (name, unique(of)))
                .collect(),
            listeners: listeners
                .filter(|(_, (port, _))| ports.insert(*port))
                .map(|(name, (port, pool))| (name, port, pool))
                .collect(),
            balance,
        }
    })
}

fn snapshot(words: &Words) -> (Snapshot, Vec<Notes>) {
    let mut text = "listeners:\n".to_owned();
    for (name, port, pool) in &words.listeners {
        let (pool, _) = &words.pools[pool % words.pools.len()];
        text += &format!("- {{name: l{name}, bind: \"*:{port}\", pool: p{pool}}}\n");
    }
    text += "pools:\n";
    let balance = if words.balance { "hash" } else { "first" };
    for (name, backends) in &words.pools {
        text += &format!("  p{name}:\n    balance: {balance}\n    backends:\n");
        for (name, port, weight) in backends {
            text += &format!(
                "    - {{name: b{name}, address: \"127.0.0.1:{}\", weight: {weight}}}\n",
                1000 + port
            );
        }
    }
    let loaded = crate::config::parse(&text, "test", "here");
    let (config, _) = loaded.into_result().expect("it is right");
    let notes = Notes::of(&config.snapshot, UNIX_EPOCH);
    (config.snapshot, notes)
}

/// Everything somebody may use: by chance, from the lowest bits of a number.
struct Some64(u64);

impl Users for Some64 {
    fn of_backend(&self, id: BackendId) -> bool {
        self.0 >> (id.index() % 24) & 1 == 1
    }

    fn of_listener(&self, id: ListenerId) -> bool {
        self.0 >> (24 + id.index() % 16) & 1 == 1
    }

    fn of_pool(&self, id: PoolId) -> bool {
        self.0 >> (40 + id.index() % 16) & 1 == 1
    }
}

const NOBODY: Some64 = Some64(0);
const EVERYBODY: Some64 = Some64(u64::MAX);

/// What is configured, in words.
fn shape(snapshot: &Snapshot) -> Vec<String> {
    let pools = snapshot.pools_in_order().map(|(_, pool)| {
        let backends: Vec<String> = pool
            .backends
            .iter()
            .map(|id| {
                let backend = &snapshot.backends[id.index()];
                assert_eq!(backend.standing, Standing::Configured);
                format!("{} {:?} {}", backend.name, backend.address, backend.weight)
            })
            .collect();
        format!("{} {} {backends:?}", pool.name, pool.balance)
    });
    let listeners = snapshot.listeners_in_order().map(|(_, listener)| {
        let pools = listener.pools.iter();
        let pools: Vec<&str> = pools
            .map(|(pool, _)| &*snapshot.pools[pool.index()].name)
            .collect();
        format!("{} {:?} {pools:?}", listener.name, listener.addresses)
    });
    pools.chain(listeners).collect()
}

/// What every id means to who uses it.
fn meanings(snapshot: &Snapshot, users: &impl Users) -> Vec<(String, usize, String)> {
    let mut all = Vec::new();
    for (index, listener) in snapshot.listeners.iter().enumerate() {
        let is_used = users.of_listener(listener_id(index));
        if listener.standing != Standing::Free && is_used {
            all.push(("listener".to_owned(), index, listener.name.to_string()));
        }
    }
    for (index, backend) in snapshot.backends.iter().enumerate() {
        if backend.standing != Standing::Free && users.of_backend(backend_id(index)) {
            let pool = &snapshot.pools[backend.pool.index()].name;
            let what = format!("{pool}/{} {:?}", backend.name, backend.address);
            all.push(("backend".to_owned(), index, what));
        }
    }
    for (index, pool) in snapshot.pools.iter().enumerate() {
        if pool.standing != Standing::Free && users.of_pool(pool_id(index)) {
            all.push(("pool".to_owned(), index, pool.name.to_string()));
        }
    }
    all
}

fn assert_sound(draft: &Draft, target: &Snapshot) {
    let now = &draft.snapshot;
    assert_eq!(shape(now), shape(target));
    assert_eq!(draft.notes.len(), now.backends.len());
    let mut seen = BTreeSet::new();
    for (pool_id, pool) in now.pools_in_order() {
        assert_eq!(pool.standing, Standing::Configured);
        for (place, id) in pool.backends.iter().enumerate() {
            let backend = &now.backends[id.index()];
            assert!(seen.insert(*id), "{id:?} twice");
            assert_eq!(backend.place as usize, place);
            assert_eq!(backend.pool, pool_id);
        }
    }
    let configured = |standing: Standing| standing == Standing::Configured;
    let count = now.backends.iter().filter(|one| configured(one.standing));
    assert_eq!(count.count(), seen.len());
    let count = now.pools.iter().filter(|one| configured(one.standing));
    assert_eq!(count.count(), now.pool_order.len());
    let count = now.listeners.iter().filter(|one| configured(one.standing));
    assert_eq!(count.count(), now.listener_order.len());
    for listener in &now.listeners {
        let leads_to = listener.pools.iter();
        let mut pools = leads_to.map(|(pool, _)| now.pools[pool.index()].standing);
        if configured(listener.standing) {
            assert!(pools.all(configured), "{listener:?}");
        } else if listener.standing == Standing::Leaving {
            assert!(pools.all(|pool| pool != Standing::Free), "{listener:?}");
        }
    }
}

proptest! {
    #[test]
    fn after_any_number_of_changes_the_configuration_is_the_last_one_and_ids_in_use_mean_the_same(
        all in prop::collection::vec((words(), any::<u64>()), 1..8)
    ) {
        let (mut now, mut notes) = (Snapshot::default(), Vec::new());
        let mut used = NOBODY;
        for (words, more) in all {
            let (target, target_notes) = snapshot(&words);
            let meant = meanings(&now, &used);
            let draft = reconcile(&now, &notes, &target, &target_notes, &used);
            assert_sound(&draft, &target);
            for one in meant {
                let still = meanings(&draft.snapshot, &EVERYBODY);
                prop_assert!(still.contains(&one), "{one:?} is gone, {still:?}");
            }
            (now, notes) = (draft.snapshot, draft.notes);
            used = Some64(more);
        }
        let most = now.backends.len();
        prop_assert!(most <= 8 * 12, "{most}");
    }

    #[test]
    fn there_and_back_again_everything_has_its_id_and_its_plan(one in words(), other in words()) {
        let (first, first_notes) = snapshot(&one);
        let (target, target_notes) = snapshot(&other);
        let there = reconcile(&first, &first_notes, &target, &target_notes, &EVERYBODY);
        assert_sound(&there, &target);
        let back = reconcile(&there.snapshot, &there.notes, &first, &first_notes, &EVERYBODY);
        assert_sound(&back, &first);
        prop_assert_eq!(&back.snapshot.listener_order, &first.listener_order);
        prop_assert_eq!(&back.snapshot.pool_order, &first.pool_order);
        for (pool, (id, was)) in first.pools.iter().zip(back.snapshot.pools_in_order()) {
            prop_assert_eq!(&pool.backends, &was.backends);
            prop_assert_eq!(&pool.name, &back.snapshot.pools[id.index()].name);
        }
        // The same once more changes nothing at all.
        let again = reconcile(&back.snapshot, &back.notes, &first, &first_notes, &NOBODY);
        prop_assert!(again.arrived.is_empty() && again.left.is_empty() && again.changed.is_empty());
        for (was, is) in back.snapshot.pools_in_order().zip(again.snapshot.pools_in_order()) {
            prop_assert!(Arc::ptr_eq(&was.1.plan, &is.1.plan));
        }
    }

    #[test]
    fn places_that_nobody_uses_are_used_again(all in prop::collection::vec(words(), 20)) {
        let (mut now, mut notes) = (Snapshot::default(), Vec::new());
        for words in &all {
            let (target, target_notes) = snapshot(words);
            let draft = reconcile(&now, &notes, &target, &target_notes, &NOBODY);
            (now, notes) = (draft.snapshot, draft.notes);
        }
        // Twice the most that there is at a time: what leaves keeps its place until the next change.
        prop_assert!(now.backends.len() <= 24, "{}", now.backends.len());
        prop_assert!(now.pools.len() <= 8, "{}", now.pools.len());
        prop_assert!(now.listeners.len() <= 8, "{}", now.listeners.len());
    }
}

#[test]
fn what_the_operator_changed_stays_and_the_file_wins_where_it_changes_the_same_key() {
    let words = |weight| Words {
        pools: vec![(0, vec![(0, 1, weight), (1, 2, 1)])],
        listeners: vec![(0, 1, 0)],
        balance: false,
    };
    let (mut now, notes) = snapshot(&words(1));
    now.backends[0].weight = 9;
    now.backends[0].state = OperatorState::Drain;
    now.backends[0].is_up = Some(true);
    let (target, target_notes) = snapshot(&words(1));
    let draft = reconcile(&now, &notes, &target, &target_notes, &EVERYBODY);
    let backend = &draft.snapshot.backends[0];
    assert_eq!((backend.weight, backend.state), (9, OperatorState::Drain));
    assert_eq!(backend.is_up, Some(true));
    assert!(draft.changed.is_empty());
    let (target, target_notes) = snapshot(&words(2));
    let draft = reconcile(&now, &notes, &target, &target_notes, &EVERYBODY);
    let backend = &draft.snapshot.backends[0];
    assert_eq!((backend.weight, backend.state), (2, OperatorState::Drain));
}

#[test]
fn another_address_under_the_same_name_is_another_backend() {
    let words = |port| Words {
        pools: vec![(0, vec![(0, port, 1)])],
        listeners: vec![(0, 1, 0)],
        balance: false,
    };
    let (mut now, notes) = snapshot(&words(1));
    now.backends[0].is_up = Some(true);
    let (target, target_notes) = snapshot(&words(2));
    let draft = reconcile(&now, &notes, &target, &target_notes, &EVERYBODY);
    assert_eq!(draft.left, [BackendId(0)]);
    assert_eq!(draft.arrived, [BackendId(1)]);
    let new = &draft.snapshot.backends[1];
    assert_eq!(new.is_up, Some(true), "the listener is not shut for it");
    now.backends[0].is_up = Some(false);
    let draft = reconcile(&now, &notes, &target, &target_notes, &EVERYBODY);
    let new = &draft.snapshot.backends[1];
    assert_eq!(new.is_up, None, "it was shut before");
}

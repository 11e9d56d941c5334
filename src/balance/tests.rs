//! What holds for every algorithm.

use proptest::prelude::*;

use super::*;

/// A pool as a test wants it to be.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) usable: Vec<bool>,
    pub(super) active: Vec<u32>,
}

impl Pool {
    /// Everybody usable and idle.
    pub(super) fn new(places: usize) -> Pool {
        Pool {
            usable: vec![true; places],
            active: vec![0; places],
        }
    }
}

impl View for Pool {
    fn is_usable(&self, place: usize) -> bool {
        self.usable[place]
    }

    fn active(&self, place: usize) -> u32 {
        self.active[place]
    }
}

/// What a pool's plan is made of.
#[derive(Clone, Debug)]
struct Case {
    weights: Vec<u16>,
    backups: Vec<bool>,
    pool: Pool,
    seed: u64,
}

impl Case {
    fn count(&self) -> usize {
        self.weights.len()
    }

    fn picker(&self, algorithm: Algorithm) -> Picker {
        let names: Vec<_> = (0..self.count()).map(|place| place.to_string()).collect();
        let member = |place: usize| Member {
            name: &names[place],
            weight: self.weights[place],
            backup: self.backups[place],
        };
        let members: Vec<_> = (0..self.count()).map(member).collect();
        Picker::new(&Plan::new(algorithm, HashKey::Source, &members), self.seed)
    }

    /// Places that may be picked: backups only if nobody else can be.
    fn candidates(&self) -> Vec<usize> {
        let of_tier = |backup| {
            let fits = |place: &usize| {
                self.pool.usable[*place]
                    && self.weights[*place] > 0
                    && self.backups[*place] == backup
            };
            (0..self.count()).filter(fits).collect::<Vec<_>>()
        };
        let normal = of_tier(false);
        if normal.is_empty() {
            of_tier(true)
        } else {
            normal
        }
    }
}

fn case() -> impl Strategy<Value = Case> {
    (1usize..40).prop_flat_map(|count| {
        let weights = prop::collection::vec(prop_oneof![0u16..4, 0u16..=256], count);
        let backups = prop::collection::vec(any::<bool>(), count);
        let usable = prop::collection::vec(any::<bool>(), count);
        let active = prop::collection::vec(0u32..50, count);
        (weights, backups, usable, active, any::<u64>()).prop_map(
            |(weights, backups, usable, active, seed)| Case {
                weights,
                backups,
                pool: Pool { usable, active },
                seed,
            },
        )
    })
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(&Algorithm::ALL[..])
}

fn arrival(client: u32) -> Arrival {
    Arrival {
        client: Some((std::net::Ipv4Addr::from(client), 1).into()),
        now: Time::from_micros(u64::from(client) * 1_000),
    }
}

proptest! {
    #[test]
    fn somebody_who_may_be_picked_is_picked_whatever_happened_before(
        case in case(),
        algorithm in algorithm(),
        changes in prop::collection::vec((any::<u64>(), 0usize..40, 0u16..=256, 0u32..5), 1..60),
    ) {
        let mut case = case;
        let mut picker = case.picker(algorithm);
        for (client, (usable, place, weight, picks)) in (0..).zip(changes) {
            for (place, is_usable) in case.pool.usable.iter_mut().enumerate() {
                *is_usable = usable >> (place % 64) & 1 == 1;
            }
            let place = place % case.count();
            if algorithm != Algorithm::Hash {
                case.weights[place] = weight;
                picker.set_weight(place, Weight::full(weight));
            }
            picker.observe(place, Sample::Connect(Duration::from_micros(usable % 10_000)), arrival(client).now);
            let candidates = case.candidates();
            for _ in 0..=picks {
                match picker.pick(&arrival(client), &case.pool) {
                    Some(place) => {
                        prop_assert!(candidates.contains(&place));
                        case.pool.active[place] += 1;
                    }
                    None => prop_assert!(candidates.is_empty()),
                }
            }
        }
    }

    #[test]
    fn least_connections_picks_a_minimum(case in case()) {
        let mut picker = case.picker(Algorithm::LeastConnections);
        for client in 0..10 {
            let Some(picked) = picker.pick(&arrival(client), &case.pool) else { break };
            let load = |place: usize| (u64::from(case.pool.active[place]), u64::from(case.weights[place]));
            let (sessions, weight) = load(picked);
            for place in case.candidates() {
                let (other_sessions, other_weight) = load(place);
                prop_assert!(sessions * other_weight <= other_sessions * weight);
            }
        }
    }

    #[test]
    fn places_that_tie_take_turns(count in 1usize..20, seed in any::<u64>(), turns in 1usize..5) {
        for algorithm in [Algorithm::LeastConnections, Algorithm::LeastTime, Algorithm::RoundRobin] {
            let case = Case {
                weights: vec![3; count],
                backups: vec![false; count],
                pool: Pool::new(count),
                seed,
            };
            let mut picker = case.picker(algorithm);
            let mut picked = vec![0; count];
            for _ in 0..turns * count {
                picked[picker.pick(&arrival(1), &case.pool).unwrap()] += 1;
            }
            prop_assert_eq!(picked, vec![turns; count]);
        }
    }

    #[test]
    fn round_robin_is_exact_over_any_full_cycle(case in case(), before in 0usize..500) {
        let mut picker = case.picker(Algorithm::RoundRobin);
        let candidates = case.candidates();
        prop_assume!(!candidates.is_empty());
        // Until everybody who is unusable has been found out.
        for _ in 0..before + case.weights.iter().copied().map(usize::from).sum::<usize>() {
            picker.pick(&arrival(1), &case.pool);
        }
        let cycle: usize = candidates.iter().map(|place| usize::from(case.weights[*place])).sum();
        let mut picked = vec![0; case.count()];
        for _ in 0..cycle {
            picked[picker.pick(&arrival(1), &case.pool).unwrap()] += 1;
        }
        for place in candidates {
            prop_assert_eq!(picked[place], case.weights[place]);
        }
    }

    #[test]
    fn first_picks_the_first(case in case()) {
        let mut picker = case.picker(Algorithm::First);
        let first = case.candidates().first().copied();
        prop_assert_eq!(picker.pick(&arrival(1), &case.pool), first);
    }

    #[test]
    fn shares_ramp_with_the_weight(algorithm in prop::sample::select(vec![
        Algorithm::RoundRobin, Algorithm::Random, Algorithm::LeastConnections, Algorithm::LeastTime,
    ])) {
        let case = Case {
            weights: vec![1; 4],
            backups: vec![false; 4],
            pool: Pool::new(4),
            seed: 1,
        };
        let mut picker = case.picker(algorithm);
        let ramp = Ramp::new(Time::ZERO, Duration::from_secs(10));
        let mut before = 0;
        for (seconds, ideal) in [(0, 82), (5, 571), (10, 1_000u32)] {
            picker.set_weight(2, ramp.weight(1, Time::ZERO + Duration::from_secs(seconds)));
            let mut pool = Pool::new(4);
            for client in 0..4_000 {
                let place = picker.pick(&arrival(client), &pool).unwrap();
                pool.active[place] += 1;
            }
            prop_assert!(pool.active[2] > before, "{:?}", pool.active);
            before = pool.active[2];
            prop_assert!(before.abs_diff(ideal) < 120, "{before} {ideal}");
        }
    }
}

#[test]
fn words_stand_for_algorithms_and_keys() {
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
    }
    for key in HashKey::ALL {
        assert_eq!(key.as_str().parse(), Ok(key));
    }
    assert_eq!("Hash".parse::<Algorithm>(), Err(UnknownWord));
    assert_eq!("port".parse::<HashKey>(), Err(UnknownWord));
}

#[test]
fn nobody_is_picked_from_a_pool_without_places() {
    for algorithm in Algorithm::ALL {
        let mut picker = Picker::new(&Plan::new(algorithm, HashKey::SourceIp, &[]), 5);
        assert_eq!(picker.pick(&arrival(1), &Pool::new(0)), None);
    }
}

#[test]
fn pickers_of_the_same_names_agree_on_every_client() {
    let names: Vec<_> = (0..50)
        .map(|place| format!("10.0.0.{place}:5432"))
        .collect();
    let member = |place: usize| Member {
        name: &names[place],
        weight: u16::try_from(place % 5 + 1).unwrap(),
        backup: place.is_multiple_of(10),
    };
    let plan = |order: &[usize]| {
        let members: Vec<_> = order.iter().map(|place| member(*place)).collect();
        Plan::new(Algorithm::Hash, HashKey::SourceIp, &members)
    };
    let order: Vec<_> = (0..50).collect();
    let other: Vec<_> = (0..50).map(|place| place * 7 % 50).collect();
    let mut picker = Picker::new(&plan(&order), 1);
    let mut mirror = Picker::new(&plan(&other), 2);
    for usable in [50, 20, 5] {
        let mut pool = Pool::new(50);
        pool.usable[usable..].fill(false);
        let of_other = other.iter().map(|place| pool.usable[*place]).collect();
        let of_other = Pool {
            usable: of_other,
            active: vec![0; 50],
        };
        for client in 0..100_000 {
            let picked = picker.pick(&arrival(client), &pool).unwrap();
            assert_eq!(
                other[mirror.pick(&arrival(client), &of_other).unwrap()],
                picked
            );
        }
    }
}

/// Counts how often it is asked.
struct Counting<'a> {
    pool: &'a Pool,
    asked: std::cell::Cell<usize>,
}

impl View for Counting<'_> {
    fn is_usable(&self, place: usize) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.pool.is_usable(place)
    }

    fn active(&self, place: usize) -> u32 {
        self.pool.active(place)
    }
}

#[test]
fn one_usable_place_of_ten_thousand_is_found_with_bounded_work() {
    const COUNT: usize = 10_000;
    for algorithm in Algorithm::ALL {
        // The usable place is as light, and the others as heavy, as can be.
        let case = Case {
            weights: (0..COUNT)
                .map(|place| if place == 7_777 { 1 } else { 256 })
                .collect(),
            backups: vec![false; COUNT],
            pool: Pool::new(COUNT),
            seed: 1,
        };
        let mut picker = case.picker(algorithm);
        let mut pool = case.pool.clone();
        for client in 0..20_000 {
            picker.pick(&arrival(client), &pool);
        }
        for usable in [true, false] {
            pool.usable.fill(false);
            pool.usable[7_777] = usable;
            let mut asked = Vec::new();
            for client in 0..100 {
                let view = Counting {
                    pool: &pool,
                    asked: 0.into(),
                };
                let picked = picker.pick(&arrival(client), &view);
                assert_eq!(picked, usable.then_some(7_777), "{algorithm}");
                asked.push(view.asked.get());
            }
            assert!(
                asked.iter().all(|asked| *asked <= 2 * COUNT + 100),
                "{algorithm} {asked:?}"
            );
            let constant = matches!(algorithm, Algorithm::RoundRobin | Algorithm::Random);
            if usable && constant {
                // Found out once, they are not asked again and again.
                assert!(
                    asked[1..].iter().all(|asked| *asked <= 20),
                    "{algorithm} {asked:?}"
                );
            }
        }
    }
}

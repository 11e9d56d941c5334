//! Seeded simulations: thousands of random datagrams, losses of lines and gaps of time against a model that is too slow
//! to be used, but easy to believe.

use std::collections::{HashMap, HashSet};

use super::*;

const SEEDS: u64 = 300;
const STEPS: usize = 1_000;

/// What the model knows of a flow.
#[derive(Clone, Debug)]
struct Known {
    client: Client,
    rules: Rules,
    /// When it arrived, as a number.
    arrival: u64,
    is_stranded: bool,
    is_bound: bool,
    is_answered: bool,
    is_proven: bool,
    requests: u64,
    replies: u64,
    heard: Time,
}

struct Simulation {
    random: fastrand::Rng,
    seed: u64,
    now: Time,
    capacity: u32,
    table: Table<u64>,
    flows: HashMap<FlowId, Known>,
    arrivals: u64,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = fastrand::Rng::with_seed(seed);
        let capacity = random.u32(1..40);
        Simulation {
            random,
            seed,
            now: Time::ZERO,
            capacity,
            table: Table::new(capacity),
            flows: HashMap::new(),
            arrivals: 0,
        }
    }

    fn client(&mut self) -> Client {
        Client {
            place: self.random.u16(0..2),
            address: SocketAddr::from(([10, 0, 0, 1], self.random.u16(1..60))),
            local: None,
        }
    }

    fn some_flow(&mut self) -> Option<FlowId> {
        let mut ids: Vec<FlowId> = self.flows.keys().copied().collect();
        ids.sort_unstable();
        self.random.choice(ids)
    }

    fn rules(&mut self) -> Rules {
        let requests = self.random.u32(0..4);
        let responses = self.random.u32(0..4);
        Rules {
            idle: Duration::from_secs(self.random.u64(1..20)),
            requests: (requests > 0).then_some(requests),
            responses: (responses < 3).then_some(responses),
        }
    }

    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..60 => self.request(),
            60..85 => self.reply(),
            85..92 => self.lose_line(),
            _ => self.now = self.now + Duration::from_millis(self.random.u64(0..3_000)),
        }
        self.expire();
        self.check();
    }

    fn request(&mut self) {
        let client = self.client();
        let known = self
            .flows
            .iter()
            .find(|(_, known)| known.client == client && known.is_bound)
            .map(|(id, known)| (*id, known.is_stranded));
        let (seed, now) = (self.seed, self.now);
        match (self.table.request(&client, now), known) {
            (Request::Nobody, None) => {
                if self.begin(client) {
                    self.forwarded(&client);
                }
            }
            (Request::Stranded(id), Some((expected, true))) => {
                assert_eq!(id, expected, "seed {seed}");
                let rules = self.rules();
                self.table.attach(id, rules, 1_000, now);
                let known = self.flows.get_mut(&id).unwrap();
                known.rules = rules;
                known.is_stranded = false;
                (known.requests, known.replies) = (0, 0);
                self.forwarded(&client);
            }
            (Request::Forward { id, is_last, .. }, Some((expected, false))) => {
                assert_eq!(id, expected, "seed {seed}");
                self.count_request(id, is_last);
            }
            (found, known) => panic!("seed {seed}: {found:?} for {known:?}"),
        }
    }

    fn forwarded(&mut self, client: &Client) {
        match self.table.request(client, self.now) {
            Request::Forward { id, is_last, .. } => self.count_request(id, is_last),
            found @ (Request::Stranded(_) | Request::Nobody) => {
                panic!("seed {}: {found:?}", self.seed)
            }
        }
    }

    fn count_request(&mut self, id: FlowId, is_last: bool) {
        let known = self.flows.get_mut(&id).unwrap();
        known.requests += 1;
        known.heard = self.now;
        known.is_proven |= known.is_answered;
        known.is_bound = known
            .rules
            .requests
            .is_none_or(|most| known.requests < u64::from(most));
        assert_eq!(is_last, is_done(known), "seed {}: {known:?}", self.seed);
        if is_last {
            self.table.end(id);
            self.flows.remove(&id);
        }
    }

    /// Whether there was room.
    fn begin(&mut self, client: Client) -> bool {
        let (rules, seed) = (self.rules(), self.seed);
        let oldest = self
            .flows
            .iter()
            .filter(|(_, known)| !known.is_proven)
            .min_by_key(|(_, known)| known.arrival)
            .map(|(id, _)| *id);
        let is_full = self.flows.len() == self.capacity as usize;
        assert_eq!(self.table.has_room(), !is_full || oldest.is_some());
        let begun = self.table.begin(client, rules, self.arrivals, self.now);
        let Some((id, evicted)) = begun else {
            assert!(is_full && oldest.is_none(), "seed {seed}: there was room");
            return false;
        };
        assert_eq!(evicted.is_some(), is_full, "seed {seed}");
        if let Some(gone) = evicted {
            let known = self.flows.remove(&oldest.unwrap()).unwrap();
            assert_eq!(gone.client, known.client, "seed {seed}: not the oldest");
        }
        self.arrivals += 1;
        let known = Known {
            client,
            rules,
            arrival: self.arrivals,
            is_stranded: false,
            is_bound: true,
            is_answered: false,
            is_proven: false,
            requests: 0,
            replies: 0,
            heard: self.now,
        };
        assert!(self.flows.insert(id, known).is_none(), "seed {seed}");
        true
    }

    fn reply(&mut self) {
        let Some(id) = self
            .some_flow()
            .filter(|id| !self.flows[id].is_stranded && self.flows[id].requests > 0)
        else {
            return;
        };
        let found = self.table.reply(id, self.now);
        let known = self.flows.get_mut(&id).unwrap();
        known.replies += 1;
        known.heard = self.now;
        known.is_answered = true;
        assert_eq!(found.is_last, is_done(known), "seed {}", self.seed);
        assert_eq!(found.is_first, known.replies == 1);
        if found.is_last {
            self.table.end(id);
            self.flows.remove(&id);
        }
    }

    fn lose_line(&mut self) {
        let Some(id) = self.some_flow().filter(|id| !self.flows[id].is_stranded) else {
            return;
        };
        let gone = self.table.strand(id);
        let known = self.flows.get_mut(&id).unwrap();
        assert_eq!(gone.is_some(), !known.is_bound, "seed {}", self.seed);
        known.is_stranded = true;
        if gone.is_some() {
            self.flows.remove(&id);
        }
    }

    fn expire(&mut self) {
        let ids: Vec<FlowId> = self.flows.keys().copied().collect();
        for id in ids {
            let deadline = self.flows[&id].heard + self.flows[&id].rules.idle;
            match self.table.look(id, self.now) {
                Some(Due::Later(later)) => {
                    assert!(later == deadline && later > self.now, "seed {}", self.seed);
                }
                Some(Due::Idle(gone)) => {
                    assert!(deadline <= self.now, "seed {}: too early", self.seed);
                    let known = self.flows.remove(&id).unwrap();
                    assert_eq!(gone.client, known.client);
                }
                None => panic!("seed {}: it is gone", self.seed),
            }
        }
    }

    fn check(&self) {
        assert!(self.flows.len() <= self.capacity as usize);
        let ids: HashSet<FlowId> = self.table.ids().collect();
        assert!(
            ids.len() == self.flows.len() && ids.iter().all(|id| self.flows.contains_key(id)),
            "seed {}: {ids:?}",
            self.seed
        );
        assert_eq!(self.table.len(), ids.len());
    }
}

fn is_done(known: &Known) -> bool {
    let asks_no_more = match known.rules.requests {
        Some(most) => known.requests >= u64::from(most),
        None => true,
    };
    match known.rules.responses {
        Some(each) => asks_no_more && known.replies >= u64::from(each) * known.requests,
        None => false,
    }
}

#[test]
fn whatever_happens_the_table_is_as_its_model() {
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(seed);
        for _ in 0..STEPS {
            simulation.step();
        }
    }
}

#[test]
fn a_flood_of_new_clients_that_get_answers_takes_nothing_from_proven_flows() {
    let rules = Rules {
        idle: Duration::from_secs(60),
        requests: None,
        responses: None,
    };
    let client = |number: u32| Client {
        place: 0,
        address: SocketAddr::from((number.to_be_bytes(), 53)),
        local: None,
    };
    let mut table = Table::new(1_000);
    let now = Time::ZERO;
    for number in 0..100 {
        let (id, _) = table.begin(client(number), rules, number, now).unwrap();
        table.request(&client(number), now);
        table.reply(id, now);
        table.request(&client(number), now);
    }
    for number in 1_000..101_000 {
        let (id, _) = table.begin(client(number), rules, number, now).unwrap();
        table.request(&client(number), now);
        table.reply(id, now);
    }
    assert_eq!(table.len(), 1_000);
    for number in 0..100 {
        let found = table.request(&client(number), now);
        assert!(matches!(found, Request::Forward { line, .. } if line == number));
    }
    assert!(table.flows.len() <= 1_000, "memory is bounded");
}

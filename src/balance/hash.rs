//! By the client's address: each client has its place, the same on every worker, node and version. Maglev's table
//! (Eisenbud and others, NSDI 2016, section 3.4), with weights. How names and addresses become places is a contract
//! that must not change; the test vectors below hold it. Does not know about health: a table changes only with names
//! and weights, and a pick passes over what is unusable.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

use super::{UnknownWord, View};

/// What of a client's address decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// The address: all sessions of a client go to one backend.
    #[default]
    SourceIp,
    /// Address and port.
    Source,
}

impl HashKey {
    /// All of them.
    pub const ALL: [HashKey; 2] = [HashKey::SourceIp, HashKey::Source];

    /// The word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            HashKey::SourceIp => "source_ip",
            HashKey::Source => "source",
        }
    }

    /// XXH3-64 with seed 0 over the address, 4 or 16 bytes, and for [`HashKey::Source`] the port, big end first. An
    /// IPv4 address hashes the same however it came in. Nothing is hashed if there is no address.
    pub(super) fn hash(self, client: Option<SocketAddr>) -> u64 {
        let Some(client) = client else {
            return xxh3_64(&[]);
        };
        let mut bytes = [0; 18];
        let ip_len = match client.ip().to_canonical() {
            IpAddr::V4(ip) => {
                bytes[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                bytes[..16].copy_from_slice(&ip.octets());
                16
            }
        };
        let len = match self {
            HashKey::SourceIp => ip_len,
            HashKey::Source => {
                bytes[ip_len..ip_len + 2].copy_from_slice(&client.port().to_be_bytes());
                ip_len + 2
            }
        };
        xxh3_64(&bytes[..len])
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for HashKey {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<HashKey, UnknownWord> {
        let mut all = HashKey::ALL.into_iter();
        all.find(|key| key.as_str() == word).ok_or(UnknownWord)
    }
}

/// Slots of a table: primes just below 2^14, 2^18 and 2^20. A table is the smallest with 100 slots for each place; the
/// largest has that for up to 10,485 places and is coarser beyond. There are few sizes because going from one to the
/// next, at 163 and 2,621 places, moves nearly all clients.
const SIZES: [u64; 3] = [16_381, 262_139, 1_048_573];
const SLOTS_PER_PLACE: u64 = 100;

/// Slots that a client is sent to in turn until one leads to a usable place. Fails once in 4,000 million times if half
/// of the places are unusable, and three times in a hundred if nine of ten are.
const ATTEMPTS: usize = 32;

/// Which place each slot leads to. Places share the slots by weight, each has one at least.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    slots: Box<[u32]>,
    /// Places with a weight, by name.
    by_name: Box<[u32]>,
}

/// A client's own slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number in the table, from 0.
    pub number: u64,
    /// How many slots the table has.
    pub of: u64,
    /// The place that it leads to; the client gets another one only while this one is not usable.
    pub place: usize,
}

/// A place while a table is filled.
struct Claim {
    place: u32,
    weight: u64,
    /// The slot it wants next, and how far it goes on if that is taken.
    slot: u64,
    skip: u64,
    /// It may take a slot when this has come to the heaviest weight.
    credit: u64,
}

impl Table {
    /// For names and weights in the order of places; the names alone decide, not their order.
    pub(super) fn new<'a>(members: impl Iterator<Item = (&'a str, u16)>) -> Table {
        let mut members: Vec<_> = (0..).zip(members).collect();
        members.retain(|(_, (_, weight))| *weight > 0);
        members.sort_unstable_by_key(|(place, (name, _))| (*name, *place));
        let places = members.len() as u64;
        let sizes = SIZES.into_iter();
        let size = sizes
            .filter(|size| *size >= places * SLOTS_PER_PLACE)
            .min()
            .unwrap_or(SIZES[SIZES.len() - 1]);
        let heaviest = members.iter().map(|(_, (_, weight))| *weight).max();
        let Some(heaviest) = heaviest.map(u64::from) else {
            return Table::default();
        };
        let claim = |(place, (name, weight)): &(u32, (&str, u16))| {
            let hash = xxh3_64(name.as_bytes());
            let weight = u64::from(*weight);
            Claim {
                place: *place,
                weight,
                slot: hash % size,
                skip: again(hash) % (size - 1) + 1,
                credit: heaviest - weight,
            }
        };
        let claims = members.iter().map(claim).collect();
        Table {
            slots: fill(claims, heaviest, index(size)),
            by_name: members.iter().map(|(place, _)| *place).collect(),
        }
    }

    /// The slot of this hash; none if no place has a weight.
    pub(super) fn slot(&self, hash: u64) -> Option<Slot> {
        let of = self.slots.len() as u64;
        let number = hash.checked_rem(of)?;
        let place = self.slots[index(number)] as usize;
        Some(Slot { number, of, place })
    }

    /// The usable place that this hash leads to: by its own slot, else by those that hashing the hash again leads to,
    /// else the first from somewhere on in the order of names.
    pub(super) fn pick(&self, mut hash: u64, view: &impl View) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let size = self.slots.len() as u64;
        for _ in 0..ATTEMPTS {
            let place = self.slots[index(hash % size)] as usize;
            if view.is_usable(place) {
                return Some(place);
            }
            hash = again(hash);
        }
        let (before, from) = self
            .by_name
            .split_at(index(hash % self.by_name.len() as u64));
        let mut places = from.iter().chain(before).map(|place| *place as usize);
        places.find(|place| view.is_usable(*place))
    }
}

/// Each place in turn, as often as its weight says, takes the first slot on its own way through all of them that is
/// still free.
fn fill(mut claims: Vec<Claim>, heaviest: u64, size: usize) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    let mut slots = vec![FREE; size].into_boxed_slice();
    let mut free = size;
    loop {
        for claim in &mut claims {
            claim.credit += claim.weight;
            if claim.credit < heaviest {
                continue;
            }
            claim.credit -= heaviest;
            // The size is prime, so the way leads through all slots, and there is a free one.
            while slots[index(claim.slot)] != FREE {
                claim.slot += claim.skip;
                if claim.slot >= size as u64 {
                    claim.slot -= size as u64;
                }
            }
            slots[index(claim.slot)] = claim.place;
            free -= 1;
            if free == 0 {
                return slots;
            }
        }
    }
}

fn again(hash: u64) -> u64 {
    xxh3_64(&hash.to_le_bytes())
}

fn index(below_size: u64) -> usize {
    usize::try_from(below_size).expect("less than the size of a table")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::balance::tests::Pool;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|place| format!("pg{place}")).collect()
    }

    fn table(names: &[String], weights: &[u16]) -> Table {
        let names = names.iter().map(String::as_str);
        Table::new(names.zip(weights.iter().copied()))
    }

    fn ip(text: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(text.parse().unwrap(), 40_000))
    }

    /// Hashes of 100,000 clients.
    fn clients() -> impl Iterator<Item = u64> {
        (0..100_000u32).map(|client| {
            let address = Ipv4Addr::from(0x0a00_0000 + client * 7);
            HashKey::SourceIp.hash(Some((address, 1).into()))
        })
    }

    /// The part of the clients that two tables send to different names.
    fn moved(a: &Table, a_names: &[String], b: &Table, b_names: &[String]) -> f64 {
        let view = Pool::new(a_names.len().max(b_names.len()));
        let moved = clients().filter(|hash| {
            let (a, b) = (a.pick(*hash, &view), b.pick(*hash, &view));
            a_names[a.unwrap()] != b_names[b.unwrap()]
        });
        moved.count() as f64 / 100_000.0
    }

    #[test]
    fn addresses_hash_as_they_always_did() {
        assert_eq!(xxh3_64(&[]), 0x2d06_8005_38d3_94c2, "the reference's value");
        for (client, by_ip, by_source) in [
            ("192.0.2.1", 0x2c1c_901e_ed9a_dc4a, 0x4ae3_67db_5879_5200),
            ("2001:db8::1", 0x275c_8fa5_8c2d_19a0, 0x4ac4_d637_1a00_4e5a),
        ] {
            assert_eq!(HashKey::SourceIp.hash(ip(client)), by_ip, "{client}");
            assert_eq!(HashKey::Source.hash(ip(client)), by_source, "{client}");
        }
    }

    #[test]
    fn tables_send_clients_where_they_always_did() {
        let names = names(5);
        let table = table(&names, &[1, 1, 1, 4, 0]);
        let mut view = Pool::new(5);
        let pick = |view: &Pool, last| {
            let client = SocketAddr::from(([192, 0, 2, last], 1));
            table
                .pick(HashKey::SourceIp.hash(Some(client)), view)
                .unwrap()
        };
        let picks: Vec<_> = (0..16).map(|last| pick(&view, last)).collect();
        assert_eq!(picks, [2, 1, 2, 3, 3, 0, 3, 2, 0, 3, 1, 2, 0, 3, 3, 3]);
        let slots = (0..16).map(|last| {
            let client = SocketAddr::from(([192, 0, 2, last], 1));
            table.slot(HashKey::SourceIp.hash(Some(client))).unwrap()
        });
        assert_eq!(slots.map(|slot| slot.place).collect::<Vec<_>>(), picks);
        assert_eq!(Table::default().slot(7), None);
        view.usable[3] = false;
        let picks: Vec<_> = (0..16).map(|last| pick(&view, last)).collect();
        assert_eq!(picks, [2, 1, 2, 2, 0, 0, 2, 2, 0, 0, 1, 2, 0, 0, 0, 2]);
        let whole = table.slots.iter().flat_map(|place| place.to_le_bytes());
        assert_eq!(xxh3_64(&whole.collect::<Vec<_>>()), 0xb896_feb4_dc06_7a1c);
    }

    #[test]
    fn an_ipv4_address_hashes_the_same_however_it_came_in() {
        let plain = Some(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 7)));
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        let mapped = Some(SocketAddr::from((mapped, 7)));
        for key in HashKey::ALL {
            assert_eq!(key.hash(plain), key.hash(mapped));
        }
    }

    #[test]
    fn the_port_and_the_scope_count_only_where_they_should() {
        let at = |port| Some(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        assert_eq!(HashKey::SourceIp.hash(at(1)), HashKey::SourceIp.hash(at(2)));
        assert_ne!(HashKey::Source.hash(at(1)), HashKey::Source.hash(at(2)));
    }

    #[test]
    fn tables_have_a_hundred_slots_for_each_place() {
        for (places, size) in [
            (1, 16_381),
            (163, 16_381),
            (164, 262_139),
            (2_621, 262_139),
            (2_622, 1_048_573),
            (10_485, 1_048_573),
        ] {
            assert_eq!(table(&names(places), &vec![1; places]).slots.len(), size);
        }
    }

    #[test]
    fn a_table_without_weights_leads_nowhere() {
        let view = Pool::new(2);
        assert_eq!(table(&names(2), &[0, 0]).pick(7, &view), None);
        assert_eq!(table(&[], &[]).pick(7, &view), None);
    }

    #[test]
    fn shares_of_slots_follow_the_weights() {
        for weights in [
            vec![1; 10],
            vec![1; 163],
            vec![1, 2, 3, 50, 100, 256],
            vec![255, 256],
        ] {
            let table = table(&names(weights.len()), &weights);
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            for (place, weight) in (0..).zip(&weights) {
                let slots = table.slots.iter().filter(|slot| **slot == place).count();
                let ideal = u64::from(*weight) * table.slots.len() as u64 / total;
                assert!((slots as u64).abs_diff(ideal) <= 2, "{slots} {ideal}");
            }
        }
    }

    #[test]
    fn shares_of_clients_follow_the_weights() {
        let weights = [1, 2, 3, 4];
        let (table, view) = (table(&names(4), &weights), Pool::new(4));
        let mut picked = [0u32; 4];
        for hash in clients() {
            picked[table.pick(hash, &view).unwrap()] += 1;
        }
        for (picked, weight) in picked.iter().zip(weights) {
            let ideal = 10_000.0 * f64::from(weight);
            assert!(
                (f64::from(*picked) / ideal - 1.0).abs() < 0.05,
                "{picked} {ideal}"
            );
        }
    }

    #[test]
    fn who_leaves_takes_only_its_own_clients_along() {
        for places in [2, 3, 10, 50, 163, 1_000, 3_000] {
            let (all, mut left) = (names(places), names(places));
            left.remove(places / 2);
            let before = table(&all, &vec![1; places]);
            let after = table(&left, &vec![1; places - 1]);
            let moved = moved(&before, &all, &after, &left);
            assert!(moved <= 1.0 / places as f64 + 0.02, "{places}: {moved}");
        }
    }

    #[test]
    fn a_weight_of_nothing_moves_only_the_clients_that_were_there() {
        let all = names(20);
        let mut weights: Vec<u16> = (1..=20).map(|weight| weight * 10).collect();
        let before = table(&all, &weights);
        for (place, margin) in [(4, 0.02), (19, 0.04)] {
            let weight = std::mem::take(&mut weights[place]);
            let moved = moved(&before, &all, &table(&all, &weights), &all);
            assert!(moved <= f64::from(weight) / 2_100.0 + margin, "{moved}");
            weights[place] = weight;
        }
    }

    #[test]
    fn clients_of_an_unusable_place_spread_and_the_others_stay() {
        let (table, mut view) = (table(&names(10), &[1; 10]), Pool::new(10));
        let before: Vec<_> = clients().map(|hash| table.pick(hash, &view)).collect();
        view.usable[3] = false;
        let mut heirs = [0; 10];
        for (hash, before) in clients().zip(before) {
            let now = table.pick(hash, &view);
            if before == Some(3) {
                heirs[now.unwrap()] += 1;
            } else {
                assert_eq!(now, before);
            }
        }
        let least = heirs.iter().filter(|heir| **heir > 0).min().unwrap();
        assert_eq!(heirs[3], 0);
        assert!(*least > 900, "{heirs:?}");
    }

    #[test]
    fn the_order_of_the_file_does_not_matter() {
        let names = names(100);
        let weights: Vec<u16> = (0..100).map(|place| place % 7).collect();
        let forward = table(&names, &weights);
        let backward = {
            let names: Vec<_> = names.iter().rev().cloned().collect();
            let weights: Vec<_> = weights.iter().rev().copied().collect();
            table(&names, &weights)
        };
        // From all usable to one: every way of finding a place must agree.
        for usable in [100, 50, 3, 1] {
            let (mut view, mut mirror) = (Pool::new(100), Pool::new(100));
            view.usable[..100 - usable].fill(false);
            mirror.usable[usable..].fill(false);
            for hash in clients() {
                let other = backward.pick(hash, &mirror).map(|place| 99 - place);
                assert_eq!(forward.pick(hash, &view), other);
            }
        }
    }

    proptest! {
        #[test]
        fn any_table_is_full_and_only_of_places_with_weight(weights in prop::collection::vec(0u16..=256, 1..50)) {
            let table = table(&names(weights.len()), &weights);
            for (place, weight) in (0..).zip(&weights) {
                prop_assert_eq!(table.slots.contains(&place), *weight > 0);
            }
            prop_assert!(table.slots.iter().all(|place| (*place as usize) < weights.len()));
        }
    }
}

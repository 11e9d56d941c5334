//! The local ports that the kernel gives to outgoing connections: a connect takes one of
//! `net.ipv4.ip_local_port_range` (IPv6 too) that is not reserved and not in use from the same source address to the
//! same destination.

use std::fs;

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// How many there are for each pair of a source address and a destination, in the network namespace of the calling
/// thread; none when the kernel does not show it.
#[must_use]
pub fn outgoing() -> Option<u32> {
    let range = parse_range(&fs::read_to_string(RANGE).ok()?)?;
    let reserved = fs::read_to_string(RESERVED).unwrap_or_default();
    Some(count(range, &parse_ranges(&reserved)))
}

/// Ports from the first to the last of `range` that are in none of the `reserved` ranges, which do not overlap.
#[must_use]
pub fn count((first, last): (u16, u16), reserved: &[(u16, u16)]) -> u32 {
    let ports = |first: u16, last: u16| (u32::from(last) + 1).saturating_sub(u32::from(first));
    let taken = reserved
        .iter()
        .map(|(from, to)| ports(first.max(*from), last.min(*to)));
    ports(first, last).saturating_sub(taken.sum())
}

/// `32768 60999`
#[must_use]
pub fn parse_range(text: &str) -> Option<(u16, u16)> {
    let mut words = text.split_whitespace().map(|word| word.parse().ok());
    Some((words.next()??, words.next()??))
}

/// `8080,9000-9100`; what is no range is left out.
#[must_use]
pub fn parse_ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_the_range_that_are_not_reserved() {
        for (range, reserved, expected) in [
            ("32768\t60999\n", "", 28_232),
            ("1 65535", "1-65535", 0),
            ("0 65535", "\n", 65_536),
            ("40000 40019", "80,39990-40000,40019-50000", 18),
            ("40000 40019", "40005,40010-40011", 17),
            ("40000 40000", "", 1),
        ] {
            let range = parse_range(range).unwrap();
            let ports = count(range, &parse_ranges(reserved));
            assert_eq!(ports, expected, "{range:?} without {reserved:?}");
        }
        assert_eq!(parse_range("many"), None);
    }
}

//! Fuzzes the reader of advertisements: whatever arrives, it is read or rejected; what is read is written as a message
//! that is read to the same.
#![no_main]

use std::net::Ipv6Addr;

use libfuzzer_sys::fuzz_target;
use ringway::vrrp::packet::{ADDRESSES_MAX, Advertisement, Datagram, Ends, HOP_LIMIT, LEN_MAX};

const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fuzz_target!(|data: &[u8]| {
    if let Ok(datagram) = Datagram::from_ipv4(data) {
        read(&datagram);
    }
    let _ = Datagram::addressee(data);
    // Random bytes do not get past the checksum: make it right, so that what lies behind is reached.
    let mut payload = data.to_vec();
    if payload.len() < 8 {
        return;
    }
    let v4 = Ends::to_group("10.99.0.1".parse().expect("an address"));
    mend(&mut payload, &[]);
    read(&Datagram { ends: v4, hop_limit: HOP_LIMIT, payload: &payload });
    let v6 = Ends::to_group(SOURCE_V6.into());
    let len = u32::try_from(payload.len()).expect("short");
    let group: Ipv6Addr = "ff02::12".parse().expect("an address");
    let pseudo_header = [&SOURCE_V6.octets()[..], &group.octets(), &len.to_be_bytes(), &[0, 0, 0, 112]].concat();
    mend(&mut payload, &pseudo_header);
    read(&Datagram { ends: v6, hop_limit: HOP_LIMIT, payload: &payload });
});

fn mend(payload: &mut [u8], pseudo_header: &[u8]) {
    payload[6..8].fill(0);
    let words = pseudo_header.chunks(2).chain(payload.chunks(2));
    let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    payload[6..8].copy_from_slice(&(!sum).to_be_bytes()[2..]);
}

fn read(datagram: &Datagram) {
    let Ok((advertisement, form)) = Advertisement::decode(datagram) else { return };
    assert!((1..=ADDRESSES_MAX).contains(&advertisement.addresses().count()));
    let written = advertisement.encode(&datagram.ends, form);
    assert!(written.len() <= LEN_MAX && written.len() == datagram.payload.len());
    let again = Advertisement::decode(&Datagram { payload: &written, ..*datagram });
    let (again, _) = again.unwrap_or_else(|rejection| panic!("{rejection}: {advertisement:?}"));
    assert_eq!(again, advertisement);
}

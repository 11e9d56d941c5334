//! What a DNS probe asks and what it accepts: one query, and the header of its answer. What the answer says is nobody's
//! business here, and sending is the prober's.

use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE, header_buffer};

/// Longest name as text, without the dot at its end.
const NAME_MAX: usize = 253;
/// Longest part of it.
const LABEL_MAX: usize = 63;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsType {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// An alias.
    Cname,
    /// Who takes mail.
    Mx,
    /// Name servers.
    Ns,
    /// A name for an address.
    Ptr,
    /// The beginning of a zone.
    Soa,
    /// Where a service is.
    Srv,
    /// Texts.
    Txt,
}

/// How a name server says that it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsCode {
    /// It has an answer.
    NoError,
    /// It did not understand the query.
    FormErr,
    /// It failed.
    ServFail,
    /// There is no such name.
    NxDomain,
    /// It does not do that.
    NotImp,
    /// It does not want to.
    Refused,
}

/// What a probe asks for, and which answers are a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCheck {
    /// A name that [`is_name`].
    pub name: String,
    /// The type of record.
    pub record: DnsType,
    /// The response codes that are a success.
    pub codes: Vec<DnsCode>,
}

/// Whether it can be asked for: labels of 1 to 63 bytes with dots between, 253 in all; or a dot alone, the root.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label =
        |label: &str| (1..=LABEL_MAX).contains(&label.len()) && label.bytes().all(is_of_label);
    text == "." || (name.len() <= NAME_MAX && name.split('.').all(is_label))
}

/// Labels may be any bytes; what is not of host and service names is more likely a mistake.
fn is_of_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_*".contains(&byte)
}

impl DnsCheck {
    /// The query with this number.
    #[must_use]
    pub fn query(&self, id: u16) -> Vec<u8> {
        let name = Name::new_unchecked(self.name.trim_end_matches('.'));
        let record = match self.record {
            DnsType::A => TYPE::A,
            DnsType::Aaaa => TYPE::AAAA,
            DnsType::Cname => TYPE::CNAME,
            DnsType::Mx => TYPE::MX,
            DnsType::Ns => TYPE::NS,
            DnsType::Ptr => TYPE::PTR,
            DnsType::Soa => TYPE::SOA,
            DnsType::Srv => TYPE::SRV,
            DnsType::Txt => TYPE::TXT,
        };
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let question = Question::new(name, record.into(), CLASS::IN.into(), false);
        packet.questions.push(question);
        packet
            .build_bytes_vec()
            .expect("one question with a checked name is a packet")
    }

    /// Whether a datagram answers the query with this number well; none if it is no answer to it at all.
    ///
    /// # Errors
    /// In words, an answer that is no success.
    pub fn accepts(&self, id: u16, datagram: &[u8]) -> Option<Result<(), String>> {
        let is_answer = header_buffer::id(datagram).ok()? == id
            && header_buffer::has_flags(datagram, PacketFlag::RESPONSE).ok()?;
        let code = header_buffer::rcode(datagram).ok().filter(|_| is_answer)?;
        if self.codes.iter().any(|accepted| accepted.wire() == code) {
            return Some(Ok(()));
        }
        Some(Err(format!("DNS response code {}", named(code))))
    }
}

impl DnsCode {
    const ALL: [DnsCode; 6] = [
        DnsCode::NoError,
        DnsCode::FormErr,
        DnsCode::ServFail,
        DnsCode::NxDomain,
        DnsCode::NotImp,
        DnsCode::Refused,
    ];

    /// The word of the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DnsCode::NoError => "NOERROR",
            DnsCode::FormErr => "FORMERR",
            DnsCode::ServFail => "SERVFAIL",
            DnsCode::NxDomain => "NXDOMAIN",
            DnsCode::NotImp => "NOTIMP",
            DnsCode::Refused => "REFUSED",
        }
    }

    fn wire(self) -> RCODE {
        match self {
            DnsCode::NoError => RCODE::NoError,
            DnsCode::FormErr => RCODE::FormatError,
            DnsCode::ServFail => RCODE::ServerFailure,
            DnsCode::NxDomain => RCODE::NameError,
            DnsCode::NotImp => RCODE::NotImplemented,
            DnsCode::Refused => RCODE::Refused,
        }
    }
}

fn named(code: RCODE) -> String {
    let known = DnsCode::ALL.iter().find(|known| known.wire() == code);
    known.map_or_else(|| format!("{code:?}"), |known| known.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, codes: &[DnsCode]) -> DnsCheck {
        DnsCheck {
            name: name.to_owned(),
            record: DnsType::Ns,
            codes: codes.to_vec(),
        }
    }

    /// The query, made an answer with this code.
    fn answer(query: &[u8], code: u8) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer[3] = code;
        answer
    }

    #[test]
    fn the_query_is_as_rfc_1035_has_it() {
        let root = check(".", &[]).query(0x1234);
        assert_eq!(
            root,
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"
        );
        for name in ["example.net", "example.net."] {
            let query = check(name, &[]).query(1);
            assert_eq!(query[12..], *b"\x07example\x03net\x00\x00\x02\x00\x01");
        }
    }

    #[test]
    fn an_answer_is_judged_by_its_code_and_what_is_none_is_ignored() {
        let check = check(".", &[DnsCode::NoError, DnsCode::NxDomain]);
        let query = check.query(7);
        assert_eq!(check.accepts(7, &answer(&query, 0)), Some(Ok(())));
        assert_eq!(check.accepts(7, &answer(&query, 3)), Some(Ok(())));
        let refused = check.accepts(7, &answer(&query, 5));
        assert_eq!(refused, Some(Err("DNS response code REFUSED".to_owned())));
        assert_eq!(check.accepts(8, &answer(&query, 0)), None, "another query");
        assert_eq!(check.accepts(7, &query), None, "the query itself");
        for len in 0..12 {
            let short = check.accepts(7, &answer(&query, 0)[..len]);
            assert!(!matches!(short, Some(Ok(()))), "{len} bytes");
        }
    }

    #[test]
    fn names_are_labels_with_dots_between() {
        let long = "a".repeat(63);
        let longest = format!("{long}.{long}.{long}.{}", &long[..61]);
        for name in [
            ".",
            "com",
            "example.net.",
            "_sip._udp.example.net",
            &longest,
        ] {
            assert!(is_name(name), "{name}");
        }
        let too_long = format!("{longest}a");
        for name in [
            "",
            "..",
            "a..b",
            ".a",
            "a b",
            "ä.de",
            &too_long,
            &"a".repeat(64),
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}

//! The checksum and what it covers, which is the one thing about version 3 over IPv4 that is not agreed on.

use etherparse::checksum::Sum16BitWords;

use super::{Ends, GROUP_V4, PROTOCOL, Version};

/// What a checksum covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumForm {
    /// Source, destination, protocol and length, then the message: version 3 over IPv6, and over IPv4 as RFC 5798 was
    /// read by keepalived and FRR, which accept nothing else.
    PseudoHeader,
    /// The message alone: version 2, and version 3 over IPv4 as RFC 9568 says.
    Message,
    /// As [`ChecksumForm::PseudoHeader`] with the multicast group for the destination although sent to one address:
    /// unicast of keepalived up to 1.3.6, or with `old_unicast_checksum`.
    PseudoHeaderOfGroup,
}

impl ChecksumForm {
    /// Every form, in the order in which they are tried.
    pub const ALL: [ChecksumForm; 3] = [
        ChecksumForm::PseudoHeader,
        ChecksumForm::Message,
        ChecksumForm::PseudoHeaderOfGroup,
    ];

    /// The position in a table of all forms.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The form that fits, if it is one of those that are in use for this version and family.
    pub(super) fn found(version: Version, ends: &Ends, message: &[u8]) -> Option<ChecksumForm> {
        let used = ChecksumForm::ALL
            .into_iter()
            .filter(|form| form.for_version(version, ends) == *form);
        used.into_iter()
            .find(|form| form.over(ends, message) == [0, 0])
    }

    /// This form where there is a choice, else the one that there is.
    pub(super) fn for_version(self, version: Version, ends: &Ends) -> ChecksumForm {
        match (version, ends) {
            (Version::V2, _) => ChecksumForm::Message,
            (Version::V3, Ends::V4 { .. }) => self,
            (Version::V3, Ends::V6 { .. }) => ChecksumForm::PseudoHeader,
        }
    }

    /// The checksum in network order; 0 over a message that holds the right one.
    pub(super) fn over(self, ends: &Ends, message: &[u8]) -> [u8; 2] {
        let mut sum = Sum16BitWords::new().add_slice(message);
        if self != ChecksumForm::Message {
            let len = u32::try_from(message.len()).expect("no longer than a datagram");
            sum = sum.add_4bytes(len.to_be_bytes()).add_2bytes([0, PROTOCOL]);
            sum = match *ends {
                Ends::V4 {
                    source,
                    destination,
                } => {
                    let destination = match self {
                        ChecksumForm::PseudoHeaderOfGroup => GROUP_V4,
                        ChecksumForm::PseudoHeader | ChecksumForm::Message => destination,
                    };
                    sum.add_4bytes(source.octets())
                        .add_4bytes(destination.octets())
                }
                Ends::V6 {
                    source,
                    destination,
                } => sum
                    .add_16bytes(source.octets())
                    .add_16bytes(destination.octets()),
            };
        }
        sum.ones_complement().to_ne_bytes()
    }
}

//! Netlink on the wire: taking apart what the kernel sends, and the few requests that ask it.
//!
//! Everything here is safe and works on bytes. What does not fit (a length beyond its buffer, an
//! attribute that is too short) ends the iteration or reads as absent; it never panics.

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of `struct nfgenmsg`, behind the header of every netfilter message.
pub(super) const NFGEN_BYTES: usize = 4;
const ATTRIBUTE_BYTES: usize = 4;
/// The two top bits of an attribute's type are flags (nested, network byte order).
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// Everything behind the header.
    pub(super) body: &'a [u8],
    /// The whole message, the header included: offsets in acknowledgements count from its start.
    pub(super) whole: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind `struct nfgenmsg`.
    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.body.get(NFGEN_BYTES..).unwrap_or_default() }
    }

    /// The address family in `struct nfgenmsg`.
    pub(super) fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or_default()
    }
}

/// The messages of one datagram, in order.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_native(rest.get(..4)?)?).ok()?;
        if length < HEADER_BYTES {
            return None;
        }
        let whole = rest.get(..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([whole[4], whole[5]]),
            flags: u16::from_ne_bytes([whole[6], whole[7]]),
            sequence: u32_native(&whole[8..12])?,
            body: &whole[HEADER_BYTES..],
            whole,
        })
    })
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) kind: u16,
    pub(super) value: &'a [u8],
}

/// The attributes of a message or of a nested attribute, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes { rest: bytes }
    }

    /// The value of the first attribute of this kind.
    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        { self }.find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// The attributes nested in the first attribute of this kind; none where it is absent.
    pub(super) fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes { rest: self.get(kind).unwrap_or_default() }
    }

    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(super) fn u64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(super) fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let head = self.rest.get(..ATTRIBUTE_BYTES)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if length < ATTRIBUTE_BYTES {
            return None;
        }
        let value = self.rest.get(ATTRIBUTE_BYTES..length)?;
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some(Attribute { kind: u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK, value })
    }
}

/// A request under construction: one message with a few attributes.
#[derive(Debug, Clone)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Starts a netfilter request. `kind` has the subsystem in its upper byte.
    pub(super) fn new(kind: u16, flags: u16, family: u8) -> Request {
        Request::with_head(kind, flags, &[family, 0, 0, 0])
    }

    /// Starts a request whose fixed part, behind the netlink header, is `head`.
    pub(super) fn with_head(kind: u16, flags: u16, head: &[u8]) -> Request {
        const REQUEST: u16 = 1;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(head);
        Request { bytes }
    }

    /// Adds an attribute that holds a NUL-terminated text.
    pub(super) fn text(self, kind: u16, text: &str) -> Request {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.bytes(kind, &value)
    }

    /// Adds an attribute.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Request {
        let length = ATTRIBUTE_BYTES + value.len();
        let length = u16::try_from(length).expect("requests carry short attributes only");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(aligned(self.bytes.len()), 0);
        self
    }

    /// Adds an attribute that holds attributes.
    pub(super) fn nested(self, kind: u16, value: &[u8]) -> Request {
        self.bytes(kind | NESTED, value)
    }

    /// Ends the request with its length and `sequence`.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("requests are short");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// Reads a number in the byte order of this machine, as netlink's own headers have them.
pub(super) fn u32_native(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_reads_back_as_it_was_written() {
        let bytes = Request::new(0x0a0d, 0x300, 1).text(1, "postern").bytes(2, &[7]).finish(9);

        let message = messages(&bytes).next().unwrap();

        assert_eq!((message.kind, message.flags, message.sequence), (0x0a0d, 0x301, 9));
        assert_eq!(message.family(), 1);
        assert_eq!(message.attributes().text(1), Some("postern"));
        assert_eq!(message.attributes().get(2), Some(&[7][..]));
        assert_eq!(message.attributes().get(3), None);
        assert_eq!(messages(&bytes).count(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                message.attributes().for_each(drop);
                assert_eq!(message.attributes().nested(1).u32(0x4000), None);
            }
            Attributes::new(&bytes).for_each(drop);
        }

        #[test]
        fn a_message_cut_short_is_left_out(cut in 1usize..32) {
            let bytes = Request::new(1, 0, 2).text(1, "twelve chars").finish(1);

            prop_assert_eq!(messages(&bytes[..bytes.len() - cut]).count(), 0);
        }
    }
}

//! The expressions that the gate's rules are made of: as a value, read back from the kernel, and
//! compared. `sys` turns them into messages, the gate gives each rule its text.

use super::wire::Attributes;

/// One step of a rule. All of them work on the first register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    /// Loads a property of the packet.
    Meta(Meta),
    /// Loads the connection's state bits.
    CtState,
    /// Loads whether the packet goes the way that the connection was opened, or back.
    CtDirection,
    /// Loads the type of the destination address, from the routing table.
    FibDaddrType,
    /// Loads bytes of a header.
    Payload(Header, u32, u32),
    /// Keeps the bits of the mask.
    Mask(Vec<u8>),
    /// Goes on only where the comparison with these bytes holds.
    Compare(Comparison, Vec<u8>),
    /// Goes on only where the set holds the register's value.
    Lookup(String),
    /// Counts packets and bytes.
    Counter,
    /// Ends the rule.
    Verdict(Verdict),
}

/// Properties of packets; the numbers are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Meta {
    InterfaceType = 8,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

/// Headers; the numbers are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Header {
    Network = 1,
    Transport = 2,
}

/// Comparisons of bytes; the numbers are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Comparison {
    Equal = 0,
    NotEqual = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// What happens to a packet that reached the end of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    /// On to another chain, and back where that decides nothing.
    Jump(String),
}

/// The kernel's numbers for verdicts.
pub(super) mod verdict {
    pub(in super::super) const DROP: u32 = 0;
    pub(in super::super) const ACCEPT: u32 = 1;
    pub(in super::super) const JUMP: u32 = -3_i32 as u32;
}

/// The kernel's numbers for properties of connections.
pub(super) mod ct {
    pub(in super::super) const STATE: u32 = 0;
    pub(in super::super) const DIRECTION: u32 = 1;
}

/// The kernel's number for the lookup of an address type, and for its key.
pub(super) mod fib {
    pub(in super::super) const RESULT_ADDRTYPE: u32 = 3;
    pub(in super::super) const FLAG_DADDR: u32 = 2;
}

/// Reads the expressions of a rule as the kernel lists them; `None` where there is anything that
/// none of ours has.
pub(super) fn read(expressions: Attributes<'_>) -> Option<Vec<Expr>> {
    expressions.map(|element| read_one(Attributes::new(element.value))).collect()
}

fn read_one(expression: Attributes<'_>) -> Option<Expr> {
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    const REGISTER: u32 = 1;
    let data = expression.nested(DATA);
    let uses_the_register = |kind: u16| data.u32(kind) == Some(REGISTER);
    match expression.text(NAME)? {
        "meta" if uses_the_register(1) => {
            let known = [Meta::InterfaceType, Meta::NetworkProtocol, Meta::TransportProtocol];
            let key = data.u32(2)?;
            known.into_iter().find(|meta| *meta as u32 == key).map(Expr::Meta)
        }
        "ct" if uses_the_register(1) => match data.u32(2)? {
            ct::STATE => Some(Expr::CtState),
            ct::DIRECTION => Some(Expr::CtDirection),
            _ => None,
        },
        "fib" if uses_the_register(1) => (data.u32(2)? == fib::RESULT_ADDRTYPE
            && data.u32(3)? == fib::FLAG_DADDR)
            .then_some(Expr::FibDaddrType),
        "payload" if uses_the_register(1) => {
            let known = [Header::Network, Header::Transport];
            let base = data.u32(2)?;
            let header = known.into_iter().find(|header| *header as u32 == base)?;
            Some(Expr::Payload(header, data.u32(3)?, data.u32(4)?))
        }
        "bitwise" if uses_the_register(1) && uses_the_register(2) => read_mask(data),
        "cmp" if uses_the_register(1) => {
            let known =
                [Comparison::Equal, Comparison::NotEqual, Comparison::AtMost, Comparison::AtLeast];
            let number = data.u32(2)?;
            let comparison = known.into_iter().find(|one| *one as u32 == number)?;
            Some(Expr::Compare(comparison, data.nested(3).get(1)?.to_vec()))
        }
        "lookup" if uses_the_register(2) && data.u32(5).unwrap_or(0) == 0 => {
            Some(Expr::Lookup(data.text(1)?.to_owned()))
        }
        "counter" => Some(Expr::Counter),
        "immediate" if data.u32(1)? == 0 => read_verdict(data.nested(2).nested(2)),
        _ => None,
    }
}

fn read_mask(data: Attributes<'_>) -> Option<Expr> {
    let mask = data.nested(4).get(1)?;
    let xor = data.nested(5).get(1)?;
    let masks_only = data.u32(6).unwrap_or(0) == 0
        && usize::try_from(data.u32(3)?).ok()? == mask.len()
        && xor.iter().all(|byte| *byte == 0);
    masks_only.then(|| Expr::Mask(mask.to_vec()))
}

fn read_verdict(data: Attributes<'_>) -> Option<Expr> {
    let verdict = match data.u32(1)? {
        verdict::ACCEPT => Verdict::Accept,
        verdict::DROP => Verdict::Drop,
        verdict::JUMP => Verdict::Jump(data.text(2)?.to_owned()),
        _ => return None,
    };
    Some(Expr::Verdict(verdict))
}

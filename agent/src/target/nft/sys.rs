//! The one file with `unsafe`: messages built by libnftnl, and the netlink socket options that no
//! safe crate has.
//!
//! A [`Batch`] is one transaction. Every object of libnftnl lives inside one call: it is made,
//! filled, written out as a message and freed, so that 100,000 elements never exist as objects at
//! once.
#![expect(unsafe_code, reason = "libnftnl and socket options are reached through C interfaces")]

use std::ffi::{CStr, CString, c_void};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nftnl::nftnl_sys::{self as nftnl_c, libc};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::rules::{Expr, Verdict, ct, fib, verdict};
use super::wire::u32_native;

/// Gives memory that was freed back to the kernel, where the C library keeps hold of it. Costs
/// milliseconds.
pub(crate) fn give_back_memory() {
    // SAFETY: it takes no pointer, and the library locks its heaps itself.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Elements in one message. Its list has a 16-bit length: 1024 elements of IPv6 take 41 KiB.
pub(super) const MESSAGE_ELEMENTS_MAX: usize = 1024;
/// What a message with [`MESSAGE_ELEMENTS_MAX`] elements or a rule needs at most, with room.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// `NFT_MSG_DESTROYSETELEM`: like the delete, but content where there is nothing to delete.
const DESTROY_ELEMENTS: i32 = 30;

/// Flags of tables.
pub(super) const TABLE_DORMANT: u32 = 0x1;
pub(super) const TABLE_OWNER: u32 = 0x2;
pub(super) const TABLE_PERSIST: u32 = 0x4;
/// Flags of sets.
pub(super) const SET_INTERVAL: u32 = 0x4;
pub(super) const SET_TIMEOUT: u32 = 0x10;
pub(super) const SET_EVAL: u32 = 0x20;
/// Flag of an element: the interval ends before it.
pub(super) const ELEMENT_INTERVAL_END: u32 = 0x1;
/// `nft`'s numbers for the types of set keys.
pub(super) const TYPE_IPV4: u32 = 7;
pub(super) const TYPE_IPV6: u32 = 8;

/// A transaction under construction; all its messages are about one table.
#[derive(Debug)]
pub(super) struct Batch {
    family: u8,
    table: CString,
    bytes: Vec<u8>,
    messages: u32,
    last_at: usize,
    scratch: Vec<u64>,
}

/// A hash set to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewSet<'a> {
    pub(super) name: &'a str,
    pub(super) key_type: u32,
    pub(super) key_bytes: u32,
    pub(super) flags: u32,
    pub(super) size: u32,
    pub(super) comment: &'a str,
}

/// Where a base chain stands in the way of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) kind: String,
    pub(super) number: u32,
    pub(super) priority: i32,
    pub(super) policy: u32,
}

/// One element of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) key: &'a [u8],
    pub(super) flags: u32,
    /// The kernel counts this down; an element to be deleted has none.
    pub(super) timeout_ms: Option<u64>,
}

/// How elements are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Fails the transaction where one is not there.
    Delete,
    /// Is content where one is not there (Linux 6.3).
    Destroy,
}

/// A batch with its end message, ready to be sent.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) bytes: Vec<u8>,
    /// The sequence number of the first message; the kernel answers to it what is wrong with the
    /// whole.
    pub(super) first: u32,
    /// The sequence number of the message that asks for an acknowledgement.
    pub(super) last: u32,
}

impl Batch {
    /// Starts a transaction on one table.
    pub(super) fn new(family: u8, table: &str) -> Batch {
        let mut batch = Batch {
            family,
            table: c_string(table),
            bytes: Vec::new(),
            messages: 0,
            last_at: 0,
            scratch: vec![0; MESSAGE_BYTES_MAX / size_of::<u64>()],
        };
        batch.write(|buffer, sequence| {
            // SAFETY: `write` hands out a buffer far larger than the 20 bytes of this message.
            unsafe { nftnl_c::nftnl_batch_begin(buffer, sequence) }
        });
        batch
    }

    /// Says whether there is no message in it.
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 1
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Ends the transaction. Only the last message asks for an acknowledgement: an answer for each
    /// could overflow the socket and hide what happened.
    pub(super) fn seal(mut self) -> Sealed {
        const FLAGS_AT: usize = 6;
        let (last, at) = (self.messages, self.last_at + FLAGS_AT);
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
        let flags = flags | u16::try_from(libc::NLM_F_ACK).expect("a flag of 16 bits");
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.write(|buffer, sequence| {
            // SAFETY: `write` hands out a buffer far larger than the 20 bytes of this message.
            unsafe { nftnl_c::nftnl_batch_end(buffer, sequence) }
        });
        Sealed { bytes: self.bytes, first: 1, last }
    }

    /// Makes the table with these flags, or gives them to the one that is there.
    pub(super) fn add_table(&mut self, flags: u32, comment: &str) {
        let object = self.table_object();
        object.set_u32(nftnl_c::NFTNL_TABLE_FLAGS, flags);
        object.set_data(nftnl_c::NFTNL_TABLE_USERDATA, &comment_tlv(0, comment));
        self.table_message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, &object);
    }

    /// Deletes the table with all that it holds.
    pub(super) fn delete_table(&mut self) {
        let object = self.table_object();
        self.table_message(libc::NFT_MSG_DELTABLE, 0, &object);
    }

    /// Makes a chain; one without a hook is only jumped to.
    pub(super) fn add_chain(&mut self, name: &str, hook: Option<&Hook>) {
        let object = self.chain_object(name);
        if let Some(hook) = hook {
            object.set_u32(nftnl_c::NFTNL_CHAIN_HOOKNUM, hook.number);
            object.set_u32(nftnl_c::NFTNL_CHAIN_PRIO, hook.priority.cast_unsigned());
            object.set_u32(nftnl_c::NFTNL_CHAIN_POLICY, hook.policy);
            object.set_text(nftnl_c::NFTNL_CHAIN_TYPE, &c_string(&hook.kind));
        }
        self.chain_message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, &object);
    }

    /// Deletes a chain, which nothing jumps to any more.
    pub(super) fn delete_chain(&mut self, name: &str) {
        let object = self.chain_object(name);
        self.chain_message(libc::NFT_MSG_DELCHAIN, 0, &object);
    }

    /// Deletes all rules of a chain, or of the whole table.
    pub(super) fn flush_rules(&mut self, chain: Option<&str>) {
        let object = self.rule_object();
        if let Some(chain) = chain {
            object.set_text(nftnl_c::NFTNL_RULE_CHAIN, &c_string(chain));
        }
        self.rule_message(libc::NFT_MSG_DELRULE, 0, &object);
    }

    /// Appends a rule to a chain.
    pub(super) fn add_rule(&mut self, chain: &str, expressions: &[Expr], comment: &str) {
        let object = self.rule_object();
        object.set_text(nftnl_c::NFTNL_RULE_CHAIN, &c_string(chain));
        if !comment.is_empty() {
            object.set_data(nftnl_c::NFTNL_RULE_USERDATA, &comment_tlv(0, comment));
        }
        for expression in expressions {
            add_expression(&object, expression);
        }
        let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        self.rule_message(libc::NFT_MSG_NEWRULE, flags, &object);
    }

    /// Makes a set.
    pub(super) fn add_set(&mut self, new: &NewSet<'_>) {
        const COMMENT: u8 = 7;
        let object = self.set_object(new.name);
        object.set_u32(nftnl_c::NFTNL_SET_FLAGS, new.flags);
        object.set_u32(nftnl_c::NFTNL_SET_KEY_TYPE, new.key_type);
        object.set_u32(nftnl_c::NFTNL_SET_KEY_LEN, new.key_bytes);
        object.set_u32(nftnl_c::NFTNL_SET_DESC_SIZE, new.size);
        // Only names a set within its own transaction; the kernel wants one all the same.
        object.set_u32(nftnl_c::NFTNL_SET_ID, self.messages);
        object.set_data(nftnl_c::NFTNL_SET_USERDATA, &comment_tlv(COMMENT, new.comment));
        self.set_message(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, &object);
    }

    /// Deletes a set, which no rule looks into any more.
    pub(super) fn delete_set(&mut self, name: &str) {
        let object = self.set_object(name);
        self.set_message(libc::NFT_MSG_DELSET, 0, &object);
    }

    /// Deletes all elements of a set.
    pub(super) fn flush_set(&mut self, name: &str) {
        let object = self.set_object(name);
        self.set_message(libc::NFT_MSG_DELSETELEM, 0, &object);
    }

    /// Adds elements to a set, at most [`MESSAGE_ELEMENTS_MAX`].
    pub(super) fn add_elements(&mut self, set: &str, elements: &[Element<'_>]) {
        self.elements(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, set, elements);
    }

    /// Deletes elements from a set, at most [`MESSAGE_ELEMENTS_MAX`].
    pub(super) fn remove_elements(&mut self, how: Removal, set: &str, elements: &[Element<'_>]) {
        let kind = match how {
            Removal::Delete => libc::NFT_MSG_DELSETELEM,
            Removal::Destroy => DESTROY_ELEMENTS,
        };
        self.elements(kind, 0, set, elements);
    }

    fn elements(&mut self, kind: i32, flags: i32, set: &str, elements: &[Element<'_>]) {
        assert!(elements.len() <= MESSAGE_ELEMENTS_MAX, "more elements than one message takes");
        let object = self.set_object(set);
        for element in elements {
            add_element(&object, element);
        }
        let family = self.family;
        self.write(|buffer, sequence| {
            let header = header(buffer, kind, flags, family, sequence);
            // SAFETY: the header was just built at the start of a buffer that holds the longest
            // list there can be (64 KiB), and the set is alive.
            unsafe { nftnl_c::nftnl_set_elems_nlmsg_build_payload(header, object.as_ptr()) };
            header
        });
    }

    fn table_object(&self) -> Object<Table> {
        let object = Object::<Table>::new();
        object.set_text(nftnl_c::NFTNL_TABLE_NAME, &self.table);
        object
    }

    fn chain_object(&self, name: &str) -> Object<Chain> {
        let object = Object::<Chain>::new();
        object.set_text(nftnl_c::NFTNL_CHAIN_TABLE, &self.table);
        object.set_text(nftnl_c::NFTNL_CHAIN_NAME, &c_string(name));
        object
    }

    fn rule_object(&self) -> Object<Rule> {
        let object = Object::<Rule>::new();
        object.set_text(nftnl_c::NFTNL_RULE_TABLE, &self.table);
        object
    }

    fn set_object(&self, name: &str) -> Object<Set> {
        let object = Object::<Set>::new();
        object.set_text(nftnl_c::NFTNL_SET_TABLE, &self.table);
        object.set_text(nftnl_c::NFTNL_SET_NAME, &c_string(name));
        object
    }

    fn table_message(&mut self, kind: i32, flags: i32, object: &Object<Table>) {
        let family = self.family;
        self.write(|buffer, sequence| {
            let header = header(buffer, kind, flags, family, sequence);
            // SAFETY: the header was just built in a buffer with room for a table's few
            // attributes, and the table is alive.
            unsafe { nftnl_c::nftnl_table_nlmsg_build_payload(header, object.as_ptr()) };
            header
        });
    }

    fn chain_message(&mut self, kind: i32, flags: i32, object: &Object<Chain>) {
        let family = self.family;
        self.write(|buffer, sequence| {
            let header = header(buffer, kind, flags, family, sequence);
            // SAFETY: as for tables.
            unsafe { nftnl_c::nftnl_chain_nlmsg_build_payload(header, object.as_ptr()) };
            header
        });
    }

    fn rule_message(&mut self, kind: i32, flags: i32, object: &Object<Rule>) {
        let family = self.family;
        self.write(|buffer, sequence| {
            let header = header(buffer, kind, flags, family, sequence);
            // SAFETY: as for tables; a rule of ours has at most a dozen short expressions.
            unsafe { nftnl_c::nftnl_rule_nlmsg_build_payload(header, object.as_ptr()) };
            header
        });
    }

    fn set_message(&mut self, kind: i32, flags: i32, object: &Object<Set>) {
        let family = self.family;
        self.write(|buffer, sequence| {
            let header = header(buffer, kind, flags, family, sequence);
            // SAFETY: as for tables.
            unsafe { nftnl_c::nftnl_set_nlmsg_build_payload(header, object.as_ptr()) };
            header
        });
    }

    /// Has one message built in the scratch buffer and appends it to the batch.
    fn write(&mut self, build: impl FnOnce(*mut libc::c_char, u32) -> *mut libc::nlmsghdr) {
        self.messages += 1;
        build(self.scratch.as_mut_ptr().cast(), self.messages);
        // SAFETY: the scratch buffer is initialised memory of exactly this many bytes, and `u8`
        // has no alignment.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.scratch.as_ptr().cast(), MESSAGE_BYTES_MAX) };
        let length = u32_native(&bytes[..4]).expect("four bytes make a number");
        let length = usize::try_from(length).expect("no less than 32 bits in a usize");
        self.last_at = self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..length]);
    }
}

fn header(
    buffer: *mut libc::c_char,
    kind: i32,
    flags: i32,
    family: u8,
    sequence: u32,
) -> *mut libc::nlmsghdr {
    let kind = u16::try_from(kind).expect("message types are small");
    let flags = u16::try_from(flags).expect("flags have 16 bits");
    // SAFETY: `buffer` is the scratch buffer of a batch: aligned to 8, far larger than a header.
    unsafe { nftnl_c::nftnl_nlmsg_build_hdr(buffer, kind, family.into(), flags, sequence) }
}

fn add_element(set: &Object<Set>, element: &Element<'_>) {
    let key_bytes = u32::try_from(element.key.len()).expect("a key has at most 16 bytes");
    // SAFETY: the element is made, checked, filled from borrowed memory that libnftnl copies, and
    // handed to the set, which frees it.
    unsafe {
        let object = nftnl_c::nftnl_set_elem_alloc();
        assert!(!object.is_null(), "out of memory");
        nftnl_c::nftnl_set_elem_set(
            object,
            attribute(nftnl_c::NFTNL_SET_ELEM_KEY),
            element.key.as_ptr().cast(),
            key_bytes,
        );
        if element.flags != 0 {
            let flags = attribute(nftnl_c::NFTNL_SET_ELEM_FLAGS);
            nftnl_c::nftnl_set_elem_set_u32(object, flags, element.flags);
        }
        if let Some(timeout_ms) = element.timeout_ms {
            let timeout = attribute(nftnl_c::NFTNL_SET_ELEM_TIMEOUT);
            nftnl_c::nftnl_set_elem_set_u64(object, timeout, timeout_ms);
        }
        nftnl_c::nftnl_set_elem_add(set.as_ptr(), object);
    }
}

fn add_expression(rule: &Object<Rule>, expression: &Expr) {
    const REGISTER: u32 = 1;
    const VERDICT_REGISTER: u32 = 0;
    match expression {
        Expr::Meta(meta) => Expression::new(rule, c"meta")
            .u32(nftnl_c::NFTNL_EXPR_META_KEY, *meta as u32)
            .u32(nftnl_c::NFTNL_EXPR_META_DREG, REGISTER),
        Expr::CtState => Expression::new(rule, c"ct")
            .u32(nftnl_c::NFTNL_EXPR_CT_KEY, ct::STATE)
            .u32(nftnl_c::NFTNL_EXPR_CT_DREG, REGISTER),
        Expr::CtDirection => Expression::new(rule, c"ct")
            .u32(nftnl_c::NFTNL_EXPR_CT_KEY, ct::DIRECTION)
            .u32(nftnl_c::NFTNL_EXPR_CT_DREG, REGISTER),
        Expr::FibDaddrType => Expression::new(rule, c"fib")
            .u32(nftnl_c::NFTNL_EXPR_FIB_RESULT, fib::RESULT_ADDRTYPE)
            .u32(nftnl_c::NFTNL_EXPR_FIB_FLAGS, fib::FLAG_DADDR)
            .u32(nftnl_c::NFTNL_EXPR_FIB_DREG, REGISTER),
        Expr::Payload(header, offset, length) => Expression::new(rule, c"payload")
            .u32(nftnl_c::NFTNL_EXPR_PAYLOAD_BASE, *header as u32)
            .u32(nftnl_c::NFTNL_EXPR_PAYLOAD_OFFSET, *offset)
            .u32(nftnl_c::NFTNL_EXPR_PAYLOAD_LEN, *length)
            .u32(nftnl_c::NFTNL_EXPR_PAYLOAD_DREG, REGISTER),
        Expr::Mask(mask) => Expression::new(rule, c"bitwise")
            .u32(nftnl_c::NFTNL_EXPR_BITWISE_SREG, REGISTER)
            .u32(nftnl_c::NFTNL_EXPR_BITWISE_DREG, REGISTER)
            .u32(nftnl_c::NFTNL_EXPR_BITWISE_LEN, u32::try_from(mask.len()).expect("16 at most"))
            .bytes(nftnl_c::NFTNL_EXPR_BITWISE_MASK, mask)
            .bytes(nftnl_c::NFTNL_EXPR_BITWISE_XOR, &vec![0; mask.len()]),
        Expr::Compare(comparison, bytes) => Expression::new(rule, c"cmp")
            .u32(nftnl_c::NFTNL_EXPR_CMP_SREG, REGISTER)
            .u32(nftnl_c::NFTNL_EXPR_CMP_OP, *comparison as u32)
            .bytes(nftnl_c::NFTNL_EXPR_CMP_DATA, bytes),
        Expr::Lookup(set) => Expression::new(rule, c"lookup")
            .u32(nftnl_c::NFTNL_EXPR_LOOKUP_SREG, REGISTER)
            .text(nftnl_c::NFTNL_EXPR_LOOKUP_SET, set),
        Expr::Counter => Expression::new(rule, c"counter"),
        Expr::Verdict(end) => {
            let immediate = Expression::new(rule, c"immediate")
                .u32(nftnl_c::NFTNL_EXPR_IMM_DREG, VERDICT_REGISTER);
            match end {
                Verdict::Accept => immediate.u32(nftnl_c::NFTNL_EXPR_IMM_VERDICT, verdict::ACCEPT),
                Verdict::Drop => immediate.u32(nftnl_c::NFTNL_EXPR_IMM_VERDICT, verdict::DROP),
                Verdict::Jump(chain) => immediate
                    .u32(nftnl_c::NFTNL_EXPR_IMM_VERDICT, verdict::JUMP)
                    .text(nftnl_c::NFTNL_EXPR_IMM_CHAIN, chain),
            }
        }
    };
}

/// An expression that was just added to a rule, to be filled.
struct Expression<'a> {
    object: NonNull<nftnl_c::nftnl_expr>,
    rule: PhantomData<&'a Object<Rule>>,
}

impl<'a> Expression<'a> {
    fn new(rule: &'a Object<Rule>, name: &CStr) -> Expression<'a> {
        // SAFETY: the expression is made by the name of one that libnftnl knows, checked, and
        // handed to the rule, which frees it: so it lives as long as the borrow of the rule.
        unsafe {
            let object = nftnl_c::nftnl_expr_alloc(name.as_ptr());
            let object = NonNull::new(object).expect("libnftnl 1.2.4 knows these expressions");
            nftnl_c::nftnl_rule_add_expr(rule.as_ptr(), object.as_ptr());
            Expression { object, rule: PhantomData }
        }
    }

    fn u32(self, kind: u32, value: u32) -> Expression<'a> {
        // SAFETY: the rule that owns the expression is borrowed.
        unsafe { nftnl_c::nftnl_expr_set_u32(self.object.as_ptr(), attribute(kind), value) };
        self
    }

    fn bytes(self, kind: u32, value: &[u8]) -> Expression<'a> {
        let length = u32::try_from(value.len()).expect("at most 16 bytes");
        let (object, value) = (self.object.as_ptr(), value.as_ptr().cast());
        // SAFETY: the rule that owns the expression is borrowed; libnftnl copies `length` bytes,
        // of which its own buffer takes 64.
        unsafe { nftnl_c::nftnl_expr_set(object, attribute(kind), value, length) };
        self
    }

    fn text(self, kind: u32, value: &str) -> Expression<'a> {
        let value = c_string(value);
        // SAFETY: the rule that owns the expression is borrowed; libnftnl copies the text.
        unsafe {
            nftnl_c::nftnl_expr_set_str(self.object.as_ptr(), attribute(kind), value.as_ptr());
        }
        self
    }
}

/// Kinds of libnftnl's objects, with the functions that make, fill and free one.
trait Kind {
    type C;
    const ALLOC: unsafe extern "C" fn() -> *mut Self::C;
    const FREE: unsafe extern "C" fn(*const Self::C);
    const SET_U32: unsafe extern "C" fn(*mut Self::C, u16, u32);
    const SET_TEXT: unsafe extern "C" fn(*mut Self::C, u16, *const libc::c_char) -> libc::c_int;
    /// Copies as many bytes as the last argument says.
    unsafe fn set_data(object: *mut Self::C, kind: u16, data: *const c_void, length: u32);
}

macro_rules! kinds {
    ($($kind:ident: $c:ident, $alloc:ident, $free:ident, $u32:ident, $text:ident, $data:ident;)*) => {$(
        struct $kind;

        impl Kind for $kind {
            type C = nftnl_c::$c;
            const ALLOC: unsafe extern "C" fn() -> *mut Self::C = nftnl_c::$alloc;
            const FREE: unsafe extern "C" fn(*const Self::C) = nftnl_c::$free;
            const SET_U32: unsafe extern "C" fn(*mut Self::C, u16, u32) = nftnl_c::$u32;
            const SET_TEXT: unsafe extern "C" fn(
                *mut Self::C,
                u16,
                *const libc::c_char,
            ) -> libc::c_int = nftnl_c::$text;

            unsafe fn set_data(object: *mut Self::C, kind: u16, data: *const c_void, length: u32) {
                // SAFETY: the caller vouches for the object and for `length` bytes of data.
                unsafe { nftnl_c::$data(object, kind, data, length) };
            }
        }
    )*};
}

kinds! {
    Table: nftnl_table, nftnl_table_alloc, nftnl_table_free, nftnl_table_set_u32,
        nftnl_table_set_str, nftnl_table_set_data;
    Chain: nftnl_chain, nftnl_chain_alloc, nftnl_chain_free, nftnl_chain_set_u32,
        nftnl_chain_set_str, nftnl_chain_set_data;
    Rule: nftnl_rule, nftnl_rule_alloc, nftnl_rule_free, nftnl_rule_set_u32,
        nftnl_rule_set_str, nftnl_rule_set_data;
    Set: nftnl_set, nftnl_set_alloc, nftnl_set_free, nftnl_set_set_u32,
        nftnl_set_set_str, nftnl_set_set_data;
}

/// An object of libnftnl, freed when dropped.
struct Object<K: Kind>(NonNull<K::C>);

impl<K: Kind> Object<K> {
    fn new() -> Object<K> {
        // SAFETY: the function takes nothing and answers a new object or null.
        Object(NonNull::new(unsafe { K::ALLOC() }).expect("out of memory"))
    }

    fn as_ptr(&self) -> *mut K::C {
        self.0.as_ptr()
    }

    fn set_u32(&self, kind: u32, value: u32) {
        // SAFETY: the object is alive, and all attributes set this way are numbers of 32 bits.
        unsafe { K::SET_U32(self.as_ptr(), attribute(kind), value) };
    }

    fn set_text(&self, kind: u32, value: &CStr) {
        // SAFETY: the object is alive; libnftnl copies the text.
        let result = unsafe { K::SET_TEXT(self.as_ptr(), attribute(kind), value.as_ptr()) };
        assert!(result == 0, "out of memory");
    }

    fn set_data(&self, kind: u32, value: &[u8]) {
        let length = u32::try_from(value.len()).expect("at most 256 bytes");
        // SAFETY: the object is alive; libnftnl copies `length` bytes.
        unsafe { K::set_data(self.as_ptr(), attribute(kind), value.as_ptr().cast(), length) };
    }
}

impl<K: Kind> Drop for Object<K> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once; what it was given belongs to it.
        unsafe { K::FREE(self.as_ptr()) };
    }
}

fn attribute(kind: u32) -> u16 {
    u16::try_from(kind).expect("libnftnl has a few dozen attributes")
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("names are checked when the configuration is read")
}

/// A comment in the form that `nft` shows: type, length, text, NUL.
fn comment_tlv(kind: u8, comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).expect("comments are short");
    let mut tlv = vec![kind, length];
    tlv.extend(comment.as_bytes());
    tlv.push(0);
    tlv
}

/// Has the runtime tell when a descriptor can be read.
pub(crate) fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives, and always the same descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// Sets one of netlink's own socket options.
pub(super) fn set_netlink_option(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four bytes");
    let value: *const libc::c_int = &raw const value;
    // SAFETY: the descriptor is borrowed, hence open; value and length describe one integer.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, value.cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

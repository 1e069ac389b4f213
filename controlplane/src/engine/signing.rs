//! When the chain's end is signed.
//!
//! A signature takes some 20 µs, a commit takes hundreds, so not every commit under load gets one:
//! a commit carries a head in its own transaction when the last one is a second old, and what is
//! left is signed once a minute, before an export, and at the end.

use std::time::Duration;

use postern_shared::time::Timestamp;

use crate::audit::{AuditError, AuditKey, AuditView, Hex, LANE, Tip, head_operation};
use crate::store::{Item, Reader};

/// Shortest time between two signatures that commits carry.
const SIGNATURE_REST: Duration = Duration::from_secs(1);

/// The key, and how far it has signed.
pub(super) struct Signing {
    /// None where there is none, or it must not be used.
    key: Option<AuditKey>,
    public: Option<Hex<32>>,
    /// The last link that was signed durably.
    signed: u64,
    /// When the last signature was made.
    signed_at: Option<Timestamp>,
    /// What the commit under way will have signed.
    under_way: Option<u64>,
    /// Whether links were added here that are not signed.
    has_unsigned: bool,
}

impl Signing {
    /// Looks how far the key has signed. Where the chain is not what was signed, or a key that is not
    /// new has signed nothing, nothing is ever signed over that: it stays evidence, and the doors
    /// stay in use.
    pub(super) fn start(
        key: Option<AuditKey>,
        reader: &dyn Reader,
        tip: Option<Tip>,
    ) -> Result<Signing, AuditError> {
        let mut signing = Signing {
            key: None,
            public: key.as_ref().map(AuditKey::public),
            signed: 0,
            signed_at: None,
            under_way: None,
            has_unsigned: false,
        };
        let Some(key) = key else { return Ok(signing) };
        let snapshot = reader.snapshot()?;
        let view = AuditView::new(snapshot.as_ref());
        let heads = view.heads()?;
        let public = key.public();
        if let Some(head) = heads.iter().find(|head| head.key == public) {
            let is_there = match tip {
                Some(tip) if tip.number == head.number => tip.hash == head.hash,
                Some(tip) if tip.number < head.number => false,
                Some(_) => {
                    let link = view.link(head.number)?;
                    link.is_some_and(|link| link.tip(LANE).hash == head.hash)
                }
                None => false,
            };
            if !is_there || !head.is_signed() {
                tracing::error!(
                    number = head.number,
                    "the audit is not what was signed; nothing more is signed: run \
                     `postern-controlplane audit verify`"
                );
                return Ok(signing);
            }
            signing.signed = head.number;
        } else if tip.is_some() && !key.is_new() {
            tracing::error!(
                key = %public,
                "the audit's key has signed nothing of what is there; nothing more is signed: \
                 restore the key, or remove it to have a new one made"
            );
            return Ok(signing);
        }
        signing.key = Some(key);
        Ok(signing)
    }

    /// The public half of the key.
    pub(super) fn public(&self) -> Option<Hex<32>> {
        self.public
    }

    /// The key, where it may be used.
    pub(super) fn key(&self) -> Option<&AuditKey> {
        self.key.as_ref()
    }

    /// The head for a commit that ends in `tip`, if it is to carry one.
    pub(super) fn due(&mut self, tip: Tip, now: Timestamp) -> Option<Item> {
        self.under_way = None;
        let rested = self.signed_at.is_none_or(|at| SIGNATURE_REST <= now.since(at));
        if rested { self.item(tip, now) } else { None }
    }

    /// The head that signs `tip`, unless it is signed already.
    pub(super) fn item(&mut self, tip: Tip, now: Timestamp) -> Option<Item> {
        let key = self.key.as_ref().filter(|_| self.signed < tip.number)?;
        let head = key.sign_head(LANE, tip, now);
        self.signed_at = Some(now);
        self.under_way = Some(tip.number);
        Some(Item { preconditions: Vec::new(), operations: vec![head_operation(&head)] })
    }

    /// Notes that the chain ends in `tip` now, durably.
    pub(super) fn committed(&mut self, tip: Tip) {
        self.signed = self.under_way.take().unwrap_or(self.signed);
        self.has_unsigned = self.signed < tip.number;
    }

    /// Notes that the chain was signed up to `tip`, durably.
    pub(super) fn signed(&mut self, tip: Tip, now: Timestamp) {
        (self.signed, self.signed_at, self.has_unsigned) = (tip.number, Some(now), false);
    }

    /// Notes that the head under way was not written.
    pub(super) fn not_committed(&mut self) {
        self.under_way = None;
    }

    /// Says whether this writer has added links that are not signed.
    pub(super) fn has_unsigned(&self) -> bool {
        self.has_unsigned && self.key.is_some()
    }
}

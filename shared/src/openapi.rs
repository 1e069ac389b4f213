//! How the types with a text of their own look in the API's document.

use std::borrow::Cow;

use utoipa::openapi::schema::{
    ArrayBuilder, Object, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{KnownFormat, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::digest::Digest;
use crate::ids::{AgentId, EnrolmentId, Epoch, GroupId, KeyId, MemberId, OrgId, PairId, UserId};
use crate::network::Network;
use crate::position::Revision;
use crate::scope::{Scope, ScopeSet};
use crate::time::{Expiry, Timestamp, Ttl};

/// White space as names are trimmed of it, for a character class.
const SPACE: &str = r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
/// What would act where it is shown, for a character class.
const ACTING: &str =
    r"\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb";

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

/// A name or note.
pub fn label() -> Object {
    let pattern = format!("^[^{SPACE}{ACTING}](?:[^{ACTING}]{{0,98}}[^{SPACE}{ACTING}])?$");
    text("1 to 100 characters, none of which acts where it is shown; no space at either end.")
        .pattern(Some(pattern))
        .min_length(Some(1))
        .max_length(Some(100))
        .build()
}

/// A mail address.
pub fn email() -> Object {
    let pattern = format!("^[^{SPACE}{ACTING}<>,;@]+@[^{SPACE}{ACTING}<>,;@]+$");
    text("A mail address, such as name@example.org.")
        .pattern(Some(pattern))
        .max_length(Some(254))
        .build()
}

fn time() -> ObjectBuilder {
    text("A time in RFC 3339, in UTC.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

macro_rules! schemas {
    ($($type:ident: $schema:expr;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                Schema::from($schema.build()).into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                stringify!($type).into()
            }
        }
    )*};
}

fn uuid(description: &str) -> ObjectBuilder {
    text(description).format(Some(SchemaFormat::Custom("uuid".to_owned())))
}

schemas! {
    Timestamp: time();
    Expiry: time()
        .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
        .description(Some("A time in RFC 3339, in UTC; null for never."));
    Ttl: ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(Ttl::SECS_MAX))
        .description(Some("A lifetime in seconds."));
    Network: text("An address or a network in CIDR notation without host bits, of IPv4 or IPv6.")
        .examples(["203.0.113.0/24", "2001:db8::7/128"]);
    Revision: ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .description(Some("Counts up within an epoch, with gaps."));
    Digest: text("Two lists share it exactly when they have the same entries.")
        .pattern(Some("^[0-9a-f]{32}$"));
    ScopeSet: ArrayBuilder::new()
        .items(Scope::schema())
        .unique_items(true)
        .description(Some("What a key may do; `write` implies the `read` of the same resource."));
    OrgId: uuid("Names an org.");
    UserId: uuid("Names a person.");
    KeyId: uuid("Names an API key.");
    PairId: uuid("Names a pair.");
    GroupId: uuid("Names a group.");
    MemberId: uuid("Names a membership.");
    AgentId: uuid("Names an agent.");
    EnrolmentId: uuid("Names an invitation.");
    Epoch: uuid("Changes when the store was restored or replaced.");
}

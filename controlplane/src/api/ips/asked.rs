//! Which form of a list is asked for.

use axum::extract::Query;
use axum::http::Uri;
use postern_shared::format::{Format, Name, Rendering};
use postern_shared::network::{Family, Network};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::http::ApiError;

/// A form of a list, and what of the list is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) form: Form,
    family: Option<Family>,
    name: Option<Name>,
    table: Option<Name>,
}

/// Ours, or that of another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    File(Format),
}

/// The query of a list, for the API's document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "this describes what `Raw` reads")]
pub(super) struct AskedQuery {
    /// The form of the list.
    #[param(inline)]
    format: Option<FormName>,
    /// Only entries of this family: 4 or 6.
    #[param(inline)]
    family: Option<FamilyName>,
    /// What sets and variables are called, in the forms `nft`, `ipset` and `nginx`.
    #[param(pattern = "^[A-Za-z][A-Za-z0-9_]{0,26}$")]
    name: Option<String>,
    /// The nftables table of family `inet` that the sets are in, in the form `nft`.
    #[param(pattern = "^[A-Za-z][A-Za-z0-9_]{0,26}$")]
    table: Option<String>,
}

/// The query as it is written: `?format=nft&family=4&table=filter&name=admins`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    format: FormName,
    family: Option<FamilyName>,
    /// What sets and variables are called; `postern_` and the group's number where it is not there.
    name: Option<Name>,
    /// The nftables table of family `inet` that the sets are in; `filter` where it is not there.
    table: Option<Name>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum FormName {
    #[default]
    Json,
    Text,
    Csv,
    Nft,
    Ipset,
    Nginx,
    Apache,
    Haproxy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
enum FamilyName {
    #[serde(rename = "4")]
    V4,
    #[serde(rename = "6")]
    V6,
}

impl Asked {
    pub(super) fn read(uri: &Uri) -> Result<Asked, ApiError> {
        let Query(raw) = Query::<Raw>::try_from_uri(uri)
            .map_err(|error| ApiError::BadRequest { detail: error.body_text() })?;
        let form = raw.format.form();
        let has_name = matches!(form, Form::File(format) if format.has_name());
        if raw.name.is_some() && !has_name {
            let detail = "`name` belongs to `format=nft`, `ipset` or `nginx`".to_owned();
            return Err(ApiError::BadRequest { detail });
        }
        if raw.table.is_some() && form != Form::File(Format::Nft) {
            let detail = "`table` belongs to `format=nft`".to_owned();
            return Err(ApiError::BadRequest { detail });
        }
        let family = raw.family.map(FamilyName::family);
        Ok(Asked { form, family, name: raw.name, table: raw.table })
    }

    /// What tells this form from all others, for the version of an answer.
    pub(super) fn parts(&self) -> ([u8; 2], &[u8], &[u8]) {
        let form = match self.form {
            Form::Json => 0,
            Form::File(format) => 1 + format as u8,
        };
        let family = match self.family {
            None => 0,
            Some(Family::V4) => 4,
            Some(Family::V6) => 6,
        };
        ([form, family], written(&self.name), written(&self.table))
    }

    pub(super) fn wants(&self, network: Network) -> bool {
        self.family.is_none_or(|family| network.family() == family)
    }

    /// How the list of the group of this number is to be written.
    pub(super) fn rendering(&self, format: Format, group_number: u64) -> Rendering {
        let name = self.name.clone().unwrap_or_else(|| Name::numbered(group_number));
        let table = self.table.clone().unwrap_or_else(Name::filter);
        Rendering { format, name, table, family: self.family }
    }
}

fn written(name: &Option<Name>) -> &[u8] {
    name.as_ref().map_or("", Name::as_str).as_bytes()
}

impl FormName {
    fn form(self) -> Form {
        match self {
            FormName::Json => Form::Json,
            FormName::Text => Form::File(Format::Text),
            FormName::Csv => Form::File(Format::Csv),
            FormName::Nft => Form::File(Format::Nft),
            FormName::Ipset => Form::File(Format::Ipset),
            FormName::Nginx => Form::File(Format::Nginx),
            FormName::Apache => Form::File(Format::Apache),
            FormName::Haproxy => Form::File(Format::Haproxy),
        }
    }
}

impl FamilyName {
    fn family(self) -> Family {
        match self {
            FamilyName::V4 => Family::V4,
            FamilyName::V6 => Family::V6,
        }
    }
}

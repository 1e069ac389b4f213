//! What we may ask of Cloudflare, and the least token that lets us.

use std::collections::BTreeSet;
use std::fmt;

use super::config::Scope;

/// A call of ours. What is not named here is never asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Reads which lists an account has, and how many items each holds.
    GetLists,
    /// Reads the items of a list.
    GetItems,
    /// Adds items, or gives those that are there another comment.
    CreateItems,
    /// Takes items away, by their ids.
    DeleteItems,
    /// Reads what has become of a change of items.
    GetBulkOperation,
    /// Reads access rules.
    ListAccessRules(At),
    /// Adds an access rule.
    CreateAccessRule(At),
    /// Gives an access rule another note.
    EditAccessRule(At),
    /// Takes an access rule away, by its id.
    DeleteAccessRule(At),
}

/// Where access rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// At an account, for all of its zones.
    Account,
    /// At one zone.
    Zone,
}

/// All that a target of type `cloudflare_list` asks.
pub const LIST: [Action; 5] = [
    Action::GetLists,
    Action::GetItems,
    Action::CreateItems,
    Action::DeleteItems,
    Action::GetBulkOperation,
];

/// All that a target of type `cloudflare_access_rule` asks for an account.
pub const ACCESS_RULES_OF_ACCOUNT: [Action; 4] = access_rules(At::Account);

/// All that a target of type `cloudflare_access_rule` asks for a zone.
pub const ACCESS_RULES_OF_ZONE: [Action; 4] = access_rules(At::Zone);

const fn access_rules(at: At) -> [Action; 4] {
    [
        Action::ListAccessRules(at),
        Action::CreateAccessRule(at),
        Action::EditAccessRule(at),
        Action::DeleteAccessRule(at),
    ]
}

/// What a token must have for an action. To edit includes to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// What the permission is for: one account or one zone.
    pub at: At,
    /// How Cloudflare calls it.
    pub group: &'static str,
}

impl Permission {
    /// How the API calls the permission group.
    pub fn api_name(self) -> String {
        format!("{} Write", self.group)
    }
}

impl fmt::Display for Permission {
    /// As the dashboard shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match self.at {
            At::Account => "Account",
            At::Zone => "Zone",
        };
        write!(f, "{at} > {} > Edit", self.group)
    }
}

impl Action {
    /// What a token needs for it.
    pub const fn permission(self) -> Permission {
        match self {
            Action::GetLists
            | Action::GetItems
            | Action::CreateItems
            | Action::DeleteItems
            | Action::GetBulkOperation => {
                Permission { at: At::Account, group: "Account Filter Lists" }
            }
            Action::ListAccessRules(at)
            | Action::CreateAccessRule(at)
            | Action::EditAccessRule(at)
            | Action::DeleteAccessRule(at) => match at {
                At::Account => Permission { at, group: "Account Firewall Access Rules" },
                At::Zone => Permission { at, group: "Firewall Services" },
            },
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::GetLists => "read the lists",
            Action::GetItems => "read the list's items",
            Action::CreateItems => "add items to the list",
            Action::DeleteItems => "take items out of the list",
            Action::GetBulkOperation => "read what became of a change",
            Action::ListAccessRules(_) => "read access rules",
            Action::CreateAccessRule(_) => "add an access rule",
            Action::EditAccessRule(_) => "edit an access rule",
            Action::DeleteAccessRule(_) => "take an access rule away",
        })
    }
}

impl From<&Scope> for At {
    fn from(scope: &Scope) -> At {
        match scope {
            Scope::Account(_) => At::Account,
            Scope::Zone(_) => At::Zone,
        }
    }
}

/// Writes the least token that may do these actions, as the API makes one; `ACCOUNT`, `ZONE` and
/// `ID` are the operator's to fill in.
pub fn token(actions: &[Action]) -> String {
    let permissions: BTreeSet<Permission> =
        actions.iter().map(|action| action.permission()).collect();
    let policies: Vec<String> = permissions.into_iter().map(policy).collect();
    let policies = policies.join(",\n");
    format!("{{\n  \"name\": \"postern-agent\",\n  \"policies\": [\n{policies}\n  ]\n}}\n")
}

fn policy(permission: Permission) -> String {
    let resource = match permission.at {
        At::Account => "com.cloudflare.api.account.ACCOUNT",
        At::Zone => "com.cloudflare.api.account.zone.ZONE",
    };
    let name = permission.api_name();
    format!(
        "    {{\n      \"effect\": \"allow\",\n      \"resources\": {{ \"{resource}\": \"*\" }},\n      \
         \"permission_groups\": [{{ \"id\": \"ID\", \"name\": \"{name}\" }}]\n    }}"
    )
}

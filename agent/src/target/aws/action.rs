//! What we may ask of EC2, and the least policy that lets us.

use std::fmt;

/// A call of ours. What is not named here is never asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Reads the rules of a security group.
    DescribeSecurityGroupRules,
    /// Adds rules.
    AuthorizeSecurityGroupIngress,
    /// Tags the rules that are being added; no call of its own.
    CreateTags,
    /// Takes rules away, by their ids.
    RevokeSecurityGroupIngress,
    /// Changes the description of rules, by their ids.
    UpdateSecurityGroupRuleDescriptionsIngress,
    /// Reads version, state and size of prefix lists.
    DescribeManagedPrefixLists,
    /// Reads the entries of a version.
    GetManagedPrefixListEntries,
    /// Makes the next version of a list, or a larger one.
    ModifyManagedPrefixList,
}

/// All that a target of type `aws_security_group` asks.
pub const SECURITY_GROUP: [Action; 6] = [
    Action::DescribeSecurityGroupRules,
    Action::AuthorizeSecurityGroupIngress,
    Action::CreateTags,
    Action::RevokeSecurityGroupIngress,
    Action::UpdateSecurityGroupRuleDescriptionsIngress,
    Action::DescribeManagedPrefixLists,
];

/// All that a target of type `aws_prefix_list` asks.
pub const PREFIX_LIST: [Action; 3] = [
    Action::DescribeManagedPrefixLists,
    Action::GetManagedPrefixListEntries,
    Action::ModifyManagedPrefixList,
];

impl Action {
    /// How IAM and the API call it.
    pub const fn name(self) -> &'static str {
        match self {
            Action::DescribeSecurityGroupRules => "DescribeSecurityGroupRules",
            Action::AuthorizeSecurityGroupIngress => "AuthorizeSecurityGroupIngress",
            Action::CreateTags => "CreateTags",
            Action::RevokeSecurityGroupIngress => "RevokeSecurityGroupIngress",
            Action::UpdateSecurityGroupRuleDescriptionsIngress => {
                "UpdateSecurityGroupRuleDescriptionsIngress"
            }
            Action::DescribeManagedPrefixLists => "DescribeManagedPrefixLists",
            Action::GetManagedPrefixListEntries => "GetManagedPrefixListEntries",
            Action::ModifyManagedPrefixList => "ModifyManagedPrefixList",
        }
    }

    /// What of an account the action can be kept to.
    const fn reach(self) -> Reach {
        match self {
            Action::DescribeSecurityGroupRules | Action::DescribeManagedPrefixLists => Reach::Any,
            Action::AuthorizeSecurityGroupIngress
            | Action::RevokeSecurityGroupIngress
            | Action::UpdateSecurityGroupRuleDescriptionsIngress => Reach::Group,
            Action::CreateTags => Reach::NewRules,
            Action::GetManagedPrefixListEntries | Action::ModifyManagedPrefixList => Reach::List,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ec2:{}", self.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// IAM knows no resource for it.
    Any,
    /// One security group and its rules.
    Group,
    /// Rules, and only while they are being made.
    NewRules,
    /// One prefix list.
    List,
}

impl Reach {
    const ALL: [Reach; 4] = [Reach::Any, Reach::Group, Reach::NewRules, Reach::List];

    /// The rest of a statement; `REGION`, `ACCOUNT`, `GROUP` and `LIST` are the operator's to fill in.
    const fn rest(self) -> &'static str {
        match self {
            Reach::Any => r#""Resource": "*""#,
            Reach::Group => {
                r#""Resource": [
        "arn:aws:ec2:REGION:ACCOUNT:security-group/GROUP",
        "arn:aws:ec2:REGION:ACCOUNT:security-group-rule/*"
      ]"#
            }
            Reach::NewRules => {
                r#""Resource": "arn:aws:ec2:REGION:ACCOUNT:security-group-rule/*",
      "Condition": { "StringEquals": { "ec2:CreateAction": "AuthorizeSecurityGroupIngress" } }"#
            }
            Reach::List => r#""Resource": "arn:aws:ec2:REGION:ACCOUNT:prefix-list/LIST""#,
        }
    }
}

/// Writes the least IAM policy that allows these actions.
pub fn policy(actions: &[Action]) -> String {
    let statements = Reach::ALL.iter().filter_map(|reach| {
        let within = actions.iter().filter(|action| action.reach() == *reach);
        let names: Vec<String> = within.map(|action| format!("        \"{action}\"")).collect();
        let names = (!names.is_empty()).then(|| names.join(",\n"))?;
        let rest = reach.rest();
        Some(format!(
            "    {{\n      \"Effect\": \"Allow\",\n      \"Action\": [\n{names}\n      ],\n      {rest}\n    }}"
        ))
    });
    let statements = statements.collect::<Vec<_>>().join(",\n");
    format!("{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n{statements}\n  ]\n}}\n")
}

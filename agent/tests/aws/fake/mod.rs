//! An EC2 endpoint of ours: a fake, as strict, forgetful and slow to agree with itself as the real one.
//!
//! Query in, XML out, by EC2's published API. What it grants it decides on what is; what it shows may
//! be as old as `Temper::behind_max`.

mod groups;
mod lists;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::groups::Rule;
pub(crate) use self::lists::List;
use self::request::Request;
use crate::chance::Chance;

/// An answer: status and body.
pub(crate) type Answer = (u16, String);

/// An error, by EC2's name for it.
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// How the fake behaves where the real one may behave so or so.
#[derive(Debug, Clone)]
pub(crate) struct Temper {
    /// How old a read may be.
    pub(crate) behind_max: Duration,
    /// How long a prefix list takes from one version to the next.
    pub(crate) working: Duration,
    /// Most items of a page, whatever is asked for.
    pub(crate) page_max: usize,
    /// Whether pages come with items again that an earlier one had.
    pub(crate) repeats: bool,
    /// Calls in a burst, and how many a second come back.
    pub(crate) bucket: (f64, f64),
    /// Rules of a family in a group.
    pub(crate) rules_max: usize,
}

impl Default for Temper {
    fn default() -> Temper {
        Temper {
            behind_max: Duration::ZERO,
            working: Duration::from_secs(2),
            page_max: 1000,
            repeats: false,
            bucket: (100.0, 20.0),
            rules_max: 60,
        }
    }
}

/// The endpoint; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct FakeEc2(Arc<Mutex<State>>);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) temper: Temper,
    pub(crate) chance: Chance,
    /// What the caller may do; all where nobody says.
    pub(crate) allowed: Option<BTreeSet<String>>,
    pub(crate) is_expired: bool,
    pub(crate) groups: BTreeMap<String, groups::Group>,
    pub(crate) lists: BTreeMap<String, List>,
    /// When which call was made.
    pub(crate) calls: Vec<(Instant, String)>,
    tokens: (f64, Instant),
    ids: u64,
}

impl FakeEc2 {
    pub(crate) fn new(seed: u64, temper: Temper) -> FakeEc2 {
        let tokens = (temper.bucket.0, Instant::now());
        FakeEc2(Arc::new(Mutex::new(State {
            temper,
            chance: Chance::new(seed),
            allowed: None,
            is_expired: false,
            groups: BTreeMap::new(),
            lists: BTreeMap::new(),
            calls: Vec::new(),
            tokens,
            ids: 0,
        })))
    }

    /// What really is, and the way to change it past the API.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Answers a call.
    pub(crate) fn answer(&self, body: &[u8]) -> Answer {
        let request = Request::read(body);
        let mut state = self.state();
        state.calls.push((Instant::now(), request.action.clone()));
        match state.carry_out(&request) {
            Ok(content) => {
                let action = &request.action;
                let namespace = "http://ec2.amazonaws.com/doc/2016-11-15/";
                let id = "<requestId>00000000-0000-4000-8000-000000000000</requestId>";
                (
                    200,
                    format!(
                        "<{action}Response xmlns=\"{namespace}\">{id}{content}</{action}Response>"
                    ),
                )
            }
            Err(refusal) => (refusal.status, refusal.xml()),
        }
    }

    /// How often each call was made, since the last time this was asked.
    pub(crate) fn take_calls(&self) -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for (_, action) in std::mem::take(&mut self.state().calls) {
            *counted.entry(action).or_default() += 1;
        }
        counted
    }
}

impl State {
    fn carry_out(&mut self, request: &Request) -> Result<String, Refusal> {
        if self.is_expired {
            return Err(refused("RequestExpired", "Request has expired."));
        }
        self.take_token()?;
        let mut needed = vec![request.action.as_str()];
        if request.get("TagSpecification.1.ResourceType").is_some() {
            needed.push("CreateTags");
        }
        for action in needed {
            if self
                .allowed
                .as_ref()
                .is_some_and(|allowed| !allowed.contains(&format!("ec2:{action}")))
            {
                let message = "You are not authorized to perform this operation.";
                return Err(Refusal {
                    status: 403,
                    code: "UnauthorizedOperation",
                    message: message.to_owned(),
                });
            }
        }
        match request.action.as_str() {
            "DescribeSecurityGroupRules" => self.describe_rules(request),
            "AuthorizeSecurityGroupIngress" => self.authorize(request),
            "RevokeSecurityGroupIngress" => self.revoke(request),
            "UpdateSecurityGroupRuleDescriptionsIngress" => self.describe(request),
            "DescribeManagedPrefixLists" => self.describe_lists(request),
            "GetManagedPrefixListEntries" => self.list_entries(request),
            "ModifyManagedPrefixList" => self.modify_list(request),
            other => Err(refused(
                "InvalidAction",
                format!("The action {other} is not valid for this web service."),
            )),
        }
    }

    /// EC2's own limit, which is not ours.
    fn take_token(&mut self) -> Result<(), Refusal> {
        let (left, since) = self.tokens;
        let (burst, rate) = self.temper.bucket;
        let now = Instant::now();
        let left = burst.min(left + rate * now.duration_since(since).as_secs_f64());
        self.tokens = (left, now);
        if left < 1.0 {
            let message = "Request limit exceeded.".to_owned();
            return Err(Refusal { status: 503, code: "RequestLimitExceeded", message });
        }
        self.tokens.0 -= 1.0;
        Ok(())
    }

    /// How far behind the next read is.
    fn behind(&mut self) -> Instant {
        let behind = self.chance.up_to(self.temper.behind_max);
        Instant::now().checked_sub(behind).unwrap_or_else(Instant::now)
    }

    fn id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!("{prefix}-{:017x}", self.ids)
    }

    /// A page of items, and the token of the next. Tokens are offsets; with repeats, items come in
    /// another order each time, and the last one of a page again in the next.
    fn page(&mut self, request: &Request, items: &[String]) -> Result<(String, String), Refusal> {
        let asked = match request.get("MaxResults") {
            Some(asked) => {
                asked.parse().map_err(|_| refused("InvalidParameterValue", "MaxResults"))?
            }
            None => self.temper.page_max,
        };
        let from: usize = request
            .get("NextToken")
            .map_or(Ok(0), str::parse)
            .map_err(|_| refused("InvalidNextToken", "The token is not valid."))?;
        let until = items.len().min(from + self.temper.page_max.min(asked));
        let first = if self.temper.repeats { from.saturating_sub(1) } else { from };
        let mut shown: Vec<&String> =
            items.get(first.min(until)..until).unwrap_or_default().iter().collect();
        if self.temper.repeats {
            self.chance.shuffle(&mut shown);
        }
        let shown = shown.into_iter().map(|item| format!("<item>{item}</item>")).collect();
        let token = if until < items.len() {
            format!("<nextToken>{until}</nextToken>")
        } else {
            String::new()
        };
        Ok((shown, token))
    }
}

impl Refusal {
    fn xml(&self) -> String {
        let Refusal { code, message, .. } = self;
        let message = escaped(message);
        let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Errors>{error}</Errors>\
             <RequestID>r</RequestID></Response>"
        )
    }
}

pub(crate) fn refused(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { status: 400, code, message: message.into() }
}

/// Text as XML has it.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What EC2 takes in a description.
fn check_description(text: &str) -> Result<(), Refusal> {
    let is_good =
        |char: char| char.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(char);
    if text.len() <= 255 && text.chars().all(is_good) {
        return Ok(());
    }
    Err(refused("InvalidParameterValue", format!("Invalid rule description: {text}")))
}

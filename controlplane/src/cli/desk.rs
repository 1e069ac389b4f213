//! One run's requests: one after the other, and lists page by page.

use postern_shared::network::Network;
use postern_shared::time::Timestamp;

use super::Failure;
use super::way::{AskError, UnreachableError, Way};
use crate::config::Config;
use crate::operator::{
    AgentView, Answer, GroupList, GroupView, KeyView, MemberView, Operation, Page, PairView,
    Reference, Reply, Request, UserView,
};

/// One run's way to the operations of one org.
pub(super) struct Desk {
    way: Way,
    config: Config,
    org: Option<Reference>,
}

/// A whole list, with the plane's time of its last page.
type Whole<T> = Result<(Vec<T>, Timestamp), Failure>;

impl Desk {
    pub(super) async fn open(
        config: Config,
        org: Option<Reference>,
    ) -> Result<Desk, UnreachableError> {
        Ok(Desk { way: Way::find(&config).await?, config, org })
    }

    pub(super) async fn close(self) {
        self.way.close().await;
    }

    pub(super) async fn ask(&self, operation: Operation) -> Result<Reply, AskError> {
        let request = Request { org: self.org.clone(), operation };
        self.way.ask(&self.config, &request).await
    }

    pub(super) async fn keys(&self, all: bool) -> Whole<KeyView> {
        let ask = |after| Operation::ListKeys { all, after };
        self.whole(ask, |answer| if let Answer::Keys(page) = answer { Some(page) } else { None })
            .await
    }

    pub(super) async fn pairs(&self) -> Whole<PairView> {
        let ask = |after| Operation::ListPairs { after };
        self.whole(ask, |answer| if let Answer::Pairs(page) = answer { Some(page) } else { None })
            .await
    }

    pub(super) async fn groups(&self) -> Whole<GroupView> {
        let ask = |after| Operation::ListGroups { after };
        self.whole(ask, |answer| if let Answer::Groups(page) = answer { Some(page) } else { None })
            .await
    }

    pub(super) async fn agents(&self, all: bool) -> Whole<AgentView> {
        let ask = |after| Operation::ListAgents { all, after };
        self.whole(ask, |answer| if let Answer::Agents(page) = answer { Some(page) } else { None })
            .await
    }

    pub(super) async fn users(&self) -> Whole<UserView> {
        let ask = |after| Operation::ListUsers { after };
        self.whole(ask, |answer| if let Answer::Users(page) = answer { Some(page) } else { None })
            .await
    }

    /// Reads a group with all that it allows, and all its members.
    pub(super) async fn group(
        &self,
        group: &Reference,
    ) -> Result<(GroupList, Vec<MemberView>, Timestamp), Failure> {
        let mut list: Option<GroupList> = None;
        let ask = |after: Option<Network>| Operation::ShowGroup { group: group.clone(), after };
        let (entries, as_of) = self
            .whole(ask, |answer| {
                let Answer::Group(mut part) = answer else { return None };
                let page = std::mem::replace(&mut part.allowed, Page::empty());
                list.get_or_insert(part);
                Some(page)
            })
            .await?;
        let ask = |after| Operation::ListMembers { group: group.clone(), after };
        let (members, _) = self
            .whole(ask, |answer| if let Answer::Members(page) = answer { Some(page) } else { None })
            .await?;
        let mut list = list.ok_or(Failure::Mismatch)?;
        list.allowed.items = entries;
        Ok((list, members, as_of))
    }

    /// Asks for one page after the other.
    async fn whole<T, C>(
        &self,
        ask: impl Fn(Option<C>) -> Operation,
        mut page_of: impl FnMut(Answer) -> Option<Page<T, C>>,
    ) -> Whole<T> {
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let reply = self.ask(ask(after)).await?;
            let page = page_of(reply.answer).ok_or(Failure::Mismatch)?;
            items.extend(page.items);
            after = page.next;
            if after.is_none() {
                return Ok((items, reply.as_of));
            }
        }
    }
}

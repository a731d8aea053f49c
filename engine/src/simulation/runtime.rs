//! What a container runtime on a node knows of its sandboxes, and what it calls next.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::process::Work;
use super::world::Plan;
use crate::lease::{Attachment, Owner, Pod};
use crate::operations::{Allocate, Check, Collect, Release, Want};
use crate::store::memory::Random;

/// The CNI network of all sandboxes.
const NETWORK: &str = "net";
/// GC spares what is younger, in milliseconds. No call takes as long, or one that began before the list would be freed.
const GRACE: u64 = 120_000;

/// A sandbox as its runtime sees it.
#[derive(Clone, Debug)]
pub(super) struct Sandbox {
    pub(super) attachment: Attachment,
    owner: Owner,
    wants: Vec<Want>,
    pub(super) state: State,
    /// A call for it is under way, and somebody listens.
    pub(super) is_busy: bool,
    /// Calls for it overlapped, so that their order is nobody's.
    pub(super) is_muddled: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// An ADD was answered.
    Up,
    /// An ADD is under way, failed or died.
    Unknown,
    /// It is being deleted, or that failed.
    Leaving,
    /// It was deleted.
    Gone,
    /// It was torn down, and nobody will delete it: GC's work.
    Forgotten,
}

/// The runtime of a node.
#[derive(Debug, Default)]
pub(super) struct Runtime {
    pub(super) sandboxes: Vec<Sandbox>,
    n_containers: u64,
}

/// A call that the runtime makes.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) work: Work,
    /// Whose it is, and whom GC gives up.
    pub(super) attachments: Vec<Attachment>,
    /// What it takes out of its holders' hands.
    pub(super) lets_go: Vec<Attachment>,
}

impl Runtime {
    /// Chooses the next call; `None` when there is nothing to do.
    pub(super) fn plot(
        &mut self,
        random: &mut Random,
        node: usize,
        plans: &Rc<Vec<Plan>>,
        may_add: bool,
    ) -> Option<Plot> {
        match random.below(100) {
            0..42 if may_add => {
                let n = if random.happens(150) { 2 + random.below(4) } else { 1 };
                let requests: Vec<Allocate> = (0..n).filter_map(|_| self.plot_add(random, node, plans)).collect();
                self.added(requests)
            }
            42..54 if may_add => {
                // The same container once more, or a late call for one of which nobody knows.
                let at = self.choose(random, |sandbox| matches!(sandbox.state, State::Up | State::Unknown))?;
                let sandbox = self.sandboxes.get(at)?;
                let request = Allocate {
                    attachment: sandbox.attachment.clone(),
                    owner: sandbox.owner.clone(),
                    wants: sandbox.wants.clone(),
                };
                self.added(vec![request])
            }
            0..84 => self.plot_delete(random),
            84..90 => {
                let at = self.choose(random, |sandbox| sandbox.state == State::Up)?;
                let attachment = self.sandboxes.get(at)?.attachment.clone();
                let checks = vec![Check { attachment: attachment.clone(), addresses: Vec::new() }];
                Some(Plot { work: Work::Check(checks), attachments: vec![attachment], lets_go: Vec::new() })
            }
            90..95 => self.plot_collect(random),
            _ => {
                let older_than = if random.happens(300) { 0 } else { random.below(40_000) };
                Some(Plot { work: Work::Settle { older_than }, attachments: Vec::new(), lets_go: Vec::new() })
            }
        }
    }

    fn added(&mut self, requests: Vec<Allocate>) -> Option<Plot> {
        if requests.is_empty() {
            return None;
        }
        let attachments: Vec<_> = requests.iter().map(|request| request.attachment.clone()).collect();
        for sandbox in self.those(&attachments) {
            sandbox.is_busy = true;
        }
        Some(Plot { work: Work::Add(requests), attachments, lets_go: Vec::new() })
    }

    fn plot_add(&mut self, random: &mut Random, node: usize, plans: &Rc<Vec<Plan>>) -> Option<Allocate> {
        self.n_containers += 1;
        let container = format!("c{node}-{}", self.n_containers);
        let attachment = Attachment::new(&container, "eth0", NETWORK);
        let pod = |name: &str, uid: u64| {
            let uid = Some(Arc::from(format!("uid{uid}")));
            Owner::Pod(Pod { namespace: "default".into(), name: name.into(), uid })
        };
        let owner = match random.below(10) {
            // A sandbox of a pod that is made anew keeps owner and ranges.
            0..4 if !self.sandboxes.is_empty() => {
                let before = self.sandboxes.get(random.position(self.sandboxes.len()))?.clone();
                if !matches!(before.owner, Owner::Container) && random.happens(700) {
                    let wants = if random.happens(900) { before.wants } else { wants(random, plans) };
                    return Some(self.sandbox(attachment, before.owner, wants));
                }
                match before.owner {
                    Owner::Pod(Pod { name, .. }) => pod(&name, 1000 + self.n_containers),
                    owner => owner,
                }
            }
            4 => Owner::Container,
            5 => Owner::Sticky { name: format!("sticky{}", random.below(3)).into(), pod: None },
            _ => pod(&format!("pod{node}-{}", random.below(6)), random.below(2)),
        };
        let wants = wants(random, plans);
        Some(self.sandbox(attachment, owner, wants))
    }

    fn sandbox(&mut self, attachment: Attachment, owner: Owner, wants: Vec<Want>) -> Allocate {
        self.sandboxes.push(Sandbox {
            attachment: attachment.clone(),
            owner: owner.clone(),
            wants: wants.clone(),
            state: State::Unknown,
            is_busy: true,
            is_muddled: false,
        });
        Allocate { attachment, owner, wants }
    }

    fn plot_delete(&mut self, random: &mut Random) -> Option<Plot> {
        let n = if random.happens(150) { 2 + random.below(3) } else { 1 };
        let mut attachments: Vec<Attachment> = Vec::new();
        let mut requests = Vec::new();
        for _ in 0..n {
            // Mostly what is there; at times once more what was deleted long ago.
            let may_be_gone = random.happens(150);
            let Some(at) = self.choose(random, |sandbox| may_be_gone || sandbox.state != State::Gone) else { continue };
            let Some(sandbox) = self.sandboxes.get_mut(at) else { continue };
            sandbox.is_busy = true;
            sandbox.state = State::Leaving;
            let attachment = sandbox.attachment.clone();
            let network = match random.below(10) {
                0 => None,
                1 => Some("renamed".into()),
                _ => Some(Arc::clone(&attachment.network)),
            };
            requests.push(Release::Attachment {
                container: Arc::clone(&attachment.container),
                interface: Arc::clone(&attachment.interface),
                network,
            });
            attachments.push(attachment);
        }
        if requests.is_empty() {
            return None;
        }
        Some(Plot { work: Work::Delete(requests), lets_go: attachments.clone(), attachments })
    }

    fn plot_collect(&mut self, random: &mut Random) -> Option<Plot> {
        let mut lets_go = Vec::new();
        for sandbox in &mut self.sandboxes {
            if !sandbox.is_busy && sandbox.state != State::Gone && random.happens(200) {
                sandbox.state = State::Forgotten;
            }
            // A sticky name outlives the boot that its sandbox died with.
            if matches!(sandbox.state, State::Gone | State::Forgotten) {
                lets_go.push(sandbox.attachment.clone());
            }
        }
        let alive = |sandbox: &&Sandbox| !matches!(sandbox.state, State::Gone | State::Forgotten);
        let valid = self
            .sandboxes
            .iter()
            .filter(alive)
            .map(|sandbox| (Arc::clone(&sandbox.attachment.container), Arc::clone(&sandbox.attachment.interface)));
        let list = Collect { network: NETWORK.into(), valid: valid.collect::<BTreeSet<_>>(), grace: GRACE };
        Some(Plot { work: Work::Collect(list), attachments: Vec::new(), lets_go })
    }

    fn choose(&self, random: &mut Random, fits: impl Fn(&Sandbox) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.sandboxes.len())
            .filter(|&at| self.sandboxes.get(at).is_some_and(|it| !it.is_busy && fits(it)))
            .collect();
        fitting.get(random.position(fitting.len())).copied()
    }

    /// The sandboxes of attachments.
    pub(super) fn those<'r>(&'r mut self, attachments: &'r [Attachment]) -> impl Iterator<Item = &'r mut Sandbox> {
        self.sandboxes.iter_mut().filter(|sandbox| attachments.contains(&sandbox.attachment))
    }
}

/// One to three ranges: mostly one, at times of both families, or two that overlap.
fn wants(random: &mut Random, plans: &Rc<Vec<Plan>>) -> Vec<Want> {
    let n = [1, 1, 1, 1, 1, 2, 2, 3].get(random.position(8)).copied().unwrap_or(1);
    let mut chosen = BTreeSet::new();
    for _ in 0..n {
        chosen.insert(random.position(plans.len()));
    }
    let want = |at: &usize| {
        let plan = plans.get(*at)?;
        let mut want = plan.want();
        if random.happens(80) {
            let n = plan.view.count().min(8);
            want.exactly = plan.view.nth(u128::from(random.below(u64::try_from(n).unwrap_or(1))));
        }
        Some(want)
    };
    let mut wants: Vec<Want> = Vec::new();
    for want in chosen.iter().filter_map(want).collect::<Vec<_>>() {
        // The same address cannot be asked for twice.
        if want.exactly.is_none() || wants.iter().all(|other| other.exactly != want.exactly) {
            wants.push(want);
        }
    }
    wants
}

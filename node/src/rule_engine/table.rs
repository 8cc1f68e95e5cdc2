//! The active rules of a node, compiled. They follow the registry at the moment that somebody looks, not some time later:
//! who was told that a rule is active may count on it for the next event, at whatever node that comes in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fulmar_platform::registry::{Kept, Registry, Rule, RuleAction};
use parking_lot::{Mutex, RwLock};

use super::compiled::{Compiled, Outlet, RuleSet};
use crate::cluster::clock::wall_ms;
use crate::dispatch::Dispatch;

/// The compiled rules, by id.
pub(super) type ById = BTreeMap<Box<str>, Arc<Compiled>>;

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    /// Changes of rules and actions that were heard of, and how many of them are in `set`.
    heard: AtomicU64,
    built: AtomicU64,
    set: RwLock<Arc<RuleSet>>,
    bench: Mutex<Bench>,
}

#[derive(Default)]
struct Bench {
    rules: ById,
    /// Rules whose text is none, by revision: said once.
    unusable: HashMap<Box<str>, u64>,
}

/// An active rule and its actions, as the registry has them.
type Wanted = (Kept<Rule>, Vec<Kept<RuleAction>>);

impl Table {
    /// Notes that rules or actions have changed.
    pub(super) fn changed(&self) {
        self.heard.fetch_add(1, Ordering::AcqRel);
    }

    /// The rules as this node has applied them. Must not be called with the state held.
    pub(super) fn current(&self, dispatch: &Dispatch) -> Arc<RuleSet> {
        if self.built.load(Ordering::Acquire) < self.heard.load(Ordering::Acquire) {
            self.build(&mut self.bench.lock(), dispatch);
        }
        self.set.read().clone()
    }

    /// As [`Table::current`], by id.
    pub(super) fn rules(&self, dispatch: &Dispatch) -> ById {
        let mut bench = self.bench.lock();
        self.build(&mut bench, dispatch);
        bench.rules.clone()
    }

    fn build(&self, bench: &mut Bench, dispatch: &Dispatch) {
        let heard = self.heard.load(Ordering::Acquire);
        if self.built.load(Ordering::Acquire) >= heard {
            return; // somebody else has
        }
        let registry = dispatch.replica().read().registry().clone();
        bench.compile(&wanted(&registry));
        *self.set.write() = Arc::new(RuleSet::of(bench.rules.values().cloned()));
        self.built.store(heard, Ordering::Release);
    }
}

fn wanted(registry: &Registry) -> Vec<Wanted> {
    let mut actions: HashMap<&str, Vec<Kept<RuleAction>>> = HashMap::new();
    for action in registry.rule_actions() {
        actions.entry(&action.record.rule_id).or_default().push(action.clone());
    }
    let active = registry.rules().filter(|rule| rule.record.active);
    let mut wanted: Vec<Wanted> = active
        .map(|rule| {
            let mut actions = actions.remove(&*rule.record.id).unwrap_or_default();
            actions.sort_unstable_by_key(|action| action.oid);
            (rule.clone(), actions)
        })
        .collect();
    wanted.sort_unstable_by_key(|(rule, _)| rule.oid);
    wanted
}

impl Bench {
    fn compile(&mut self, wanted: &[Wanted]) {
        let ids: std::collections::HashSet<&str> = wanted.iter().map(|(rule, _)| &*rule.record.id).collect();
        self.rules.retain(|id, _| ids.contains(&**id));
        self.unusable.retain(|id, _| ids.contains(&**id));
        for (rule, actions) in wanted {
            self.compile_one(rule, actions);
        }
    }

    /// Has a rule ready as it is now. What it and its actions have counted and queued stays with them.
    fn compile_one(&mut self, rule: &Kept<Rule>, actions: &[Kept<RuleAction>]) {
        let before = self.rules.get(&rule.record.id).cloned();
        let same = |before: &Arc<Compiled>| {
            before.revision == rule.revision
                && before.outlets.len() == actions.len()
                && before.outlets.iter().zip(actions).all(|(outlet, action)| outlet.revision == action.revision)
        };
        if before.as_ref().is_some_and(same) {
            return;
        }
        let outlets = actions.iter().map(|action| {
            let outlets = before.iter().flat_map(|before| &before.outlets);
            let earlier = outlets.into_iter().find(|outlet| outlet.action.id == action.record.id);
            Arc::new(Outlet::new(action.record.clone(), action.revision, earlier.map(|outlet| &**outlet)))
        });
        match Compiled::new(rule.record.clone(), rule.revision, outlets.collect(), before.as_deref()) {
            Ok(compiled) => {
                self.rules.insert(rule.record.id.clone(), Arc::new(compiled));
            }
            Err(error) => {
                if self.unusable.insert(rule.record.id.clone(), rule.revision) != Some(rule.revision) {
                    tracing::error!(rule = &*rule.record.id, error, "a rule of the registry cannot be used");
                }
                if let Some(before) = self.rules.remove(&rule.record.id) {
                    before.figures.error.set(&error, wall_ms());
                }
            }
        }
    }
}

//! Explores a model exhaustively and breadth-first.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
};

/// A model defines its states and the steps between them.
pub trait Model {
    type State: Clone + Eq + Hash;

    /// Returns the initial states.
    fn starts(&self) -> Vec<Self::State>;

    /// Takes every step that is possible in a state.
    fn step(&self, state: &Self::State, run: &mut Run<Self::State>);
}

/// The states reached so far, and the first fault found.
pub struct Run<W> {
    seen: HashSet<W>,
    open: VecDeque<W>,
    fault: Option<&'static str>,
}

impl<W: Clone + Eq + Hash> Run<W> {
    pub fn reach(&mut self, state: W) {
        if self.seen.insert(state.clone()) {
            self.open.push_back(state);
        }
    }

    /// Reaches the state that `change` makes of `state`.
    pub fn with(&mut self, state: &W, change: impl FnOnce(&mut W)) {
        let mut next = state.clone();
        change(&mut next);
        self.reach(next);
    }

    /// Records the fault of this step if it has one.
    pub fn check(&mut self, fault: Option<&'static str>) {
        self.fault = self.fault.or(fault);
    }
}

/// Explores a model. Returns the number of its states, and the first fault found.
pub fn explore<M: Model>(model: &M) -> (usize, Option<&'static str>) {
    let mut run = Run {
        seen: HashSet::new(),
        open: VecDeque::new(),
        fault: None,
    };
    model
        .starts()
        .into_iter()
        .for_each(|state| run.reach(state));
    while let Some(state) = run.open.pop_front() {
        model.step(&state, &mut run);
        if run.fault.is_some() {
            break;
        }
    }
    (run.seen.len(), run.fault)
}

/// Asserts that the model with all its safeguards has no fault, and has enough states to be
/// meaningful.
pub fn assert_sound(name: &str, (states, fault): (usize, Option<&'static str>), least: usize) {
    println!("{name}: {states} states");
    assert_eq!(fault, None, "{name}");
    assert!(
        states >= least,
        "{name} is too small to prove anything: {states} states"
    );
}

/// Asserts that the model has a fault without this safeguard.
pub fn assert_needed(safeguard: &str, (states, fault): (usize, Option<&'static str>)) {
    println!("without {safeguard}: {fault:?} after {states} states");
    assert!(
        fault.is_some(),
        "without {safeguard} there is no fault in {states} states"
    );
}

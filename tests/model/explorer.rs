//! Exploration of a model to its last state, breadth first.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
};

/// A world of states, and the steps between them.
pub trait Model {
    type World: Clone + Eq + Hash;

    /// The states that it may begin in.
    fn starts(&self) -> Vec<Self::World>;

    /// Every step that is possible in a state.
    fn step(&self, world: &Self::World, run: &mut Run<Self::World>);
}

/// What was reached so far.
pub struct Run<W> {
    seen: HashSet<W>,
    open: VecDeque<W>,
    fault: Option<&'static str>,
}

impl<W: Clone + Eq + Hash> Run<W> {
    pub fn reach(&mut self, world: W) {
        if self.seen.insert(world.clone()) {
            self.open.push_back(world);
        }
    }

    /// Reaches the state that a change of `world` makes.
    pub fn with(&mut self, world: &W, change: impl FnOnce(&mut W)) {
        let mut next = world.clone();
        change(&mut next);
        self.reach(next);
    }

    /// Notes what is wrong with this step, if anything is.
    pub fn check(&mut self, fault: Option<&'static str>) {
        self.fault = self.fault.or(fault);
    }
}

/// How many states there are, and what goes wrong in the first in which something does.
pub fn explore<M: Model>(model: &M) -> (usize, Option<&'static str>) {
    let mut run = Run {
        seen: HashSet::new(),
        open: VecDeque::new(),
        fault: None,
    };
    model
        .starts()
        .into_iter()
        .for_each(|world| run.reach(world));
    while let Some(world) = run.open.pop_front() {
        model.step(&world, &mut run);
        if run.fault.is_some() {
            break;
        }
    }
    (run.seen.len(), run.fault)
}

/// Fails unless the model is right with all its safeguards, and big enough to say anything.
pub fn assert_sound(name: &str, (states, fault): (usize, Option<&'static str>), least: usize) {
    println!("{name}: {states} states");
    assert_eq!(fault, None, "{name}");
    assert!(
        states >= least,
        "{name} is too small to say anything: {states} states"
    );
}

/// Fails unless something goes wrong without this safeguard.
pub fn assert_needed(safeguard: &str, (states, fault): (usize, Option<&'static str>)) {
    println!("without {safeguard}: {fault:?} after {states} states");
    assert!(
        fault.is_some(),
        "without {safeguard} nothing goes wrong in {states} states"
    );
}

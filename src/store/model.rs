//! The protocol of `collect`, as a model that a machine checks in every order in which things can happen.
//!
//! There is a tree and a file that it refers to. Writers look for both, write
//! what they take for absent, record the tree, and may die before. Somebody
//! forgets the record, which makes garbage. Collections mark, condemn, look
//! who is alive, mark again, take away, and may die at any point; the next one goes on.

use std::collections::BTreeSet;

use stateright::{Checker, Model, Property};

/// The parts of the protocol that can be left out, to see that they are needed.
#[derive(Clone, Copy)]
struct Protocol {
    /// Whoever starts after something was condemned takes it for absent.
    condemned_is_absent: bool,
    /// Whoever starts forgets what was found before.
    looks_again: bool,
    /// What lives is marked again once nobody is left who may rely on what is condemned.
    marks_again: bool,
    /// The second mark follows what refers to others and came since.
    asks_newcomers: bool,
    /// Whoever started before something was condemned is waited for.
    waits: bool,
}

const AS_IT_IS: Protocol =
    Protocol { condemned_is_absent: true, looks_again: true, marks_again: true, asks_newcomers: true, waits: true };

const WRITERS: u8 = 2;
const COLLECTIONS_DIE: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Object {
    /// The file; it is put first.
    File,
    /// The tree, which refers to the file.
    Tree,
}

/// A copy of an object, in the pack of whoever wrote it; 0 is what was there in the beginning.
type Copies = BTreeSet<(Object, u8)>;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Writer {
    /// Found these before it starts.
    NotStarted {
        found: Copies,
    },
    /// Took these for absent when it started, believes that those are there, and put so many objects so far.
    Writing {
        absent: Copies,
        found: Copies,
        put: u8,
    },
    Ended,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Collection {
    None,
    Marked(BTreeSet<Object>),
    Waiting,
    /// Everybody who may rely on what is condemned is gone.
    Alone,
    /// These go, one after the other.
    Taking(Copies),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    copies: Copies,
    recorded: bool,
    may_forget: bool,
    writers: Vec<Writer>,
    collection: Collection,
    /// What is written down as condemned, and who was alive then.
    condemned: Option<(Copies, BTreeSet<u8>)>,
    deaths_left: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    Find(u8),
    Start(u8),
    Put(u8),
    Record(u8),
    Die(u8),
    Forget,
    Collect,
    Condemn,
    Look,
    MarkAgain,
    Take,
    CollectionDies,
}

impl State {
    fn has(&self, object: Object) -> bool {
        self.copies.iter().any(|(other, _)| *other == object)
    }

    /// Returns what a mark finds.
    fn marked(&self) -> BTreeSet<Object> {
        if self.recorded { BTreeSet::from([Object::File, Object::Tree]) } else { BTreeSet::new() }
    }

    fn garbage(&self, live: &BTreeSet<Object>) -> Copies {
        self.copies.iter().filter(|(object, _)| !live.contains(object)).copied().collect()
    }

    fn is_alive(&self, writer: u8) -> bool {
        matches!(self.writers[usize::from(writer)], Writer::Writing { .. })
    }

    fn has_older(&self) -> bool {
        self.condemned.as_ref().is_some_and(|(_, older)| older.iter().any(|writer| self.is_alive(*writer)))
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            copies: Copies::from([(Object::File, 0), (Object::Tree, 0)]),
            recorded: true,
            may_forget: true,
            writers: vec![Writer::NotStarted { found: Copies::new() }; usize::from(WRITERS)],
            collection: Collection::None,
            condemned: None,
            deaths_left: COLLECTIONS_DIE,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (writer, doing) in (0..WRITERS).zip(&state.writers) {
            match doing {
                Writer::NotStarted { found } if found.is_empty() => {
                    actions.extend([Action::Find(writer), Action::Start(writer)]);
                }
                Writer::NotStarted { .. } => actions.push(Action::Start(writer)),
                Writer::Writing { put: 2, .. } => actions.extend([Action::Record(writer), Action::Die(writer)]),
                Writer::Writing { .. } => actions.extend([Action::Put(writer), Action::Die(writer)]),
                Writer::Ended => {}
            }
        }
        if state.recorded && state.may_forget {
            actions.push(Action::Forget);
        }
        let has_work = match &state.condemned {
            Some(_) => !self.waits || !state.has_older(),
            None => !state.garbage(&state.marked()).is_empty(),
        };
        match &state.collection {
            Collection::None if has_work => actions.push(Action::Collect),
            Collection::None => {}
            Collection::Marked(_) => actions.push(Action::Condemn),
            Collection::Waiting => actions.push(Action::Look),
            Collection::Alone => actions.push(Action::MarkAgain),
            Collection::Taking(_) => actions.push(Action::Take),
        }
        if state.collection != Collection::None && state.deaths_left > 0 {
            actions.push(Action::CollectionDies);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Find(writer) => {
                state.writers[usize::from(writer)] = Writer::NotStarted { found: state.copies.clone() };
            }
            Action::Start(writer) => {
                let Writer::NotStarted { found } = &state.writers[usize::from(writer)] else { return None };
                let found = if self.looks_again { Copies::new() } else { found.clone() };
                let condemned = state.condemned.as_ref().filter(|_| self.condemned_is_absent);
                let absent = condemned.map(|(copies, _)| copies.clone()).unwrap_or_default();
                state.writers[usize::from(writer)] = Writer::Writing { absent, found, put: 0 };
            }
            Action::Put(writer) => {
                let Writer::Writing { absent, found, put } = &mut state.writers[usize::from(writer)] else {
                    return None;
                };
                let object = if *put == 0 { Object::File } else { Object::Tree };
                *put += 1;
                if !state.copies.union(found).any(|copy| copy.0 == object && !absent.contains(copy)) {
                    state.copies.insert((object, writer + 1));
                }
            }
            Action::Record(writer) => {
                state.writers[usize::from(writer)] = Writer::Ended;
                state.recorded = true;
            }
            Action::Die(writer) => state.writers[usize::from(writer)] = Writer::Ended,
            Action::Forget => {
                state.recorded = false;
                state.may_forget = false;
            }
            Action::Collect if state.condemned.is_some() => state.collection = Collection::Waiting,
            Action::Collect => state.collection = Collection::Marked(state.marked()),
            Action::Condemn => {
                let Collection::Marked(live) = &state.collection else { return None };
                let older = (0..WRITERS).filter(|writer| state.is_alive(*writer)).collect();
                state.condemned = Some((state.garbage(live), older));
                state.collection = Collection::Waiting;
            }
            Action::Look if self.waits && state.has_older() => state.collection = Collection::None,
            Action::Look => state.collection = Collection::Alone,
            Action::MarkAgain => {
                let (condemned, _) = state.condemned.as_ref()?;
                let mut live = state.marked();
                if self.asks_newcomers
                    && state.copies.iter().any(|copy| copy.0 == Object::Tree && !condemned.contains(copy))
                {
                    live.extend([Object::Tree, Object::File]);
                }
                let going = if self.marks_again { state.garbage(&live) } else { condemned.clone() };
                state.collection = Collection::Taking(going.intersection(condemned).copied().collect());
            }
            Action::Take => {
                let Collection::Taking(going) = &mut state.collection else { return None };
                match going.pop_first() {
                    Some(copy) => drop(state.copies.remove(&copy)),
                    None => {
                        state.condemned = None;
                        state.collection = Collection::None;
                    }
                }
            }
            Action::CollectionDies => {
                state.deaths_left -= 1;
                state.collection = Collection::None;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what is recorded is there", |_, state: &State| {
                !state.recorded || (state.has(Object::File) && state.has(Object::Tree))
            }),
            // A tree whose file is gone could be believed by whoever finds it; one that is condemned is not found.
            Property::always("nothing that can be found leads nowhere", |_, state: &State| {
                let is_condemned =
                    |copy: &(Object, u8)| state.condemned.as_ref().is_some_and(|(copies, _)| copies.contains(copy));
                let found = state.copies.iter().any(|copy| copy.0 == Object::Tree && !is_condemned(copy));
                !found || state.has(Object::File)
            }),
            Property::eventually("in the end garbage is gone", |_, state: &State| {
                let is_over = state.writers.iter().all(|writer| *writer == Writer::Ended) && !state.may_forget;
                is_over && state.condemned.is_none() && state.garbage(&state.marked()).is_empty()
            }),
            Property::sometimes("a writer finds what it needs condemned", |_, state: &State| {
                state
                    .writers
                    .iter()
                    .any(|writer| matches!(writer, Writer::Writing { absent, .. } if !absent.is_empty()))
            }),
        ]
    }
}

fn broken(protocol: Protocol) -> BTreeSet<&'static str> {
    let checker = protocol.checker().spawn_bfs().join();
    let sometimes = "a writer finds what it needs condemned";
    checker.discoveries().into_keys().filter(|name| *name != sometimes).collect()
}

#[test]
fn whatever_happens_in_whatever_order_nothing_recorded_is_lost_and_garbage_goes() {
    let checker = AS_IT_IS.checker().spawn_bfs().join();
    assert!(checker.is_done() && checker.unique_state_count() > 1000, "{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn without_any_one_of_its_rules_the_protocol_loses_something() {
    let lost = "what is recorded is there";
    assert!(broken(Protocol { condemned_is_absent: false, ..AS_IT_IS }).contains(lost));
    assert!(broken(Protocol { looks_again: false, ..AS_IT_IS }).contains(lost));
    assert!(broken(Protocol { marks_again: false, ..AS_IT_IS }).contains(lost));
    assert!(broken(Protocol { waits: false, ..AS_IT_IS }).contains(lost));
    assert!(!broken(Protocol { asks_newcomers: false, ..AS_IT_IS }).is_empty());
}

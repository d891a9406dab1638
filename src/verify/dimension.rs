//! What is varied: each dimension is one thing that may be another on another day or machine.
//!
//! A dimension has a value that it is pinned to and others that it is changed to. Each is known by a cause, so that what was
//! varied when a result differed names why. A value is always another than the pinned one, and those of different
//! numbers differ from each other where that can be, because some values give the same result by chance.

use std::path::PathBuf;

use super::cause::Cause;
use crate::exec::{Listing, Network, Pins, Schedule, WallClock};
use crate::path::ProjectPath;
use crate::run::Conditions;

/// How many values a dimension can be changed to.
pub(super) const VALUES: u8 = 3;

/// The values of the network: others are asked again, or nobody is.
pub(super) const ASKED_AGAIN: u8 = 0;
pub(super) const CUT_OFF: u8 = 1;

/// Variables by which numeric libraries know with how many threads to work.
const THREADS: [&str; 6] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "VECLIB_MAXIMUM_THREADS",
];
/// What hashes are seeded with, beside `PYTHONHASHSEED`, which every step gets. Perl's also follow from addresses unless that is
/// switched off. Source: perlrun(1).
const HASHES: [(&str, &str); 2] = [("PERL_HASH_SEED", "0"), ("PERL_PERTURB_KEYS", "NO")];
/// Days that differ in year, month, day, weekday, hour and season, in seconds after the pinned one.
const DAYS_LATER: [i64; 3] = [431 * 86_400 + 40_271, 1_017 * 86_400 + 7_553, 2_203 * 86_400 + 61_007];
/// Users that systems have besides root, with their numbers, in the order of values.
const USERS: [(&str, u32); 3] = [("nobody", 65_534), ("daemon", 1), ("bin", 2)];
const SECOND_NS: u64 = 1_000_000_000;

/// One thing that is varied.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Dimension {
    /// Where programs lie.
    Layout,
    /// How much the environment takes of the stack: it means nothing to anybody, but moves what lies beside it.
    Padding,
    /// `PYTHONHASHSEED` and `PERL_HASH_SEED`.
    HashSeed,
    /// The system's entropy.
    Entropy,
    /// The clock on the wall.
    Clock,
    /// Clocks that count.
    Timer,
    /// The order of listings.
    Listing,
    /// Who goes on when.
    Schedule,
    /// How many processors there seem to be.
    Processors,
    /// Variables that say with how many threads to work.
    Threads,
    /// When inputs were changed.
    Times(Vec<ProjectPath>),
    /// What was left behind before.
    State,
    /// What others answer over the network, and whether there is one.
    Network,
    /// Random bits of the processor. They cannot be varied, only given from a seed.
    Hardware,
    /// The processor's count of cycles. It cannot be varied, only told by the clock.
    Cycles,
    /// `TZ`.
    Zone,
    /// `LC_ALL` and `LANG`.
    Locale,
    /// The machine's name.
    Hostname,
    /// The number of the first process.
    Pid,
    /// The user.
    User,
    /// The working directory.
    Workplace,
    /// The home directory.
    Home,
    /// The directory for temporary files.
    Temporary,
    /// The mask of file modes.
    Umask,
    /// A variable, and the value that the user's own environment has, if it is set there.
    Variable(String, Option<String>),
    /// A file of the project that is read and not declared, and what is in it.
    File(ProjectPath, Vec<u8>),
    /// A file that is looked for in vain, and what it may well hold, one content for each value.
    Missing(ProjectPath, [Vec<u8>; 3]),
    /// A file outside the project.
    Outside(PathBuf),
    /// Several that are told apart only if one of them counts.
    Group(Vec<Dimension>),
}

/// By how much a look at a clock moves it on that hardly moves, in nanoseconds. Whoever waits for a second looks a hundred
/// thousand times.
const FROZEN_TICK: u64 = 10_000;

/// Sets the clocks of `conditions` so that they hardly move.
pub(super) fn freeze(conditions: &mut Conditions) {
    if let Some(pins) = &mut conditions.pins {
        if let Some(clock) = &mut pins.clock {
            clock.tick = FROZEN_TICK;
        }
        pins.timer = pins.timer.map(|_| FROZEN_TICK);
        pins.coarse_clocks = true;
    }
}

/// What everything is pinned to.
#[derive(Clone, Debug)]
pub(super) struct Base {
    /// What the clock says, in seconds since 1970.
    pub(super) clock: i64,
    /// How many processors there are.
    pub(super) processors: u32,
    /// Locales that this machine has and the pinned one is not, at most as many as there are values.
    pub(super) locales: Vec<String>,
    /// The seed of the entropy.
    pub(super) entropy: u64,
    /// What others answer.
    pub(super) network: Network,
}

impl Base {
    /// Returns the conditions with everything pinned.
    pub(super) fn conditions(&self) -> Conditions {
        let pins = Pins {
            entropy: Some(self.entropy),
            clock: Some(WallClock { start: self.clock, tick: SECOND_NS / 1000 }),
            timer: Some(SECOND_NS / 1000),
            listing: Some(Listing::Sorted),
            processors: Some(self.processors),
            fixed_layout: true,
            network: self.network.clone(),
            ..Pins::default()
        };
        let variables = HASHES.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
        Conditions { pins: Some(pins), variables: variables.into(), ..Conditions::default() }
    }
}

impl Dimension {
    /// Returns the cause that it stands for; of a group none.
    pub(super) fn cause(&self) -> Option<Cause> {
        Some(match self {
            Self::Layout => Cause::Aslr,
            Self::Padding => Cause::MemoryAddress,
            Self::HashSeed => Cause::HashSeed,
            Self::Entropy => Cause::Entropy,
            Self::Clock => Cause::Clock,
            Self::Timer | Self::Cycles => Cause::Timer,
            Self::Listing => Cause::DirOrder,
            Self::Schedule => Cause::Schedule,
            Self::Processors => Cause::CpuCount,
            Self::Threads => Cause::ThreadCount,
            Self::Times(_) => Cause::InputMtime,
            Self::State => Cause::PreviousState,
            Self::Network => Cause::Network,
            Self::Hardware => Cause::HardwareEntropy,
            Self::Zone => Cause::Timezone,
            Self::Locale => Cause::Locale,
            Self::Hostname => Cause::Hostname,
            Self::Pid => Cause::Pid,
            Self::User => Cause::Username,
            Self::Workplace => Cause::CwdPath,
            Self::Home => Cause::Home,
            Self::Temporary => Cause::TmpPath,
            Self::Umask => Cause::Umask,
            Self::Variable(name, _) => Cause::Env(name.clone()),
            Self::File(path, _) | Self::Missing(path, _) => Cause::UndeclaredFile(path.to_string()),
            Self::Outside(path) => Cause::UndeclaredFile(path.display().to_string()),
            Self::Group(_) => return None,
        })
    }

    /// Returns the single dimensions that it is made of.
    pub(super) fn members(&self) -> Vec<Self> {
        match self {
            Self::Group(members) => members.clone(),
            single => vec![single.clone()],
        }
    }

    /// Returns whether the environment as a whole is another with it, or a text of another length that many programs keep, so that
    /// what lies beside it moves.
    pub(super) fn moves_memory(&self) -> bool {
        matches!(
            self,
            Self::Padding
                | Self::Threads
                | Self::Zone
                | Self::Locale
                | Self::User
                | Self::Hostname
                | Self::Workplace
                | Self::Home
                | Self::Temporary
                | Self::Variable(..)
        )
    }

    /// Changes `conditions`, in which everything is pinned, to value `number` of this dimension, from 0.
    pub(super) fn apply(&self, base: &Base, number: u8, conditions: &mut Conditions) {
        let at = usize::from(number % VALUES);
        let Conditions { pins, variables, .. } = conditions;
        let mut set = |name: &str, value: &str| drop(variables.insert(name.to_owned(), Some(value.to_owned())));
        let mut unset = pins.as_mut();
        match self {
            Self::Padding => set("PV_PADDING", &"x".repeat(37 + 1040 * at)),
            Self::HashSeed => {
                set("PYTHONHASHSEED", ["1", "2", "3"][at]);
                set("PERL_HASH_SEED", ["1", "2", "3"][at]);
            }
            Self::Threads => THREADS.iter().for_each(|name| set(name, ["2", "3", "5"][at])),
            Self::Times(paths) => conditions.times.extend(paths.iter().enumerate().map(|(place, path)| {
                // In another order for each number, and years apart.
                let rank = (place * [7, 11, 13][at] + at) % 17;
                (
                    path.clone(),
                    base.clock - 40_000_000 * (1 + i64::from(number)) + 3_607 * i64::try_from(rank).unwrap_or_default(),
                )
            })),
            // What is there already may hide whatever else would count, so not always.
            Self::State => conditions.finds_state = number.is_multiple_of(VALUES),
            Self::Network => {
                conditions.offline = number == CUT_OFF;
                if let Some(pins) = unset {
                    pins.network = Network::Real;
                }
            }
            Self::Zone => set("TZ", ["Asia/Kathmandu", "America/New_York", "Pacific/Auckland"][at]),
            Self::Locale => {
                let locale = base.locales.get(at % base.locales.len().max(1)).map_or("C", String::as_str);
                set("LC_ALL", locale);
                set("LANG", locale);
            }
            Self::User => {
                let (name, id) = USERS[at];
                set("USER", name);
                set("LOGNAME", name);
                if let Some(pins) = &mut unset {
                    pins.user = Some((id, id));
                }
            }
            Self::Workplace => {
                conditions.workplace = Some(["elsewhere", "w", "a-directory-of-another-name"][at].to_owned());
            }
            Self::Home => conditions.home = Some(["another-home", "h", "home-of-somebody-else"][at].to_owned()),
            Self::Temporary => conditions.temporary = Some(["another-tmp", "t", "tmp-of-somebody-else"][at].to_owned()),
            Self::Variable(name, own) => match (own, at) {
                (Some(own), 0) => set(name, own),
                (Some(own), _) => set(name, &other_value(own, at)),
                (None, _) => set(name, ["1", "29", "971"][at]),
            },
            Self::File(path, content) => drop(conditions.files.insert(path.clone(), other_content(content, at))),
            Self::Missing(path, contents) => drop(conditions.files.insert(path.clone(), contents[at].clone())),
            Self::Outside(path) => drop(conditions.hidden.insert(path.clone())),
            Self::Group(members) => members.iter().for_each(|member| member.apply(base, number, conditions)),
            Self::Layout
            | Self::Entropy
            | Self::Clock
            | Self::Timer
            | Self::Listing
            | Self::Schedule
            | Self::Processors
            | Self::Hostname
            | Self::Pid
            | Self::Hardware
            | Self::Cycles
            | Self::Umask => {
                if let Some(pins) = unset {
                    self.unpin(base, at, pins);
                }
            }
        }
    }

    fn unpin(&self, base: &Base, at: usize, pins: &mut Pins) {
        let number = at as u64;
        match self {
            Self::Layout => pins.fixed_layout = false,
            Self::Entropy => pins.entropy = Some(base.entropy.wrapping_add(1 + number)),
            Self::Clock => {
                // It goes at another pace too: what is measured by it is another then.
                let tick = [131_071_003, 17_303_011, 289_111_007][at];
                pins.clock = Some(WallClock { start: base.clock + DAYS_LATER[at], tick });
            }
            Self::Timer => pins.timer = Some([137_730_011, 17_517_003, 311_100_033][at]),
            Self::Listing => pins.listing = Some([Listing::Reversed, Listing::Shuffled(1), Listing::Shuffled(2)][at]),
            Self::Schedule => pins.schedule = Schedule::Delayed(number + 1),
            Self::Processors => {
                let other = [1, 3, 7][at];
                pins.processors = Some(if other == base.processors { 16 } else { other });
            }
            Self::Hostname => pins.hostname = Some(["node17", "worker-b", "ip-10-2-33-4"][at].to_owned()),
            Self::Pid => pins.first_pid = Some([4_321, 917, 20_011][at]),
            Self::Umask => pins.umask = Some([0o077, 0o002, 0o027][at]),
            _ => {}
        }
    }
}

/// Returns another value of a variable, as like it as can be.
fn other_value(own: &str, number: usize) -> String {
    match own.parse::<i64>() {
        Ok(value) => value.wrapping_add([0, 1, 29][number]).to_string(),
        Err(_) => format!("{own}{}", ["", "x", "-other"][number]),
    }
}

/// Returns other content for a file: its digits changed, so that what reads it still can; else none of it, or more.
pub(super) fn other_content(content: &[u8], number: usize) -> Vec<u8> {
    let has_digits = content.iter().any(u8::is_ascii_digit) && std::str::from_utf8(content).is_ok();
    let shift = if number == 0 { 1 } else { 3 };
    match number {
        0 | 1 if has_digits => content
            .iter()
            .map(|byte| if byte.is_ascii_digit() { b'0' + (byte - b'0' + shift) % 10 } else { *byte })
            .collect(),
        0 => [content, b"\n"].concat().iter().rev().copied().skip(1).chain(content.iter().copied()).collect(),
        1 => [content, content].concat(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Recorder;

    fn base() -> Base {
        let network = Network::Given(Recorder::new().record().unwrap());
        Base { clock: 1_700_000_000, processors: 2, locales: vec!["C".into()], entropy: 1, network }
    }

    fn some() -> Vec<Dimension> {
        use Dimension::*;
        let path = |text: &str| ProjectPath::new(text).unwrap();
        vec![
            Layout,
            Padding,
            HashSeed,
            Entropy,
            Clock,
            Timer,
            Listing,
            Schedule,
            Processors,
            Threads,
            Times(vec![path("a"), path("b")]),
            State,
            Network,
            Zone,
            Locale,
            Hostname,
            Pid,
            User,
            Workplace,
            Home,
            Temporary,
            Umask,
            Variable("A".into(), None),
            Variable("B".into(), Some("text".into())),
            File(path("c"), b"a: 1\n".to_vec()),
            File(path("d"), b"text".to_vec()),
            Missing(path("e"), [b"7\n".to_vec(), b"word\n".to_vec(), b"{}\n".to_vec()]),
            Outside("/f".into()),
        ]
    }

    #[test]
    fn each_value_of_each_dimension_is_another_than_what_is_pinned() {
        use Dimension::State;
        let pinned = base().conditions();
        for dimension in some() {
            for number in 0..VALUES {
                let mut conditions = pinned.clone();
                dimension.apply(&base(), number, &mut conditions);
                let counts = dimension != State || number == 0;
                assert_eq!(conditions != pinned, counts, "{dimension:?} {number}");
            }
        }
    }

    #[test]
    fn dimensions_do_not_touch_each_other() {
        let pinned = base().conditions();
        for one in some() {
            for other in some().into_iter().filter(|other| *other != one) {
                let apply = |order: [&Dimension; 2]| {
                    let mut conditions = pinned.clone();
                    order.iter().for_each(|dimension| dimension.apply(&base(), 0, &mut conditions));
                    conditions
                };
                let both = apply([&one, &other]);
                assert_eq!(both, apply([&other, &one]), "{one:?} {other:?}");
                assert_ne!(both, apply([&one, &one]), "{one:?} {other:?}");
            }
        }
    }
}

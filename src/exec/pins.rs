//! What a job is given in place of what the system happens to give.

use super::network::Network;

/// What a job is given in place of what the system happens to give: the same in each run, or something else on purpose.
///
/// Whatever is `None` is the system's own. What is given takes a [`World`](super::World) and an observed job, on Linux.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pins {
    /// The seed of all entropy.
    pub entropy: Option<u64>,
    /// The clock on the wall.
    pub clock: Option<WallClock>,
    /// By how much each look at a clock that only counts moves it on, in nanoseconds: clocks since the start of the
    /// machine and of the processor time that was used. Sleep moves it on by its length.
    pub timer: Option<u64>,
    /// Whether clocks that are not the system's own are told in tenths of a second, so that it hardly counts how often they are
    /// looked at.
    pub coarse_clocks: bool,
    /// The order in which directories are listed.
    pub listing: Option<Listing>,
    /// How many processors there seem to be.
    pub processors: Option<u32>,
    /// The name of the machine.
    pub hostname: Option<String>,
    /// The numbers of the user and the group that the job runs as inside: to everybody else it is who this process is.
    pub user: Option<(u32, u32)>,
    /// The number of its first process.
    pub first_pid: Option<u32>,
    /// Its mask of file modes; 022 if it is `None`.
    pub umask: Option<u32>,
    /// Whether programs lie at the same addresses each time, if that is not the system's to decide.
    pub fixed_layout: bool,
    /// Who of the job's processes and threads goes on when.
    pub schedule: Schedule,
    /// What others answer over the network.
    pub network: Network,
    /// The seed of random bits of the processor itself, on x86-64.
    pub processor_entropy: Option<u64>,
    /// Whether the processor's count of cycles is told by the clock that only counts, if that is pinned, on x86-64. Makes each switch
    /// between a thread of the job and others slower, by microseconds on virtual machines.
    pub cycles: bool,
}

/// A clock on the wall that goes on with what is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WallClock {
    /// What it says when the job begins, in seconds since 1970.
    pub start: i64,
    /// By how much each look moves it on, for the thread that looked and those that it starts, in nanoseconds. Sleep moves it
    /// on by its length.
    pub tick: u64,
}

/// An order in which the names in a directory are listed. `.` and `..` are names too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    /// By their bytes.
    Sorted,
    /// By their bytes, the last one first.
    Reversed,
    /// Shuffled, the same way for the same number.
    Shuffled(u64),
}

/// Who of a job's processes and threads goes on when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Schedule {
    /// As the system has it.
    #[default]
    Free,
    /// New processes and threads begin late, or those who started them go on late: the same for the same number, as far
    /// as the system lets us.
    Delayed(u64),
    /// Whoever starts a process or a thread goes on when that has ended or waits for something.
    Serial,
}

impl Pins {
    /// Returns whether who starts whom must be followed.
    pub(super) fn needs_kin(&self) -> bool {
        self.entropy.is_some()
            || self.tells_time()
            || self.schedule != Schedule::Free
            || self.processor_entropy.is_some()
    }

    /// Returns whether clocks are not the system's own.
    pub(super) fn tells_time(&self) -> bool {
        self.clock.is_some() || self.timer.is_some()
    }

    /// Returns whether it takes more than a process can be started with.
    pub(super) fn needs_reports(&self) -> bool {
        self.needs_kin() || self.listing.is_some() || self.processors.is_some() || self.network != Network::Real
    }
}

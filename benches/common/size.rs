//! How much is measured: all of it, or a part that proves that the benchmark works.

/// By how much everything is smaller in a quick run.
const QUICK_DIVISOR: usize = 20;
/// Rounds of a quick run, at most.
const QUICK_ROUNDS: usize = 2;

/// The size of a run. Only a full one says how fast something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    divisor: usize,
}

impl Size {
    /// Returns the size of which the pages speak.
    pub(crate) fn full() -> Self {
        Self { divisor: 1 }
    }

    /// Returns a size that is this many times smaller, with few rounds.
    pub(crate) fn divided_by(divisor: usize) -> Self {
        assert!(divisor > 0, "a size is divided by one at least");
        Self { divisor }
    }

    /// Reads `PV_BENCH`: nothing or `full`, `quick`, or a part like `1/10`. Anything else is said to be a mistake.
    pub(crate) fn from_environment() -> Self {
        Self::named(&std::env::var("PV_BENCH").unwrap_or_default())
    }

    pub(crate) fn named(name: &str) -> Self {
        let part = |name: &str| name.strip_prefix("1/")?.parse().ok().filter(|divisor| *divisor > 1);
        match name {
            "" | "full" => Self::full(),
            "quick" => Self::divided_by(QUICK_DIVISOR),
            other => match part(other) {
                Some(divisor) => Self::divided_by(divisor),
                None => panic!("PV_BENCH is `full`, `quick` or a part like `1/10`, not `{other}`"),
            },
        }
    }

    pub(crate) fn is_full(self) -> bool {
        self.divisor == 1
    }

    /// The name under which its reports are kept.
    pub(crate) fn name(self) -> &'static str {
        if self.is_full() { "full" } else { "quick" }
    }

    /// Returns the part of an amount that is measured: never none of it.
    pub(crate) fn of(self, amount: usize) -> usize {
        (amount / self.divisor).max(1)
    }

    pub(crate) fn rounds(self, rounds: usize) -> usize {
        if self.is_full() { rounds } else { rounds.min(QUICK_ROUNDS) }
    }
}

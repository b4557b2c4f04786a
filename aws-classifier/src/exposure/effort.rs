//! What judging one policy may cost.

/// In bytes compared: as much as the longest policy of a bucket (20 KB, half of it denials) can need, and about a tenth of
/// a second. Policies that people write need a ten-thousandth.
const EFFORT_MAX: u64 = 1 << 27;

/// What is left of it. A policy that needs more is made to need more: what its denials take back is then not looked at,
/// and what it allows is not told apart any more.
pub(super) struct Effort(u64);

impl Default for Effort {
    fn default() -> Self {
        Self(EFFORT_MAX)
    }
}

impl Effort {
    #[cfg(test)]
    pub(super) const fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Whether so much was left.
    pub(super) fn spend(&mut self, cost: u64) -> bool {
        let left = self.0.checked_sub(cost);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

//! When a service is asked and when it is left alone: a circuit breaker as a state machine. Pure; the time is passed in.
//!
//! * **closed**: questions go out. Failures in a row, or a service that asks for peace, open it.
//! * **open**: none goes out for a time. Then
//! * **trial**: one goes out. An answer closes it, a failure opens it again.

use shared::Timestamp;

/// So many failures in a row open it: our choice. One is chance, and each can cost the whole time-out.
pub const FAILURES_MAX: u32 = 3;
/// For so long: our choice, a minute being also the window of VirusTotal's public quota.
pub const PAUSE_S: i64 = 60;
/// The longest that an answer can keep it open: whatever it says, the service is tried again.
pub const PAUSE_S_MAX: i64 = 3600;
/// A trial that has not come to an end after so long is another's turn: above the longest time-out of a question.
const TRIAL_S: i64 = 30;

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Timestamp },
    Trial { since: Timestamp },
}

/// The state of one service.
#[derive(Clone, Copy, Debug)]
pub struct Breaker(State);

impl Default for Breaker {
    fn default() -> Self {
        Self(State::Closed { failures: 0 })
    }
}

impl Breaker {
    /// Whether a question may go out; who gets `Ok` says later what came of it.
    ///
    /// # Errors
    /// Until when there is none.
    pub fn admit(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        match self.0 {
            State::Closed { .. } => return Ok(()),
            State::Open { until } if now < until => return Err(until),
            State::Trial { since } if now < since.plus_seconds(TRIAL_S) => return Err(since.plus_seconds(TRIAL_S)),
            State::Open { .. } | State::Trial { .. } => {}
        }
        self.0 = State::Trial { since: now };
        Ok(())
    }

    /// There was an answer. One that was under way when it opened does not close it.
    pub fn answered(&mut self) {
        if !matches!(self.0, State::Open { .. }) {
            self.0 = State::Closed { failures: 0 };
        }
    }

    /// There was none, or none that makes sense.
    pub fn failed(&mut self, now: Timestamp) {
        self.0 = match self.0 {
            State::Closed { failures } if failures + 1 < FAILURES_MAX => State::Closed { failures: failures + 1 },
            State::Closed { .. } | State::Trial { .. } => State::Open { until: now.plus_seconds(PAUSE_S) },
            open @ State::Open { .. } => open,
        };
    }

    /// The service itself asks to be left alone for so many seconds, at most [`PAUSE_S_MAX`].
    pub fn held(&mut self, now: Timestamp, pause_s: i64) {
        let asked = now.plus_seconds(pause_s.clamp(1, PAUSE_S_MAX));
        let until = match self.0 {
            State::Open { until } => until.max(asked),
            State::Closed { .. } | State::Trial { .. } => asked,
        };
        self.0 = State::Open { until };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn second(s: i64) -> Timestamp {
        Timestamp::from_millis(1_772_366_400_000).plus_seconds(s)
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_closes_it_again() {
        let mut breaker = Breaker::default();
        for s in [0, 1] {
            breaker.failed(second(s));
            assert_eq!(breaker.admit(second(s)), Ok(()));
        }
        breaker.answered();
        for s in [2, 3] {
            breaker.failed(second(s));
        }
        assert_eq!(breaker.admit(second(4)), Ok(()), "four failures, and an answer between");
        breaker.failed(second(5));
        assert_eq!(breaker.admit(second(64)), Err(second(65)));
        assert_eq!(breaker.admit(second(65)), Ok(()), "one to try");
        assert_eq!(breaker.admit(second(65)), Err(second(95)), "and only one");
        breaker.failed(second(66));
        assert_eq!(breaker.admit(second(125)), Err(second(126)), "a failed trial is enough");
        assert_eq!(breaker.admit(second(126)), Ok(()));
        breaker.answered();
        assert_eq!([breaker.admit(second(126)), breaker.admit(second(126))], [Ok(()); 2]);
    }

    #[test]
    fn who_asks_for_peace_gets_it() {
        let mut breaker = Breaker::default();
        breaker.held(second(0), 15);
        breaker.answered();
        assert_eq!(breaker.admit(second(14)), Err(second(15)), "an answer that was under way does not open the way");
        breaker.held(second(1), 5);
        assert_eq!(breaker.admit(second(14)), Err(second(15)), "nor does a shorter wish");
        breaker.held(second(2), i64::MAX);
        assert_eq!(breaker.admit(second(3)), Err(second(2 + PAUSE_S_MAX)));
        breaker.held(second(4000), -7);
        assert_eq!(breaker.admit(second(4001)), Ok(()));
    }

    #[test]
    fn a_trial_that_was_given_up_does_not_block_for_ever() {
        let mut breaker = Breaker::default();
        breaker.held(second(0), 1);
        assert_eq!(breaker.admit(second(1)), Ok(()));
        assert_eq!(breaker.admit(second(30)), Err(second(31)));
        assert_eq!(breaker.admit(second(31)), Ok(()));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask,
        Answered,
        Failed,
        Held(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
        let step = prop_oneof![
            Just(Step::Ask),
            Just(Step::Answered),
            Just(Step::Failed),
            (-10_i64..10_000).prop_map(Step::Held)
        ];
        prop::collection::vec((0_i64..100, step), 0..60)
    }

    proptest! {
        /// Whatever happens: who is refused is told a time that is kept, which is never far away.
        #[test]
        fn a_refusal_names_the_time_at_which_there_is_none(steps in steps()) {
            let mut breaker = Breaker::default();
            let mut now = second(0);
            for (later, step) in steps {
                now = now.plus_seconds(later);
                match step {
                    Step::Ask => {
                        if let Err(until) = breaker.admit(now) {
                            prop_assert!(until > now && until <= now.plus_seconds(PAUSE_S_MAX));
                            let mut then = breaker;
                            prop_assert_eq!(then.admit(until.plus_seconds(-1)), Err(until));
                            prop_assert_eq!(then.admit(until), Ok(()));
                        }
                    }
                    Step::Answered => breaker.answered(),
                    Step::Failed => breaker.failed(now),
                    Step::Held(s) => breaker.held(now, s),
                }
            }
        }

        /// A service that fails all the time is asked [`FAILURES_MAX`] times and then once a pause.
        #[test]
        fn a_dead_service_is_hardly_asked(pauses in prop::collection::vec(0_i64..5, 1..400)) {
            let mut breaker = Breaker::default();
            let (mut now, mut asked) = (second(0), 0_i64);
            for pause in pauses {
                now = now.plus_seconds(pause);
                if breaker.admit(now).is_ok() {
                    asked += 1;
                    breaker.failed(now);
                }
            }
            let elapsed = now.seconds_since(second(0));
            prop_assert!(asked <= i64::from(FAILURES_MAX) + elapsed / PAUSE_S, "{} in {} s", asked, elapsed);
        }
    }
}

//! The states of an order and the steps between them. The ledger's row decides which step came
//! first; this table says which steps there are.

use serde::{Deserialize, Serialize};

/// What has become of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Accepted: units are reserved and the order event is stored; not in the ledger yet.
    Reserved,
    /// In the ledger, waiting for its payment.
    Written,
    /// Paid.
    Paid,
    /// Given up by the buyer.
    Cancelled,
    /// Not paid in time.
    Expired,
    /// Paid too late, and no unit was left: the money goes back.
    RefundDue,
}

/// What happens to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The order writer commits it.
    Write,
    /// Its payment arrives in time.
    Pay,
    /// Its buyer gives it up.
    Cancel,
    /// `pay_within` has passed.
    Expire,
    /// Its payment arrives late, and the units could be reserved again.
    PayLateReserved,
    /// Its payment arrives late, and no units are left.
    PayLateRefused,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Reserved,
        Self::Written,
        Self::Paid,
        Self::Cancelled,
        Self::Expired,
        Self::RefundDue,
    ];

    /// The state after `step`, or nothing where the step is not allowed.
    pub const fn after(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::Reserved, Step::Write) => Some(Self::Written),
            (Self::Written, Step::Pay) => Some(Self::Paid),
            (Self::Written, Step::Cancel) => Some(Self::Cancelled),
            (Self::Written, Step::Expire) => Some(Self::Expired),
            (Self::Cancelled | Self::Expired, Step::PayLateReserved) => Some(Self::Paid),
            (Self::Cancelled | Self::Expired, Step::PayLateRefused) => Some(Self::RefundDue),
            _ => None,
        }
    }

    /// Whether units are set aside for an order in this state.
    pub const fn holds_units(self) -> bool {
        matches!(self, Self::Reserved | Self::Written | Self::Paid)
    }

    /// The name in JSON and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Written => "written",
            Self::Paid => "paid",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::RefundDue => "refund_due",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_written_order_is_paid_cancelled_or_expired() {
        for step in [Step::Pay, Step::Cancel, Step::Expire] {
            for state in State::ALL {
                assert_eq!(
                    state.after(step).is_some(),
                    state == State::Written,
                    "{state:?} {step:?}"
                );
            }
        }
    }

    #[test]
    fn a_late_payment_never_moves_an_order_that_holds_units() {
        for step in [Step::PayLateReserved, Step::PayLateRefused] {
            for state in State::ALL.into_iter().filter(|state| state.holds_units()) {
                assert_eq!(state.after(step), None);
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
        }
        assert_eq!(State::from_name("lost"), None);
    }
}

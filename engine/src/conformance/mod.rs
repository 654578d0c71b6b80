//! The suite that every home of the engine passes: written once, run against each by
//! [`conformance_suite!`](crate::conformance_suite).
//!
//! | file | what must hold |
//! |---|---|
//! | `promos` | publishing, generations, steering |
//! | `door` | places: issued, used, taken back; challenges |
//! | `orders` | one order for each key and token, limits, refusals |
//! | `returns` | releases, late payments, the sold-out epoch |
//! | `stream` | delivery, redelivery, dead letters, the bound |
//! | `signals` | what nodes tell each other at once |
//! | `leases` | one holder at a time |
//! | `cache` | copies that are never late |
//! | `crowd` | all of it at once, by many, and across a crash |
//!
//! A case gets a fresh, empty engine and panics where the home breaks a promise. It moves the
//! engine's clock by little, so that a home that cannot set its clock may wait instead.
// These are tests, built with the crate so that a home elsewhere can run them.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod cache;
pub mod crowd;
pub mod door;
pub mod leases;
pub mod orders;
pub mod promos;
pub mod returns;
pub mod sale;
pub mod signals;
pub mod stream;

use async_trait::async_trait;

use crate::SharedEngine;

/// An engine under test.
#[async_trait]
pub trait Home: Send + Sync + Sized + 'static {
    /// Starts a fresh, empty engine whose stream takes new orders below `stream_max` entries.
    async fn start(stream_max: u64) -> Self;

    /// The engine.
    fn engine(&self) -> SharedEngine;

    /// Lets so much time pass on the engine's clock.
    async fn advance_ms(&self, ms: u64);

    /// Ends the engine as a crash does, nothing closed in order, and starts it again on what it
    /// had made durable.
    async fn crash(self) -> Self;
}

/// Makes a test of each case of the suite for one [`Home`](crate::conformance::Home).
#[macro_export]
macro_rules! conformance_suite {
    ($home:ty) => {
        $crate::conformance_suite!(@cases $home, promos:
            publishing_twice_is_publishing_once,
            only_the_first_publishing,
            a_sale_that_has_not_begun_is_replaced,
            a_running_sale_is_never_reset,
            a_sale_that_is_over_is_followed_by_the_next,
            terms_that_cannot_sell_are_refused,
            an_operator_pauses_resumes_and_closes,
            an_operator_adds_stock,
        );
        $crate::conformance_suite!(@cases $home, door:
            asking_again_returns_the_live_token,
            the_door_refuses_in_order,
            a_full_door_leaves_the_challenge_unspent,
            an_expired_place_goes_to_the_next_buyer,
            a_token_is_good_until_its_leeway_is_over,
            a_used_place_gets_a_new_token,
            a_place_whose_orders_all_ended_goes_back,
            a_place_with_a_live_second_token_stays_issued,
            an_unused_second_token_does_not_free_a_used_place,
            a_challenge_is_spent_once,
            an_expired_token_is_replaced_on_its_place,
            a_token_ends_with_the_sale,
            taking_back_never_races_a_use,
            signing_out_ends_everything,
        );
        $crate::conformance_suite!(@cases $home, orders:
            a_reservation_takes_units,
            a_buyer_gets_no_more_than_his_limit,
            large_amounts_do_not_wrap,
            the_same_key_gives_the_same_order,
            the_same_order_also_after_sell_out_and_close,
            the_same_order_also_after_expiry_and_end,
            a_key_with_another_body_is_refused,
            a_used_token_gives_its_order,
            a_key_outlives_its_generation,
            too_few_units_is_not_sold_out,
            a_token_must_be_the_places_own,
            a_token_of_an_earlier_generation_is_refused,
            the_window_and_the_operator_are_obeyed,
            a_full_stream_takes_no_new_order,
            oversized_texts_are_refused,
        );
        $crate::conformance_suite!(@cases $home, returns:
            a_release_is_applied_once,
            a_release_repeated_at_once_is_applied_once,
            a_release_of_an_earlier_generation_stays_there,
            a_late_payment_reserves_again,
            a_late_payment_obeys_stock_and_limit,
            the_epoch_rises_with_each_change,
            stock_that_returns_is_told_at_most_once_a_second,
            the_epoch_never_falls_across_generations,
        );
        $crate::conformance_suite!(@cases $home, stream:
            entries_come_in_order_and_once,
            what_was_not_acknowledged_comes_again,
            an_entry_is_set_aside,
            a_read_waits_for_the_first_entry,
            a_rewind_during_a_read_is_not_lost,
            events_add_up,
        );
        $crate::conformance_suite!(@cases $home, signals:
            sold_out_and_back_are_told_under_their_epochs,
            publishing_and_steering_are_told,
            every_listener_hears_what_is_told,
        );
        $crate::conformance_suite!(@cases $home, leases:
            a_lease_has_one_holder,
            a_lease_ends_by_the_engines_clock,
            of_many_who_ask_one_gets_it,
            fences_never_fall,
        );
        $crate::conformance_suite!(@cases $home, cache:
            what_is_recalled_was_remembered,
            what_was_forgotten_does_not_come_back,
            a_copy_ends_after_its_time,
        );
        $crate::conformance_suite!(@cases $home, crowd:
            a_crowd_at_the_door_fills_it_exactly,
            a_crowd_gets_exactly_the_stock,
            a_crowd_that_gives_back_breaks_nothing,
            accepted_orders_survive_a_crash,
            a_caller_that_goes_away_harms_nothing,
        );
    };
    (@cases $home:ty, $module:ident: $($case:ident),+ $(,)?) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::conformance::$module::$case::<$home>().await;
                }
            )+
        }
    };
}

//! The scripts: each is one step, atomic inside Redis. Those of a promo begin with the same prelude,
//! which says how its keys are laid out.

use std::sync::LazyLock;

use redis::Script;

macro_rules! of_promo {
    ($name:ident, $file:literal) => {
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!(
                include_str!("lua/prelude.lua"),
                include_str!(concat!("lua/", $file))
            ))
        });
    };
}

of_promo!(RESERVE, "reserve.lua");
of_promo!(RESERVE_AGAIN, "reserve_again.lua");
of_promo!(RESERVATION, "reservation.lua");
of_promo!(RELEASE, "release.lua");
of_promo!(ENTER, "enter.lua");
of_promo!(SPEND, "spend.lua");
of_promo!(PROMO, "promo.lua");
of_promo!(PUBLISH, "publish.lua");
of_promo!(CONTROL, "control.lua");
of_promo!(TEND, "tend.lua");
of_promo!(ACKNOWLEDGE, "acknowledge.lua");
of_promo!(SET_ASIDE, "set_aside.lua");
of_promo!(REPLAY, "replay.lua");
of_promo!(MARK, "mark.lua");
of_promo!(REBUILD, "rebuild.lua");
of_promo!(REOPEN, "reopen.lua");

/// Records a session, unless its id is another buyer's.
pub(super) static SIGN_IN: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/sign_in.lua")));
/// Removes a session, if it is that buyer's.
pub(super) static SIGN_OUT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/sign_out.lua")));
/// Takes or renews a lease.
pub(super) static LEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/lease.lua")));
/// Gives a lease back.
pub(super) static GIVE_BACK: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/give_back.lua")));

/// Forgets a reader of a stream that has nothing in hand.
pub(super) static FORGET_READER: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/forget_reader.lua")));

/// What [`RESERVE`] does, for one request, whose session is checked in the same step.
#[cfg(feature = "measure")]
pub(super) static RESERVE_ONE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("lua/prelude.lua"),
        include_str!("lua/session.lua"),
        include_str!("lua/reserve.lua")
    ))
});

/// Remembers a copy, unless it was forgotten just now.
pub(super) static REMEMBER: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/remember.lua")));
/// Forgets a copy.
pub(super) static FORGET: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/forget.lua")));

/// A call of a script: its one key that says where it runs, further keys of the same slot, its words.
#[derive(Clone)]
pub(super) struct Call {
    /// Which.
    pub(super) script: &'static LazyLock<Script>,
    /// Its keys, all of one slot.
    pub(super) keys: Vec<String>,
    /// Its words.
    pub(super) words: Vec<Vec<u8>>,
}

impl Call {
    /// A call with one key.
    pub(super) fn new<W: Into<Vec<u8>>>(
        script: &'static LazyLock<Script>,
        key: String,
        words: impl IntoIterator<Item = W>,
    ) -> Self {
        Self {
            script,
            keys: vec![key],
            words: words.into_iter().map(Into::into).collect(),
        }
    }
}

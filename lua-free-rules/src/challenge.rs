//! The challenge's signed envelope, and the verdict on an answer. Drawing pictures and proof-of-work
//! puzzles is the edge's work; what was drawn is bound here to one promo and one session, for one
//! attempt, without a record until it is spent.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::keys::{Key, KeyRing, Purpose, same};
use crate::units::{Nonce, PromoId, Timestamp};

/// Longest envelope accepted, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 512;
/// Longest answer accepted, in bytes.
pub const ANSWER_BYTES_MAX: usize = 256;

/// What the buyer is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Nothing: for tests and load.
    None,
    /// Read a code from a picture.
    Image,
    /// Find a number (ALTCHA proof of work); needs no eyes and no hands.
    Altcha,
}

impl Kind {
    /// The name in JSON, TOML and the envelope.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Image => "image",
            Self::Altcha => "altcha",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "image" => Ok(Self::Image),
            "altcha" => Ok(Self::Altcha),
            _ => Err(format!(
                "`{text}` is not a challenge: use \"altcha\", \"image\" or \"none\""
            )),
        }
    }
}

/// A challenge to seal: what it is bound to, and what answers it.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// What is asked.
    pub kind: Kind,
    /// Its own id: one attempt is counted under it.
    pub id: Nonce,
    /// The promo it opens.
    pub promo: PromoId,
    /// The session it was given to.
    pub session: Nonce,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The right answer: the code of the picture, or the derived key in hex.
    pub answer: &'a str,
}

impl Draft<'_> {
    /// The envelope: opaque to the buyer, bound to promo and session, with the answer only as a
    /// digest under a secret key.
    pub fn seal(&self, ring: &KeyRing) -> String {
        let key = ring.active();
        let answer = answer_mac(key, self.id, self.kind, self.answer);
        let body = format!(
            "{}.{}.{}.{}.{}.{}",
            key.id(),
            self.kind,
            self.promo,
            self.id,
            self.expires_at.0,
            URL_SAFE_NO_PAD.encode(answer)
        );
        let seal = key.mac(Purpose::Challenge, &[body.as_bytes(), &self.session.0]);
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(seal))
    }
}

/// What is spent when an answer is given, right or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The challenge's id.
    pub id: Nonce,
    /// When the challenge expires, and with it the memory of its having been spent.
    pub expires_at: Timestamp,
}

/// The verdict on an answer, reached without I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Right. Whether it is the first attempt, the engine will say.
    Right(Attempt),
    /// Wrong: the attempt is spent all the same.
    Wrong(Attempt),
    /// Not a challenge of ours for this promo and session, or expired: nothing to spend.
    Void,
}

/// Judges `answer` to the challenge in `envelope`.
pub fn judge(
    envelope: &str,
    answer: &str,
    promo: PromoId,
    session: Nonce,
    ring: &KeyRing,
    now: Timestamp,
) -> Verdict {
    let Some(opened) = open(envelope, session, ring) else {
        return Verdict::Void;
    };
    if opened.promo != promo || now >= opened.attempt.expires_at {
        return Verdict::Void;
    }
    let given = answer_mac(opened.key, opened.attempt.id, opened.kind, answer);
    if answer.len() <= ANSWER_BYTES_MAX && same(&given, &opened.answer) {
        Verdict::Right(opened.attempt)
    } else {
        Verdict::Wrong(opened.attempt)
    }
}

struct Opened<'r> {
    key: &'r Key,
    kind: Kind,
    promo: PromoId,
    attempt: Attempt,
    answer: Vec<u8>,
}

fn open<'r>(envelope: &str, session: Nonce, ring: &'r KeyRing) -> Option<Opened<'r>> {
    if envelope.len() > ENVELOPE_BYTES_MAX {
        return None;
    }
    let (body, seal) = envelope.rsplit_once('.')?;
    let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
    let mut parts = body.split('.');
    let key = ring.find(parts.next()?)?;
    if !same(
        &key.mac(Purpose::Challenge, &[body.as_bytes(), &session.0]),
        &seal,
    ) {
        return None;
    }
    let kind = parts.next()?.parse().ok()?;
    let promo = parts.next()?.parse().ok()?;
    let id = parts.next()?.parse().ok()?;
    let expires_at = Timestamp(parts.next()?.parse().ok()?);
    let answer = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
    Some(Opened {
        key,
        kind,
        promo,
        attempt: Attempt { id, expires_at },
        answer,
    })
}

fn answer_mac(key: &Key, id: Nonce, kind: Kind, answer: &str) -> [u8; 32] {
    // Codes and hex digits are read by people and programs of all sorts: case and the blanks
    // around them do not count.
    let answer = answer.trim().to_ascii_lowercase();
    key.mac(
        Purpose::Answer,
        &[&id.0, kind.name().as_bytes(), answer.as_bytes()],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::ring;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000);
    const SESSION: Nonce = Nonce([1; 16]);

    fn draft() -> Draft<'static> {
        Draft {
            kind: Kind::Image,
            id: Nonce([2; 16]),
            promo: PromoId(7),
            session: SESSION,
            expires_at: Timestamp(2_000),
            answer: "aB3d",
        }
    }

    fn attempt() -> Attempt {
        Attempt {
            id: Nonce([2; 16]),
            expires_at: Timestamp(2_000),
        }
    }

    #[test]
    fn the_right_answer_passes_however_it_is_typed() {
        let sealed = draft().seal(&ring());
        let right = judge(&sealed, " Ab3D ", PromoId(7), SESSION, &ring(), NOW);
        assert_eq!(right, Verdict::Right(attempt()));
        let wrong = judge(&sealed, "ab3e", PromoId(7), SESSION, &ring(), NOW);
        assert_eq!(wrong, Verdict::Wrong(attempt()));
        assert!(!sealed.contains("aB3d"));
    }

    #[test]
    fn it_is_bound_to_promo_session_and_time() {
        let sealed = draft().seal(&ring());
        let judged = |promo, session, now| {
            judge(
                &sealed,
                "ab3d",
                PromoId(promo),
                session,
                &ring(),
                Timestamp(now),
            )
        };
        assert_eq!(judged(8, SESSION, 1_000), Verdict::Void);
        assert_eq!(judged(7, Nonce([3; 16]), 1_000), Verdict::Void);
        assert_eq!(judged(7, SESSION, 2_000), Verdict::Void);
        assert_eq!(judged(7, SESSION, 1_999), Verdict::Right(attempt()));
    }

    proptest! {
        #[test]
        fn an_altered_envelope_is_void(at in 0_usize..400, byte in any::<u8>()) {
            let mut bytes = draft().seal(&ring()).into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                prop_assert_eq!(judge(text, "ab3d", PromoId(7), SESSION, &ring(), NOW), Verdict::Void);
            }
        }

        #[test]
        fn garbage_is_void_without_a_panic(text in ".{0,200}", answer in ".{0,300}") {
            prop_assert_eq!(judge(&text, &answer, PromoId(7), SESSION, &ring(), NOW), Verdict::Void);
        }
    }
}

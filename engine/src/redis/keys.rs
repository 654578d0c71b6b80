//! The names of all keys. Those of one promo share a hash tag, so that one script may touch them all in
//! a cluster too; every other key stands alone.

use lua_free_rules::units::{BuyerId, Generation, Nonce, PromoId};

/// The names under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys(String);

impl Keys {
    /// Names that begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self(prefix.to_owned())
    }

    /// What a script of a promo is given: its other keys follow from this one.
    pub(super) fn meta(&self, promo: PromoId) -> String {
        format!("{}:{{{promo}}}:m", self.0)
    }

    /// The stream of a promo.
    pub(super) fn stream(&self, promo: PromoId) -> String {
        format!("{}:{{{promo}}}:s", self.0)
    }

    /// What was set aside of a promo.
    pub(super) fn dead_letters(&self, promo: PromoId) -> String {
        format!("{}:{{{promo}}}:d", self.0)
    }

    /// The terms and counts of a generation.
    pub(super) fn generation(&self, promo: PromoId, generation: Generation) -> String {
        self.of_generation(promo, 'g', generation)
    }

    /// What is known of the buyers of a generation.
    pub(super) fn holdings(&self, promo: PromoId, generation: Generation) -> String {
        self.of_generation(promo, 'h', generation)
    }

    /// The places of a generation by the expiry of their tokens.
    pub(super) fn expiring(&self, promo: PromoId, generation: Generation) -> String {
        self.of_generation(promo, 'x', generation)
    }

    /// Whose the reservations of a generation are.
    pub(super) fn buyers(&self, promo: PromoId, generation: Generation) -> String {
        self.of_generation(promo, 'r', generation)
    }

    fn of_generation(&self, promo: PromoId, kind: char, generation: Generation) -> String {
        format!("{}:{{{promo}}}:{kind}:{}", self.0, generation.0)
    }

    /// The set of all promos.
    pub(super) fn promos(&self) -> String {
        format!("{}:promos", self.0)
    }

    /// Which run of Redis the engine's memory was found good for.
    pub(super) fn run(&self) -> String {
        format!("{}:run", self.0)
    }

    /// A session.
    pub(super) fn session(&self, id: Nonce) -> String {
        format!("{}:session:{id}", self.0)
    }

    /// A lease, and the number of its last holder.
    pub(super) fn lease(&self, name: &str) -> [String; 2] {
        let lease = format!("{}:{{lease:{name}}}", self.0);
        [format!("{lease}:holder"), format!("{lease}:fence")]
    }

    /// Something that is remembered for a while, and the mark of its having been forgotten.
    pub(super) fn cache(&self, key: &str) -> [String; 2] {
        // A brace in the key would end the hash tag: any name does that is one key's alone.
        let tag: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        let cache = format!("{}:{{cache:{tag}}}", self.0);
        [format!("{cache}:copy"), format!("{cache}:gone")]
    }

    /// Where nodes are told.
    pub(super) fn signals(&self) -> String {
        format!("{}:signals", self.0)
    }

    /// Where readers are told that a stream has grown.
    pub(super) fn events(&self) -> String {
        format!("{}:events", self.0)
    }
}

/// How long [`buyer_word`] is.
pub(super) const BUYER_BYTES: i64 = 20;

/// A buyer as the keys of a promo name him: always as long, so that a list of buyers can be counted through.
pub(super) fn buyer_word(buyer: BuyerId) -> String {
    format!("{:020}", buyer.0)
}

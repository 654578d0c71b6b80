//! After Redis was started anew: what it remembers is found good, or is rebuilt from the ledger.

use redis::cmd;

use super::Redis;
use super::link::{self, Memory, Repeat};
use crate::Result;

impl Redis {
    /// Records that what the Redis that runs now remembers is good: from now on it is asked.
    pub(super) async fn vouch(&self) -> Result<()> {
        let mut info = cmd("INFO");
        info.arg("server");
        let info: String = self.link.ask_on(&info, Repeat::Safe, Memory::Any).await?;
        let mut set = cmd("SET");
        set.arg(self.link.keys.run());
        set.arg(link::field(&info, "run_id").unwrap_or_default());
        self.link.ask_on(&set, Repeat::Safe, Memory::Any).await
    }
}

//! The sale as it is written in nginx, Lua and Redis: `perf/peers/nginx-sale.conf` and `sale.lua`.

use floodgate_servers::{Peer, Redis};

use super::Failure;
use super::credentials::{Credentials, Secret};
use super::peers::{self, Setting};
use super::shop;
use super::work::Work;

/// What it is called.
pub const NAME: &str = "nginx + Lua + Redis";

const CONFIG: &str = include_str!("../../peers/nginx-sale.conf");
const SCRIPT: &str = include_str!("../../peers/sale.lua");

/// nginx and its Redis.
pub struct LuaSale {
    /// nginx.
    pub nginx: Peer,
    /// Redis.
    pub redis: Redis,
}

impl LuaSale {
    /// Starts it with so many units on sale.
    pub fn open(setting: &Setting, secret: &Secret, units: usize) -> Self {
        let redis = shop::redis();
        redis.ask(&format!("SET stock{{1}} {units}"));
        let config = CONFIG
            .replace("@REDIS@", &redis.port().to_string())
            .replace(
                "@MACHINE@",
                &format!("{}-linux-gnu", std::env::consts::ARCH),
            );
        let files = [("sale.lua", SCRIPT), ("key", secret.text.as_str())];
        let nginx = setting.nginx(&config, &files, &Work::order_without_token());
        Self { nginx, redis }
    }

    /// Tells it that there is nothing left, as the last order does.
    ///
    /// # Errors
    /// If it does not notice.
    pub fn sell_out(&self, buyer: &Credentials) -> Result<(), Failure> {
        let sold_out = Work {
            name: "order, sold out",
            status: 409,
            requests: vec![buyer.order()],
        };
        match peers::ask(self.nginx.port(), &sold_out)?.status {
            409 => Ok(()),
            status => Err(format!("{NAME} answers {status} though it is sold out").into()),
        }
    }

    /// Whether everything was sold, and each order is in the stream.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self, orders: usize) -> Result<(), Failure> {
        let left = self.redis.ask("GET stock{1}");
        let written = self.redis.ask("XLEN stream{1}");
        if left == ["0"] && written == [orders.to_string()] {
            return Ok(());
        }
        Err(format!("of {orders} units {left:?} are left, and the stream has {written:?}").into())
    }
}

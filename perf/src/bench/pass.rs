//! Pass-through: an order goes through the edge to an order server, which here does nothing but accept. nginx
//! passes the same orders on, and looks at nothing; the edge checks session, token and rate first.

use floodgate_servers::{Peer, Redis};

use super::Failure;
use super::compare::compare;
use super::credentials::{Secret, made_up};
use super::peers::{self, Setting};
use super::report::Table;
use super::shop::{self, Common};
use super::work::Work;
use crate::cli;

const NGINX: &str = include_str!("../../peers/nginx-pass.conf");
/// What order servers answer.
const ACCEPTED: &[u8] =
    br#"{"status":"success","data":{"orderId":"1-1-00000000000000000000000000000001"}}"#;
/// Whose orders take turns: so many that no buyer meets his rate.
const BUYERS: usize = 1_000;

/// What passes them on without looking at them.
const PEER: &str = "nginx, proxy_pass";
/// The least that nginx takes by what the edge takes.
const GOAL: f64 = 0.65;

/// Edge and nginx, before the same responder.
struct Servers {
    edge: Peer,
    nginx: Peer,
    _orders: Peer,
    _redis: Redis,
}

/// Measures both, over each number of connections.
///
/// # Errors
/// If an order is not passed on.
pub fn measure(
    asked: &cli::Bench,
    setting: &Setting,
    tables: &mut Vec<Table>,
) -> Result<(), Failure> {
    let secret = Secret::draw()?;
    let buyers = made_up(&secret.ring, BUYERS)?;
    let work = Work {
        name: "order passed on",
        status: 202,
        requests: buyers.iter().map(|buyer| buyer.order()).collect(),
    };
    let servers = Servers::start(setting, &secret, &work)?;
    let named = [("Floodgate", &servers.edge), (PEER, &servers.nginx)];
    for (name, peer) in named {
        let answer = peers::ask(peer.port(), &work)?;
        if (answer.status, &*answer.body) != (202, ACCEPTED) {
            return Err(format!("{name} does not tell what the order server answered").into());
        }
    }
    for &connections in &asked.connections {
        let table = compare(asked, setting, &work, connections, &named)?;
        tables.push(table.at_least(&[(PEER, GOAL)]));
    }
    Ok(())
}

impl Servers {
    fn start(setting: &Setting, secret: &Secret, work: &Work) -> Result<Self, Failure> {
        let orders = setting.beside().bare(202, ACCEPTED);
        let redis = shop::redis();
        shop::trust(&redis)?;
        let common = Common {
            setting,
            secret,
            redis: redis.port(),
        };
        let nginx = NGINX.replace("@ORIGIN@", &orders.port().to_string());
        Ok(Self {
            edge: common.edge(orders.port(), work),
            nginx: setting.nginx(&nginx, &[], work),
            _orders: orders,
            _redis: redis,
        })
    }
}

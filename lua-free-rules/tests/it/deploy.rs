//! The configurations under `deploy/`: each is accepted for every role that its host plays, its warnings
//! are those that the layout means, and what hosts must share is the same on all of them.

use lua_free_rules::config::{Config, DatabasePassword, Files, Role, parse_for};

use crate::folder::{in_repository, names, read};

const FOUR_HOSTS: [(&str, &[Role]); 3] = [
    ("four-hosts/edge", &[Role::Proxy]),
    ("four-hosts/orders-1", &[Role::Backend, Role::Writer]),
    ("four-hosts/orders-2", &[Role::Backend, Role::Writer]),
];

fn files(folder: &str) -> Files {
    read(&in_repository("deploy").join(folder))
}

/// The configuration, as each role of the host takes it.
fn taken(folder: &str, roles: &[Role]) -> Config {
    let mut taken = None;
    for role in roles {
        let config = parse_for(&files(folder), Some(*role));
        let config = config.unwrap_or_else(|errors| panic!("{folder} as {role}: {errors:#?}"));
        for warning in &config.warnings {
            // Order servers and admin listeners are meant for other hosts; the packet filter sees to who.
            let is_meant = warning.message.contains("is not on loopback");
            assert!(is_meant, "{folder} as {role}: {warning}");
        }
        taken = Some(config);
    }
    taken.unwrap()
}

#[test]
fn every_folder_is_known_here() {
    let mut folders = Vec::new();
    for layout in names(&in_repository("deploy")) {
        let path = in_repository("deploy").join(&layout);
        for folder in path.is_dir().then(|| names(&path)).into_iter().flatten() {
            if path.join(&folder).join("floodgate.toml").is_file() {
                folders.push(format!("{layout}/{folder}"));
            }
        }
    }
    let four_hosts = FOUR_HOSTS.iter().map(|(folder, _)| *folder);
    let known: Vec<_> = ["compose/config"].into_iter().chain(four_hosts).collect();
    assert_eq!(folders, known);
}

#[test]
fn compose_starts_each_role_from_one_folder() {
    let config = taken("compose/config", &Role::ALL);
    assert!(config.node.engine.is_shared() && config.node.database.is_shared());
    assert_eq!(config.promos.len(), 1);
}

#[test]
fn four_hosts_agree() {
    let configs = FOUR_HOSTS.map(|(folder, roles)| taken(folder, roles));
    let [edge, orders @ ..] = &configs;
    for config in orders {
        assert_eq!(edge.node.engine, config.node.engine);
        assert_eq!(edge.node.keys, config.node.keys);
        assert_eq!(edge.node.operator, config.node.operator);
        assert_eq!(orders[0].node.database, config.node.database);
        assert_ne!(config.node.database_password, DatabasePassword::default());
        assert_eq!(orders[0].node.payment, config.node.payment);
        assert!(!config.node.payment.demo, "it pays without money");
    }
    let listen = orders.iter().flat_map(|config| &config.node.orders.listen);
    assert!(listen.eq(&edge.node.edge.upstreams));

    // What is sold is the same everywhere, to the letter.
    let sold = FOUR_HOSTS.map(|(folder, _)| {
        let files = files(folder);
        (files.catalog, files.promos)
    });
    assert!(!sold[0].1.is_empty());
    assert!(sold.iter().all(|each| *each == sold[0]));
}

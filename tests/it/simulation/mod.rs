//! The push conversation over a bad link, in simulated time: two real QUIC endpoints, the real
//! state machines, and a model box. No socket, no waiting; a seed gives the same weather again.

mod channel;
mod dice;
mod link;
mod model;
mod pusher;

use std::time::{Duration, Instant};

use larder::transports::quic::identity::{Identity, Pins};
use quinn_proto::{EndpointConfig, ServerConfig, TransportConfig};

use dice::Dice;
use link::{Link, Node, Weather};
use model::ModelBox;
use pusher::{Pusher, TestPath, client_config};

/// What happens in one run.
#[derive(Clone, Copy, Debug)]
struct Scene {
    weather: Weather,
    paths: usize,
    box_restarts: usize,
    client_restarts: usize,
    network_changes: usize,
    /// Chunks that the box holds from earlier pushes.
    known_percent: u64,
    /// Known chunks that cannot be read when it comes to it.
    damage_percent: u64,
}

const CALM: Scene = Scene {
    weather: Weather { loss_percent: 0, double_percent: 0, delay_ms: (1, 1) },
    paths: 6,
    box_restarts: 0,
    client_restarts: 0,
    network_changes: 0,
    known_percent: 0,
    damage_percent: 0,
};

struct World {
    link: Link,
    identity: Identity,
    client: Node,
    server: Node,
    pusher: Pusher,
    model: ModelBox,
    /// Chunks that the box lacked at the start.
    unknown_chunks: u64,
    /// When the box or the client is killed, or the network changes; the last one first.
    kills: Vec<(Instant, Victim)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Box,
    Client,
    /// The client's network: it goes on under another address.
    Network,
}

const SIMULATED_MAX: Duration = Duration::from_secs(4 * 3600);
const STEPS_MAX: u32 = 1_000_000;

impl World {
    fn new(seed: u64, scene: Scene) -> Self {
        let mut dice = Dice::new(seed);
        let link = Link::new(dice.roll(), scene.weather);
        let identity = Identity::from_seed(&[9; 32]).expect("an identity");
        let pins = Pins::new(vec![identity.device_id()]);
        let paths: Vec<_> =
            (0..scene.paths).map(|number| TestPath::new(&mut dice, number)).collect();
        let mut model = ModelBox::new(dice.roll(), scene.damage_percent);
        let mut unknown_chunks = 0;
        for (chunk, raw) in paths.iter().flat_map(|path| &path.chunks) {
            if dice.percent(scene.known_percent) {
                model.disk.chunks.insert(chunk.id, raw.clone());
            } else {
                unknown_chunks += 1;
            }
        }
        let pusher = Pusher::new(paths, client_config(&pins, transport()));
        let victims = std::iter::repeat_n(Victim::Box, scene.box_restarts)
            .chain(std::iter::repeat_n(Victim::Client, scene.client_restarts))
            .chain(std::iter::repeat_n(Victim::Network, scene.network_changes));
        let mut kills: Vec<_> = victims
            .map(|victim| (link.now + Duration::from_millis(dice.between(30, 3_000)), victim))
            .collect();
        kills.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let (client, server) = (client_node(4000), server_node(&identity));
        Self { link, identity, client, server, pusher, model, unknown_chunks, kills }
    }

    /// Runs until every path is acknowledged.
    fn run(&mut self) {
        let start = self.link.now;
        for step in 0.. {
            if self.pusher.is_done() {
                return;
            }
            let simulated = self.link.now - start;
            assert!(
                simulated < SIMULATED_MAX && step < STEPS_MAX,
                "no end after {step} steps and {simulated:?}: {:?}",
                self.pusher.done
            );
            self.kill_who_is_due();
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.link.now;
        self.link.drive(&mut self.client);
        self.link.drive(&mut self.server);
        for node in [&mut self.client, &mut self.server] {
            for connection in node.connections.values_mut() {
                while connection.poll().is_some() {}
            }
        }
        self.pusher.work(now, &mut self.client, self.server.address);
        self.model.keep(|handle| self.server.connections.contains_key(&handle));
        for (handle, connection) in &mut self.server.connections {
            self.model.serve(now, *handle, connection);
        }
        self.link.drive(&mut self.client);
        self.link.drive(&mut self.server);
        self.check_what_was_acknowledged();

        self.link.drop_strays([self.client.address, self.server.address]);
        let next = self.link.next_event([&mut self.client, &mut self.server]);
        let kill = self.kills.last().map(|(at, _)| *at);
        let events = [next, kill, self.model.next_event(), self.pusher.next_event()];
        // At least a microsecond, so that a timer that is due does not hold the time.
        let soon = now + Duration::from_micros(1);
        self.link.now = events.into_iter().flatten().min().unwrap_or(soon).max(soon);
    }

    fn kill_who_is_due(&mut self) {
        let now = self.link.now;
        let Some((_, victim)) = self.kills.pop_if(|(at, _)| *at <= now) else { return };
        match victim {
            Victim::Box => {
                self.server = server_node(&self.identity);
                self.model.restart();
            }
            Victim::Client => {
                let port = self.client.address.port() + 1;
                self.client = client_node(port);
                self.pusher.restart();
            }
            Victim::Network => self.client.address.set_port(self.client.address.port() + 1),
        }
    }

    fn check_what_was_acknowledged(&self) {
        for (path, done) in self.pusher.paths.iter().zip(&self.pusher.done) {
            let hash = path.offer.info.store_path.hash();
            let held = self.model.disk.paths.contains_key(&hash);
            assert!(done.is_none() || held, "{hash} was acknowledged and is not held");
        }
    }

    fn check_the_end(&self) {
        for path in &self.pusher.paths {
            let hash = path.offer.info.store_path.hash();
            assert!(self.model.disk.paths[&hash] == path.nar(), "{hash} has other bytes");
        }
        for (chunk, taken) in &self.model.disk.taken {
            let damaged = self.model.disk.damaged.get(chunk).copied().unwrap_or(0);
            assert!(*taken <= 1 + damaged, "{chunk} was taken {taken} times");
        }
    }
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = Duration::from_secs(30).try_into().expect("an idle time");
    config.max_idle_timeout(Some(idle)).keep_alive_interval(Some(Duration::from_secs(5)));
    config
}

fn server_node(identity: &Identity) -> Node {
    let crypto = identity.server_crypto().expect("TLS");
    let mut config = ServerConfig::with_crypto(std::sync::Arc::new(crypto));
    config.transport_config(std::sync::Arc::new(transport()));
    Node::new(5273, identity.endpoint_config().expect("random numbers"), Some(config))
}

fn client_node(port: u16) -> Node {
    Node::new(port, EndpointConfig::default(), None)
}

/// Runs a scene under several seeds; `LARDER_SIMULATION_SEED` picks a single one.
#[expect(clippy::print_stderr, reason = "the last seed is shown when a test fails")]
fn play(scene: Scene, check: impl Fn(&World)) {
    let chosen = std::env::var("LARDER_SIMULATION_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = chosen.map_or(1..=6, |seed: u64| seed..=seed);
    for seed in seeds {
        eprintln!("LARDER_SIMULATION_SEED={seed} in {scene:?}");
        let mut world = World::new(seed, scene);
        world.run();
        world.check_the_end();
        check(&world);
    }
}

#[test]
fn on_a_good_link_every_chunk_travels_once() {
    play(CALM, |world| assert_eq!(world.pusher.sent_chunks, streamed_chunks(world)));
}

#[test]
fn loss_reordering_and_doubles_change_nothing() {
    let weather = Weather { loss_percent: 8, double_percent: 5, delay_ms: (1, 40) };
    play(Scene { weather, ..CALM }, |world| {
        assert_eq!(world.pusher.sent_chunks, streamed_chunks(world));
    });
}

#[test]
fn known_chunks_do_not_travel() {
    play(Scene { known_percent: 70, ..CALM }, |world| {
        let taken: u64 = world.model.disk.taken.values().sum();
        assert!(world.unknown_chunks > 0, "there was something to send");
        assert_eq!(taken, world.unknown_chunks);
    });
}

#[test]
fn a_box_that_is_killed_asks_only_for_what_it_had_not_taken() {
    let weather = Weather { loss_percent: 2, double_percent: 2, delay_ms: (1, 20) };
    play(Scene { weather, box_restarts: 5, ..CALM }, |world| {
        assert!(world.pusher.connects > 1, "the client noticed");
    });
}

#[test]
fn a_client_that_is_killed_goes_on_where_it_was() {
    let weather = Weather { loss_percent: 2, double_percent: 2, delay_ms: (1, 20) };
    play(Scene { weather, client_restarts: 5, ..CALM }, |world| {
        assert!(world.pusher.connects > 1, "the client connected again");
    });
}

#[test]
fn a_laptop_that_changes_networks_needs_no_new_connection() {
    let weather = Weather { loss_percent: 2, double_percent: 2, delay_ms: (1, 20) };
    play(Scene { weather, network_changes: 3, ..CALM }, |world| {
        assert!(world.client.address.port() > 4000, "it changed");
        assert_eq!(world.pusher.connects, 1);
        assert_eq!(world.pusher.sent_chunks, streamed_chunks(world));
    });
}

#[test]
fn damaged_chunks_are_sent_again_in_the_middle_of_everything() {
    let weather = Weather { loss_percent: 5, double_percent: 2, delay_ms: (1, 30) };
    let scene = Scene {
        weather,
        box_restarts: 3,
        client_restarts: 3,
        known_percent: 60,
        damage_percent: 20,
        ..CALM
    };
    play(scene, |world| assert!(!world.model.disk.damaged.is_empty(), "nothing was damaged"));
}

/// Chunks of the paths that do not travel whole with their offers.
fn streamed_chunks(world: &World) -> usize {
    let streamed =
        |path: &&TestPath| path.offer.info.nar_size > larder::formats::limits::INLINE_NAR_BYTES_MAX;
    world.pusher.paths.iter().filter(streamed).map(|path| path.chunks.len()).sum()
}

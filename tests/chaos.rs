//! What happens when parts of a cluster fail: two web nodes, two workers, PostgreSQL, Redis and nginx, all real. Whatever
//! is broken, every session ends with the transcript that an undisturbed run gives, and every watcher sees that.

#[path = "support/cluster.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod cluster;
#[path = "support/disk.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod disk;
#[path = "support/nginx.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod nginx;
#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/proxy.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod proxy;
#[path = "support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod redis;
#[path = "support/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod servers;
mod support;
#[path = "support/watch.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod watch;

use cluster::{Cluster, Layout, Node, TOKEN, recording, transcript};
use disk::Filler;
use reqwest::{Body, StatusCode, multipart};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use support::{TIMEOUT, Visitor, tools};
use tokio::time;
use watch::{Notes, Watcher};

/// Sessions of each scene.
const SESSIONS: usize = 20;
/// A node told to stop must be gone after 10 s; a loaded machine gets twice that.
const STOP: Duration = Duration::from_secs(20);
/// A cancellation must reach the engine within 2 s; a loaded machine gets more.
const REACH: Duration = Duration::from_secs(10);

/// A cluster at work on many sessions, watched through every door.
struct Scene {
    cluster: Cluster,
    me: Visitor,
    /// Their ids, by the number of the recording.
    sessions: Vec<String>,
    watchers: Vec<Watcher>,
}

impl Scene {
    async fn start(layout: Layout) -> Self {
        let cluster = Cluster::start(layout).await;
        let me = Visitor::new(&cluster.nginx.url);
        let cookie = me.cookie().await;
        let watchers = cluster.doors().iter().map(|(name, url)| Watcher::of_all(name, url, &cookie)).collect();
        let mut scene = Self { cluster, me, sessions: Vec::new(), watchers };
        scene.upload(SESSIONS).await;
        scene
    }

    /// Sends more recordings, all at once, each watched through every door as soon as it is there.
    async fn upload(&mut self, count: usize) {
        let cookie = self.me.cookie().await;
        let first = self.sessions.len();
        let (me, doors) = (&self.me, self.cluster.doors());
        let uploads = (first..first + count).map(async |number| {
            let id = me.session(&format!("{number}.wav"), recording(number), &[]).await;
            let watchers = doors.each_ref().map(|(name, url)| Watcher::of_session(name, url, &cookie, &id));
            (id, watchers)
        });
        for (id, watchers) in futures::future::join_all(uploads).await {
            self.sessions.push(id);
            self.watchers.extend(watchers);
        }
    }

    /// Waits until sessions are being worked on by the first worker, which has transcribed some of them half way, and
    /// gives them.
    async fn half_way(&mut self) -> Vec<String> {
        let mine = self.held_by_the_first_worker();
        self.cluster
            .until("the first worker is half way", &format!("SELECT 1 WHERE EXISTS ({mine} AND segments > 0)"))
            .await;
        self.cluster.query(&mine)
    }

    fn held_by_the_first_worker(&mut self) -> String {
        let suffix = self.cluster.workers[0].worker_suffix();
        format!("SELECT id FROM sessions WHERE status = 'processing' AND worker LIKE '%{suffix}'")
    }

    /// Waits until everything has ended, then holds it against the undisturbed run.
    async fn check(&mut self) {
        let open = "SELECT 1 FROM sessions WHERE status IN ('queued', 'processing')";
        self.cluster.until("every session has ended", &format!("SELECT 1 WHERE NOT EXISTS ({open})")).await;
        let ended = self.cluster.query("SELECT status, COUNT(*), MAX(error_message) FROM sessions GROUP BY status");
        assert_eq!(ended, [format!("completed|{}|", self.sessions.len())]);
        for (_, url) in self.cluster.doors() {
            self.check_stored(&self.me.at(&url)).await;
        }
        let all_told = async {
            while self.watchers.iter().any(|watcher| !self.is_told(watcher)) {
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        if time::timeout(TIMEOUT, all_told).await.is_err() {
            let waiting: Vec<&Watcher> = self.watchers.iter().filter(|watcher| !self.is_told(watcher)).collect();
            let about: Vec<String> = waiting.iter().take(5).map(|w| format!("{}: {:?}", w.name, w.notes())).collect();
            panic!("{} watchers weren't told of the end, among them\n{}", waiting.len(), about.join("\n"));
        }
        for watcher in &self.watchers {
            self.check_watcher(watcher);
        }
    }

    async fn check_stored(&self, me: &Visitor) {
        for (number, id) in self.sessions.iter().enumerate() {
            let json = me.json(&format!("/api/v1/sessions/{id}/transcript.json")).await;
            let segments = json["segments"].as_array().unwrap();
            let indexes: Vec<u64> = segments.iter().map(|s| s["index"].as_u64().unwrap()).collect();
            assert_eq!(indexes, (0..segments.len() as u64).collect::<Vec<_>>(), "{id} at {}", me.url);
            let seconds = |segment: &Value, name: &str| segment[name].as_f64().unwrap();
            let heard: Vec<(f64, f64, String)> = segments
                .iter()
                .map(|s| (seconds(s, "start"), seconds(s, "end"), s["text"].as_str().unwrap().to_owned()))
                .collect();
            assert_eq!(heard, transcript(number), "{id} at {}", me.url);
            // A node that has heard nothing yet compares with the store before long.
            let status = me.wait(id, "completed").await;
            assert_eq!(status["progress"], 100.0, "{status}");
            assert_eq!(status["segments"], segments.len(), "{status}");
        }
    }

    /// Whether a watcher knows the end of what it watches.
    fn is_told(&self, watcher: &Watcher) -> bool {
        let notes = watcher.notes();
        let all = watcher.name.ends_with("of all");
        let expected = if all { self.sessions.len() } else { 1 };
        let told = notes.sessions.values().filter(|known| known.has_ended()).count();
        let whole = notes.sessions.iter().all(|(id, known)| known.segments.len() == transcript(self.number(id)).len());
        !notes.wrong.is_empty() || (told == expected && (notes.over || all) && whole)
    }

    /// The number of a session's recording.
    fn number(&self, id: &str) -> usize {
        self.sessions.iter().position(|session| session == id).expect("a session of this scene")
    }

    fn check_watcher(&self, watcher: &Watcher) {
        let notes = watcher.notes();
        let name = &watcher.name;
        assert!(notes.wrong.is_empty(), "{name}: {:?}", notes.wrong);
        for (id, known) in &notes.sessions {
            assert_eq!(known.status, "completed", "{name}: {id}");
            assert!(known.versions.windows(2).all(|w| w[0] < w[1]), "{name}: {id}: {:?}", known.versions);
            let texts = transcript(self.number(id)).into_iter().map(|(_, _, text)| text);
            let expected: BTreeMap<u64, String> = (0..).zip(texts).collect();
            assert_eq!(known.segments, expected, "{name}: {id}");
        }
    }

    /// What the watchers behind nginx have noted.
    fn behind_nginx(&self) -> Vec<Notes> {
        self.watchers.iter().filter(|w| w.name.starts_with("nginx")).map(Watcher::notes).collect()
    }

    /// Sessions that needed more than one attempt, and how often a worker was lost or crashed in all.
    fn disturbed(&self) -> (usize, u64) {
        let rows = self.cluster.query("SELECT attempt, crashes FROM sessions");
        let numbers = rows.iter().map(|row| {
            let (attempt, crashes) = row.split_once('|').unwrap();
            (attempt.parse::<u64>().unwrap(), crashes.parse::<u64>().unwrap())
        });
        numbers.fold((0, 0), |(again, lost), (attempt, crashes)| (again + usize::from(attempt > 1), lost + crashes))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn undisturbed() {
    let mut scene = Scene::start(Layout::default()).await;
    scene.check().await;
    assert_eq!(scene.disturbed(), (0, 0));
    for watcher in &scene.watchers {
        let notes = watcher.notes();
        assert_eq!((notes.failed, &notes.refused[..]), (0, &[][..]), "{}", watcher.name);
    }
    // The lines of all nodes may stand in one log.
    let log = scene.cluster.workers[0].log();
    let job = log.lines().find(|line| line.contains("is being transcribed")).unwrap();
    assert!(job.contains("node{name=\"worker0\"}:worker{name=worker0-"), "{job}");
    // Both workers had a part in it.
    for worker in &scene.cluster.workers {
        assert!(worker.log().contains("is being transcribed"), "{} had nothing to do", worker.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_killed() {
    let mut scene = Scene::start(Layout::default()).await;
    let held = scene.half_way().await;
    scene.cluster.workers[0].kill();
    scene.check().await;
    let (again, lost) = scene.disturbed();
    assert!(again >= 1 && lost >= 1, "of {held:?}, {again} were taken up again after {lost} losses");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_node_is_killed() {
    let mut scene = Scene::start(Layout::default()).await;
    scene.half_way().await;
    scene.cluster.webs[0].kill();
    // It stays away until everything is over, so its own watchers learn all of it afterwards.
    let open = "SELECT 1 FROM sessions WHERE status IN ('queued', 'processing')";
    scene.cluster.until("every session has ended", &format!("SELECT 1 WHERE NOT EXISTS ({open})")).await;
    scene.cluster.webs[0].start();
    scene.cluster.webs[0].ready().await;
    scene.check().await;
    assert_eq!(scene.disturbed(), (0, 0), "the workers don't need it");
    let notes = scene.behind_nginx();
    assert!(notes.iter().any(|n| n.opened > 1), "no stream went through the node that was killed");
    assert!(notes.iter().all(|n| n.failed == 0 && n.refused.is_empty()), "nginx had the other node: {notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_node_hangs() {
    let mut scene = Scene::start(Layout::default()).await;
    scene.half_way().await;
    scene.cluster.webs[0].freeze();
    // Whoever comes through nginx is answered by the other one.
    for _ in 0..10 {
        assert_eq!(scene.me.get("/api/v1/status").await.status(), StatusCode::OK);
    }
    let open = "SELECT 1 FROM sessions WHERE status IN ('queued', 'processing')";
    scene.cluster.until("every session has ended", &format!("SELECT 1 WHERE NOT EXISTS ({open})")).await;
    scene.cluster.webs[0].thaw();
    scene.check().await;
    assert_eq!(scene.disturbed(), (0, 0), "the workers don't need it");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_away_for_five_seconds() {
    let mut scene = Scene::start(Layout::default()).await;
    scene.half_way().await;
    scene.cluster.redis.stop();
    time::sleep(Duration::from_secs(5)).await;
    tokio::task::block_in_place(|| scene.cluster.redis.resume());
    scene.check().await;
    assert_eq!(scene.disturbed(), (0, 0), "work doesn't depend on Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_away_for_a_minute() {
    let mut scene = Scene::start(Layout::default()).await;
    scene.half_way().await;
    scene.cluster.redis.stop();
    let back = time::Instant::now() + Duration::from_secs(60);
    // All of it ends, and everybody hears of it, while Redis is away.
    scene.check().await;
    scene.upload(4).await;
    scene.check().await;
    time::sleep_until(back).await;
    tokio::task::block_in_place(|| scene.cluster.redis.resume());
    scene.upload(4).await;
    scene.check().await;
    assert_eq!(scene.disturbed(), (0, 0), "work doesn't depend on Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_hangs() {
    let mut scene = Scene::start(Layout::default()).await;
    scene.half_way().await;
    scene.cluster.redis.freeze();
    // Nobody waits for it: all of it ends while Redis keeps silent.
    scene.check().await;
    scene.cluster.redis.thaw();
    scene.upload(4).await;
    scene.check().await;
    assert_eq!(scene.disturbed(), (0, 0), "work doesn't depend on Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_restarted() {
    let mut scene = Scene::start(Layout::default()).await;
    scene.half_way().await;
    tokio::task::block_in_place(|| scene.cluster.postgres.stop());
    time::sleep(Duration::from_secs(2)).await;
    tokio::task::block_in_place(|| scene.cluster.postgres.resume());
    scene.check().await;
    let cluster = &scene.cluster;
    for node in cluster.webs.iter().chain(&cluster.workers) {
        let log = node.log();
        let cause = format!("away: PostgreSQL at 127.0.0.1:{} refuses connections", cluster.postgres.port);
        assert_eq!(log.matches(&cause).count(), 1, "{}: {log}", node.name);
        assert_eq!(log.matches("the database is back after").count(), 1, "{}: {log}", node.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_sleeps_beyond_its_lease() {
    let mut scene = Scene::start(Layout::default()).await;
    let held = scene.half_way().await;
    let mine = scene.held_by_the_first_worker();
    scene.cluster.workers[0].freeze();
    scene.cluster.until("its sessions are given to another", &format!("SELECT 1 WHERE NOT EXISTS ({mine})")).await;
    scene.cluster.workers[0].thaw();
    scene.check().await;
    let (again, lost) = scene.disturbed();
    assert!(again >= 1 && lost >= 1, "of {held:?}, {again} were taken up again after {lost} losses");
    let refused = scene.cluster.workers[0].log().matches("this worker lost its claim on").count();
    assert!(refused >= 1, "it never noticed: {}", scene.cluster.workers[0].log());
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_full() {
    let mut scene = Scene::start(Layout { disk: Some(16_000_000), ..Layout::default() }).await;
    scene.half_way().await;
    let fillers = [scene.cluster.workers[0].data(), scene.cluster.webs[0].data()].map(|folder| Filler::start(&folder));
    let open = "SELECT 1 FROM sessions WHERE status IN ('queued', 'processing')";
    // A worker needs no room of its own for recordings in a folder, so it doesn't even notice.
    scene.cluster.until("the workers do it all", &format!("SELECT 1 WHERE NOT EXISTS ({open})")).await;
    let there = scene.me.at(&scene.cluster.webs[0].url());
    let refused = there.upload("a.wav", recording(0), &[]).await;
    assert_disk_full(refused).await;
    // One that doesn't say how much will come.
    let pieces = futures::stream::iter(
        recording(0).chunks(10_000).map(<[u8]>::to_vec).map(Ok::<_, std::io::Error>).collect::<Vec<_>>(),
    );
    let part = multipart::Part::stream(Body::wrap_stream(pieces)).file_name("a.wav");
    let request = there.request("POST", "/api/v1/sessions").multipart(multipart::Form::new().part("file", part));
    assert_disk_full(there.send(request).await).await;
    drop(fillers);
    let me = std::mem::replace(&mut scene.me, there);
    scene.upload(4).await;
    scene.me = me;
    scene.check().await;
    assert!(scene.cluster.workers[0].log().contains("the disk is full: 0 B are free"), "the worker had room");
    assert_eq!(scene.disturbed(), (0, 0), "a full disk disturbs no session");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_are_wrong() {
    let clocks = &[("web0", "+40s"), ("worker0", "-40s"), ("worker1", "+4s")];
    let mut scene = Scene::start(Layout { clocks, ..Layout::default() }).await;
    scene.check().await;
    // Leases are counted by one clock, so no worker lost its sessions.
    assert_eq!(scene.disturbed(), (0, 0));
    // Times are those of the database.
    let far = "SELECT id FROM sessions WHERE finished_at < created_at \
               OR ABS(created_at - EXTRACT(EPOCH FROM now()) * 1000) > 30000 + 1000 * EXTRACT(EPOCH FROM now() - pg_postmaster_start_time())";
    assert_eq!(scene.cluster.query(far), [""; 0]);
    let [web, worker, slightly] = [&scene.cluster.webs[0], &scene.cluster.workers[0], &scene.cluster.workers[1]];
    for (node, offset) in [(web, "40 s ahead of"), (worker, "40 s behind")] {
        let sentence = format!("this machine's clock is {offset} the database's");
        let (said, ready) = node.readiness().await;
        assert!(!ready && said.contains(&sentence), "{said}");
        assert_eq!(node.log().matches(&format!("{sentence}: this node is not ready")).count(), 1, "{}", node.log());
        let (said, well) = node.run(&["doctor"]);
        assert!(!well && said.contains(&format!("wrong    {sentence}")), "{said}");
    }
    let (said, ready) = slightly.readiness().await;
    assert!(ready, "{said}");
    // The other nodes know it too.
    let (said, well) = slightly.run(&["nodes"]);
    let line = |node: &Node| said.lines().find(|line| line.starts_with(&node.name)).unwrap().to_owned();
    assert!(!well && line(web).ends_with("this machine's clock is 40 s ahead of the database's"), "{said}");
    assert!(line(worker).ends_with("this machine's clock is 40 s behind the database's"), "{said}");
    assert!(line(slightly).ends_with(" -"), "{said}");
    assert_eq!(slightly.log().matches("this machine's clock is 4.0 s ahead of").count(), 1, "{}", slightly.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_differ_do_not_start() {
    let mut scene = Scene::start(Layout::default()).await;
    scene.half_way().await;
    let empty = scene.cluster.folder().join("empty");
    let other = scene.cluster.folder().join("other");
    for folder in [&empty, &other] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(other.join("hark-cluster.txt"), "another").unwrap();
    let url = |folder: &std::path::Path| format!("file://{}", folder.display());
    let cases = [
        ("HARK_SECRET", Some("a5".repeat(64)), vec!["has another key than the other nodes", "Set HARK_SECRET"]),
        (
            "HARK_RECORDINGS_URL",
            None,
            vec!["isn't where this cluster keeps its recordings", "HARK_RECORDINGS_URL isn't set"],
        ),
        (
            "HARK_RECORDINGS_URL",
            Some(url(&empty)),
            vec!["the file hark-cluster.txt isn't there", "See that it is mounted"],
        ),
        ("HARK_RECORDINGS_URL", Some(url(&other)), vec!["has recordings of another Hark", "a place of its own"]),
    ];
    for node in [scene.cluster.webs[0].another("web2"), scene.cluster.workers[0].another("worker2")] {
        for (setting, value, sentences) in &cases {
            let mut node = node.another(&node.name);
            match value {
                Some(value) => node.set(setting, value),
                None => node.unset(setting),
            }
            let (said, well) = node.run(&[node.command()]);
            assert!(!well && sentences.iter().all(|sentence| said.contains(sentence)), "{}: {said}", node.name);
            let (said, well) = node.run(&["doctor"]);
            assert!(!well && sentences.iter().all(|sentence| said.contains(sentence)), "doctor: {said}");
        }
    }
    scene.check().await;
    assert_eq!(scene.disturbed(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_while_nodes_run() {
    let mut scene = Scene::start(Layout::default()).await;
    let rotate = |scene: &Scene| scene.cluster.webs[0].run(&["secret", "rotate"]);
    let (said, done) = rotate(&scene);
    assert!(!done && said.contains("Restart 4 nodes (web0, web1, worker0, worker1)"), "{said}");
    let restart = async |scene: &mut Scene| {
        for node in scene.cluster.webs.iter_mut().chain(&mut scene.cluster.workers) {
            node.running().terminate(STOP).await;
            node.start();
            node.ready().await;
        }
    };
    restart(&mut scene).await;
    let (said, done) = rotate(&scene);
    assert!(done && said.contains("signs from each node's next start"), "{said}");
    // The first node signs with the new key, and the others accept it.
    scene.cluster.webs[0].running().terminate(STOP).await;
    scene.cluster.webs[0].start();
    scene.cluster.webs[0].ready().await;
    let newcomer = Visitor::new(&scene.cluster.webs[0].url());
    let id = newcomer.session("late.wav", recording(0), &[]).await;
    let there = newcomer.at(&scene.cluster.webs[1].url());
    assert_eq!(there.json(&format!("/api/v1/sessions/{id}")).await["id"], *id);
    newcomer.wait(&id, "completed").await;
    scene.cluster.query(&format!("DELETE FROM sessions WHERE id = '{id}' RETURNING 1"));
    restart(&mut scene).await;
    // Nobody has lost anything.
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_no_engine() {
    let mut scene = Scene::start(Layout { without_engine: &["web0", "web1", "worker0"], ..Layout::default() }).await;
    scene.cluster.until("the other one is half way", "SELECT 1 FROM sessions WHERE segments > 2").await;
    // Without the only worker that can, sessions wait and say for what.
    scene.cluster.workers[1].kill();
    let me = scene.me.at(&scene.cluster.webs[1].url());
    until("this web node knows that no worker has it", async || {
        let engines = me.json("/api/v1/engines").await;
        let command = engines.as_array().unwrap().iter().find(|engine| engine["id"] == "command").unwrap().clone();
        command["available"] == false && command["reason"] == "No worker has Custom command at the moment."
    })
    .await;
    let waits = "SELECT id FROM sessions WHERE needs_model = 'Waiting for a worker with Custom command'";
    let id = scene.cluster.until("a session says what it waits for", waits).await.remove(0);
    until("its page says it", async || {
        let status = me.json(&format!("/api/v1/sessions/{id}/status")).await;
        status["message"] == "Waiting for a worker with Custom command"
    })
    .await;
    let health = reqwest::get(format!("{}/api/v1/health/sessions", scene.cluster.webs[0].monitor())).await.unwrap();
    let waiting = health.json::<Value>().await.unwrap()["waiting_for_worker"].as_u64().unwrap();
    assert!(waiting > 0, "{waiting}");
    let missing = "Custom command, the default engine, can't be used on this node. ";
    let (said, well) = scene.cluster.webs[0].run(&["nodes"]);
    assert!(!well && said.contains("isn't heard of any more"), "{said}");
    // The web nodes have no workers who would use it.
    assert_eq!(said.matches(missing).count(), 1, "{said}");
    let worker = &scene.cluster.workers[0];
    let (said, ready) = worker.readiness().await;
    assert!(!ready && said.starts_with(missing), "{said}");
    assert_eq!(worker.log().matches(missing).count(), 1, "{}", worker.log());
    scene.cluster.workers[1].start();
    scene.check().await;
    assert!(!scene.cluster.workers[0].log().contains("is being transcribed"), "{}", scene.cluster.workers[0].log());
}

/// Starts a worker again with a model of Whisper's.
async fn give_whisper(worker: &mut Node, model: &Path) {
    worker.running().terminate(STOP).await;
    worker.set("HARK_WHISPER_MODEL", &model.display().to_string());
    worker.start();
    worker.ready().await;
}

fn whisper_model(name: &str) -> PathBuf {
    let file = tools().join("models").join(format!("ggml-{name}.bin"));
    assert!(file.is_file(), "{} is missing: scripts/setup test fetches it", file.display());
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_languages_that_its_model_does_not_know_to_another() {
    let mut cluster = Cluster::start(Layout::default()).await;
    give_whisper(&mut cluster.workers[0], &whisper_model("tiny.en")).await;
    give_whisper(&mut cluster.workers[1], &whisper_model("base")).await;
    let me = Visitor::new(&cluster.webs[0].url());
    let offered = async || {
        let engines = me.json("/api/v1/engines").await;
        let whisper = engines.as_array().unwrap().iter().find(|engine| engine["id"] == "whisper").unwrap().clone();
        (whisper["model"].as_str().unwrap().to_owned(), whisper["languages"].as_array().unwrap().len())
    };
    until("the web node knows both", async || offered().await == ("base, tiny.en".to_owned(), 99)).await;
    let german = [("engine", "whisper"), ("language", "de-AT")];
    for number in 0..4 {
        me.session(&format!("{number}.wav"), recording(number), &german).await;
    }
    me.session("4.wav", recording(4), &[("engine", "whisper"), ("language", "en")]).await;
    let open = "SELECT 1 FROM sessions WHERE status IN ('queued', 'processing')";
    cluster.until("every session has ended", &format!("SELECT 1 WHERE NOT EXISTS ({open})")).await;
    let ended = cluster.query("SELECT status, attempt, model FROM sessions WHERE language = 'de-AT'");
    assert_eq!(ended, ["completed|1|base"; 4]);
    assert_eq!(cluster.query("SELECT status FROM sessions WHERE language = 'en'"), ["completed"]);

    // Without the only worker that knows it, a session waits and says for what. The others go on.
    cluster.workers[1].kill();
    let waiting = me.session("5.wav", recording(5), &german).await;
    let english = me.session("6.wav", recording(6), &[("engine", "whisper"), ("language", "en")]).await;
    me.wait(&english, "completed").await;
    until("its page says what it waits for", async || {
        let status = me.json(&format!("/api/v1/sessions/{waiting}/status")).await;
        status["message"] == "Waiting for a worker with Whisper for German"
    })
    .await;
    until("only English is offered", async || offered().await == ("tiny.en".to_owned(), 1)).await;
    let refused = me.upload("7.wav", recording(7), &german).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    cluster.workers[1].start();
    me.wait(&waiting, "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_model_vanishes() {
    let mut cluster = Cluster::start(Layout::default()).await;
    let (model, away) = (cluster.folder().join("ggml-tiny.en.bin"), cluster.folder().join("away"));
    std::os::unix::fs::symlink(whisper_model("tiny.en"), &model).unwrap();
    // Of these two only the first is meant to use Whisper.
    cluster.workers[0].set("HARK_ENGINE", "whisper");
    for worker in &mut cluster.workers {
        give_whisper(worker, &model).await;
    }
    let me = Visitor::new(&cluster.webs[0].url());
    let offered = async || {
        let engines = me.json("/api/v1/engines").await;
        let available = |id| engines.as_array().unwrap().iter().any(|e| e["id"] == id && e["available"] == true);
        (available("whisper"), available("command"))
    };
    until("the web node knows what both have", async || offered().await == (true, true)).await;
    let [first, second] = &cluster.workers;
    assert!(first.readiness().await.1, "{}", first.readiness().await.0);

    fs::rename(&model, &away).unwrap();
    until("the first worker isn't ready", async || !first.readiness().await.1).await;
    let lost = "Whisper can't be used on this node any more. Its model file ";
    let (said, _) = first.readiness().await;
    assert!(said.starts_with(lost) && said.contains("ggml-tiny.en.bin does not exist"), "{said}");
    until("the other worker has noticed", async || second.log().contains(lost)).await;
    let (said, ready) = second.readiness().await;
    assert!(ready, "Whisper isn't its default: {said}");
    until("all nodes know, and only of the first", async || {
        let (said, well) = second.run(&["nodes"]);
        !well && said.matches(lost).count() == 1
    })
    .await;
    // Both go on with what they have.
    until("the web node knows that nobody has it", async || offered().await == (false, true)).await;
    let id = me.session("0.wav", recording(0), &[]).await;
    me.wait(&id, "completed").await;

    fs::rename(&away, &model).unwrap();
    until("the first worker is ready again", async || first.readiness().await.1).await;
    let back = "Whisper can be used on this node again";
    until("both have said so", async || first.log().contains(back) && second.log().contains(back)).await;
    until("all nodes are well", async || second.run(&["nodes"]).1).await;
    for worker in [first, second] {
        let log = worker.log();
        assert_eq!((log.matches(lost).count(), log.matches(back).count()), (1, 1), "{}: {log}", worker.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recordings_of_a_worker_are_unmounted() {
    let mut scene = Scene::start(Layout::default()).await;
    scene.half_way().await;
    let folder = scene.cluster.folder().to_owned();
    let (place, empty) = (folder.join("recordings-of-worker0"), folder.join("empty"));
    fs::create_dir(&empty).unwrap();
    let mount = |what: &std::path::Path| {
        let new = folder.join("new");
        std::os::unix::fs::symlink(what, &new).unwrap();
        fs::rename(new, &place).unwrap();
    };
    mount(&empty);
    scene.upload(8).await;
    let worker = &scene.cluster.workers[0];
    until("the worker isn't ready", async || !worker.readiness().await.1).await;
    let (said, _) = worker.readiness().await;
    assert!(said.contains("isn't there: its file hark-cluster.txt is missing; see that it is mounted"), "{said}");
    let (said, well) = worker.run(&["doctor"]);
    assert!(!well && said.contains("hark-cluster.txt"), "{said}");
    until("all nodes know", async || {
        let (said, well) = worker.run(&["nodes"]);
        !well && said.contains("see that it is mounted")
    })
    .await;
    scene.check().await;
    // No session was failed by it, and none lost an attempt.
    assert_eq!(scene.disturbed().1, 0);
    mount(&folder.join("recordings"));
    let worker = &scene.cluster.workers[0];
    until("the worker is ready again", async || worker.readiness().await.1).await;
    let log = worker.log();
    assert_eq!(log.matches("the place of the recordings failed").count(), 1, "{log}");
    assert!(log.contains("is back"), "{log}");
}

/// Waits until something is true.
async fn until(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_true().await {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("never came true: {what}"));
}

async fn assert_disk_full(answer: reqwest::Response) {
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert_eq!((status, &body["error"]["code"]), (StatusCode::INSUFFICIENT_STORAGE, &json!("disk_full")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_of_the_messages_is_lost() {
    let mut scene = Scene::start(Layout { loss: 0.3, ..Layout::default() }).await;
    scene.check().await;
    let (passed, lost) = scene.cluster.proxy.as_ref().unwrap().counts();
    assert!(passed > 100 && lost > 30, "{passed} messages came through, {lost} were lost");
    assert_eq!(scene.disturbed(), (0, 0), "work doesn't depend on messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_restarted_one_after_another() {
    let mut scene = Scene::start(Layout { pace: 0.6, ..Layout::default() }).await;
    scene.half_way().await;
    for n in [0, 1] {
        let web = &mut scene.cluster.webs[n];
        let status = web.running().terminate(STOP).await;
        assert!(status.success(), "{}: {status}", web.name);
        web.start();
        web.ready().await;
        // After a refusal nginx leaves a node out for 2 s; by then both must not be out.
        time::sleep(Duration::from_secs(3)).await;
        let worker = &mut scene.cluster.workers[n];
        let status = worker.running().terminate(STOP).await;
        assert!(status.success(), "{}: {status}", worker.name);
        worker.start();
    }
    scene.check().await;
    let (again, lost) = scene.disturbed();
    assert!(again >= 1, "no session was running on a worker that was restarted");
    assert_eq!(lost, 0, "a stop on purpose counts as no crash");
    // A browser sees its stream end and gets the next one at once.
    let notes = scene.behind_nginx();
    assert!(notes.iter().all(|n| n.failed == 0 && n.refused.is_empty()), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_and_deleting_reach_an_engine_behind_another_node() {
    let mut cluster = Cluster::start(Layout { pace: 20.0, ..Layout::default() }).await;
    let me = Visitor::new(&cluster.webs[0].url());
    let cookie = me.cookie().await;
    for (number, method) in ["POST", "DELETE"].into_iter().enumerate() {
        let id = me.session("a.wav", recording(number), &[]).await;
        let watchers: Vec<Watcher> = cluster
            .doors()
            .iter()
            .flat_map(|(name, url)| [Watcher::of_session(name, url, &cookie, &id), Watcher::of_all(name, url, &cookie)])
            .collect();
        let engine = async {
            loop {
                if let [pid] = cluster.engines(number)[..] {
                    return pid;
                }
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        let pid = time::timeout(TIMEOUT, engine).await.expect("an engine starts");
        assert!(is_alive(pid));
        let path = format!("/api/v1/sessions/{id}{}", if method == "POST" { "/cancel" } else { "" });
        let answer = me.send(me.request(method, &path)).await;
        assert!(answer.status().is_success(), "{}", answer.status());
        let gone = async {
            while is_alive(pid) {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        time::timeout(REACH, gone).await.expect("the engine's process ends");
        if method == "POST" {
            let told = async {
                while !watchers.iter().all(|w| w.notes().sessions.get(&id).is_some_and(|k| k.status == "cancelled")) {
                    time::sleep(Duration::from_millis(20)).await;
                }
            };
            time::timeout(REACH, told).await.expect("every watcher is told");
            continue;
        }
        for (_, url) in cluster.doors() {
            assert_eq!(me.at(&url).get(&format!("/api/v1/sessions/{id}")).await.status(), StatusCode::NOT_FOUND);
        }
    }
    // The workers are free again.
    assert!(cluster.query("SELECT 1 FROM sessions WHERE status = 'processing'").is_empty());
    for worker in &mut cluster.workers {
        worker.running().must_run();
    }
}

/// A session whose worker is outside Hark, watched through every door by watchers that are sure to hear what is published.
struct Outside {
    cluster: Cluster,
    me: Visitor,
    id: String,
    watchers: Vec<Watcher>,
}

impl Outside {
    async fn start() -> Self {
        let cluster = Cluster::start(Layout::default()).await;
        let me = Visitor::new(&cluster.nginx.url);
        me.cookie().await;
        let mut outside = Self { cluster, me, id: String::new(), watchers: Vec::new() };
        outside.next().await;
        outside
    }

    /// Goes on with a new session.
    async fn next(&mut self) {
        let cookie = self.me.cookie().await;
        let body = json!({"title": "Published by others", "duration_total": 3.0});
        let request = self.me.request("POST", "/api/v1/sessions").bearer_auth(TOKEN).json(&body);
        let answer = self.me.send(request).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let session: Value = answer.json().await.unwrap();
        session["id"].as_str().unwrap().clone_into(&mut self.id);
        let id = &self.id;
        self.watchers = self
            .cluster
            .doors()
            .iter()
            .flat_map(|(name, url)| [Watcher::of_session(name, url, &cookie, id), Watcher::of_all(name, url, &cookie)])
            .collect();
        self.told("queued").await;
        let both = async {
            let count = format!("{}\n2\n", self.channel());
            while self.cluster.redis.cli(&["pubsub", "numsub", &self.channel()]).stdout != count.as_bytes() {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        time::timeout(TIMEOUT, both).await.expect("both web nodes subscribe");
    }

    fn channel(&self) -> String {
        format!("transcription:status:{}", self.id)
    }

    fn publish(&self, message: &Value) {
        assert!(self.cluster.redis.publish(&self.channel(), &message.to_string()) >= 2);
    }

    fn status(&self, version: u64, state: &str, segments: u64) -> Value {
        let progress = if state == "completed" { 100.0 } else { version as f64 };
        json!({
            "session_id": self.id, "version": version, "status": state, "stage": "transcribing", "progress": progress,
            "message": "Published", "timestamp": "2026-01-01T00:00:00.000Z", "duration_processed": 1.0,
            "duration_total": 3.0, "estimated_completion": null, "processing_speed": null, "segments": segments,
            "queue_position": null, "attempt": 1, "error": null,
        })
    }

    fn segment(&self, index: u64, text: &str) -> Value {
        json!({"session_id": self.id, "index": index, "start": index, "end": index + 1, "text": text})
    }

    /// Waits until every watcher knows of this status.
    async fn told(&self, status: &str) {
        let told = async {
            let knows = |w: &Watcher| w.notes().sessions.get(&self.id).is_some_and(|known| known.status == status);
            while !self.watchers.iter().all(knows) {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        if time::timeout(TIMEOUT, told).await.is_err() {
            let notes: Vec<Notes> = self.watchers.iter().map(Watcher::notes).collect();
            panic!("not all heard that it is {status}: {notes:#?}");
        }
    }

    /// What every watcher, and the store, must have in the end.
    async fn has(&self, texts: &[&str]) {
        self.told("completed").await;
        let expected: BTreeMap<u64, String> = (0..).zip(texts.iter().map(|text| (*text).to_owned())).collect();
        for watcher in &self.watchers {
            let whole = async {
                while watcher.notes().sessions[&self.id].segments.len() < texts.len() {
                    time::sleep(Duration::from_millis(20)).await;
                }
            };
            time::timeout(TIMEOUT, whole).await.unwrap_or_else(|_| panic!("{}: {:?}", watcher.name, watcher.notes()));
            let notes = watcher.notes();
            assert!(notes.wrong.is_empty(), "{}: {:?}", watcher.name, notes.wrong);
            assert_eq!(notes.sessions[&self.id].segments, expected, "{}", watcher.name);
        }
        let stored = self.me.json(&format!("/api/v1/sessions/{}/segments", self.id)).await;
        let stored: Vec<&str> =
            stored["segments"].as_array().unwrap().iter().map(|s| s["text"].as_str().unwrap()).collect();
        assert_eq!(stored, texts);
    }

    async fn counted(&self, web: usize, outcome: &str) -> u64 {
        counted(&self.cluster, web, outcome).await
    }
}

/// How many messages a web node has counted with this outcome.
async fn counted(cluster: &Cluster, web: usize, outcome: &str) -> u64 {
    let metrics = Visitor::new(&cluster.webs[web].monitor()).get("/metrics").await.text().await.unwrap();
    let line = format!("hark_bus_messages_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|l| l.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_publish_of_harks_own_sessions_changes_nothing() {
    let mut scene = Scene::start(Layout::default()).await;
    let id = scene.half_way().await.remove(0);
    let owner = scene.cluster.query(&format!("SELECT owner FROM sessions WHERE id = '{id}'")).remove(0);
    let (redis, channel) = (&scene.cluster.redis, format!("transcription:status:{id}"));
    let status = json!({
        "session_id": id, "version": 1u64 << 50, "status": "failed", "stage": null, "progress": null,
        "message": "Forged", "timestamp": "2026-01-01T00:00:00.000Z", "duration_processed": 0.0,
        "duration_total": null, "estimated_completion": null, "processing_speed": null, "segments": 0,
        "queue_position": null, "attempt": 1, "error": {"code": "forged", "message": "Forged"},
    });
    let signed = |message: &Value| {
        let mut message = message.clone();
        message["signature"] = json!("0".repeat(64));
        message
    };
    let segment = json!({"session_id": id, "index": 0, "start": 0.0, "end": 1.0, "text": "forged"});
    for message in [&status, &signed(&status), &segment] {
        assert!(redis.publish(&channel, &message.to_string()) >= 2, "both web nodes listen");
    }
    for news in [
        json!({"news": "changed", "session_id": id, "owner": owner, "status": "cancelled"}),
        json!({"news": "deleted", "session_id": id, "owner": owner}),
        json!({"news": "logged_out", "owner": owner}),
        json!({"news": "page", "page": 1, "counted": 0, "stream": 0, "poll": 0, "visit": false, "fallback": false}),
    ] {
        assert!(redis.publish("transcription:nodes", &news.to_string()) >= 4, "all nodes listen");
    }
    scene.check().await;
    assert_eq!(scene.disturbed(), (0, 0));
    for web in [0, 1] {
        assert_eq!(counted(&scene.cluster, web, "unsigned").await, 7, "at web{web}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_report_to_any_node() {
    let cluster = Cluster::start(Layout::default()).await;
    let me = Visitor::new(&cluster.webs[0].url());
    let (page, unseen) = (me.page().await, me.page().await);
    let _stream = me.get(&format!("/api/v1/status/stream?page={page}")).await;
    let elsewhere = me.at(&cluster.webs[1].url());
    let report = async |page: &str| {
        let report = json!({"page": page, "first": true, "mode_ms": {"live": 10}});
        elsewhere.send(elsewhere.request("POST", "/api/v1/reports").body(report.to_string())).await.status()
    };
    let visits = async |web: usize| {
        let metrics = reqwest::get(format!("{}/metrics", cluster.webs[web].monitor())).await.unwrap();
        let text = metrics.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("hark_client_visits_total{arm=\"stream\"} "));
        line.map_or(0, |count| count.parse::<u32>().unwrap())
    };
    until("the other node knows of the stream", async || {
        report(&page).await;
        visits(1).await == 1
    })
    .await;
    // Nobody has seen anything of this page.
    assert_eq!(report(&unseen).await, StatusCode::NO_CONTENT);
    assert_eq!((visits(0).await, visits(1).await), (0, 1));
    // The first node knows that the visit was counted.
    let again = json!({"page": page, "first": true, "mode_ms": {"live": 10}}).to_string();
    time::sleep(Duration::from_millis(200)).await;
    assert_eq!(me.send(me.request("POST", "/api/v1/reports").body(again)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!((visits(0).await, visits(1).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_in_other_languages_publish_to_redis() {
    let mut outside = Outside::start().await;
    outside.publish(&outside.status(2, "processing", 0));
    outside.told("processing").await;
    outside.publish(&outside.segment(0, "with redis-cli"));
    outside.publish(&outside.status(3, "processing", 1));
    outside.publish(&outside.segment(1, "line\nby \u{2028}line"));
    outside.publish(&outside.status(4, "completed", 2));
    outside.has(&["with redis-cli", "line\nby \u{2028}line"]).await;

    outside.next().await;
    let texts = ["from Python", "naïve 漢字 😀", "data: x\n\n"];
    // Where scripts/setup puts it.
    let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
    let done = tokio::process::Command::new(format!("{home}/hark/python-clients/bin/python"))
        .arg(format!("{}/tests/clients/redis_worker.py", env!("CARGO_MANIFEST_DIR")))
        .arg(format!("redis://127.0.0.1:{}/", outside.cluster.redis.port))
        .arg(&outside.id)
        .args(texts)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    outside.has(&texts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_speaks_an_older_form_is_understood_over_redis() {
    let outside = Outside::start().await;
    let script = format!("{}/tests/clients/older_worker.py", env!("CARGO_MANIFEST_DIR"));
    let redis = format!("redis://127.0.0.1:{}", outside.cluster.redis.port);
    // The last of several that come at once is enough for watchers, so each is waited for.
    for (step, message) in
        ["Waiting for a GPU", "Transcribing", "Transcribing", "diarizing <speakers>", "The model ran out of memory"]
            .into_iter()
            .enumerate()
    {
        let mut command = tokio::process::Command::new("python3");
        let done = command.args([&script, &redis, &outside.id, TOKEN, &step.to_string()]).output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let row = format!(
            "SELECT 1 FROM sessions WHERE id = '{}' AND message = '{message}' AND version >= {}",
            outside.id,
            step + 2
        );
        outside.cluster.until(message, &row).await;
    }
    outside.told("failed").await;
    let status = outside.me.json(&format!("/api/v1/sessions/{}/status", outside.id)).await;
    assert_eq!((&status["progress"], &status["stage"]), (&json!(40.0), &json!("diarizing <speakers>")), "{status}");
    assert_eq!(status["error"]["message"], "The model ran out of memory");
    assert_eq!(outside.counted(0, "malformed").await + outside.counted(1, "malformed").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_while_the_database_is_away_is_shown_and_stored_later() {
    let mut outside = Outside::start().await;
    outside.publish(&outside.status(2, "processing", 0));
    outside.told("processing").await;
    tokio::task::block_in_place(|| outside.cluster.postgres.stop());
    outside.publish(&outside.status(3, "processing", 0));
    outside.publish(&outside.status(4, "completed", 0));
    outside.told("completed").await;
    tokio::task::block_in_place(|| outside.cluster.postgres.resume());
    let stored = format!("SELECT 1 FROM sessions WHERE id = '{}' AND status = 'completed' AND version = 4", outside.id);
    outside.cluster.until("its end is stored", &stored).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_can_not_be_are_counted_and_ignored() {
    let mut outside = Outside::start().await;
    outside.publish(&outside.status(20, "processing", 0));
    outside.told("processing").await;
    let other = "0192f0c1-7c1e-7bb0-8000-000000000001";
    let with = |name: &str, value: Value| {
        let mut message = outside.status(30, "processing", 0);
        message[name] = value;
        message
    };
    // Neither status nor segment; what no status can be; another's; older than known; a hole; too large.
    for message in [json!({}), json!([1]), with("progress", json!("half")), with("status", json!("finished"))] {
        outside.publish(&message);
    }
    assert!(outside.cluster.redis.publish(&outside.channel(), "{\"session_id\":") >= 2);
    outside.publish(&with("session_id", json!(other)));
    outside.publish(&outside.status(19, "processing", 0));
    outside.publish(&outside.segment(7, "out of order"));
    outside.publish(&with("message", json!("x".repeat(256 * 1024))));
    // Nobody listens for sessions that nobody watches.
    assert_eq!(outside.cluster.redis.publish(&format!("transcription:status:{other}"), "{}"), 0);
    outside.publish(&outside.segment(0, "the only line"));
    outside.publish(&outside.status(40, "completed", 1));
    outside.has(&["the only line"]).await;
    for watcher in &outside.watchers {
        let known = watcher.notes().sessions[&outside.id].clone();
        assert!(known.versions.iter().all(|version| [1, 20, 40].contains(version)), "{}: {known:?}", watcher.name);
    }
    for web in [0, 1] {
        for (outcome, expected) in [("malformed", 5), ("foreign", 1), ("stale", 2), ("oversized", 1)] {
            assert_eq!(outside.counted(web, outcome).await, expected, "{outcome} at web{web}");
        }
        assert!(outside.counted(web, "taken").await >= 1);
        // Each reason once.
        let log = outside.cluster.webs[web].log();
        for (reason, lines) in [
            ("has none of the fields of a status", 1),
            ("isn't a status or a segment as JSON", 1),
            ("The field progress doesn't fit", 1),
            ("The field status doesn't fit", 1),
            ("another session than its channel", 1),
            ("Segment 7 isn't the next one", 1),
            ("at most 262144 are accepted", 1),
        ] {
            assert_eq!(log.matches(reason).count(), lines, "{reason} at web{web}: {log}");
        }
    }
    // What has ended stays as it is.
    outside.next().await;
    let path = format!("/api/v1/sessions/{}/cancel", outside.id);
    assert!(outside.me.post(&path).await.status().is_success());
    outside.told("cancelled").await;
    let cancelled = outside.me.json(&format!("/api/v1/sessions/{}/status", outside.id)).await;
    outside.publish(&outside.status(5_000, "completed", 0));
    let counted = async {
        while outside.counted(0, "stale").await < 3 {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, counted).await.expect("it is counted");
    assert_eq!(outside.me.json(&format!("/api/v1/sessions/{}/status", outside.id)).await, cancelled);
}

/// Whether a process runs; one that has ended and waits to be collected doesn't.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

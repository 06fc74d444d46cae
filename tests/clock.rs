//! A wall clock that is set an hour wrong, and right again, while sessions run: nothing that Hark measures may notice. In
//! a binary of its own, because the clock is that of the whole process.

mod support;

use hark::{model::Timestamp, server::clock};
use serde_json::Value;
use std::time::Duration;
use support::{TIMEOUT, TestApp, Visitor, slow_engine, wav};
use tempfile::TempDir;
use tokio::time;

const HOUR_MS: i64 = 3_600_000;
/// Seconds of sound, of which the engine hears five a second at best.
const LENGTH: f64 = 120.0;

async fn status(me: &Visitor, id: &str) -> Value {
    me.json(&format!("/api/v1/sessions/{id}/status")).await
}

/// Waits for news of a session that `wanted` is true of; it must still be the first attempt.
async fn news(me: &Visitor, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let waiting = async {
        loop {
            let status = status(me, id).await;
            assert_eq!((&status["status"], &status["attempt"]), (&"processing".into(), &1.into()), "{status}");
            if wanted(&status) {
                return status;
            }
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// By how much the arrival lies ahead, in seconds.
fn ahead(status: &Value) -> f64 {
    let at: Timestamp = status["estimated_completion"].as_str().unwrap().parse().unwrap();
    at.seconds_since(Timestamp::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_leaps_an_hour_either_way_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let command = slow_engine(folder.path(), 0.2);
    let flags = ["--engine", "command", "--engine-command", &command, "--lease-secs", "3", "--workers", "2"];
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let id = me.session("talk.wav", wav(LENGTH, 1000.0), &[]).await;
    let known = |status: &Value| status["processing_speed"].is_f64() && status["estimated_completion"].is_string();
    let settled = loop {
        let status = status(&me, &id).await;
        if known(&status) {
            break status;
        }
        time::sleep(Duration::from_millis(50)).await;
    };
    let mut processed = settled["duration_processed"].as_f64().unwrap();
    // Several times: leases are looked at every two seconds and renewed every second, so one leap may go unseen.
    for leap in [1, 0, -1, 0, 1, -1] {
        clock::shift(leap * HOUR_MS);
        let now = Timestamp::now();
        // News from after the leap, of three more seconds of sound.
        let status = news(&me, &id, "it goes on", |status| {
            let at: Timestamp = status["timestamp"].as_str().unwrap().parse().unwrap();
            let since = at.seconds_since(now);
            (0.0..1800.0).contains(&since) && status["duration_processed"].as_f64().unwrap() >= processed + 3.0
        })
        .await;
        processed = status["duration_processed"].as_f64().unwrap();
        let speed = status["processing_speed"].as_f64().unwrap();
        assert!((0.05..=5.5).contains(&speed), "{leap}: {status}");
        let (ahead, left) = (ahead(&status), LENGTH - processed);
        assert!((left / speed - ahead).abs() < 10.0, "{leap}: {ahead} s ahead, with {left} s left at {speed}");
    }
    clock::shift(0);
    assert_eq!(me.wait(&id, "completed").await["attempt"], 1);
}

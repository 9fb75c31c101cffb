//! Every fault of the API server: what the agent does meanwhile, and how long until all is right again.

use std::time::Duration;

use serde_json::json;

use super::bench::{Bench, dead, healthy, pod, uid};
use crate::apiserver::{Fault, On, Order};
use crate::verdict::State;

/// At this scale half a second is ten: ten minutes without an API server take 30 s.
const SCALE: u32 = 20;

/// One way to be ill.
struct Illness {
    name: &'static str,
    begin: fn(&Bench),
    /// Part of the cluster's side that must say so (every part if empty: none has to).
    told: &'static str,
}

fn everywhere(bench: &Bench, fault: Fault) {
    bench.server.fault(On::ALL, fault);
    bench.server.order(Order::End);
}

fn illnesses() -> Vec<Illness> {
    let ill = |name, told, begin| Illness { name, begin, told };
    vec![
        ill("401 on everything", "pods", |b| everywhere(b, Fault::Status(401))),
        ill("403 on everything", "pods", |b| everywhere(b, Fault::Status(403))),
        ill("404 on everything", "pods", |b| everywhere(b, Fault::Status(404))),
        ill("409 on writes", "node_mounts", |b| {
            for method in ["PUT", "PATCH"] {
                b.server.fault(On::method(method, ""), Fault::Status(409));
            }
        }),
        ill("410 on lists and watches", "pods", |b| {
            b.server.fault(On::path("/pods"), Fault::Status(410));
            b.server.order(Order::Expire);
        }),
        ill("410 on a running watch", "", |b| b.server.order(Order::Expire)),
        ill("history compacted, watch ended", "", |b| {
            b.server.compact();
            b.server.order(Order::End);
        }),
        ill("429 without Retry-After", "pods", |b| everywhere(b, Fault::Status(429))),
        ill("429 with Retry-After: 1", "pods", |b| everywhere(b, Fault::TooMany { retry_after: 1 })),
        ill("500 on everything", "pods", |b| everywhere(b, Fault::Status(500))),
        ill("503 on everything", "pods", |b| everywhere(b, Fault::Status(503))),
        ill("reset before the answer", "pods", |b| everywhere(b, Fault::Reset)),
        ill("answer cut in its first line", "pods", |b| everywhere(b, Fault::Cut)),
        ill("watch cut in the middle of a line", "", |b| b.server.order(Order::Cut)),
        ill("watch goes silent", "pods", |b| b.server.order(Order::Silent)),
        ill("accepts and never answers", "pods", |b| {
            everywhere(b, Fault::Silent);
        }),
        ill("every answer after 15 s", "pods", |b| everywhere(b, Fault::Slow(Duration::from_secs(15) / SCALE))),
        ill("200 with another object", "pods", |b| everywhere(b, Fault::Other(json!({"kind": "Banana"})))),
        ill("200 with a proxy's page", "pods", |b| everywhere(b, Fault::Page(200, "<html>sign in</html>"))),
        ill("502 with a proxy's page", "pods", |b| everywhere(b, Fault::Page(502, "<html>bad gateway</html>"))),
        ill("clock a day off", "", |b| b.server.clock_off(-86_400)),
        ill("nobody listens", "pods", |b| b.server.go_down()),
    ]
}

#[test]
fn every_fault_is_told_and_ends_by_itself() {
    println!("{:<36}{:>12}  meanwhile", "fault", "right after");
    for illness in illnesses() {
        let bench = Bench::start(SCALE);
        bench.pods(1, "data");
        bench.show(&[healthy("srv:/a", &[0])]);
        bench.until("well at first", |bench| {
            bench.volume_known(0)
                && bench.condition()["status"] == "True"
                && bench.node_mounts()["status"]["healthy"] == 1
        });
        (illness.begin)(&bench);
        // A mount dies and a pod comes while the API server is ill.
        bench.show(&[dead("srv:/a", State::Hung, &[0], 1000.0)]);
        if !illness.told.is_empty() {
            bench.until(illness.name, |bench| bench.stats().troubles.contains_key(illness.told));
        }
        let said = bench.stats().troubles.get(illness.told).cloned().unwrap_or_else(|| "nothing is missed".to_owned());
        assert!(bench.names().pod(&uid(0)).is_some(), "{}: names are kept", illness.name);
        bench.server.put(pod(1, "data"));
        bench.server.heal();
        bench.server.come_up();
        let took = bench.until(illness.name, |bench| {
            bench.names().pod(&uid(1)).is_some()
                && bench.events("MountHung").len() == 1
                && bench.condition()["status"] == "False"
                && bench.node_mounts()["status"]["dead"] == 1
                && bench.stats().troubles.is_empty()
        });
        let event = &bench.events("MountHung")[0];
        assert_eq!(event["eventTime"], "1970-01-01T00:16:40.000000Z", "{}", illness.name);
        println!("{:<36}{:>10.1} s  {said}", illness.name, (took * SCALE).as_secs_f64());
    }
}

#[test]
fn an_api_server_dead_for_ten_minutes_loses_nothing_and_is_not_stormed() {
    let bench = Bench::start(SCALE);
    let all: Vec<usize> = (0..20).collect();
    bench.pods(20, "data");
    bench.show(&[healthy("srv:/a", &all)]);
    bench.until("well at first", |bench| bench.names().iter().count() == 20 && bench.volume_known(0));
    bench.server.go_down();
    std::thread::sleep(Duration::from_secs(60) / SCALE);
    // In the middle of the outage: all hang, come back for a while, hang again and stay so.
    bench.show(&[dead("srv:/a", State::Hung, &all, 1000.0)]);
    std::thread::sleep(Duration::from_secs(240) / SCALE);
    bench.show(&[healthy("srv:/a", &all)]);
    std::thread::sleep(Duration::from_secs(60) / SCALE);
    bench.show(&[dead("srv:/a", State::Hung, &all, 2000.0)]);
    std::thread::sleep(Duration::from_secs(240) / SCALE);
    assert_eq!(bench.names().iter().count(), 20, "names are kept");
    bench.server.forget_asked();
    bench.server.come_up();
    let took = bench.until("all Events", |bench| bench.events("MountHung").len() == 21);
    bench.until("the rest", |bench| bench.condition()["status"] == "False" && bench.stats().troubles.is_empty());
    let asked = bench.server.asked().len();
    println!(
        "API server dead for 10 min: right {:.1} s after its return, {asked} requests",
        (took * SCALE).as_secs_f64()
    );
    assert!(asked < 21 + 25, "{asked}");
    for event in bench.events("MountHung") {
        assert_eq!(event["eventTime"], "1970-01-01T00:33:20.000000Z", "the time it happened: {event}");
        assert!(event["series"].is_null(), "once each: {event}");
    }
}

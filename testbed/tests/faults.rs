//! The proxy does to a request what its rules say, and to no other; and it tells truly what became of each.

#![allow(clippy::unwrap_used, reason = "a driver of tests that cannot go on ends the test")]

mod support;

use std::time::{Duration, Instant};

use support::{Answer, Client, LARGE, Server, large};
use whereabouts_testbed::{Fault, FaultProxy, Rule, UNDEFINED};

/// Longer than a request takes, shorter than a reader of a test's output notices.
const MOMENT: Duration = Duration::from_millis(300);

/// For what happens without anybody waiting for it.
const PATIENCE: Duration = Duration::from_secs(20);

fn proxy_of(server: &Server, rules: impl IntoIterator<Item = Rule>) -> FaultProxy {
    let proxy = FaultProxy::start(&server.url, None).unwrap();
    proxy.set(rules);
    proxy
}

fn ask(proxy: &FaultProxy, method: &str, path: &str) -> Answer {
    Client::connect(proxy.url()).ask(method, path, "x")
}

#[test]
fn what_no_rule_names_passes_as_it_is() {
    let server = Server::start();
    let proxy = proxy_of(&server, []);
    let answer = Client::connect(proxy.url()).ask("POST", "/a?b=c", "hello");
    let Answer::Whole { status: 200, body, .. } = &answer else { panic!("{answer:?}") };
    assert_eq!(body, b"/a?b=c");
    assert_eq!(server.requests(), ["POST /a?b=c hello"]);
    let [seen] = &proxy.requests()[..] else { panic!("one request") };
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/a?b=c"));
    assert_eq!((seen.handed_on, seen.served, seen.status), (true, Some(200), Some(200)));
    assert_eq!((seen.bytes_up, seen.bytes_down, &seen.fault), (5, 6, &None));
}

#[test]
fn a_lost_reply_hides_a_write_that_went_through() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::DropReply)]);
    assert_eq!(ask(&proxy, "PUT", "/a"), Answer::Nothing);
    assert_eq!(server.requests(), ["PUT /a x"]);
    let seen = &proxy.requests()[0];
    assert_eq!((seen.handed_on, seen.served, seen.status), (true, Some(200), None));
    assert_eq!(seen.fault, Some(Fault::DropReply));
}

#[test]
fn a_lost_request_reaches_nobody() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::DropRequest)]);
    assert_eq!(ask(&proxy, "PUT", "/a"), Answer::Nothing);
    assert_eq!(server.requests(), [""; 0]);
    let seen = &proxy.requests()[0];
    assert_eq!((seen.handed_on, seen.served, seen.status), (false, None, None));
}

#[test]
fn a_delayed_request_passes_later() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::Delay(MOMENT))]);
    let started = Instant::now();
    assert_eq!(ask(&proxy, "PUT", "/a").status(), 200);
    assert!(started.elapsed() >= MOMENT, "after {:?}", started.elapsed());
}

#[test]
fn who_gives_up_takes_a_delayed_request_along() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::Delay(MOMENT))]);
    let mut hasty = Client::connect(proxy.url());
    hasty.send("PUT", "/hasty", "");
    assert_eq!(hasty.answer(Duration::from_millis(10)), Answer::Silence);
    drop(hasty);
    // It came later and waits as long, so that the other one has had its time.
    assert_eq!(ask(&proxy, "PUT", "/patient").status(), 200);
    assert_eq!(server.requests(), ["PUT /patient x"]);
    assert!(!proxy.requests()[0].handed_on);
}

#[test]
fn a_late_write_lands_after_its_client_was_cut_off() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::LandLate(MOMENT)).times(1)]);
    let started = Instant::now();
    assert_eq!(ask(&proxy, "PUT", "/late"), Answer::Nothing);
    assert!(!proxy.requests()[0].handed_on, "before its time");
    // Another client writes in between.
    assert_eq!(ask(&proxy, "PUT", "/next").status(), 200);
    assert!(proxy.wait_until(PATIENCE, |seen| seen[0].served == Some(200)), "{:?}", proxy.requests());
    assert!(started.elapsed() >= MOMENT, "after {:?}", started.elapsed());
    assert_eq!(server.requests(), ["PUT /next x", "PUT /late x"]);
    assert_eq!(proxy.requests()[0].status, None);
}

#[test]
fn a_late_write_lands_after_its_client_gave_up() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::Silence { lands_after: Some(MOMENT) })]);
    let mut client = Client::connect(proxy.url());
    client.send("PUT", "/late", "");
    assert_eq!(client.answer(Duration::from_millis(10)), Answer::Silence);
    drop(client);
    assert_eq!(server.requests(), [""; 0]);
    assert!(proxy.wait_until(PATIENCE, |seen| seen[0].served == Some(200)), "{:?}", proxy.requests());
    assert_eq!(server.requests(), ["PUT /late "]);
}

#[test]
fn who_waits_in_silence_hears_nothing_even_after_the_write_has_landed() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::Silence { lands_after: Some(Duration::ZERO) })]);
    let mut client = Client::connect(proxy.url());
    client.send("PUT", "/a", "");
    assert!(proxy.wait_until(PATIENCE, |seen| seen.first().is_some_and(|seen| seen.served == Some(200))));
    assert_eq!(client.answer(Duration::from_millis(50)), Answer::Silence);
}

#[test]
fn a_request_into_silence_reaches_nobody() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::Silence { lands_after: None })]);
    let mut client = Client::connect(proxy.url());
    client.send("PUT", "/a", "");
    assert_eq!(client.answer(MOMENT), Answer::Silence);
    assert_eq!(server.requests(), [""; 0]);
    assert!(!proxy.requests()[0].handed_on);
}

#[test]
fn a_reply_is_cut_in_its_middle() {
    let server = Server::start();
    for path in ["/a", "/large"] {
        let proxy = proxy_of(&server, [Rule::new(Fault::Cut)]);
        let whole = if path == "/large" { large() } else { path.as_bytes().to_vec() };
        let answer = ask(&proxy, "GET", path);
        let Answer::CutAfter { of, body } = answer else { panic!("{path}: the answer was not cut") };
        assert_eq!(of, whole.len());
        assert!(body == whole[..whole.len() / 2], "{path}: {} of {of} bytes", body.len());
        let seen = &proxy.requests()[0];
        assert_eq!((seen.served, seen.status), (Some(200), Some(200)));
    }
    assert_eq!(server.requests(), ["GET /a x", "GET /large x"]);
}

#[test]
fn the_proxy_refuses_as_the_api_server_does() {
    let server = Server::start();
    let busy = Rule::new(Fault::TooManyRequests { retry_after_seconds: 7 }).times(1);
    let undefined = Rule::new(Fault::Undefined).times(1);
    let proxy = proxy_of(&server, [busy, Rule::new(Fault::ServerError(500)).times(1), undefined]);
    // One connection: a refusal does not end it.
    let mut client = Client::connect(proxy.url());
    let answer = client.ask("GET", "/a", "");
    assert_eq!((answer.status(), answer.header("retry-after").as_deref()), (429, Some("7")));
    let Answer::Whole { body, .. } = answer else { unreachable!() };
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&status["kind"], &status["code"]), (&"Status".into(), &429.into()));
    let answer = client.ask("GET", "/a", "");
    assert_eq!((answer.status(), answer.header("retry-after")), (500, None));
    let answer = client.ask("GET", "/a", "");
    assert_eq!(answer.status(), 404);
    let Answer::Whole { body, .. } = answer else { unreachable!() };
    assert_eq!(body, UNDEFINED.as_bytes());
    assert_eq!(server.requests(), [""; 0]);
    assert_eq!(client.ask("GET", "/a", "").status(), 200);
    let seen = proxy.requests();
    let statuses: Vec<_> = seen.iter().map(|seen| (seen.handed_on, seen.served, seen.status)).collect();
    let [none, served] = [|status| (false, None, Some(status)), |status| (true, Some(status), Some(status))];
    let expected = [none(429), none(500), none(404), served(200)];
    assert_eq!(statuses, expected);
}

#[test]
fn a_rule_is_for_the_requests_that_it_names() {
    let server = Server::start();
    let error = |status| Rule::new(Fault::ServerError(status));
    let proxy = proxy_of(
        &server,
        [
            error(501).method("PUT").path("/pods/"),
            error(502).method("PUT"),
            error(503).path("watch=1"),
            error(504).method("POST").body("block-7"),
        ],
    );
    let mut client = Client::connect(proxy.url());
    for (method, path, body, status) in [
        ("PUT", "/pods/a", "", 501),
        ("PUT", "/nodes/a", "", 502),
        ("GET", "/pods/a", "", 200),
        ("GET", "/pods?watch=1", "", 503),
        ("POST", "/blocks", r#"{"name":"block-7"}"#, 504),
        ("POST", "/blocks", r#"{"name":"block-6"}"#, 200),
        ("PATCH", "/blocks", r#"{"name":"block-7"}"#, 200),
    ] {
        assert_eq!(client.ask(method, path, body).status(), status, "{method} {path} {body}");
    }
}

#[test]
fn a_rule_begins_after_some_matches_and_ends_after_some() {
    let server = Server::start();
    let proxy = proxy_of(
        &server,
        [
            Rule::new(Fault::ServerError(501)).path("/a").after(1).times(2),
            Rule::new(Fault::ServerError(502)).path("/a").after(1).times(1),
        ],
    );
    let mut client = Client::connect(proxy.url());
    let mut statuses = Vec::new();
    for _ in 0..6 {
        // What a rule does not match, it does not count.
        assert_eq!(client.ask("GET", "/b", "").status(), 200);
        statuses.push(client.ask("GET", "/a", "").status());
    }
    // The second rule counts what the first one let pass.
    assert_eq!(statuses, [200, 501, 501, 502, 200, 200]);
}

#[test]
fn the_same_seed_draws_the_same_faults() {
    let server = Server::start();
    let statuses = |seed| {
        let faults = [(0.2, Fault::ServerError(501)), (0.1, Fault::ServerError(502))];
        let proxy = proxy_of(&server, [Rule::random(seed, faults), Rule::new(Fault::ServerError(503))]);
        let mut client = Client::connect(proxy.url());
        (0..1000).map(|_| client.ask("GET", "/a", "").status()).collect::<Vec<_>>()
    };
    let drawn = statuses(1);
    assert_eq!(drawn, statuses(1));
    assert_ne!(drawn, statuses(2));
    let share = |status| drawn.iter().filter(|drawn| **drawn == status).count();
    // Five standard deviations to both sides.
    assert!((137..264).contains(&share(501)), "{} of 1000 at 0.2", share(501));
    assert!((52..149).contains(&share(502)), "{} of 1000 at 0.1", share(502));
    assert_eq!(share(200), 1000 - share(501) - share(502), "what draws nothing passes");
}

#[test]
#[should_panic(expected = "add up to at most 1")]
fn probabilities_beyond_certainty_are_a_mistake() {
    let _ = Rule::random(0, [(0.6, Fault::DropReply), (0.5, Fault::DropRequest)]);
}

#[test]
fn the_record_is_counted_and_cleared() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::ServerError(500)).method("DELETE")]);
    let mut client = Client::connect(proxy.url());
    for method in ["PUT", "PUT", "GET", "DELETE"] {
        client.ask(method, "/blocks/1", "");
    }
    assert_eq!(proxy.count("PUT", "/blocks/"), 2);
    assert_eq!(proxy.count("PUT", "/pods/"), 0);
    let methods: Vec<_> = proxy.requests().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["PUT", "PUT", "GET", "DELETE"]);

    proxy.clear_requests();
    assert_eq!((proxy.count("PUT", ""), proxy.requests().len()), (0, 0));
    assert_eq!(client.ask("DELETE", "/a", "").status(), 500, "the rules are still there");
    let [seen] = &proxy.requests()[..] else { panic!("one request") };
    assert_eq!(seen.status, Some(500));

    proxy.clear();
    assert_eq!(client.ask("DELETE", "/a", "").status(), 200, "the rules are gone");
    assert_eq!(proxy.requests().len(), 1);
}

#[test]
fn what_becomes_of_a_forgotten_request_is_not_told_of_another() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::LandLate(MOMENT)).times(1)]);
    assert_eq!(ask(&proxy, "PUT", "/late"), Answer::Nothing);
    proxy.clear();
    proxy.add(Rule::new(Fault::LandLate(MOMENT * 2)).times(1));
    assert_eq!(ask(&proxy, "PUT", "/later"), Answer::Nothing);
    proxy.add(Rule::new(Fault::DropRequest));
    assert_eq!(ask(&proxy, "PUT", "/never"), Answer::Nothing);
    assert!(proxy.wait_until(PATIENCE, |seen| seen[0].served.is_some()));
    assert_eq!(server.requests(), ["PUT /late x", "PUT /later x"]);
    assert_eq!(proxy.requests()[1].served, None);
}

#[test]
fn a_connection_lives_as_long_as_its_client_wants() {
    let server = Server::start();
    let proxy = proxy_of(&server, []);
    let mut client = Client::connect(proxy.url());
    for number in 0..100 {
        assert_eq!(client.ask("PUT", &format!("/{number}"), "x").status(), 200);
    }
    assert_eq!(server.requests().len(), 100);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_fault_ends_the_connection_of_its_client_alone() {
    let server = Server::start();
    let proxy = proxy_of(&server, [Rule::new(Fault::DropReply).path("/faulty")]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut healthy = Client::connect(proxy.url());
                for _ in 0..50 {
                    assert_eq!(healthy.ask("PUT", &format!("/{number}"), "x").status(), 200);
                    assert_eq!(ask(proxy, "PUT", "/faulty"), Answer::Nothing);
                }
            });
        }
    });
    assert_eq!((server.requests().len(), proxy.requests().len()), (800, 800));
    assert_eq!(proxy.count("PUT", "/faulty"), 400);
}

#[test]
fn large_replies_arrive_whole_at_several_clients() {
    let server = Server::start();
    let proxy = proxy_of(&server, []);
    let whole = large();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let Answer::Whole { body, .. } = ask(&proxy, "GET", "/large") else { panic!("not whole") };
                assert!(body == whole, "other bytes");
            });
        }
    });
    assert!(proxy.requests().iter().all(|seen| seen.bytes_down == LARGE as u64));
}

#[test]
fn a_watch_flows_as_it_comes() {
    let server = Server::start();
    let proxy = proxy_of(&server, []);
    let mut watcher = Client::connect(proxy.url());
    watcher.send("GET", "/watch", "");
    assert!(watcher.read_until("first").starts_with("HTTP/1.1 200"));
    // Only now does the server send more.
    assert_eq!(ask(&proxy, "PUT", "/a").status(), 200);
    watcher.read_until("second");
}

#[test]
fn a_server_that_is_not_there_looks_like_a_cut_connection() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = FaultProxy::start(&format!("http://{nobody}"), None).unwrap();
    assert_eq!(ask(&proxy, "PUT", "/a"), Answer::Nothing);
    assert!(!proxy.requests()[0].handed_on);
}

//! A control plane is a real one: it serves custom resources, keeps what was written through outages, forgets it when
//! an old state is restored, and grants the rights that manifests grant.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a driver of tests that cannot go on ends the test"
)]

#[path = "../../cni/tests/support/skip.rs"]
mod skip;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use whereabouts_testbed::{ControlPlane, Fault, FaultProxy, Rule, SimulatedNode};

/// Objects of the core that need no definition.
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A custom resource, an object of it, and a role that may read these objects in `default`.
const MANIFESTS: [(&str, &str); 2] = [
    (
        "1-definition.yaml",
        r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: lockers.testbed.example }
spec:
  group: testbed.example
  scope: Namespaced
  names: { kind: Locker, plural: lockers, singular: locker }
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: { type: object, properties: { holder: { type: string } } }
",
    ),
    (
        "2-rights.yaml",
        r"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: reader, namespace: default }
rules:
- { apiGroups: [testbed.example], resources: [lockers], verbs: [get, list] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: reader, namespace: default }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader }
subjects:
- { kind: ServiceAccount, name: reader, namespace: kube-system }
- { kind: User, name: 'system:node:node-3' }
",
    ),
];

/// By which a test of this file is run as a program of its own.
const CHILD: &str = "TESTBED_TEST_CHILD";

fn start(test: &str) -> Option<ControlPlane> {
    ControlPlane::start().map_err(|error| skip::skip(test, &error)).ok()
}

/// One for all tests that leave the servers alone.
fn shared(test: &str) -> Option<&'static ControlPlane> {
    static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let control_plane = ControlPlane::start()?;
        let manifests = control_plane.folder().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        for (name, text) in MANIFESTS {
            std::fs::write(manifests.join(name), text).unwrap();
        }
        control_plane.apply(&manifests);
        Ok(control_plane)
    });
    shared.as_ref().map_err(|error| skip::skip(test, error)).ok()
}

fn map(name: &str, value: &str) -> Value {
    json!({ "metadata": { "name": name }, "data": { "value": value } })
}

#[track_caller]
fn value_of(control_plane: &ControlPlane, name: &str) -> Option<String> {
    let map = control_plane.get(&format!("{MAPS}/{name}"))?;
    Some(map["data"]["value"].as_str().unwrap().to_owned())
}

/// What something took is for the reader of the tests' output to judge, but for a time that ends all patience.
#[track_caller]
fn within<T>(limit: Duration, what: &str, run: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = run();
    let took = started.elapsed();
    println!("{what}: {took:.1?}");
    assert!(took < limit, "{what} took {took:?}");
    result
}

#[test]
fn it_is_ready_within_seconds() {
    let Some(first) = start("it_is_ready_within_seconds") else { return };
    // With the programs built and the files read once.
    let second = within(Duration::from_secs(15), "start", ControlPlane::start).unwrap();
    assert_ne!(first.url(), second.url());
    first.create(MAPS, &map("a", "first"));
    assert_eq!(value_of(&second, "a"), None, "two control planes have nothing in common");
}

#[test]
fn it_serves_custom_resources() {
    let Some(control_plane) = shared("it_serves_custom_resources") else { return };
    let lockers = "/apis/testbed.example/v1/namespaces/default/lockers";
    let locker = json!({
        "apiVersion": "testbed.example/v1", "kind": "Locker", "metadata": { "name": "a" }, "spec": { "holder": "pod" },
    });
    let stored = control_plane.create(lockers, &locker);
    assert_eq!(stored["spec"]["holder"], "pod");
    let printed = control_plane.kubectl_ok(&["get", "lockers", "a", "-o", "jsonpath={.spec.holder}"]);
    assert_eq!(printed, "pod");

    // What was read is written back once, not twice.
    let path = format!("{lockers}/a");
    let (first, _) = control_plane.request("PUT", &path, Some(&stored)).unwrap();
    let mut changed = stored.clone();
    changed["spec"]["holder"] = "other".into();
    let (second, _) = control_plane.request("PUT", &path, Some(&changed)).unwrap();
    let (third, _) = control_plane.request("PUT", &path, Some(&stored)).unwrap();
    assert_eq!((first, second, third), (200, 200, 409));

    control_plane.delete(&path);
    assert_eq!(control_plane.get(&path), None);
    control_plane.delete(&path);
}

#[test]
fn nodes_and_pods_are_there_until_they_are_deleted() {
    let Some(control_plane) = shared("nodes_and_pods_are_there_until_they_are_deleted") else { return };
    let node = control_plane.create_node("node-a");
    assert_eq!(node["metadata"]["uid"], control_plane.create_node("node-a")["metadata"]["uid"], "made once");
    let pod = control_plane.create_pod("default", "pod-a", "node-a");
    assert_eq!(pod["spec"]["nodeName"], "node-a");
    let path = "/api/v1/namespaces/default/pods/pod-a";
    assert_eq!(control_plane.get(path).unwrap()["metadata"]["uid"], pod["metadata"]["uid"]);
    control_plane.delete(path);
    assert_eq!(control_plane.get(path), None, "no kubelet ends it, and it is gone all the same");
}

#[test]
fn rights_are_those_of_the_manifests() {
    let Some(control_plane) = shared("rights_are_those_of_the_manifests") else { return };
    control_plane.ensure_service_account("kube-system", "reader");
    control_plane.ensure_service_account("kube-system", "nobody");
    let reader = control_plane.service_account_token("kube-system", "reader");
    let nobody = control_plane.service_account_token("kube-system", "nobody");
    let lockers = "/apis/testbed.example/v1/namespaces/default/lockers";
    let locker = json!({ "apiVersion": "testbed.example/v1", "kind": "Locker", "metadata": { "name": "rights" } });
    let status = |token: &str, method: &str, path: &str, body: Option<&Value>| {
        control_plane.request_as(token, method, path, body).unwrap().0
    };
    // What was bound a moment ago is known to the authorizer a moment later.
    let deadline = Instant::now() + Duration::from_secs(10);
    while status(&reader, "GET", lockers, None) != 200 {
        assert!(Instant::now() < deadline, "the reader may not read");
    }
    assert_eq!(status(&reader, "POST", lockers, Some(&locker)), 403);
    assert_eq!(status(&reader, "GET", MAPS, None), 403);
    assert_eq!(status(&nobody, "GET", lockers, None), 403);
    assert_eq!(status(control_plane.node_token(3), "GET", lockers, None), 200);
    assert_eq!(status(control_plane.node_token(4), "GET", lockers, None), 403);
    assert_eq!(status("of nobody", "GET", lockers, None), 401);
}

#[test]
fn a_node_reaches_the_server_by_its_own_kubeconfig() {
    let Some(control_plane) = shared("a_node_reaches_the_server_by_its_own_kubeconfig") else { return };
    let proxy = FaultProxy::before(control_plane).unwrap();
    for url in [&control_plane.url(), proxy.url()] {
        let node = SimulatedNode::new(control_plane, "node-1", ("kube-system", "reader"), url);
        let output = control_plane.kubectl_with(&node.kubeconfig, &["get", "lockers", "-n", "default"]);
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        let output = control_plane.kubectl_with(&node.kubeconfig, &["get", "pods"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let refused = "\"system:serviceaccount:kube-system:reader\" cannot list resource \"pods\" in API group \"\" \
                       in the namespace \"kube-system\"";
        assert!(stderr.contains(refused), "{url}: {stderr}");
        assert!(node.data_dir.read_dir().unwrap().next().is_none(), "an empty folder");
    }
    assert_eq!(proxy.count("GET", "/lockers"), 1, "{:?}", proxy.requests());
    let statuses = proxy.requests().into_iter().filter(|seen| seen.path.contains("/pods")).map(|seen| seen.status);
    assert_eq!(statuses.collect::<Vec<_>>(), [Some(403)]);
}

#[test]
fn a_lost_reply_leaves_an_object_behind() {
    let Some(control_plane) = shared("a_lost_reply_leaves_an_object_behind") else { return };
    let proxy = FaultProxy::before(control_plane).unwrap();
    let kubeconfig = control_plane.kubeconfig("lost", control_plane.admin_token(), "default", proxy.url());
    let create = || control_plane.kubectl_with(&kubeconfig, &["create", "configmap", "lost"]);
    proxy.add(Rule::new(Fault::DropReply).method("POST").path("/configmaps").times(1));
    assert!(!create().status.success(), "the client cannot know");
    assert!(control_plane.get(&format!("{MAPS}/lost")).is_some());
    let again = create();
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(stderr.contains("already exists"), "{stderr}");
    let posts = proxy.requests().into_iter().filter(|seen| seen.method == "POST");
    let told: Vec<_> = posts.map(|seen| (seen.handed_on, seen.served, seen.status)).collect();
    assert_eq!(told, [(true, Some(201), None), (true, Some(409), Some(409))]);
}

#[test]
fn an_outage_of_the_api_server_loses_nothing() {
    let Some(control_plane) = start("an_outage_of_the_api_server_loses_nothing") else { return };
    let proxy = FaultProxy::before(&control_plane).unwrap();
    let through_proxy = control_plane.kubeconfig("proxy", control_plane.admin_token(), "default", proxy.url());
    let get = ["get", "configmap", "a", "--request-timeout=1s"];
    control_plane.create(MAPS, &map("a", "kept"));
    assert!(control_plane.kubectl_with(&through_proxy, &get).status.success());

    control_plane.kill_apiserver();
    let refused = control_plane.request("GET", MAPS, None).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    assert!(!control_plane.kubectl_with(&through_proxy, &get).status.success());
    within(Duration::from_secs(30), "API server started again", || control_plane.start_apiserver());
    assert_eq!(value_of(&control_plane, "a").as_deref(), Some("kept"));
    assert!(control_plane.kubectl_with(&through_proxy, &get).status.success(), "the same address as before");

    control_plane.pause_apiserver();
    let output = control_plane.kubectl(&get);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !stderr.contains("refused"), "it is there and silent: {stderr}");
    control_plane.resume_apiserver();
    within(Duration::from_secs(30), "API server after its pause", || value_of(&control_plane, "a")).unwrap();

    control_plane.pause_apiserver();
    control_plane.kill_apiserver();
    control_plane.start_apiserver();
    assert_eq!(value_of(&control_plane, "a").as_deref(), Some("kept"));
}

#[test]
fn an_outage_of_etcd_loses_nothing() {
    let Some(control_plane) = start("an_outage_of_etcd_loses_nothing") else { return };
    control_plane.create(MAPS, &map("a", "kept"));
    let create = ["create", "configmap", "b", "--request-timeout=2s"];

    control_plane.kill_etcd();
    assert!(!control_plane.kubectl(&create).status.success(), "nothing is stored without etcd");
    within(Duration::from_secs(30), "etcd started again", || control_plane.start_etcd());
    assert_eq!(value_of(&control_plane, "a").as_deref(), Some("kept"));
    control_plane.create(MAPS, &map("c", "written"));

    control_plane.pause_etcd();
    assert!(!control_plane.kubectl(&create).status.success(), "nothing is stored while etcd stands still");
    within(Duration::from_secs(30), "etcd after its pause", || control_plane.resume_etcd());
    assert_eq!(value_of(&control_plane, "c").as_deref(), Some("written"));
    control_plane.create(MAPS, &map("d", "written"));

    // Both at once, as when a machine loses its power.
    control_plane.kill_etcd();
    control_plane.kill_apiserver();
    control_plane.start_etcd();
    control_plane.start_apiserver();
    for name in ["a", "c", "d"] {
        assert!(value_of(&control_plane, name).is_some(), "{name}");
    }
}

#[test]
fn a_restored_etcd_knows_nothing_of_what_came_later() {
    let Some(control_plane) = start("a_restored_etcd_knows_nothing_of_what_came_later") else { return };
    let a = control_plane.create(MAPS, &map("a", "before"));
    let snapshot = within(Duration::from_secs(10), "snapshot", || control_plane.snapshot_etcd());
    for _ in 0..2 {
        let path = format!("{MAPS}/a");
        let (status, changed) = control_plane.request("PUT", &path, Some(&map("a", "after"))).unwrap();
        assert_eq!(status, 200, "{changed}");
        control_plane.create(MAPS, &map("b", "after"));

        within(Duration::from_secs(30), "restore", || control_plane.restore_etcd(&snapshot));
        let restored = control_plane.get(&path).unwrap();
        assert_eq!(restored["data"]["value"], "before");
        assert_eq!(restored["metadata"]["resourceVersion"], a["metadata"]["resourceVersion"]);
        assert_eq!(value_of(&control_plane, "b"), None);
        // The version that was given to the change and is now unknown, or was given to something else.
        let (status, _) = control_plane.request("PUT", &path, Some(&changed)).unwrap();
        assert_eq!(status, 409, "what was read from the lost state is not written over the restored one");
    }
}

#[test]
fn etcd_counts_what_is_written() {
    let Some(control_plane) = start("etcd_counts_what_is_written") else { return };
    let before = control_plane.etcd_bytes();
    control_plane.create(MAPS, &map("a", &"x".repeat(50_000)));
    let after = control_plane.etcd_bytes();
    assert!(after.put >= before.put + 50_000, "{before:?} {after:?}");
    assert!(after.logged >= before.logged + 50_000, "{before:?} {after:?}");
    assert!(after.puts > before.puts && after.syncs > before.syncs, "{before:?} {after:?}");
}

/// Ends as the test below wants it, after it has named its folder.
#[test]
#[ignore = "the test below runs it"]
fn child() {
    let Some(how) = std::env::var_os(CHILD) else { return };
    static NEVER_DROPPED: OnceLock<ControlPlane> = OnceLock::new();
    let control_plane = ControlPlane::start().unwrap();
    println!("folder {}", control_plane.folder().display());
    match how.to_str().unwrap() {
        "panics" => panic!("as a test does that fails"),
        "is aborted" => std::process::abort(),
        "forgets it" => drop(NEVER_DROPPED.set(control_plane)),
        "leaves it paused" => {
            control_plane.pause_etcd();
            control_plane.pause_apiserver();
            std::process::abort();
        }
        other => unreachable!("{other}"),
    }
}

#[test]
fn nothing_outlives_a_test_that_ends_in_whatever_way() {
    if start("nothing_outlives_a_test_that_ends_in_whatever_way").is_none() {
        return;
    }
    let children = ["panics", "is aborted", "forgets it", "leaves it paused"].map(|how| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(CHILD, how)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        (how, child.unwrap())
    });
    for (how, child) in children {
        let output = child.wait_with_output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let folder = stdout.lines().find_map(|line| line.split("folder ").nth(1)).expect("the child's folder");
        assert!(folder.starts_with(std::env::temp_dir().to_str().unwrap()), "{folder}");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !processes_of(folder).is_empty() || Path::new(folder).exists() {
            assert!(Instant::now() < deadline, "a test that {how} leaves {:?} and {folder}", processes_of(folder));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The command lines that name this folder.
fn processes_of(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(folder)).collect()
}

//! Steps that talk, through real sockets: reported and not reused, vouched for, or nothing but a conversation with themselves.

use std::io::Write;
use std::net::TcpListener;

use crate::sandbox::Sandbox;

/// Answers each connection with one more than the last time, and returns where.
fn counter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(format!("{count}\n").as_bytes());
        }
    });
    port
}

fn ask(port: u16) -> String {
    format!(
        "import socket\nwith socket.create_connection(('127.0.0.1', {port})) as asked:\n    \
         open('out', 'wb').write(asked.makefile('rb').read())\n"
    )
}

fn project(more: &str, script: &str) -> Sandbox {
    let project = Sandbox::with_pipeline(&format!(
        "steps:\n  fetch:\n    inputs: [fetch.py]\n    outputs: [out]\n    run: python3 fetch.py\n{more}"
    ));
    project.write("fetch.py", script);
    project.write(".gitignore", "/out\n");
    project.commit("all");
    project
}

#[test]
fn what_came_over_the_network_is_reported_and_fetched_anew_each_time() {
    let port = counter();
    let project = project("", &ask(port));
    let told = project.pv(&["run"]);
    assert!(
        told.contains(&format!("warning: step `fetch` talked to 127.0.0.1:{port}; its result is not reused")),
        "{told}"
    );
    assert_eq!(project.read("out"), "0\n");
    let (why, _) = project.json(&["why", "fetch"]);
    assert_eq!(why["verdict"], "run", "{why}");
    let told = project.pv(&["run"]);
    assert!(told.contains(&format!("it talked to `127.0.0.1:{port}` without `network: true`")), "{told}");
    // The key is the same and the output is not, which is a contradiction, told at once.
    assert!(told.contains("yet wrote another `out`; both are kept"), "{told}");
    assert_eq!(project.read("out"), "1\n");
    let (audit, code) = project.json(&["audit"]);
    assert_eq!((&audit["steps"][0]["network"], code), (&serde_json::json!([format!("127.0.0.1:{port}")]), 1));
    let (conflicts, code) = project.json(&["show", "--conflicts"]);
    assert_eq!((conflicts["conflicts"][0]["step"].as_str(), code), (Some("fetch"), 1), "{conflicts}");
}

#[test]
fn an_author_can_vouch_for_what_comes_over_the_network() {
    let project = project("    network: true\n", &ask(counter()));
    let told = project.pv(&["run"]);
    assert!(!told.contains("warning"), "{told}");
    let told = project.pv(&["run"]);
    assert!(told.contains("fetch: reused"), "{told}");
    assert_eq!(project.read("out"), "0\n");
    assert_eq!(project.json(&["audit"]).1, 0);
}

#[test]
fn a_server_of_the_steps_own_is_no_network() {
    let script = "import socket, threading\nserver = socket.create_server(('127.0.0.1', 0))\n\
        def serve():\n    stream, _ = server.accept()\n    stream.sendall(b'own\\n')\n    stream.close()\n\
        threading.Thread(target=serve).start()\n\
        with socket.create_connection(server.getsockname()) as asked:\n    \
        open('out', 'wb').write(asked.makefile('rb').read())\n";
    let project = project("", script);
    let told = project.pv(&["run"]);
    assert!(!told.contains("warning"), "{told}");
    assert_eq!(project.read("out"), "own\n");
    let told = project.pv(&["run"]);
    assert!(told.contains("fetch: reused"), "{told}");
    assert_eq!(project.json(&["audit"]).1, 0);
}

#[test]
fn a_server_that_is_not_there_is_network_and_one_of_the_steps_own_that_is_late_is_not() {
    let project = Sandbox::new();
    project.write(
        "absent.py",
        "import socket\nwith socket.socket() as free:\n    free.bind(('127.0.0.1', 0)); port = free.getsockname()[1]\n\
         try: socket.create_connection(('127.0.0.1', port))\nexcept ConnectionRefusedError: print('nobody')\n",
    );
    project.write(
        "late.py",
        "import socket, threading\nwith socket.socket() as free:\n    free.bind(('127.0.0.1', 0)); port = free.getsockname()[1]\n\
         try: socket.create_connection(('127.0.0.1', port))\nexcept ConnectionRefusedError: pass\n\
         server = socket.create_server(('127.0.0.1', port))\n\
         threading.Thread(target=lambda: server.accept()[0].sendall(b'own'), daemon=True).start()\n\
         print(socket.create_connection(('127.0.0.1', port)).recv(3))\n",
    );
    project.write(
        ".pipeline/pipeline.yaml",
        "steps:\n  absent: {inputs: [], outputs: [a], run: python3 absent.py > a}\n  \
         late: {inputs: [], outputs: [b], run: python3 late.py > b}\n",
    );
    let told = project.tell(&project.pv_command(&["run"]).output().unwrap());
    assert!(told.contains("step `absent` talked to 127.0.0.1:"), "{told}");
    assert!(!told.contains("step `late` talked"), "{told}");
    assert_eq!((project.read("a").trim(), project.read("b").trim()), ("nobody", "b'own'"));
}

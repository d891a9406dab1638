#!/usr/bin/env python3
"""Shows that each case of fixtures/nondet is what it says, without `pv`: scripts/nondet-check.py [-v] [NAME...]

A step with a fault must give different outputs when its cause is varied and all else is held, once for each of its
causes. With its causes held, or removed from its code by `hold_patch`, it must give the same outputs although everything
else is varied; so must a control. What a case may say is described in fixtures/nondet/README.md.

Needs root, for namespaces in which host name, processes, mounts and network are the step's own, and a C compiler. Every
run takes place in a file system in memory, which lists a directory in an order that follows from that of creation.
"""

import argparse
import concurrent.futures
import hashlib
import http.server
import itertools
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import yaml

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "nondet"

# Which causes a kind of setting can show.
SHOWS = {
    "entropy": {"entropy"},
    "clock": {"clock"},
    "timer": {"timer"},
    "dir": {"dir-order"},
    "hostname": {"hostname"},
    "username": {"username"},
    "home": {"home"},
    "pid": {"pid"},
    "umask": {"umask"},
    "cpus": {"cpu-count"},
    "aslr": {"aslr", "memory-address"},
    "cwd": {"cwd-path"},
    "tmp": {"tmp-path"},
    "mtime": {"input-mtime"},
    "rerun": {"previous-state"},
    "serve": {"network"},
    "sched": {"schedule"},
    "hardware": {"hardware-entropy", "undetermined"},
}
VARIABLES = {
    "PYTHONHASHSEED": "hash-seed",
    "PERL_HASH_SEED": "hash-seed",
    "TZ": "timezone",
    "LC_ALL": "locale",
    "OMP_NUM_THREADS": "thread-count",
}

# All that is not held, in two other ways. What is not named is as it is: entropy, clock, addresses.
ELSE = [
    {
        "env": {
            "PYTHONHASHSEED": "11", "PERL_HASH_SEED": "5", "TZ": "Asia/Tokyo", "LC_ALL": "C", "LANG": "C", "OMP_NUM_THREADS": "2",
            "OPENBLAS_NUM_THREADS": "2", "USER": "eve", "LOGNAME": "eve", "DEBUG": "1", "CACHE_DIR": "/nowhere", "CI": "true",
        },
        "entropy": 3, "clock": 1700000000, "dir": "reverse", "hostname": "elsewhere", "username": "games", "home": "/home/eve",
        "pid": 7, "umask": "077", "cpus": 1, "aslr": 0, "cwd": "another/place", "tmp": "other", "mtime": 1650000000, "rerun": 2,
    },
    {
        "env": {
            "PYTHONHASHSEED": "12", "PERL_HASH_SEED": "6", "TZ": "America/Lima", "LC_ALL": "en_US.UTF-8", "LANG": "en_US.UTF-8",
            "OMP_NUM_THREADS": "4", "EDITOR": "vi",
        },
        "dir": "shuffle:9", "hostname": "third", "username": "news", "home": "/root", "pid": 23, "umask": "002", "cpus": 5,
        "cwd": "w", "tmp": "t", "mtime": 1725252525,
    },
]

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/time.h>
#include <time.h>

static uint64_t drawn, reads;

static void fill(unsigned char *to, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        uint64_t z = seed * 0x9E3779B97F4A7C15u + ++drawn * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        to[i] = (unsigned char)(z >> 56);
    }
}

ssize_t getrandom(void *to, size_t n, unsigned flags) {
    const char *seed = getenv("NONDET_ENTROPY");
    if (!seed) return ((ssize_t (*)(void *, size_t, unsigned))dlsym(RTLD_NEXT, "getrandom"))(to, n, flags);
    fill(to, n, strtoull(seed, NULL, 10));
    return (ssize_t)n;
}

int getentropy(void *to, size_t n) {
    return getrandom(to, n, 0) == (ssize_t)n ? 0 : -1;
}

int clock_gettime(clockid_t which, struct timespec *to) {
    const char *clock = getenv("NONDET_CLOCK"), *timer = getenv("NONDET_TIMER");
    if (clock && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        *to = (struct timespec){strtoll(clock, NULL, 10), 123456789};
        return 0;
    }
    if (timer && (which == CLOCK_MONOTONIC || which == CLOCK_MONOTONIC_RAW || which == CLOCK_BOOTTIME)) {
        uint64_t us = ++reads * strtoull(timer, NULL, 10);
        *to = (struct timespec){(time_t)(1000 + us / 1000000), (long)(us % 1000000 * 1000)};
        return 0;
    }
    return ((int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime"))(which, to);
}

int gettimeofday(struct timeval *restrict to, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    *to = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *to, int base) {
    return clock_gettime(CLOCK_REALTIME, to) ? 0 : base;
}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="show each run of a case that is not what it says")
    parser.add_argument("names", nargs="*", help="parts of the names of cases; all of them if there is none")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("nondet-check: this needs root, for namespaces")
    cases = [
        (directory, yaml.safe_load((directory / "case.yaml").read_text()))
        for directory in sorted(FIXTURES.iterdir())
        if directory.is_dir() and (not options.names or any(name in directory.name for name in options.names))
    ]
    with tempfile.TemporaryDirectory() as tools:
        shim = pathlib.Path(tools, "shim.so")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-x", "c", "-", "-o", shim, "-ldl"], input=SHIM.encode(), check=True)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            verdicts = list(pool.map(lambda case: judge(*case, shim, options.verbose), cases))
    wrong = 0
    for (_, case), (faults, notes) in zip(cases, verdicts):
        wrong += bool(faults)
        print(f"{'WRONG' if faults else 'ok   '}  {case['id']:<28} {', '.join(case['cause']) or '(control)'}  [{notes}]")
        for fault in faults:
            print(f"         {fault}")
    print(f"{len(cases) - wrong} passed, {wrong} failed")
    sys.exit(wrong != 0)


def judge(directory, case, shim, verbose):
    """Returns what is wrong with a case, and what was seen."""
    faults, notes = [], []
    if case["id"] != directory.name:
        faults.append("its id is not its directory's name")
    if (case["kind"] == "control") != (not case["cause"]):
        faults.append("a fault has causes, a control has none")
    faults += [f"there is no `{path}`" for path in declared(case) if not (directory / path).is_file()]
    stray = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()} - set(declared(case)) - {"case.yaml"}
    faults += [f"`{path}` is in no list of the case" for path in sorted(stray)]
    if faults:
        return faults, ""

    def results(settings, patched):
        seen = []
        for one in settings:
            if "clock" in case["cause"] or case["kind"] == "control":
                # The times of files that a step makes are the system's, so that has to go on.
                time.sleep(2.1)
            held = merged(one, case["hold"]) if patched and one in [{}, *ELSE] else merged(case["hold"], one)
            outcome = attempt(directory, case, held, patched, shim)
            if verbose:
                print(case["id"], one, outcome, file=sys.stderr)
            if "error" in outcome:
                faults.append(f"{one}: {outcome['error']}")
            elif outcome["took"] > 2:
                notes.append(f"{outcome['took']:.1f} s")
            seen.append(json.dumps(outcome.get("outputs"), sort_keys=True))
        return len(set(seen))

    groups = {}
    for setting in case["vary"]:
        groups.setdefault(signature(setting), []).append(setting)
    shown = [SHOWS.get(kind) or {of_variable_or_file(kind)} for kind in groups]
    if case["kind"] == "fault" and not any(
        all(cause in names for cause, names in zip(order, shown)) and len(order) == len(shown)
        for order in itertools.permutations(case["cause"])
    ):
        faults.append(f"it varies {', '.join(groups)}, which does not show {', '.join(case['cause'])}")
    for kind, settings in groups.items():
        # What else changes with the clock would hide what is asked about.
        ticks = kind != "clock" and "clock" in case["cause"] and len(case["cause"]) > 1 and "hold_patch" in case
        distinct = results(settings, patched=ticks)
        notes.append(f"{kind}: {distinct} of {len(settings)}")
        if distinct < 2:
            faults.append(f"{len(settings)} settings of {kind} give the same outputs")
    distinct = results([{}, *ELSE], patched=True)
    if distinct != 1:
        faults.append(f"with its causes {'held' if case['cause'] else 'absent'}, {len(ELSE) + 1} runs give {distinct} different outputs")
    return faults, "; ".join(notes)


def declared(case):
    return {*case["code"], *case["inputs"], *case.get("undeclared", [])}


def signature(setting):
    """Returns the kind of a setting that changes one thing."""
    (kind, value), = setting.items()
    return f"{kind}:{'+'.join(value)}" if kind in ("env", "file") else kind


def of_variable_or_file(kind):
    kind, name = kind.split(":", 1)
    return VARIABLES.get(name, f"env:{name}") if kind == "env" else f"undeclared-file:{name}"


def merged(first, second):
    both = {**first, **second}
    for kind in ("env", "file"):
        if kind in both:
            both[kind] = {**first.get(kind, {}), **second.get(kind, {})}
    return both


def attempt(directory, case, settings, patched, shim):
    """Runs a step once in namespaces of its own, and returns the digests of its outputs."""
    job = {
        "directory": str(directory), "files": sorted(declared(case)), "inputs": case["inputs"], "command": case["cmd"], "outputs": case["outputs"],
        "settings": settings, "patch": case.get("hold_patch", []) if patched else [], "shim": str(shim),
    }
    inside = ["unshare", "--mount", "--uts", "--pid", "--net", "--fork", "--mount-proc", sys.executable, __file__, "--inside"]
    if settings.get("aslr") == 0:
        inside = ["setarch", "--addr-no-randomize", *inside]
    try:
        done = subprocess.run([*inside, json.dumps(job)], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return {"error": "it did not end within a minute"}
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"error": f"{done.stdout[-300:]}{done.stderr[-600:]}"}


def inside(job):
    """The part of a run that happens within the namespaces."""
    settings = job["settings"]
    mount = lambda *arguments: subprocess.run(["mount", *arguments], check=True)
    mount("-t", "tmpfs", "nondet", "/mnt")
    private = pathlib.Path("/mnt/.nondet")
    private.mkdir()
    shim = private / "shim.so"
    shutil.copy(job["shim"], shim)

    def instead(path, content):
        copy = private / path.strip("/").replace("/", "-")
        copy.write_bytes(content)
        mount("--bind", str(copy), path)

    bring_up_loopback()
    socket.sethostname(settings.get("hostname", "pinned"))
    cpus = settings.get("cpus", 2)
    instead("/sys/devices/system/cpu/online", f"0-{cpus - 1}\n".encode() if cpus > 1 else b"0\n")
    if "username" in settings:
        users = pathlib.Path("/etc/passwd").read_text().splitlines()
        users = [u for u in users if not u.startswith(settings["username"] + ":")]
        users = [settings["username"] + u[len("root"):] if u.startswith("root:") else u for u in users]
        instead("/etc/passwd", ("\n".join(users) + "\n").encode())
    if settings.get("entropy"):
        noise = random.Random(settings["entropy"]).randbytes(1 << 16)
        for device in ("/dev/urandom", "/dev/random"):
            instead(device, noise)

    root = pathlib.Path("/mnt", settings.get("cwd", "work"))
    temporary = pathlib.Path("/mnt", settings.get("tmp", "tmp"))
    for directory in (root, temporary, pathlib.Path("/mnt/home")):
        directory.mkdir(parents=True)
    command, texts = job["command"], {name: pathlib.Path(job["directory"], name).read_text() for name in job["files"]}
    for old, new in job["patch"]:
        if old not in command + "".join(texts.values()):
            return {"error": f"`{old}` is not there to be patched"}
        command = command.replace(old, new)
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    texts.update(settings.get("file", {}))
    names = sorted(texts)
    order = settings.get("dir", "sort")
    if order == "reverse":
        names.reverse()
    elif order.startswith("shuffle"):
        random.Random(order).shuffle(names)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[name])
        os.utime(path, (settings.get("mtime", 1500000000),) * 2)

    environment = {
        "PATH": os.environ["PATH"], "HOME": settings.get("home", "/mnt/home"), "TMPDIR": str(temporary), "TZ": "UTC",
        "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0",
        **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")},
        **settings.get("env", {}),
    }
    for kind in ("entropy", "clock", "timer"):
        if settings.get(kind):
            environment |= {f"NONDET_{kind.upper()}": str(settings[kind]), "LD_PRELOAD": str(shim)}
    if "serve" in settings:
        serve(settings["serve"])
    took = 0
    for _ in range(settings.get("rerun", 1)):
        pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(1000 * settings.get("pid", 1)))
        started = time.perf_counter()
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=root, env=environment, umask=int(settings.get("umask", "022"), 8),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )
        took = max(took, time.perf_counter() - started)
        if done.returncode != 0:
            return {"error": f"it exited with code {done.returncode}: {done.stderr[-400:]}"}
    outputs = {}
    for output in job["outputs"]:
        path = root / output
        members = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for member in members:
            if not member.is_file():
                return {"error": f"`{output}` is missing: {done.stderr[-400:]}"}
            outputs[str(member.relative_to(root))] = hashlib.sha256(member.read_bytes()).hexdigest()
    return {"outputs": outputs, "took": took}


def bring_up_loopback():
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14s", b"lo", 0x1 | 0x40, b"")
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS: up and running


def serve(what):
    """Answers every request on a port of the loopback with the same body."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = what["body"].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", what["port"]), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        print(json.dumps(inside(json.loads(sys.argv[2]))))
    else:
        main()

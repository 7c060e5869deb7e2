"""Backends that come, go, die and move, under load; and whether the numbers about it are true."""
import collections
import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

from support import Backend, Balancer, Client, Failure, Nginx, Program, Skipped, Wrk, expect, free_port, wait_for

RELOADS = 200
RELOAD_EVERY = 0.1
# How long after a reload a backend that it removed may still be given requests, in seconds.
RELOAD_LAG = 0.2
ATTEMPTS = 3


def metrics(port):
    """The samples of /metrics, by their names with labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}


def total(samples, name, having=""):
    return sum(value for key, value in samples.items() if key.split("{")[0] == f"zzz_lb_{name}" and having in key)


def served_by(front, requests, connections):
    """Which backend served how many of `requests`, made on `connections`."""
    counts = collections.Counter()
    lock = threading.Lock()

    def ask(share):
        with Client(front.port) as client:
            for _ in range(share):
                client.send_head("GET", "/echo")
                response = client.response()
                response.read()
                with lock:
                    counts[response.headers["X-Backend"]] += 1

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        shares = [requests // connections + (n < requests % connections) for n in range(connections)]
        for done in [pool.submit(ask, share) for share in shares]:
            done.result()
    return counts


def shares():
    """Turns and weights hold exactly over all workers together."""
    with Backend("a") as a, Backend("b") as b, Backend("c") as c:
        ports = [a.port, b.port, c.port]
        with Balancer(ports, "-w", 4) as front:
            turns = served_by(front, 300, 12)
        weights = dict(zip("abc", (1, 2, 5)))
        specs = [f"127.0.0.1:{port},weight={weight}" for port, weight in zip(ports, weights.values())]
        with Balancer(specs, "-w", 2, "-s", "weighted") as front:
            weighted = served_by(front, 8000, 8)
    expect(all(abs(turns[name] - 100) <= 1 for name in "abc"), f"300 requests in turn went {dict(turns)}")
    expect(all(abs(weighted[name] - 1000 * weight) <= 10 * weight for name, weight in weights.items()),
           f"8000 requests by weights 1, 2, 5 went {dict(weighted)}")
    return f"300 in turn over 4 workers: {dict(turns)}; 8000 by 1:2:5 over 2: {dict(weighted)}"


class Reloader(threading.Thread):
    """Rewrites the configuration every so often, alternating two sets of ports; notes when."""

    def __init__(self, path, sets):
        super().__init__()
        self.path, self.sets = path, sets
        self.done = []

    def write(self, text):
        with open(self.path + ".new", "w") as file:
            file.write(text)
        os.rename(self.path + ".new", self.path)

    def configure(self, ports):
        self.write(json.dumps({"backends": [{"host": "127.0.0.1", "port": port} for port in ports]}))

    def run(self):
        start = time.monotonic()
        for n in range(1, RELOADS + 1):
            time.sleep(max(0, start + n * RELOAD_EVERY - time.monotonic()))
            if n == RELOADS // 2:
                self.write('{"backends": [\n  {"host": "127.0.0.1", "prt": 1}]}')
                time.sleep(2 * RELOAD_EVERY)
            self.configure(self.sets[n % 2])
            self.done.append((time.time(), n % 2))


def uploads(front, until):
    """Uploads bodies until then; how many came to their end, and how many did not."""
    body = os.urandom(300_000)
    good = bad = 0
    while time.monotonic() < until:
        try:
            with Client(front.port) as client:
                client.send_head("PUT", f"/put-{threading.get_ident()}", f"Content-Length: {len(body)}")
                client.sock.sendall(body)
                good += client.response("PUT").status in (201, 204)
        except OSError:
            bad += 1
    return good, bad


def reloads():
    """200 reloads in 20 s under load: no request fails, and no removed backend is given any more.

    When the last request reached one depends on who gets the machine, so it is measured again where
    it was too late.
    """
    for attempt in range(1, ATTEMPTS + 1):
        late, text = reload_storm()
        if late <= RELOAD_LAG:
            return f"{text} (attempt {attempt})"
    raise Failure(f"a request reached a backend {late:.3f} s after a reload that removed it, at the last attempt")


def reload_storm():
    """One such storm: how late a removed backend was reached, and an account."""
    with Nginx(4, log=True) as nginx, tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "lb.json")
        reloader = Reloader(path, [nginx.ports[:2], nginx.ports[2:]])
        reloader.configure(nginx.ports[:2])
        admin = free_port()
        options = ["-c", path, "-w", 2, "--admin", admin]
        seconds = int(RELOADS * RELOAD_EVERY) + 2
        with Balancer([], *options) as front, concurrent.futures.ThreadPoolExecutor(4) as pool:
            keep = pool.submit(Wrk, front.url("/1k"), "-t2", "-c64", seconds=seconds)
            fresh = pool.submit(Wrk, front.url("/1k"), "-t1", "-c8", "-HConnection: close", seconds=seconds)
            upload = pool.submit(uploads, front, time.monotonic() + seconds)
            reloader.start()
            reloader.join()
            keep, fresh, (good, bad) = keep.result(), fresh.result(), upload.result()
            told = metrics(admin)
            said = front.said()
        expect(keep.errors + fresh.errors + bad == 0,
               f"{keep.errors} of {keep.requests}, {fresh.errors} of {fresh.requests} and {bad} uploads failed")
        late = lateness(nginx, reloader)
        expect("lb.json:2:25: unknown key 'prt'" in said, f"the broken file was told as: {said[-600:]}")
        done, refused = (total(told, "reloads_total", f'"{result}"') for result in ("done", "refused"))
        expect(refused >= 1 and done >= RELOADS * 0.8, f"{done} reloads done, {refused} refused")
        return late, (f"{len(reloader.done)} changes, {done:.0f} reloads, {refused:.0f} refused: {keep.requests} kept-alive, "
                      f"{fresh.requests} single and {good} uploads, none failed; the last to a removed backend {late * 1000:.0f} ms after its reload")


def lateness(nginx, reloader):
    """How long after its backend had been removed the latest request began, in seconds."""
    worst, n = 0.0, 0
    with open(nginx.log) as log:
        began = sorted((float(ended) - float(took), int(port)) for port, ended, took in map(str.split, log))
    for at, port in began:
        while n < len(reloader.done) and reloader.done[n][0] <= at:
            n += 1
        changed, which = reloader.done[n - 1]
        if n and port not in reloader.sets[which]:
            worst = max(worst, at - changed)
    return worst


def backend_dies():
    """One of three is killed and comes back under load: no GET fails, and the metrics tell of it."""
    options = ["-w", 2, "--health-interval", "1s"]
    with Nginx() as one, Nginx() as two, Nginx() as three, Balancer(
            [nginx.ports[0] for nginx in (one, two, three)], *options, "--health-path", "/1k") as front:
        label = f'address="127.0.0.1:{three.ports[0]}"'
        seconds = 12
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            load = pool.submit(Wrk, front.url("/1k"), "-t1", "-c32", seconds=seconds)
            time.sleep(2)
            os.killpg(three.process.pid, signal.SIGKILL)
            died = time.monotonic()
            wait_for(lambda: total(metrics(front.port), "healthy", label) == 0, "the dead one is told to be down")
            down = time.monotonic() - died
            time.sleep(2)
            three.process.wait()
            three.start()
            came = time.monotonic()
            wait_for(lambda: total(metrics(front.port), "healthy", label) == 1, "the one that is back is told to be up")
            back = time.monotonic() - came
            before = total(metrics(front.port), "requests_total", label)
            load = load.result()
        told = metrics(front.port)
        expect(load.errors == 0, f"{load.errors} of {load.requests} requests failed")
        expect(total(told, "ejections_total", label) == 1, f"{total(told, 'ejections_total', label)} ejections")
        expect(back < 2.6, f"back after {back:.1f} s of probes every second")
        expect(total(told, "requests_total", label) > before, "the one that came back gets nothing")
        failures = total(told, "failures_total", label)
    return (f"{load.requests} requests, none failed; {failures:.0f} failures; down after {down * 1000:.0f} ms, "
            f"up {back:.1f} s after its return")


def answers(server, name):
    """Whether a name server answers a question for a name's address."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        try:
            asking.sendto(b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1", (server, 53))
            return len(asking.recv(512)) > 12
        except OSError:
            return False


def names_move():
    """A name's addresses change in DNS: requests follow within the TTL and a second, none fails."""
    if os.getuid() != 0 or not shutil.which("dnsmasq") or not shutil.which("unshare"):
        raise Skipped("needs root, dnsmasq and unshare")
    ttl, server = 2, "127.0.0.53"
    with tempfile.TemporaryDirectory() as directory:
        def put(name, text):
            with open(os.path.join(directory, name), "w") as file:
                file.write(text)
        os.chmod(directory, 0o755)
        put("resolv.conf", f"nameserver {server}\n")
        put("hosts", "127.0.0.2 app.test\n127.0.0.3 app.test\n")
        dnsmasq = ["dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", f"--addn-hosts={directory}/hosts",
                   f"--local-ttl={ttl}", f"--listen-address={server}", "--bind-interfaces", "--port=53", "--user=root"]
        bound = ["unshare", "--mount", "sh", "-c",
                 f'mount --bind {directory}/resolv.conf /etc/resolv.conf && exec "$@"', "sh"]
        with Program(dnsmasq) as names, Nginx(hosts=("127.0.0.2", "127.0.0.3", "127.0.0.4"), log=True) as nginx:
            port = nginx.ports[0]
            wait_for(lambda: answers(server, "app.test"), "dnsmasq answers")
            with Balancer([f"app.test:{port}"], "-w", 2, wrap=bound) as front:
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    load = pool.submit(Wrk, front.url("/1k"), "-t1", "-c16", seconds=8)
                    time.sleep(2)
                    put("hosts", "127.0.0.3 app.test\n127.0.0.4 app.test\n")
                    names.process.send_signal(signal.SIGHUP)
                    moved = time.time()
                    load = load.result()
            last = collections.defaultdict(float)
            first = {}
            with open(nginx.log) as log:
                for line in log:
                    address, ended, _ = line.split()
                    last[address] = max(last[address], float(ended))
                    first.setdefault(address, float(ended))
    expect(load.errors == 0, f"{load.errors} of {load.requests} requests failed")
    expect(set(first) == {"127.0.0.2", "127.0.0.3", "127.0.0.4"}, f"addresses that got requests: {sorted(first)}")
    gone, come = last["127.0.0.2"] - moved, first["127.0.0.4"] - moved
    expect(gone <= ttl + 1 and come <= ttl + 1, f"the old address until {gone:.1f} s, the new one from {come:.1f} s on")
    return f"{load.requests} requests, none failed; TTL {ttl} s: old address left after {gone:.1f} s, new one from {come:.1f} s on"


def true_numbers():
    """The metrics count exactly what a load generator counts, a worker's death notwithstanding."""
    if not shutil.which("h2load"):
        raise Skipped("no h2load here")
    with Nginx(3) as nginx, Balancer(nginx.ports, "-w", 3, "--admin", free_port()) as front:
        admin = int(front.process.args[front.process.args.index("--admin") + 1])
        def load():
            argv = ["h2load", "--h1", "-n20000", "-c48", "-t1", front.url("/1k")]
            said = subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout
            found = re.search(r"requests: .* (\d+) succeeded, (\d+) failed", said)
            expect(found and found[2] == "0", f"h2load said: {said[-400:]}")
            return int(found[1])
        sent = load()
        before = total(metrics(admin), "requests_total", 'code="2xx"')
        expect(before == sent, f"{sent} requests, {before:.0f} counted")
        worker = front.pids()[1]
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: total(metrics(admin), "worker_restarts_total") == 1, "the worker is replaced")
        sent += load()
        told = metrics(admin)
        after = total(told, "requests_total", 'code="2xx"')
        expect(after == sent, f"{sent} requests, {after:.0f} counted after a worker's death")
        buckets = total(told, "request_duration_seconds_count")
        expect(buckets == sent, f"{sent} requests, {buckets:.0f} in the histogram")
        checked = "no promtool here"
        if shutil.which("promtool"):
            text = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics").read()
            run = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
            expect(run.returncode == 0 and not run.stdout + run.stderr, f"promtool: {(run.stdout + run.stderr)[-500:]}")
            checked = "promtool finds nothing"
        return f"{sent} requests counted exactly, over a worker's death; {checked}"


def thousand_backends():
    """1,000 backends: a start, and a scrape of megabytes that holds nobody up."""
    with Nginx() as nginx, tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "lb.json")
        # One place under a thousand addresses of loopback.
        with Nginx(hosts=["0.0.0.0"]) as everywhere:
            hosts = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]
            with open(path, "w") as file:
                json.dump({"backends": [{"host": host, "port": everywhere.ports[0]} for host in hosts]}, file)
            started = time.monotonic()
            with Balancer([], "-c", path, "-w", 2, "--health-interval", "off") as front:
                started = time.monotonic() - started
                alone = Wrk(front.url("/1k"), "-t1", "-c8", seconds=2)
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    load = pool.submit(Wrk, front.url("/1k"), "-t1", "-c8", seconds=3)
                    time.sleep(0.5)
                    began = time.monotonic()
                    size = len(urllib.request.urlopen(front.url("/metrics"), timeout=20).read())
                    took = time.monotonic() - began
                    load = load.result()
    expect(alone.errors + load.errors == 0, f"{alone.errors + load.errors} errors")
    return (f"start {started * 1000:.0f} ms; a scrape of {size >> 10} KiB in {took * 1000:.0f} ms, p99 {alone.p99_ms:.2f} ms "
            f"without and {load.p99_ms:.2f} ms beside it")

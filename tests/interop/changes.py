"""Backends that come, go, die and move, under load; and whether the numbers about it are true."""
import collections
import concurrent.futures
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

from support import Backend, Balancer, Client, Nginx, Program, Skipped, Wrk, curl, expect, free_port, wait_for

RELOADS = 200
RELOAD_EVERY = 0.1
# How long after a reload a backend that it removed may still be given requests, in seconds.
RELOAD_LAG = 0.2
# How many ask for the metrics of 1,000 backends at once, and how often.
SCRAPES, SCRAPE_ROUNDS = 32, 5
# A client that is always served first would keep the balancer from its turn: load comes behind it.
BEHIND = ("nice", "-n", "15")


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
    """Rewrites the configuration every so often, alternating two sets of ports; notes when.

    Each change waits for the one before to have been taken up, so that every one is a reload of its own. A
    busy machine takes longer over all of them.
    """

    def __init__(self, path, sets, admin):
        super().__init__()
        self.path, self.sets, self.admin = path, sets, admin
        self.done = []
        self.ended, self.failure = threading.Event(), None

    def write(self, text):
        with open(self.path + ".new", "w") as file:
            file.write(text)
        os.rename(self.path + ".new", self.path)

    def configure(self, ports):
        self.write(json.dumps({"backends": [{"host": "127.0.0.1", "port": port} for port in ports]}))

    def wait_taken_up(self, result, count):
        wait_for(lambda: total(metrics(self.admin), "reloads_total", f'"{result}"') == count, f"reload {count} is {result}")

    def run(self):
        try:
            start = time.monotonic()
            for n in range(1, RELOADS + 1):
                time.sleep(max(0, start + n * RELOAD_EVERY - time.monotonic()))
                if n == RELOADS // 2:
                    self.write('{"backends": [\n  {"host": "127.0.0.1", "prt": 1}]}')
                    self.wait_taken_up("refused", 1)
                self.configure(self.sets[n % 2])
                self.done.append((time.time(), n % 2))
                self.wait_taken_up("done", n)
        except Exception as failure:
            self.failure = failure
        finally:
            self.ended.set()


def uploads(front, ended):
    """Uploads bodies until then; how many came to their end, and how many did not."""
    body = os.urandom(300_000)
    good = bad = 0
    while not ended.is_set():
        try:
            with Client(front.port) as client:
                client.send_head("PUT", f"/put-{threading.get_ident()}", f"Content-Length: {len(body)}")
                client.sock.sendall(body)
                good += client.response("PUT").status in (201, 204)
        except OSError:
            bad += 1
    return good, bad


def loads(front, ended, *options):
    """wrk again and again until then: its runs."""
    runs = []
    while not ended.is_set():
        runs.append(Wrk(front.url("/1k"), *options, seconds=4, behind=BEHIND))
    return sum(run.requests for run in runs), sum(run.errors for run in runs)


def reloads():
    """200 reloads, ten a second, under load: no request fails, and no removed backend is given any 200 ms later."""
    with Nginx(4, log=True) as nginx, tempfile.TemporaryDirectory() as directory:
        path, admin = os.path.join(directory, "lb.json"), free_port()
        reloader = Reloader(path, [nginx.ports[:2], nginx.ports[2:]], admin)
        reloader.configure(nginx.ports[:2])
        with Balancer([], "-c", path, "-w", 2, "--admin", admin) as front, concurrent.futures.ThreadPoolExecutor(3) as pool:
            keep = pool.submit(loads, front, reloader.ended, "-t2", "-c64")
            fresh = pool.submit(loads, front, reloader.ended, "-t1", "-c8", "-HConnection: close")
            upload = pool.submit(uploads, front, reloader.ended)
            started = time.monotonic()
            reloader.start()
            reloader.join()
            took = time.monotonic() - started
            (keep, keep_bad), (fresh, fresh_bad), (good, bad) = keep.result(), fresh.result(), upload.result()
            if reloader.failure:
                raise reloader.failure
            told, said = metrics(admin), front.said()
        expect(keep_bad + fresh_bad + bad == 0, f"{keep_bad} of {keep}, {fresh_bad} of {fresh} and {bad} uploads failed")
        expect("lb.json:2:25: unknown key 'prt'" in said, f"the broken file was told as: {said[-600:]}")
        done, refused = (total(told, "reloads_total", f'"{result}"') for result in ("done", "refused"))
        expect((done, refused) == (RELOADS, 1), f"{done:.0f} reloads done, {refused:.0f} refused")
        late = lateness(nginx, reloader)
        expect(late <= RELOAD_LAG, f"a request reached a backend {late * 1000:.0f} ms after a reload that removed it")
        return (f"{done:.0f} reloads in {took:.1f} s, {refused:.0f} refused: {keep} kept-alive, {fresh} single and {good} uploads, "
                f"none failed; the last to a removed backend {late * 1000:.0f} ms after its reload")


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


def down_after_three():
    """A dead backend, no probes and one client: the third failure takes it out, and no request fails."""
    dead = free_port()
    label = f'backend="127.0.0.1:{dead}"'
    with Nginx(2) as nginx, Balancer([*nginx.ports, dead], "-w", 1, "--health-interval", "1h") as front:
        with Client(front.port) as client:
            for _ in range(30):
                status, _ = client.get("/1k")
                expect(status == 200, f"a request got {status} while a backend was dead")
        told = metrics(front.port)
        failures, healthy = (total(told, name, label) for name in ("failures_total", "healthy"))
        expect((failures, healthy) == (3, 0), f"{failures:.0f} failures, healthy {healthy:.0f} after 30 requests over three")


def backend_dies():
    """One of three is killed and comes back under load: no GET fails, and the metrics tell of it."""
    down_after_three()
    connections, probes = 32, "probes_total"
    options = ["-w", 2, "--health-interval", "1s"]
    with Nginx() as one, Nginx() as two, Nginx() as three, Balancer(
            [nginx.ports[0] for nginx in (one, two, three)], *options, "--health-path", "/1k") as front:
        label = f'backend="127.0.0.1:{three.ports[0]}"'
        seconds = 12

        def told(name, having=""):
            samples = metrics(front.port)
            return sum(value for key, value in samples.items()
                       if key.split("{")[0] == f"zzz_lb_{name}" and label in key and having in key)

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            load = pool.submit(Wrk, front.url("/1k"), "-t1", f"-c{connections}", seconds=seconds)
            time.sleep(2)
            os.killpg(three.process.pid, signal.SIGKILL)
            died = time.monotonic()
            wait_for(lambda: told("healthy") == 0, "the dead one is told to be down")
            down = time.monotonic() - died
            # What was under way when it died fails as well, whoever is first to be counted.
            failures = told("failures_total")
            expect(3 <= failures <= 3 + connections, f"{failures:.0f} failures until it was down")
            time.sleep(2)
            more = told("failures_total") - failures
            expect(more <= told(probes, "failed"), f"{more:.0f} requests failed on it when it was down")
            passed = told(probes, "passed")
            three.process.wait()
            three.start()
            came = time.monotonic()
            wait_for(lambda: told("healthy") == 1, "the one that is back is told to be up")
            back, passed = time.monotonic() - came, told(probes, "passed") - passed
            before = told("requests_total")
            load = load.result()
        expect(load.errors == 0, f"{load.errors} of {load.requests} requests failed")
        expect(told("ejections_total") == 1, f"{told('ejections_total'):.0f} ejections")
        expect(passed == 2, f"it was up after {passed:.0f} probes")
        expect(told("requests_total") > before, "the one that came back gets nothing")
    return (f"{load.requests} requests, none failed; down after 3 failures, {failures:.0f} where {connections} clients met it, and "
            f"{down * 1000:.0f} ms; up after 2 probes, {back:.1f} s after its return")


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
        return f"{sent} requests counted exactly, over a worker's death"


def promtool():
    """Prometheus' own linter finds nothing in what is told, at rest and after traffic."""
    if not shutil.which("promtool"):
        raise Skipped("no promtool here")
    with Nginx(2) as nginx, Balancer([*nginx.ports, free_port()], "-w", 2) as front:
        for _ in range(2):
            text = urllib.request.urlopen(front.url("/metrics")).read()
            run = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
            expect(run.returncode == 0 and not run.stdout + run.stderr, f"promtool: {(run.stdout + run.stderr)[-500:]}")
            Wrk(front.url("/1k"), "-t1", "-c8", seconds=1)
    return f"it finds nothing in {len(text) >> 10} KiB"


class Asking:
    """One request after the other on a connection, by a process of its own: when each was asked and answered."""

    def __init__(self, port):
        self.ended = multiprocessing.Event()
        self.told, tell = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(target=self.run, args=(port, tell), daemon=True)
        self.process.start()

    def run(self, port, tell):
        answers = []
        with Client(port) as client:
            while not self.ended.is_set():
                asked = time.monotonic()
                status, _ = client.get("/1k")
                answers.append((asked, time.monotonic(), status))
        tell.send(answers)

    def end(self):
        """What it saw."""
        self.ended.set()
        expect(self.told.poll(10), "the client that goes on asking does not end")
        answers = self.told.recv()
        self.process.join()
        expect(all(status == 200 for _, _, status in answers), "a request failed beside a scrape")
        return answers


def longest_wait(answers, begun, ended):
    """The longest of those that were under way between these times, in seconds."""
    return max(answered - asked for asked, answered, _ in answers if answered > begun and asked < ended)


def thousand_backends():
    """1,000 backends: a start, and scrapes of megabytes by whose worker others are served meanwhile.

    One worker, so that who scrapes and who asks are served by one loop; and many scrapes at once, so that
    they take much longer than a busy machine lets anybody wait. Were the loop held up while their texts are
    made, a request would wait about as long as all of them take. The connections to the backends are made
    before, for that takes longer than all else.
    """
    rounds = []
    # One place under a thousand addresses of loopback.
    with Nginx(hosts=["0.0.0.0"]) as everywhere, tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "lb.json")
        hosts = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]
        with open(path, "w") as file:
            json.dump({"backends": [{"host": host, "port": everywhere.ports[0]} for host in hosts]}, file)
        started = time.monotonic()
        with Balancer([], "-c", path, "-w", 1, "--health-interval", "off") as front:
            started = time.monotonic() - started
            warm = Wrk(front.url("/1k"), "-t1", "-c1", seconds=3)
            expect(warm.errors == 0 and warm.requests > 2 * len(hosts), f"{warm.errors} errors of {warm.requests}")
            asking = Asking(front.port)
            one = ("-o", os.devnull, front.url("/metrics"))
            for _ in range(SCRAPE_ROUNDS):
                begun = time.monotonic()
                sizes = curl("--parallel", "--parallel-immediate", "--parallel-max", SCRAPES, "-w", "%{size_download}\n",
                             *one * SCRAPES).split()
                rounds.append((begun, time.monotonic()))
                expect(len(sizes) == SCRAPES and min(map(int, sizes)) > 1000 * len(hosts), f"scrapes of {sizes} bytes")
                time.sleep(0.1)
            answers = asking.end()
    took = statistics.median(ended - begun for begun, ended in rounds)
    longest = statistics.median(longest_wait(answers, *round) for round in rounds)
    text = (f"{SCRAPES} scrapes of {int(sizes[0]) >> 10} KiB at once in {took * 1000:.0f} ms, beside them the longest wait for "
            f"an answer {longest * 1000:.0f} ms (medians of {SCRAPE_ROUNDS})")
    expect(longest <= took / 5, text)
    return f"start {started * 1000:.0f} ms; {text}"

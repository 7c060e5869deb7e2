"""GOAWAY in the middle of a load: from a backend that counts requests, and to clients that connect again."""
import collections
import concurrent.futures
import os
import shutil
import subprocess
import tempfile

from front import Front, counted_plain
from multiplex import counted
from support import Balancer, Client, Nginx, Program, Skipped, Wrk, expect, free_port, wait_for

# nginx ends a connection after so many requests, and ignores all that cross its GOAWAY.
REQUESTS = 50
CLIENTS, EACH = 16, 40
# Content of up to 16 KiB is kept until a backend over HTTP/2 responds.
KEPT, LARGE = (10, 3000, 16384), 100_000
# The balancer asks a client for another connection after so many requests.
MOST = 10_000


def put(front, size, nth):
    """Uploads content again and again over HTTP/1.1; how often each status came."""
    statuses, body = collections.Counter(), os.urandom(size)
    client = Client(front.port)
    for _ in range(EACH):
        client.send_head("PUT", f"/{size}-{nth}", f"Content-Length: {size}")
        client.sock.sendall(body)
        response = client.response("PUT")
        response.read()
        statuses[response.status] += 1
        if response.headers.get("Connection") == "close":
            client.close()
            client = Client(front.port)
    client.close()
    return statuses, body


def uploads():
    """nginx as a backend over HTTP/2 that ends each connection after 50 requests, under uploads of both versions."""
    said = []
    with Nginx(http2=True, requests=REQUESTS, log=True) as nginx, \
            Balancer([f"h2c://127.0.0.1:{nginx.ports[0]}"], "-w", 1, "--health-interval", "off") as front, \
            tempfile.NamedTemporaryFile() as content:
        def answered():
            with open(nginx.log) as log:
                return sum(1 for _ in log)
        for size in (*KEPT, LARGE):
            before, again = answered(), counted(front, "retries_total")
            with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
                done = [one.result() for one in [pool.submit(put, front, size, nth) for nth in range(CLIENTS)]]
            statuses = sum((statuses for statuses, _ in done), collections.Counter())
            good = statuses[201] + statuses[204]
            again = counted(front, "retries_total") - again
            expect(set(statuses) <= {201, 204, 502}, f"uploads of {size} bytes: {dict(statuses)}")
            if size in KEPT:
                expect(not statuses[502] and again > 0, f"uploads of {size} bytes: {dict(statuses)}, {again} again")
            # A request with another answer was not processed, and none was processed twice.
            wait_for(lambda: answered() - before == good, f"nginx has answered {good} uploads of {size} bytes once")
            for nth, (_, body) in enumerate(done):
                with open(os.path.join(nginx.www, f"{size}-{nth}"), "rb") as file:
                    expect(file.read() == body, f"an upload of {size} bytes arrived another")
            said.append(f"{size} bytes: {good} of {CLIENTS * EACH} good, {again} sent again")
        if shutil.which("h2load"):
            content.write(os.urandom(10_000))
            content.flush()
            argv = ["h2load", "-n4000", "-c8", "-m8", "-t1", "-d", content.name, front.url("/1k")]
            text = subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout
            expect("4000 succeeded" in text and "4000 2xx" in text, f"h2load: {text[-500:]}")
            said.append("4000 of h2load over HTTP/2")
        expect(counted(front, "failures_total") == 0, "failures were counted")
    return "; ".join(said)


# One thread makes one connection for all streams.
HAPROXY = """
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend plain
  bind 127.0.0.1:{port}
  default_backend inner
backend inner
  http-reuse always
  server inner 127.0.0.1:{inner} proto h2
"""


def clients():
    """curl and HAProxy send more requests than a connection may carry: they connect again, and nothing fails."""
    said = []
    with Nginx() as nginx, Front(nginx.ports) as front:
        # curl 7.88 reuses no connection over HTTP/2 without TLS.
        urls, count = front.url(f"/1k?[1-{MOST + 200}]"), MOST + 200
        argv = ["curl", "-sS", "--http2", "--cacert", front.authority.pem, "-Z", "--parallel-max", "50", "-o", os.devnull,
                "-w", "%{http_code} %{http_version} %{num_connects}\n", urls]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        lines = [line.split() for line in done.stdout.splitlines()]
        good = sum(line[:2] == ["200", "2"] for line in lines)
        connections = sum(int(line[2]) for line in lines)
        expect(good == count, f"curl: {good} of {count}: {done.stderr[-300:]}")
        expect(connections >= 2, f"curl: {connections} connection")
        said.append(f"curl: {count} on {connections} connections")
        if not shutil.which("haproxy"):
            raise Skipped("; ".join(said) + "; no haproxy here")
        port = free_port()
        with tempfile.NamedTemporaryFile("w", suffix=".cfg") as conf:
            conf.write(HAPROXY.format(port=port, inner=front.plain))
            conf.flush()
            with Program(["haproxy", "-db", "-f", conf.name]) as haproxy:
                haproxy.wait_listening(port)
                run = Wrk(f"http://127.0.0.1:{port}/1k", "-t1", "-c32", seconds=6)
                expect(run.errors == 0, f"haproxy: {run.errors} of {run.requests} failed")
                said.append(f"haproxy: {run.requests}")
                count += run.requests
        goaways = sum(front.metrics('h2_goaways_total{reason="requests"}').values())
        expect(goaways >= count // MOST, f"{goaways:.0f} GOAWAY after {count} requests")
        expect(counted_plain(front, "failures_total") == 0, "failures were counted")
    return "; ".join(said) + f"; {goaways:.0f} GOAWAY, none failed"

#!/usr/bin/env python3
"""Measures the balancer beside HAProxy, nginx and two floors that parse nothing: relay.c, which gives
each client a backend, and turns.c, which gives each request the next one.

Each proxy has one worker, bound to processor 0; nginx as the backend and the load generator
share processor 1. What is told is the processor time that the proxy's own processes use for a
request (for a connection's memory: KiB), which holds on a busy machine where a throughput does
not. The proxies take turns in every round, and ratios are of one round: only they mean anything
elsewhere.

  compare.py BINARY [SCENARIO…]     `make compare SCENARIOS="small large"`; without any, all of them

Needs Debian's haproxy, nginx-light, wrk, nghttp2-client, openssl and gcc.
"""
import argparse
import contextlib
import os
import re
import resource
import signal
import socket
import ssl
import statistics
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
FRONT, PLAIN, TLS = 8100, (9101, 9102), 9143
PROXIES = ["ours", "haproxy", "nginx", "relay", "turns"]
IDLE_CLIENTS = 8000
# A thousand addresses of one server that listens on all of loopback.
THOUSAND = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]

# name: the load and its arguments, the path, what stands behind the proxy, and what its clients speak
SCENARIOS = {
    "small": ("wrk", ["-c64"], "/1k", "plain", "plain"),
    "large": ("wrk", ["-c8"], "/1m", "plain", "plain"),
    "close": ("wrk", ["-c32", "-HConnection: close"], "/1k", "plain", "plain"),
    "idle": ("idle", [], "/1k", "plain", "plain"),
    "thousand": ("wrk", ["-c64"], "/1k", "thousand", "plain"),
    "tls-backend": ("wrk", ["-c64"], "/1k", "tls", "plain"),
    "tls-large": ("wrk", ["-c4"], "/16m", "tls", "plain"),
    "h2c": ("h2load", ["-c8", "-m16"], "/1k", "plain", "h2c"),
    "h2": ("h2load", ["-c8", "-m16"], "/1k", "plain", "h2"),
    "tls": ("wrk", ["-c64"], "/1k", "plain", "tls"),
    "handshakes": ("s_time", ["-new"], "/1k", "plain", "tls"),
    "resumed": ("s_time", ["-reuse"], "/1k", "plain", "tls"),
    "idle-tls": ("idle", [], "/1k", "plain", "tls"),
}
# A client over HTTP/2 sends fewer requests than a connection may have, because h2load opens no other one.
REQUESTS_OF_A_CLIENT = 9000

BACKEND = """
user root; worker_processes 1; daemon off; pid {d}/backend.pid; error_log {d}/backend.err crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600; sendfile on; tcp_nopush on;
  server {{
    listen 0.0.0.0:{plain[0]} backlog=4096; listen 127.0.0.1:{plain[1]} backlog=4096;
    listen 127.0.0.1:{tls} ssl http2 backlog=4096; http2_max_requests 1000000000;
    ssl_certificate {d}/cert.pem; ssl_certificate_key {d}/key.pem;
    location = /1k {{ return 200 "{body}"; }}
    location / {{ root {d}/www; }}
  }}
}}
"""

NGINX = """
user root; worker_processes 1; daemon off; pid {d}/proxy.pid; error_log {d}/proxy.err crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
  upstream backends {{ {servers} keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{front}{listen} backlog=4096;
    ssl_certificate {d}/cert.pem; ssl_certificate_key {d}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass {scheme}://backends; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 9900
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option forwardfor
  http-reuse always
frontend clients
  bind 127.0.0.1:{front} backlog 4096{bind}
  default_backend backends
backend backends
  balance roundrobin
  {servers}
"""


class Program:
    """A program and its children, bound to a processor."""

    def __init__(self, argv, cpu, log):
        self.process = subprocess.Popen(["taskset", "-c", str(cpu), *map(str, argv)], stdout=log, stderr=log,
                                        start_new_session=True)

    def pids(self):
        children = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
                children.setdefault(int(stat.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu_us(self):
        used = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/schedstat") as stat:
                        used += int(stat.read().split()[0])
        return used / 1000

    def pss_kib(self):
        held = 0
        for pid in self.pids():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
                held += int(re.search(r"^Pss:\s+(\d+)", rollup.read(), re.M)[1])
        return held

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in (signal.SIGTERM, signal.SIGKILL):
            for pid in reversed(self.pids()):
                with contextlib.suppress(OSError):
                    os.kill(pid, end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)


def wait_for(port, what):
    for _ in range(200):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), 0.2).close()
        time.sleep(0.05)
    raise SystemExit(f"compare: {what} did not start")


def prepare(d):
    """What the backend serves and is configured by."""
    os.chmod(d, 0o755)
    os.mkdir(f"{d}/www")
    for name, size in (("1m", 1 << 20), ("16m", 16 << 20)):
        with open(f"{d}/www/{name}", "wb") as file:
            file.write(os.urandom(1 << 20) * (size >> 20))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                    "-subj", "/CN=localhost", "-keyout", f"{d}/key.pem", "-out", f"{d}/cert.pem"], check=True, capture_output=True)
    write(f"{d}/pair.pem", open(f"{d}/cert.pem").read() + open(f"{d}/key.pem").read())
    write(f"{d}/backend.conf", BACKEND.format(d=d, plain=PLAIN, tls=TLS, body="x" * 1024))
    for floor in ("relay", "turns"):
        subprocess.run(["cc", "-O2", "-o", f"{d}/{floor}", f"{HERE}/{floor}.c"], check=True)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def command(name, d, binary, scenario):
    """What starts a proxy; `None` where it cannot do that."""
    _, _, _, kind, front = SCENARIOS[scenario]
    behind = {"plain": [f"127.0.0.1:{port}" for port in PLAIN], "tls": [f"127.0.0.1:{TLS}"],
              "thousand": [f"{host}:{PLAIN[0]}" for host in THOUSAND]}[kind]
    if name == "relay":
        return [f"{d}/relay", FRONT, *PLAIN] if kind == front == "plain" else None
    if name == "turns":
        return [f"{d}/turns", FRONT, *behind] if scenario in ("small", "thousand") else None
    if name == "nginx":
        servers = " ".join(f"server {address};" for address in behind)
        scheme = "https" if kind == "tls" else "http"
        listen = {"plain": "", "h2c": " http2", "h2": " ssl http2", "tls": " ssl"}[front]
        text = NGINX.format(d=d, servers=servers, scheme=scheme, front=FRONT, listen=listen)
        return ["nginx", "-c", write(f"{d}/nginx.conf", text)]
    if name == "haproxy":
        tls = " ssl verify none alpn h2,http/1.1" if kind == "tls" else ""
        servers = "\n  ".join(f"server s{n} {address}{tls}" for n, address in enumerate(behind))
        pair = f" ssl crt {d}/pair.pem alpn "
        bind = {"plain": "", "h2c": " proto h2", "h2": f"{pair}h2", "tls": f"{pair}http/1.1"}[front]
        text = HAPROXY.format(servers=servers, front=FRONT, bind=bind)
        return ["haproxy", "-db", "-f", write(f"{d}/haproxy.cfg", text)]
    backends = [word for address in behind for word in ("-b", ("https://" if kind == "tls" else "") + address)]
    pair = ["--tls-cert", f"{d}/cert.pem", "--tls-key", f"{d}/key.pem"] if front in ("h2", "tls") else []
    return [binary, "-k", "-w", 1, "-l", "err", "-p", FRONT, "--health-interval", "off", *pair, *backends]


def run(*argv):
    """Runs a load generator on the processor of the backend."""
    return subprocess.run(["taskset", "-c", "1", *map(str, argv)], capture_output=True, text=True).stdout


def wrk(arguments, url, seconds):
    """Loads the proxy; requests, errors, and its other columns."""
    out = run("wrk", "-t1", f"-d{seconds}s", "--latency", *arguments, url)
    requests = int(re.search(r"(\d+) requests in", out)[1])
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", out)))
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
    p50, p99 = (float(found[0]) * scale[found[1]] for found in re.findall(r"(?:50|99)%\s+([\d.]+)(us|ms|s|m)", out))
    return requests, errors, {"req/s": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), "p50 ms": p50, "p99 ms": p99}


def h2load(arguments, url, seconds):
    """Loads the proxy over HTTP/2, with as many requests as its connections may have, once a second."""
    clients = int(arguments[0].removeprefix("-c"))
    requests, errors, rates = 0, 0, []
    for _ in range(seconds):
        out = run("h2load", "-t1", "-n", REQUESTS_OF_A_CLIENT * clients, *arguments, url)
        counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", out)
        requests, errors = requests + int(counts[2]), errors + int(counts[3]) + int(counts[4])
        rates.append(float(re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", out)[1]))
    return requests, errors, {"req/s": statistics.median(rates)}


def s_time(arguments, url, seconds):
    """Makes TLS connections one after another, with a request on each."""
    host, path = url.removeprefix("https://").split("/")
    out = run("openssl", "s_time", "-connect", host, "-www", f"/{path}", "-tls1_3", "-time", seconds, *arguments)
    # Before it resumes sessions, it makes one, and says so.
    counted = out.split("starting")[-1] if "-reuse" in arguments else out
    done = int(re.search(r"(\d+) connections in \d+ real seconds", counted)[1])
    wanted = counted.count("r" if "-reuse" in arguments else "*")
    return done, 0 if wanted >= 0.9 * done else done, {"conn/s": done / seconds}


def measure_load(program, scenario, seconds):
    load, arguments, path, _, front = scenario
    url = f"{'https' if front in ('h2', 'tls') else 'http'}://127.0.0.1:{FRONT}{path}"
    generate = {"wrk": wrk, "h2load": h2load, "s_time": s_time}[load]
    generate(arguments, url, 1)
    before = program.cpu_us()
    requests, errors, columns = generate(arguments, url, seconds)
    used = (program.cpu_us() - before) / max(requests, 1)
    return {"CPU us": used, **columns, "PSS KiB": program.pss_kib(), "errors": errors}


def measure_idle(program, front):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # Python's TLS needs memory of its own for each client.
    clients = IDLE_CLIENTS if front == "plain" else IDLE_CLIENTS // 4
    before = program.pss_kib()
    with contextlib.ExitStack() as held:
        for _ in range(clients):
            client = held.enter_context(socket.create_connection(("127.0.0.1", FRONT), 5))
            if front == "tls":
                client = held.enter_context(context.wrap_socket(client, server_hostname="localhost"))
            client.sendall(b"GET /1k HTTP/1.1\r\nHost: a\r\n\r\n")
            while not client.recv(4096).endswith(b"x"):
                pass
        time.sleep(1)
        return {"KiB": (program.pss_kib() - before) / clients, "errors": 0}


def show(name, rows):
    """A table: medians over the rounds, and the first column as the median of ratios to HAProxy's."""
    columns = list(rows["ours"][0])
    print(f"\n{name:12}" + "".join(f"{title:>10}" for title in [columns[0], "ratio", *columns[1:]]))
    for proxy, rounds in rows.items():
        cells = [statistics.median(row[column] for row in rounds) for column in columns[:-1]]
        ratio = statistics.median(mine[columns[0]] / base[columns[0]] for mine, base in zip(rounds, rows["haproxy"]))
        cells.insert(1, ratio)
        print(f"{proxy:12}" + "".join(f"{cell:10.2f}" for cell in cells) + f"{sum(row['errors'] for row in rounds):10}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(unknown)}: there are {', '.join(SCENARIOS)}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(20000, hard), hard))
    os.environ["PATH"] += ":/usr/sbin"
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as f:
        print(f"congestion control: {f.read().strip()}")
    with tempfile.TemporaryDirectory(prefix="compare-") as d, open(f"{d}/log", "wb") as log:
        prepare(d)
        with Program(["nginx", "-c", f"{d}/backend.conf"], 1, log):
            wait_for(PLAIN[0], "the backend")
            for name in given.scenarios or SCENARIOS:
                scenario, rows = SCENARIOS[name], {}
                for _ in range(given.rounds):
                    for proxy in PROXIES:
                        argv = command(proxy, d, given.binary, name)
                        if argv is None:
                            continue
                        with Program(argv, 0, log) as program:
                            wait_for(FRONT, proxy)
                            if scenario[0] == "idle":
                                found = measure_idle(program, scenario[4])
                            else:
                                found = measure_load(program, scenario, given.seconds)
                            rows.setdefault(proxy, []).append(found)
                show(name, rows)


if __name__ == "__main__":
    main()

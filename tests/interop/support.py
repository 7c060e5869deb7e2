"""What the checks share: the balancer under test, its backends, its clients, and its memory."""
import http.client
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = os.path.abspath(os.environ.get("INTEROP_BINARY", os.path.join(HERE, "../../target/release/load_balancer")))
os.environ["PATH"] += ":/usr/sbin:/sbin"

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Failure(Exception):
    """What was expected of the balancer did not happen."""


class Skipped(Exception):
    """This machine cannot run the check."""


def expect(condition, text):
    if not condition:
        raise Failure(text)


def free_port():
    """A port nobody listens on, below those that outgoing connections get."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def wait_for(condition, text, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < end, f"{text}: not within {seconds} s")
        time.sleep(0.01)


def accepts(address):
    try:
        socket.create_connection(address, 1).close()
        return True
    except OSError:
        return False


class Program:
    """A program of ours for the time of a `with`, in a session of its own, its output in a file."""

    def __init__(self, argv):
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(argv, stdout=self.output, stderr=self.output, stdin=subprocess.DEVNULL,
                                        start_new_session=True)

    def said(self):
        self.output.seek(0)
        return self.output.read().decode("latin-1")

    def wait_listening(self, port, host="127.0.0.1"):
        def ready():
            expect(self.process.poll() is None, f"{self.process.args[0]} ended at once: {self.said()[-500:]}")
            return accepts((host, port))
        wait_for(ready, f"{self.process.args[0]} listens on {port}")

    def kill(self):
        """Ends what is left of its session; nothing outlives a check."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.output.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Balancer(Program):
    """The binary under test before `backends`: ports of 127.0.0.1, or whole addresses.

    Leaving the `with` without an exception sends TERM, and expects the exit status 0 and no
    process left behind.
    """

    def __init__(self, backends, *options, wrap=(), binary=BINARY):
        self.port = free_port()
        argv = [*wrap, binary, "-p", str(self.port), "--host", "127.0.0.1", "-l", "warn", "--drain-timeout", "3s"]
        for backend in backends:
            argv += ["-b", f"127.0.0.1:{backend}" if isinstance(backend, int) else backend]
        super().__init__(argv + [str(option) for option in options])
        try:
            self.wait_listening(self.port)
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.stop()
            else:
                sys.stderr.write(self.said()[-2000:])
        finally:
            self.kill()

    def stop(self):
        expect(self.process.poll() is None, f"the balancer ended by itself: {self.said()[-500:]}")
        family = self.pids()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            raise Failure("the balancer did not end within 10 s of TERM") from None
        expect(status == 0, f"exit status {status} after TERM: {self.said()[-500:]}")
        orphans = [pid for pid in family if os.path.exists(f"/proc/{pid}")]
        expect(not orphans, f"processes {orphans} outlived the master")

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def pids(self):
        """The master's id, then those of its workers."""
        children = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def worker(self):
        """The id of the one worker; with `--mode sp` that of the only process."""
        return self.pids()[-1]

    def peak_kib(self):
        """The greatest resident size that any of its processes ever had."""
        return max(proc_kib(pid, "status", "VmHWM") for pid in self.pids())


def proc_kib(pid, name, key):
    with open(f"/proc/{pid}/{name}") as file:
        return int(re.search(rf"^{key}:\s+(\d+) kB", file.read(), re.M)[1])


def pss_kib(pid):
    """Memory that the process would free by ending: shared pages counted by their share."""
    return proc_kib(pid, "smaps_rollup", "Pss")


class Backend(Program):
    """backend.py, under a name that its answers carry in X-Backend."""

    def __init__(self, name="a"):
        self.port = free_port()
        super().__init__([sys.executable, os.path.join(HERE, "backend.py"), str(self.port), name])
        try:
            self.wait_listening(self.port)
        except BaseException:
            self.kill()
            raise


NGINX = """
daemon off; pid {d}/pid; error_log {d}/error.log warn; worker_processes 1; {user}
worker_rlimit_nofile {files};
events {{ worker_connections 4096; }}
http {{
  log_format times "{logged} $msec $request_time"; access_log {log};
  keepalive_requests {requests}; client_max_body_size 0;
  gzip on; gzip_types text/plain; gzip_min_length 1; gzip_proxied any;
  client_body_temp_path {d}/t1; proxy_temp_path {d}/t2; fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4;
  scgi_temp_path {d}/t5; keepalive_timeout {keepalive};
  server {{
    {listen}
    {certificate}
    location = /1k {{ return 200 "{body}"; }}
    location / {{ root {d}/www; dav_methods PUT DELETE; }}
  }}
}}
"""


class Nginx(Program):
    """nginx with `count` ports, files under `www` that PUT may write, and 1 KiB at /1k."""

    def __init__(self, count=1, keepalive="75s", hosts=("127.0.0.1",), log=False, tls=None, http2=False,
                 requests=1000000000):
        self.directory = tempfile.mkdtemp(prefix="interop-nginx-")
        os.chmod(self.directory, 0o755)
        self.www = os.path.join(self.directory, "www")
        os.mkdir(self.www)
        self.ports = [free_port() for _ in range(count)]
        self.unix = os.path.join(self.directory, "socket")
        self.log = os.path.join(self.directory, "access.log")
        ssl = ("ssl " if tls else "") + ("http2 " if http2 else "")
        listen = "".join(f"listen {host}:{port} {ssl}backlog=4096; " for port in self.ports for host in hosts)
        listen += f"listen unix:{self.unix}; "
        listen += f"listen [::1]:{self.ports[0]}; " if has_ipv6() else ""
        # By port where there are several, else by address; told with when each request ended and how long it took.
        logged = "$server_port" if count > 1 else "$server_addr"
        conf = os.path.join(self.directory, "conf")
        with open(conf, "w") as file:
            file.write(NGINX.format(d=self.directory, user="user root;" if os.getuid() == 0 else "", listen=listen,
                                    keepalive=keepalive, requests=requests, body="x" * 1024, files=8192, logged=logged,
                                    certificate="ssl_certificate {}; ssl_certificate_key {};".format(*tls) if tls else "",
                                    log=f"{self.log} times" if log else "off"))
        self.argv, self.host = ["nginx", "-c", conf], "127.0.0.1" if "0.0.0.0" in hosts else hosts[0]
        self.start()

    def start(self):
        """Starts it, or starts it again where it has been killed."""
        if os.path.exists(self.unix):
            os.unlink(self.unix)
        super().__init__(self.argv)
        try:
            self.wait_listening(self.ports[0], self.host)
        except BaseException:
            self.kill()
            raise

    def kill(self):
        super().kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def curl(*arguments, status=0, stdin=subprocess.DEVNULL):
    """Runs curl, expects its exit status, and gives what it wrote to stdout."""
    argv = ["curl", "-sS", "--max-time", "60", "--noproxy", "*", *map(str, arguments)]
    done = subprocess.run(argv, stdin=stdin, capture_output=True)
    said = done.stderr.decode("latin-1").strip()[-300:]
    expect(done.returncode == status, f"curl {' '.join(argv[6:])}: exit status {done.returncode}, not {status}: {said}")
    return done.stdout


class Wrk:
    """One run of wrk: `requests`, `errors`, `rate` a second, `p50_ms` and `p99_ms`."""

    def __init__(self, url, *options, seconds, behind=()):
        argv = [*behind, "wrk", "--latency", f"-d{seconds}s", *options, url]
        text = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30).stdout
        done = re.search(r"(\d+) requests in", text)
        expect(done, f"wrk said: {text[-300:]}")
        self.requests = int(done[1])
        self.rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        self.errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
        self.errors += int(bad[1]) if bad else 0
        self.p50_ms, self.p99_ms = (percentile_ms(text, p) for p in (50, 99))


def percentile_ms(text, percent):
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", text)
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


class Client:
    """A keep-alive HTTP/1.1 connection that leaves the order of sending and reading to its user."""

    def __init__(self, port, seconds=30):
        self.sock = socket.create_connection(("127.0.0.1", port), seconds)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send_head(self, method, path, *lines):
        fields = "".join(f"{line}\r\n" for line in ("Host: interop", *lines))
        self.sock.sendall(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode("latin-1"))

    def response(self, method="GET"):
        """The next response, its head read; `.read()` gives its body."""
        response = http.client.HTTPResponse(self.sock, method=method)
        response.begin()
        return response

    def get(self, path, *lines):
        self.send_head("GET", path, *lines)
        response = self.response()
        return response.status, response.read()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

"""The front door under the clients of others: curl, nghttp, h2load, openssl, node, grpcio, websockets and Chromium."""
import base64
import hashlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading

from calls import PYTHON, SERVER, WEBSOCKET, Socket, grpcio
from multiplex import NODE, digest
from secure import Authority
from support import Backend, Balancer, Nginx, Program, Skipped, curl, expect, free_port, wait_for


class Front:
    """A balancer with TLS and plain HTTP before backends, its CA and a directory, for the time of a `with`."""

    def __init__(self, backends, *options, names=("localhost",)):
        if not shutil.which("openssl"):
            raise Skipped("no openssl here")
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = self.temporary.name
        os.chmod(self.directory, 0o755)
        self.authority = Authority(self.directory)
        self.pairs = [self.authority.sign(f"front-{name}", name) for name in names]
        self.backends, self.options = backends, options
        self.plain = free_port()

    def __enter__(self):
        certificates = [word for pair in self.pairs for word in ("--tls-cert", pair[0], "--tls-key", pair[1])]
        backends = self.backends(self) if callable(self.backends) else self.backends
        options = [option(self) if callable(option) else option for option in self.options]
        self.balancer = Balancer(backends, "-w", 2, *certificates, "--listen", f"127.0.0.1:{self.plain}", *options)
        return self

    def __exit__(self, *reason):
        try:
            self.balancer.__exit__(*reason)
        finally:
            self.temporary.cleanup()

    @property
    def port(self):
        return self.balancer.port

    def url(self, path):
        return f"https://localhost:{self.port}{path}"

    def plain_url(self, path):
        return f"http://127.0.0.1:{self.plain}{path}"

    def metrics(self, family):
        lines = curl(self.plain_url("/metrics")).decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"zzz_lb_{family}")}


def run(*argv, stdin=b"", seconds=30, status=0):
    """Runs a program; its output."""
    done = subprocess.run([str(word) for word in argv], input=stdin, capture_output=True, timeout=seconds)
    text = (done.stdout + done.stderr).decode("latin-1")
    expect(done.returncode == status, f"{' '.join(map(str, argv))}: exit status {done.returncode}: {text[-400:]}")
    return text


def curl_versions():
    """curl over each version, with TLS and without: GET, HEAD, and content."""
    body = os.urandom(3 << 20)
    with Backend("a") as backend, Front([backend.port]) as front:
        sent = os.path.join(front.directory, "sent")
        with open(sent, "wb") as file:
            file.write(body)
        said = []
        ca = ["--cacert", front.authority.pem]
        for version, options, url, shown in [
            ("1.1", ["--http1.1"], front.plain_url, "1.1"),
            ("prior knowledge", ["--http2-prior-knowledge"], front.plain_url, "2"),
            ("Upgrade: h2c, which is ignored", ["--http2"], front.plain_url, "1.1"),
            ("1.1 over TLS", ["--http1.1", *ca], front.url, "1.1"),
            ("2 over TLS", ["--http2", *ca], front.url, "2"),
            ("1.1 over TLS 1.2", ["--http1.1", "--tls-max", "1.2", *ca], front.url, "1.1"),
            ("2 over TLS 1.2", ["--http2", "--tls-max", "1.2", *ca], front.url, "2"),
        ]:
            told = curl(*options, "-o", os.devnull, "-w", "%{http_version} %{http_code}", url("/echo")).decode()
            expect(told == f"{shown} 200", f"{version}: {told}")
            head = curl(*options, "-I", url("/echo")).decode("latin-1")
            expect(re.match(r"HTTP/\S+ 200", head), f"HEAD over {version}: {head[:200]}")
            for way in (["--data-binary", f"@{sent}"], ["-T", sent], ["-T", sent, "-H", "Transfer-Encoding: chunked"]):
                if "Transfer-Encoding: chunked" in way and shown == "2":
                    continue
                told = curl(*options, *way, url("/hash")).decode()
                expect(told == f"{digest(body)} {len(body)}", f"{version} {way}: {told}")
            said.append(version)
        expect(counted_plain(front, "failures_total") == 0, "failures were counted")
    return ", ".join(said)


def counted_plain(front, family):
    return sum(front.metrics(family).values())


def nghttp2():
    """nghttp and h2load: streams at once, content, and many connections, with TLS and without."""
    if not shutil.which("nghttp") or not shutil.which("h2load"):
        raise Skipped("no nghttp or h2load here")
    said = []
    with Nginx(1) as nginx, Front(nginx.ports) as front:
        with open(os.path.join(nginx.www, "large"), "wb") as file:
            file.write(os.urandom(1 << 20))
        for name, url, plain in [("h2c", front.plain_url, ["--no-tls-proto=h2c"]), ("TLS", front.url, [])]:
            text = run("nghttp", "-nvy", "-m", 20, url("/1k"), url("/large"))
            expect(text.count(":status: 200") == 40, f"{name}: nghttp: {text[-400:]}")
            expect("GOAWAY" not in text.split("send GOAWAY")[0], f"{name}: nghttp was sent GOAWAY: {text[-400:]}")
            requests = 20000
            text = run("h2load", "-n", requests, "-c", 32, "-m", 10, "-t1", *plain, url("/1k"), seconds=60)
            expect(f"{requests} succeeded" in text and f"{requests} 2xx" in text, f"{name}: h2load: {text[-500:]}")
            rate = re.search(r"finished in \S+, ([\d.]+) req/s", text)[1]
            said.append(f"{name}: 40 of nghttp, {requests} of h2load at {float(rate):.0f}/s")
        failed = counted_plain(front, "failures_total")
        expect(failed == 0, f"{failed:.0f} failures")
    return "; ".join(said)


def s_client():
    """openssl s_client: versions, names, resumption over both workers, and client certificates."""
    with Backend("a") as backend, Front([backend.port], names=("localhost", "b.test")) as front:
        address = f"127.0.0.1:{front.port}"
        request = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

        def client(*options, stdin=request, status=0):
            return run("openssl", "s_client", "-connect", address, "-CAfile", front.authority.pem, *options,
                       stdin=stdin, status=status)

        for version, cipher in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")]:
            for name in ("localhost", "b.test"):
                text = client(version, "-servername", name, "-verify_hostname", name, "-ign_eof")
                expect(cipher in text and "Verify return code: 0 (ok)" in text, f"{version} {name}: {text[-600:]}")
                expect(f"CN = {name}" in text and "HTTP/1.1 " in text, f"{version} {name}: {text[-600:]}")
        text = client("-alpn", "h2,http/1.1", "-servername", "localhost", stdin=b"")
        expect("ALPN protocol: h2" in text, f"ALPN: {text[-600:]}")
        text = client("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", "-servername", "localhost", stdin=b"", status=1)
        expect("SSL alert number" in text, f"TLS 1.1: {text[-600:]}")
        text = client("-tls1_2", "-reconnect", "-servername", "localhost", stdin=b"")
        reused = text.count("Reused, TLSv1.2")
        expect(reused == 5, f"TLS 1.2: {reused} of 5 sessions resumed: {text[-600:]}")
        # s_client -reconnect resumes no sessions of TLS 1.3, because their tickets come later.
        session = os.path.join(front.directory, "session")
        client("-tls1_3", "-servername", "localhost", "-ign_eof", "-sess_out", session)
        for _ in range(8):
            text = client("-tls1_3", "-servername", "localhost", "-ign_eof", "-sess_in", session, "-sess_out", session)
            expect("Reused, TLSv1.3" in text, f"TLS 1.3: a session is not resumed: {text[-600:]}")
    with tempfile.TemporaryDirectory() as directory, Backend("a") as backend:
        clients, strangers = Authority(directory, "clients"), Authority(directory, "strangers")
        client_certificates(backend, clients.pem, clients.sign("known", "client"), strangers.sign("unknown", "client"))
    return "TLS 1.2 and 1.3, two names, ALPN, 5 and 8 sessions resumed, TLS 1.1 refused, client certificates"


def client_certificates(backend, authorities, known, stranger):
    """A client with a certificate of the authorities is served, and others are not."""
    with Front([backend.port], "--tls-client-ca", authorities) as front:
        ca = ["--cacert", front.authority.pem]
        told = curl(*ca, "--cert", known[0], "--key", known[1], "-o", os.devnull, "-w", "%{http_code}", front.url("/echo"))
        expect(told == b"200", f"a known client: {told}")
        for name, options in [("none", []), ("a stranger's", ["--cert", stranger[0], "--key", stranger[1]])]:
            done = subprocess.run(["curl", "-sS", *ca, *options, front.url("/echo")], capture_output=True)
            expect(done.returncode != 0, f"{name} certificate is accepted")


HAPROXY = """
global
  log stderr format raw local0 err
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend tls
  bind 127.0.0.1:{port} ssl crt {bundle} alpn h2,http/1.1
  http-request set-var(txn.version) req.ver
  http-response set-header x-version %[var(txn.version)]
  default_backend inner
backend inner
  server inner 127.0.0.1:{inner}
"""


def chain():
    """nginx and HAProxy as backends over TLS and HTTP/2, behind clients over TLS and HTTP/2."""
    said, body = [], os.urandom(5 << 20)

    def check(name, front):
        sent = os.path.join(front.directory, "sent")
        with open(sent, "wb") as file:
            file.write(body)
        ca = ["--http2", "--cacert", front.authority.pem]
        told = curl(*ca, "-o", os.devnull, "-w", "%{http_version} %{http_code}", "-T", sent, front.url("/up")).decode()
        expect(told in ("2 201", "2 204", "2 200"), f"{name}: an upload: {told}")
        run("h2load", "-n", 5000, "-c", 16, "-m", 10, "-t1", front.url("/1k"), seconds=60)
        failed = counted_plain(front, "failures_total")
        expect(failed == 0, f"{name}: {failed:.0f} failures: {front.balancer.said()[-300:]}")

    if not shutil.which("h2load"):
        raise Skipped("no h2load here")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        authority = Authority(directory)
        pair = authority.sign("good", "localhost")
        with Nginx(tls=pair, http2=True) as nginx:
            with Front([f"https://localhost:{nginx.ports[0]}"], "--ca-file", authority.pem) as front:
                check("nginx", front)
                with open(os.path.join(nginx.www, "up"), "rb") as file:
                    expect(digest(file.read()) == digest(body), "nginx: an upload arrived another")
                down = curl("--http2", "--cacert", front.authority.pem, front.url("/up"))
                expect(digest(down) == digest(body), "nginx: a response arrived another")
                said.append("nginx")
        if not shutil.which("haproxy"):
            said.append("haproxy is not here")
            return ", ".join(said)
        port, bundle = free_port(), os.path.join(directory, "bundle.pem")
        with open(bundle, "w") as file:
            file.write(open(pair[0]).read() + open(pair[1]).read())
        conf = os.path.join(directory, "haproxy.cfg")
        with Nginx() as inner:
            with open(conf, "w") as file:
                file.write(HAPROXY.format(port=port, bundle=bundle, inner=inner.ports[0]))
            with Program(["haproxy", "-db", "-f", conf]) as server:
                server.wait_listening(port)
                with Front([f"https://localhost:{port}"], "--ca-file", authority.pem, "--health-interval", "off") as front:
                    check("haproxy", front)
                    down = curl("--http2", "--cacert", front.authority.pem, "-D", "-", front.url("/up"))
                    head, _, down = down.partition(b"\r\n\r\n")
                    expect(b"x-version: 2" in head.lower(), f"haproxy: it was not spoken to in HTTP/2: {head}")
                    expect(digest(down) == digest(body), "haproxy: a response arrived another")
                    said.append("haproxy")
    return ", ".join(said) + ": 5000 requests each, 5 MiB up and down"


def grpc_tls():
    """grpcio as client over TLS and as server: unary calls and a stream in both directions, over upgrades."""
    grpc = grpcio()
    port = free_port()
    with Front([f"h2c://127.0.0.1:{port}"], "--health-interval", "off") as front:
        server = Program([*PYTHON, SERVER, str(port), os.path.join(front.directory, "log")])
        with server:
            server.wait_listening(port)
            roots = open(front.authority.pem, "rb").read()
            with grpc.secure_channel(f"localhost:{front.port}", grpc.ssl_channel_credentials(roots)) as channel:
                same = channel.unary_unary("/t/Same")
                for size in [0, 1, 100_000, 3 << 20]:
                    body = os.urandom(size)
                    expect(same(body, timeout=20) == body, f"a unary call of {size} bytes")
                generation, calls, count = 0, 0, 0

                for answer in channel.stream_stream("/t/Echo")(b"%07d" % n for n in range(3000)):
                    expect(int(answer) == count, f"message {answer} instead of {count}")
                    count += 1
                    if count % 10 == 0:
                        expect(same(b"call", timeout=20) == b"call", "a call beside the stream")
                        calls += 1
                    if count % 1000 == 500:
                        generation += 1
                        front.balancer.process.send_signal(signal.SIGUSR2)
                        wait_for(lambda: counted_plain(front, "upgrade_generation") == generation, f"upgrade {generation}")
                expect(count == 3000, f"{count} messages of 3000")
    return f"a stream of {count} messages and {calls} calls beside it over {generation} upgrades"


def websocket_tls():
    """The module websockets over TLS, through an upgrade."""
    try:
        import websockets  # noqa: F401
    except ImportError:
        raise Skipped("no python websockets here (apt install python3-websockets)") from None
    port = free_port()
    with Program([*PYTHON, WEBSOCKET, str(port)]) as server, Front([port], "--health-interval", "off") as front:
        server.wait_listening(port)
        context = ssl.create_default_context(cafile=front.authority.pem)
        with Socket(f"wss://localhost:{front.port}/x", subprotocols=["b"], ssl=context) as client:
            expect(client.subprotocol == "b", f"subprotocol {client.subprotocol}")
            for nth, size in enumerate([0, 5, 70_000, 900_000]):
                body = os.urandom(size)
                client.send(body)
                expect(client.recv() == body, f"{size} bytes")
                if nth == 1:
                    front.balancer.process.send_signal(signal.SIGUSR2)
                    wait_for(lambda: counted_plain(front, "upgrade_generation") == 1, "an upgrade")
    return "messages of up to 900,000 bytes, and an upgrade between them"


NODE_CLIENTS = """
const https = require('https'), http2 = require('http2'), fs = require('fs'), crypto = require('crypto');
const [port, cafile, count] = process.argv.slice(2), ca = fs.readFileSync(cafile), n = Number(count);
const body = crypto.randomBytes(200000);
const check = (what, ok) => { if (!ok) { console.error('wrong: ' + what); process.exit(1); } };
async function overHttps() {
  const agent = new https.Agent({keepAlive: true, maxSockets: 4, ca});
  const one = (i) => new Promise((done, fail) => {
    const request = https.request({host: 'localhost', port, path: '/' + i, method: 'POST', agent}, (response) => {
      const parts = []; response.on('data', (part) => parts.push(part));
      response.on('end', () => { check('https ' + i, Buffer.concat(parts).equals(body)); done(); }); });
    request.on('error', fail); request.end(body); });
  await Promise.all(Array.from({length: n}, (_, i) => one(i)));
}
async function overHttp2() {
  const session = http2.connect('https://localhost:' + port, {ca});
  const one = (i) => new Promise((done, fail) => {
    const stream = session.request({':method': 'POST', ':path': '/' + i}); const parts = []; let status;
    stream.on('response', (head) => { status = head[':status']; });
    stream.on('data', (part) => parts.push(part)); stream.on('error', fail);
    stream.on('end', () => { check('http2 ' + i, status === 200 && Buffer.concat(parts).equals(body)); done(); });
    stream.end(body); });
  await Promise.all(Array.from({length: n}, (_, i) => one(i)));
  session.close();
}
overHttps().then(overHttp2).then(() => { console.log('done'); process.exit(0); }, (e) => { console.error(e); process.exit(1); });
"""


def node():
    """node as client of https and http2, and as server over HTTP/2."""
    if not shutil.which("node"):
        raise Skipped("no node here (apt install nodejs)")
    port = free_port()
    with Front([f"h2c://127.0.0.1:{port}"], "--health-interval", "off") as front:
        for name, text in [("server.js", NODE), ("clients.js", NODE_CLIENTS)]:
            with open(os.path.join(front.directory, name), "w") as file:
                file.write(text)
        with Program(["node", os.path.join(front.directory, "server.js"), str(port), "4096"]) as server:
            server.wait_listening(port)
            run("node", os.path.join(front.directory, "clients.js"), front.port, front.authority.pem, 60, seconds=60)
            failed = counted_plain(front, "failures_total")
            expect(failed == 0, f"{failed:.0f} failures")
    return "60 uploads of 200,000 bytes over https and 60 over http2, to a server over http2"


PAGE = """<!doctype html><title>page</title><body><script>
const resources = %d;
async function load() {
  const texts = await Promise.all(Array.from({length: resources}, (_, i) =>
    fetch('/resource/' + i).then((response) => response.text())));
  const good = texts.filter((text, i) => text === 'resource ' + i).length;
  const entries = performance.getEntriesByType('resource');
  const h2 = entries.filter((entry) => entry.name.includes('/resource/') && entry.nextHopProtocol === 'h2').length;
  const echo = await new Promise((done, fail) => {
    const socket = new WebSocket('wss://' + location.host + '/socket');
    let n = 0;
    socket.onopen = () => socket.send('message 0');
    socket.onmessage = (event) => {
      if (event.data !== 'message ' + n) return fail(event.data);
      if (++n === 20) { socket.close(); done(n); } else socket.send('message ' + n); };
    socket.onerror = () => fail('error'); });
  return `good=${good}/h2=${h2}/echo=${echo}`;
}
load().then((text) => fetch('/report/' + text), (error) => fetch('/report/failed/' + encodeURIComponent(error)));
</script>"""

RESOURCES = 100


class Site:
    """A server of the page, its resources and a WebSocket, and the heads that it has received."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.heads = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        stream = connection.makefile("rb")
        while line := stream.readline():
            path = line.split()[1].decode()
            fields = {}
            while (field := stream.readline().strip()):
                name, _, value = field.decode("latin-1").partition(":")
                fields[name.lower()] = value.strip()
            self.heads.append((path, fields))
            if path == "/socket":
                return self.echo(connection, stream, fields)
            if path == "/":
                text, kind = (PAGE % RESOURCES).encode(), "text/html"
            else:
                text, kind = path[1:].replace("/", " ").encode(), "text/plain"
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind.encode(), len(text)) + text)

    def echo(self, connection, stream, fields):
        key = fields["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key).digest())
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                           b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        while len(head := stream.read(2)) == 2:
            length = head[1] & 127
            if length == 126:
                length = int.from_bytes(stream.read(2), "big")
            mask = stream.read(4)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(stream.read(length)))
            connection.sendall(bytes([head[0] & 0x8F, len(data)]) + data)
            if head[0] & 15 == 8:
                connection.close()
                return


def chromium():
    """Headless Chromium loads a page of 100 resources over HTTP/2, and uses a WebSocket."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not program:
        raise Skipped("no chromium here (apt install chromium)")
    site = Site()
    with Front([site.port], "--health-interval", "off") as front:
        profile = os.path.join(front.directory, "profile")
        argv = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
                "--ignore-certificate-errors", "--no-proxy-server", "--no-first-run", front.url("/")]
        reports = lambda: [path for path, _ in site.heads if path.startswith("/report/")]
        with Program(argv) as browser:
            wait_for(reports, "the page reports", 60)
            said = reports()[0]
            expect(said == f"/report/good={RESOURCES}/h2={RESOURCES}/echo=20", f"the page says {said}: {browser.said()[-300:]}")
        made = sum(value for name, value in front.metrics("client_handshakes_total").items())
        streams = counted_plain(front, "h2_streams_total")
    site.listener.close()
    return f"{RESOURCES} resources and a WebSocket of 20 messages; {made:.0f} handshakes, {streams:.0f} streams"

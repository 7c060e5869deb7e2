"""Backends over HTTP/2, with TLS and without: nginx, nghttpd, hypercorn, node, and HPACK read by another's decoder."""
import concurrent.futures
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading

from secure import Authority
from support import Balancer, Client, Nginx, Program, Skipped, curl, expect, free_port

LARGE_MIB = 256


def load(front, path, requests, clients):
    """Runs h2load over HTTP/1.1; how many requests failed, and its summary where any did."""
    argv = ["h2load", "--h1", "-n", str(requests), "-c", str(clients), "-t1", front.url(path)]
    done = subprocess.run(argv, capture_output=True, timeout=60)
    text = done.stdout.decode()
    expect(f"{requests} succeeded" in text and f"status codes: {requests} 2xx" in text, f"h2load: {text[-600:]}")


def counted(front, family):
    """The sum of a family over all backends."""
    text = curl(front.url("/metrics")).decode()
    lines = [line for line in text.splitlines() if line.startswith((f"zzz_lb_{family}{{", f"zzz_lb_{family} "))]
    return sum(int(line.rsplit(" ", 1)[1]) for line in lines)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def nginx():
    """10,000 small bodies and ten large ones over one backend, over TLS and without."""
    if not shutil.which("openssl"):
        raise Skipped("no openssl here")
    said = []
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        authority = Authority(directory)
        for name, pair in [("TLS", authority.sign("good", "localhost")), ("h2c", None)]:
            with Nginx(tls=pair, http2=True) as backend:
                large = os.path.join(backend.www, "large")
                with open(large, "wb") as file:
                    for _ in range(LARGE_MIB):
                        file.write(os.urandom(1 << 20))
                with open(large, "rb") as file:
                    expected = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else digest(file.read())
                small = os.urandom(1024)
                with open(os.path.join(backend.www, "small"), "wb") as file:
                    file.write(small)
                spec = f"https://localhost:{backend.ports[0]}" if pair else f"h2c://127.0.0.1:{backend.ports[0]}"
                with Balancer([spec], "-w", 2, "--health-interval", "off", *(["--ca-file", authority.pem] if pair else [])) as front:
                    def some(count):
                        with Client(front.port) as client:
                            for _ in range(count):
                                status, body = client.get("/small")
                                expect(status == 200 and body == small, f"{name}: {status}, {len(body)} bytes")
                    with concurrent.futures.ThreadPoolExecutor(64) as pool:
                        for done in [pool.submit(some, 40) for _ in range(64)]:
                            done.result()
                    load(front, "/small", 10000, 64)
                    made = counted(front, "connects_total")
                    expect(made <= 4, f"{name}: {made} connections of 2 workers for 64 clients")
                    command = f"curl -sS --max-time 100 {front.url('/large')} | sha256sum"
                    with concurrent.futures.ThreadPoolExecutor(10) as pool:
                        sums = pool.map(lambda _: subprocess.check_output(["sh", "-c", command]).split()[0].decode(), range(10))
                        expect(set(sums) == {expected}, f"{name}: a large body came back another")
                    curl("-T", large, front.url("/up"))
                    with open(os.path.join(backend.www, "up"), "rb") as file:
                        expect(digest(file.read()) == expected, f"{name}: an upload arrived another")
                    peak = front.peak_kib()
                    expect(peak < 32 << 10, f"{name}: {peak} KiB at the peak")
                    expect(counted(front, "failures_total") == 0, f"{name}: failures were counted")
                    said.append(f"{name}: {made} connections for 64 clients, 10 x {LARGE_MIB} MiB down and 1 up whole, peak {peak} KiB")
    return "; ".join(said)


def goaway():
    """A backend that closes each connection after 100 requests: nobody notices."""
    said = []
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        authority = Authority(directory)
        for name, pair in [("TLS", authority.sign("good", "localhost")), ("h2c", None)]:
            with Nginx(tls=pair, http2=True, requests=100) as backend:
                spec = f"https://localhost:{backend.ports[0]}" if pair else f"h2c://127.0.0.1:{backend.ports[0]}"
                with Balancer([spec], "-w", 2, *(["--ca-file", authority.pem] if pair else [])) as front:
                    load(front, "/1k", 20000, 64)
                    made, again = counted(front, "connects_total"), counted(front, "retries_total")
                    expect(made >= 200, f"{name}: {made} connections, so that none was closed")
                    expect(counted(front, "failures_total") == 0, f"{name}: failures were counted")
                    said.append(f"{name}: 20000 requests over {made} connections, {again} asked for again")
    return "; ".join(said)


APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"):
            break
    text = body or ("HTTP/" + scope["http_version"]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text[:70000], "more_body": True})
    await send({"type": "http.response.body", "body": text[70000:]})
"""

NODE = """
const http2 = require('http2'), fs = require('fs');
const [port, table, key, cert] = process.argv.slice(2);
const settings = {headerTableSize: Number(table)};
const serve = (stream) => { const parts = []; stream.on('data', (part) => parts.push(part));
  stream.on('end', () => { const body = Buffer.concat(parts);
    stream.respond({':status': 200}); stream.end(body.length ? body : 'HTTP/2'); }); };
const server = key ? http2.createSecureServer({settings, key: fs.readFileSync(key), cert: fs.readFileSync(cert)}) : http2.createServer({settings});
server.on('stream', serve); server.listen(Number(port), '127.0.0.1');
"""


def peers():
    """Servers of other makers: small and large bodies there and back."""
    said = []
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        authority = Authority(directory)
        cert, key = authority.sign("good", "localhost")
        www = os.path.join(directory, "www")
        os.mkdir(www)
        body = os.urandom(3 << 20)
        with open(os.path.join(www, "file"), "wb") as file:
            file.write(body)
        for name, text in [("app.py", APP), ("node.js", NODE)]:
            with open(os.path.join(directory, name), "w") as file:
                file.write(text)
        port = free_port()
        bind = f"127.0.0.1:{port}"
        hypercorn = ["hypercorn", "--log-level", "error"]
        servers = [
            ("nghttpd", f"h2c://{bind}", ["nghttpd", "-a", "127.0.0.1", "--no-tls", "-d", www, str(port)], False),
            ("nghttpd TLS", f"https://localhost:{port}", ["nghttpd", "-a", "127.0.0.1", "-d", www, str(port), key, cert], False),
            ("hypercorn", f"h2c://{bind}", [*hypercorn, "-b", bind, "app:app"], True),
            ("hypercorn TLS", f"https://localhost:{port}", [*hypercorn, "-b", bind, "--certfile", cert, "--keyfile", key, "app:app"], True),
            ("node", f"h2c://{bind}", ["node", os.path.join(directory, "node.js"), str(port), "4096"], True),
            ("node without a table", f"h2c://{bind}", ["node", os.path.join(directory, "node.js"), str(port), "0"], True),
            ("node TLS", f"https://localhost:{port}", ["node", os.path.join(directory, "node.js"), str(port), "4096", key, cert], True),
            ("openssl", f"https://localhost:{port}",
             ["openssl", "s_server", "-quiet", "-WWW", "-accept", bind, "-cert", cert, "-key", key, "-alpn", "http/1.1"], False),
        ]
        for name, spec, argv, echoes in servers:
            if not shutil.which(argv[0]):
                said.append(f"{name} is not here")
                continue
            os.chdir(www if name == "openssl" else directory)
            with Program(argv) as server:
                server.wait_listening(port)
                with Balancer([spec], "--ca-file", authority.pem, "--health-interval", "off") as front:
                    if echoes:
                        expect(curl(front.url("/")) in (b"HTTP/2", b"HTTP/2.0"), f"{name}: it was not spoken to in HTTP/2")
                        answer = curl("--data-binary", f"@{www}/file", front.url("/"))
                    else:
                        answer = curl(front.url("/file"))
                    expect(digest(answer) == digest(body), f"{name}: {len(answer)} bytes came back of {len(body)}")
                    for _ in range(20):
                        expect(len(curl(front.url("/" if echoes else "/file"))) > 0, f"{name}: nothing came")
                    expect(counted(front, "failures_total") == 0, f"{name}: failures were counted: {front.said()[-300:]}")
                said.append(name)
        os.chdir("/")
    return ", ".join(said)


def hpack_elsewhere():
    """The fields that we encode, decoded by python's hpack."""
    sys.path.append("/usr/lib/python3/dist-packages")
    try:
        from hpack import Decoder
    except ImportError:
        raise Skipped("no python hpack here") from None
    seen = []

    def serve(connection):
        decoder, stream = Decoder(), connection.makefile("rb")
        stream.read(24)
        connection.sendall(struct.pack(">HBBBL", 0, 0, 4, 0, 0))
        while len(header := stream.read(9)) == 9:
            high, low, kind, flags, number = struct.unpack(">BHBBL", header)
            payload = stream.read(high << 16 | low)
            if kind == 4 and not flags & 1:
                connection.sendall(struct.pack(">HBBBL", 0, 0, 4, 1, 0))
            if kind == 1:
                seen.append(decoder.decode(payload, raw=True))
                # 204, and the end.
                connection.sendall(struct.pack(">HBBBL", 0, 1, 1, 5, number) + b"\x89")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        sent = []
        with Balancer([f"h2c://127.0.0.1:{listener.getsockname()[1]}"], "-w", 1, "--health-interval", "off") as front, \
                Client(front.port) as client:
            for n in range(2000):
                noise = os.urandom(n % 60)
                value = bytes(b for b in noise if b == 9 or b >= 32 and b != 127).strip(b" \t").decode("latin-1")
                lines = [f"x-{n % 7}: {value}", f"cookie: c={n}", "accept-encoding: gzip, deflate", f"Authorization: {n}", "user-agent: me"]
                client.send_head("GET", f"/path/{n}?q={n * n}", *lines)
                response = client.response()
                response.read()
                expect(response.status == 204, f"status {response.status}: {front.said()[-300:]}")
                sent.append((f"/path/{n}?q={n * n}", lines))
        expect(len(seen) == len(sent), f"{len(seen)} blocks of {len(sent)}")
        for (path, lines), fields in zip(sent, seen):
            told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
            expect((":path", path) in told and (":method", "GET") in told, f"{path}: {told}")
            for line in lines:
                name, value = line.split(":", 1)
                expect((name.lower(), value.strip(" \t")) in told, f"{line!r}: {told}")
    return f"{len(seen)} blocks of fields decoded to what was sent"

"""What curl sees: methods, versions, uploads, downloads and broken answers, through nginx and our own backend."""
import hashlib
import os
import tempfile
import time

from backend import pattern_sha256
from support import KIB, MIB, Backend, Balancer, Nginx, has_ipv6, curl, expect

SIZE = 8 * MIB


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def methods():
    """GET, HEAD, POST, PUT, ranges, conditions, compression and HTTP/1.0, and both backends in turn."""
    with Backend("a") as a, Backend("b") as b, Nginx() as nginx:
        with Balancer([nginx.ports[0]], "-w", 2) as front:
            expect(curl(front.url("/1k")) == b"x" * KIB, "GET /1k: another body")
            expect(curl("--http1.0", front.url("/1k")) == b"x" * KIB, "GET /1k by HTTP/1.0: another body")
            head = curl("-I", front.url("/1k"), front.url("/1k"))
            expect(head.count(b"200 OK") == 2 and head.lower().count(b"content-length: 1024") == 2, f"HEAD: {head!r}")
            write = "%{http_code} %{size_download}"
            with open(os.path.join(nginx.www, "file"), "wb") as file:
                file.write(b"0123456789" * 100)
            got = curl("-r", "10-19", "-o", "/dev/null", "-w", write, front.url("/file"))
            expect(got == b"206 10", f"a range: {got!r}")
            got = curl("-z", "Fri, 01 Jan 2100 00:00:00 GMT", "-o", "/dev/null", "-w", write, front.url("/file"))
            expect(got == b"304 0", f"not modified: {got!r}")
            got = curl("--compressed", "-D-", front.url("/1k")).lower()
            expect(b"content-encoding: gzip" in got and got.endswith(b"x" * KIB), f"gzip: {got[:300]!r}")
            got = curl("-d", "x=1", "-o", "/dev/null", "-w", write, front.url("/file")).split()[0]
            expect(got == b"405", f"POST to a file: {got!r}")
        with Balancer([a.port, b.port], "-w", 1) as front:
            got = curl("-d", "x=1&y=2", front.url("/echo"))
            expect(got == b"x=1&y=2", f"POST: {got!r}")
            got = curl("--http1.0", "-d", "x=1", front.url("/echo"))
            expect(got == b"x=1", f"POST by HTTP/1.0: {got!r}")
            got = curl("--http1.0", front.url("/chunked/100000"))
            expect(sha256(got) == pattern_sha256(100_000), "a chunked answer for an HTTP/1.0 client: another body")
            names = [line for _ in range(10) for line in curl("-D-", front.url("/fixed/0")).splitlines()
                     if line.lower().startswith(b"x-backend")]
            expect(names[:5] in ([names[0], names[1]] * 3, [names[0], names[1]] * 2 + [names[0]])
                   and len(names) == 10 and names.count(names[0]) == 5, f"round robin: {names}")
    return "GET HEAD POST PUT range 304 gzip HTTP/1.0; 10 requests alternate over 2 backends"


def transfers():
    """8 MiB up and down with curl: fixed-length, chunked, until close, and with Expect: 100-continue."""
    data = os.urandom(SIZE)
    want, times = sha256(data), []
    with tempfile.NamedTemporaryFile() as file, Backend() as backend, Nginx() as nginx:
        file.write(data)
        file.flush()
        with Balancer([nginx.ports[0]], "-w", 2) as front:
            ways = (("fixed", os.devnull, ["-T", file.name]), ("chunked", file.name, ["-T", "-"]))
            for name, source, arguments in ways:
                started = time.monotonic()
                with open(source, "rb") as stdin:
                    code = curl(*arguments, "-w", "%{http_code}", front.url(f"/up-{name}"), stdin=stdin)
                expect(code in (b"201", b"204"), f"PUT {name} to nginx: status {code!r}")
                expect(sha256(curl(front.url(f"/up-{name}"))) == want, f"PUT {name}, then GET: another SHA-256")
                times.append(time.monotonic() - started)
        with Balancer([backend.port], "-w", 2) as front:
            got = curl("-v", "--stderr", "-", "-H", "Expect: 100-continue", "--expect100-timeout", "20",
                       "-T", file.name, front.url("/hash"))
            expect(b"HTTP/1.1 100" in got, f"Expect: no 100 came: {got[-500:]!r}")
            expect(f"{want} {SIZE}".encode() in got, "Expect: another SHA-256")
            for kind in ("fixed", "chunked", "eof"):
                got = curl(front.url(f"/{kind}/{SIZE}"))
                expect(sha256(got) == pattern_sha256(SIZE), f"a download, {kind}: another SHA-256 ({len(got)} bytes)")
    return f"8 MiB up and down through nginx in {times[0]:.2f} s fixed, {times[1]:.2f} s chunked; Expect; until close"


def broken_answers():
    """A cut answer is cut for the client too; an early one ends an upload; without a backend there is a 502 or 503."""
    with tempfile.NamedTemporaryFile() as file, Backend() as backend:
        file.truncate(64 * MIB)
        status = ("-o", "/dev/null", "-w", "%{http_code}")
        with Balancer([backend.port], "-w", 1, "--connect-timeout", "1s") as front:
            curl("-o", "/dev/null", front.url(f"/cut/{SIZE}"), status=18)
            curl("-o", "/dev/null", front.url(f"/cut-chunked/{SIZE}"), status=18)
            started = time.monotonic()
            code = curl(*status, "-H", "Expect:", "-T", file.name, front.url("/early"))
            early = time.monotonic() - started
            expect(code == b"413" and early < 5, f"an early answer: status {code!r} after {early:.1f} s")
            expect(curl(*status, front.url("/fixed/1")) == b"200", "not served after those")
            backend.kill()
            started = time.monotonic()
            code = curl(*status, front.url("/fixed/1"))
            expect(code in (b"502", b"503"), f"no backend listens: status {code!r}")
            expect(time.monotonic() - started < 3, "no backend listens: the answer took over 3 s")
    return f"cut answers are curl's error 18; 413 to a 64 MiB upload after {early:.2f} s; {code.decode()} with none up"


def addresses():
    """Backends at a Unix socket and at an IPv6 address, and the next one at once where one refuses."""
    with Nginx() as nginx:
        kinds = [f"unix:{nginx.unix}"] + ([f"[::1]:{nginx.ports[0]}"] if has_ipv6() else [])
        for kind in kinds:
            with Balancer([kind], "-w", 1) as front:
                expect(curl(front.url("/1k")) == b"x" * KIB, f"through {kind}: another body")
        with Balancer(["127.0.0.1:1", nginx.ports[0]], "-w", 1) as front:
            codes = curl("-w", "%{http_code} ", *["-o", "/dev/null", front.url("/1k")] * 20).split()
            expect(codes == [b"200"] * 20, f"with a dead backend beside: {codes}")
    return f"{len(kinds) + 1} kinds of backend; 20 requests of 20 answered beside a dead one"

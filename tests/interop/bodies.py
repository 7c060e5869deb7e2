"""Bodies, and who gets them: random sizes with both directions busy, large ones in little memory, many clients."""
import concurrent.futures
import hashlib
import json
import math
import os
import random
import tempfile
import threading
import time

from support import GIB, MIB, Backend, Balancer, Client, Failure, curl, expect, pss_kib

COUNT = 1000
CLIENTS = 64
REQUESTS_PER_CLIENT = 60
MEMORY_KIB = 10 * 1024
LARGE_GIB = float(os.environ.get("INTEROP_GIB", "1"))


def random_size(rng):
    """0 B to 8 MiB, each power of two as likely as the next."""
    return int(math.exp(rng.uniform(0, math.log(8 * MIB + 1)))) - 1


def send_body(client, data, rng, chunked):
    """Sends the body in pieces of random sizes."""
    start = 0
    while start < len(data):
        piece = data[start:start + rng.randrange(1, 300_000)]
        client.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        start += len(piece)
    if chunked:
        client.sock.sendall(b"0\r\n\r\n")


def echo_one(client, seed, block):
    """Sends one random body and takes it back meanwhile; its length."""
    rng = random.Random(seed)
    size, chunked = random_size(rng), rng.random() < 0.5
    offset = rng.randrange(0, len(block) - size)
    data = memoryview(block)[offset:offset + size]
    client.send_head("POST", "/echo", "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}")
    sender = threading.Thread(target=send_body, args=(client, data, rng, chunked), daemon=True)
    sender.start()
    response = client.response("POST")
    digest = hashlib.sha256()
    while piece := response.read(256 * 1024):
        digest.update(piece)
    sender.join()
    same = digest.digest() == hashlib.sha256(data).digest()
    expect(response.status == 200 and same, f"seed {seed}, {size} bytes, chunked {chunked}: status {response.status}, "
                                            f"{'the same' if same else 'another'} SHA-256")
    return size


def random_bodies():
    """1,000 random bodies come back with the same SHA-256, both directions at once."""
    seed = random.SystemRandom().randrange(1 << 32)
    block = random.Random(seed).randbytes(9 * MIB)
    started = time.monotonic()
    with Backend("a") as a, Backend("b") as b, Balancer([a.port, b.port], "-w", 2) as front:
        def run(part):
            with Client(front.port) as client:
                return sum(echo_one(client, f"{seed}:{i}", block) for i in range(part, COUNT, 8))
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            try:
                total = sum(pool.map(run, range(8)))
            except Exception as error:
                raise Failure(f"seed {seed}: {error!r}") from error
        peak = front.peak_kib()
    took = time.monotonic() - started
    return f"{COUNT} bodies, {total / MIB:.0f} MiB each way in {took:.1f} s, peak {peak} KiB, seed {seed}"


def ask_with_id(client, number, name, rng):
    """One request that carries an id in its path, a field and its body; True where it was answered by its own."""
    path, body = f"/id/{name}/{number}", f"body of {name} {number}" + "." * rng.randrange(0, 3000)
    client.send_head("POST", path, f"X-Test-Id: {name}-{number}", f"Content-Length: {len(body)}")
    client.sock.sendall(body.encode())
    if rng.random() < 0.06:
        return None  # Gone before the answer: it must reach nobody.
    response = client.response("POST")
    text = response.read()
    expect(response.status == 200, f"{name} {number}: status {response.status} {text[:100]!r}")
    return json.loads(text) == {"path": path, "id": f"{name}-{number}", "body": body}


def own_answers():
    """64 parallel clients, some of which leave in the middle: no response reaches the wrong one."""
    told = []
    for options in (("-w", 2), ("--mode", "sp")):
        with Backend("a") as a, Backend("b") as b, Balancer([a.port, b.port], *options) as front:
            def run(name):
                rng, client, own, left = random.Random(name), Client(front.port), 0, 0
                for number in range(REQUESTS_PER_CLIENT):
                    answered = ask_with_id(client, number, name, rng)
                    expect(answered is not False, f"client {name} got an answer to another request than {number}")
                    own, left = own + (answered is True), left + (answered is None)
                    if answered is None or number % 10 == 9:
                        client.close()
                        client = Client(front.port)
                client.close()
                return own, left
            with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
                counts = list(pool.map(run, range(CLIENTS)))
            own, left = map(sum, zip(*counts))
            told.append(f"{own} own and 0 foreign answers, {left} left ({' '.join(map(str, options))})")
    return "; ".join(told)


def large_bodies():
    """A body of INTEROP_GIB (1) GiB each way, fixed-length and chunked, through a process of under 10 MiB."""
    size = int(LARGE_GIB * GIB)
    limit = str(int(60 + LARGE_GIB * 20))
    told = []
    with Backend() as backend, Balancer([backend.port], "-w", 1) as front:
        def rate(name, command):
            started = time.monotonic()
            command()
            told.append(f"{name} {size / MIB / (time.monotonic() - started):.0f} MiB/s")

        def down(kind):
            got = curl("--max-time", limit, "-o", "/dev/null", "-w", "%{size_download}", front.url(f"/{kind}/{size}"))
            expect(int(got) == size, f"{kind}: {got!r} bytes, not {size}")

        def up(arguments, **options):
            got = curl("--max-time", limit, "-H", "Expect:", *arguments, front.url("/hash"), **options)
            expect(got.split()[1] == str(size).encode(), f"up: the backend got {got!r}, not {size} bytes")

        rate("down fixed", lambda: down("fixed"))
        rate("down chunked", lambda: down("chunked"))
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(size)
            rate("up fixed", lambda: up(["-T", file.name]))
            with open(file.name, "rb") as stdin:
                rate("up chunked", lambda: up(["-T", "-"], stdin=stdin))
        peak, pss = front.peak_kib(), pss_kib(front.worker())
        expect(peak < MEMORY_KIB, f"peak resident size {peak} KiB, not under {MEMORY_KIB}")
    return f"{LARGE_GIB:g} GiB: {', '.join(told)}; peak {peak} KiB, PSS after {pss} KiB"


def stalled_ends():
    """Sixteen clients that stop reading, and sixteen backends that do: memory stays under 10 MiB."""
    with Backend() as backend, Balancer([backend.port], "-w", 1, "--response-timeout", "60s") as front:
        clients = [Client(front.port) for _ in range(32)]
        for client in clients[:16]:
            client.send_head("GET", f"/fixed/{64 * MIB}")
        for client in clients[16:]:
            client.send_head("PUT", "/stall", f"Content-Length: {64 * MIB}")
            client.sock.setblocking(False)
        data = bytes(MIB)
        accepted, end = 0, time.monotonic() + 2
        while time.monotonic() < end:
            for client in clients[16:]:
                try:
                    accepted += client.sock.send(data)
                except BlockingIOError:
                    pass
            time.sleep(0.01)
        peak = front.peak_kib()
        for client in clients:
            client.close()
        # The uploads' clients are gone, which nobody sees behind what they sent: now they can end.
        backend.kill()
        expect(peak < MEMORY_KIB, f"peak resident size {peak} KiB, not under {MEMORY_KIB}")
    return f"peak {peak} KiB with 32 stalled transfers of 64 MiB ({accepted / MIB:.0f} MiB of uploads in the kernel)"

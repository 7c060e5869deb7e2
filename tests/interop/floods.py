"""Hostile clients over HTTP/2: floods of frames end with a reason, and a hundred clients that hold memory stay bounded."""
import os
import select
import socket
import struct
import time

from support import KIB, MIB, Balancer, Nginx, curl, expect, pss_kib, wait_for

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, _, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
NO_ERROR, CANCEL, ENHANCE_YOUR_CALM = 0, 8, 11
FLOOD_GROWTH_KIB, HOARD_GROWTH_KIB = 7 * KIB, 32 * KIB
HOARDERS, STREAMS = 100, 100


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 0xff, kind, flags, stream) + payload


def number(value):
    return struct.pack(">L", value)


def head(method, path):
    fields = [(b":method", method), (b":scheme", b"http"), (b":authority", b"interop"), (b":path", path)]
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


class Hostile:
    """A connection that acknowledges SETTINGS, and notes each GOAWAY and its end."""

    def __init__(self, port, settings=b""):
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.input, self.goaways, self.ended = b"", [], False
        self.sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))
        # No frame may follow the first of a block, so the acknowledgement goes first.
        self.sock.sendall(frame(SETTINGS, 1, 0))
        self.sock.setblocking(False)

    def send(self, data):
        """Sends what the socket takes."""
        while data and not self.ended:
            try:
                data = data[self.sock.send(data):]
            except BlockingIOError:
                self.read()
                select.select([], [self.sock.fileno()] if self.sock.fileno() < 1024 else [], [], 0.01)
            except OSError:
                self.read()
                self.ended = True

    def read(self):
        while True:
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.ended = True
                return
            self.input += data
            while len(self.input) >= 9:
                size = int.from_bytes(self.input[:3], "big")
                if len(self.input) < 9 + size:
                    break
                if self.input[3] == GOAWAY:
                    self.goaways.append(struct.unpack(">L", self.input[13:17])[0])
                self.input = self.input[9 + size:]

    def close(self):
        self.sock.close()


def counted(front, series):
    text = curl(front.url("/metrics")).decode()
    return sum(int(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"zzz_lb_{series}"))


# The reason in the metrics, the frames before the flood, and a round of it.
FLOODS = [
    ("resets", b"", lambda n: frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, head(b"GET", b"/1k")) + frame(RST_STREAM, 0, 2 * n + 1, number(CANCEL))),
    ("provoked_resets", b"", lambda n: frame(HEADERS, END_HEADERS, 2 * n + 1, head(b"PUT", b"/up")) + frame(WINDOW_UPDATE, 0, 2 * n + 1, number(0))),
    ("continuation", frame(HEADERS, 0, 1, head(b"GET", b"/1k")), lambda n: frame(CONTINUATION, 0, 1, b"")),
    ("settings", b"", lambda n: frame(SETTINGS, 0, 0)),
    ("ping", b"", lambda n: frame(PING, 0, 0, bytes(8))),
    ("data", frame(HEADERS, END_HEADERS, 1, head(b"PUT", b"/up")), lambda n: frame(DATA, 0, 1)),
    ("priority", b"", lambda n: frame(PRIORITY, 0, 1, bytes(5))),
    ("window_update", b"", lambda n: frame(WINDOW_UPDATE, 0, 0, number(1))),
    ("limit", frame(HEADERS, END_HEADERS | END_STREAM, 1, head(b"GET", b"/1k") + b"\x40\x01x\x7f\xf0\x1d" + b"v" * 3951),
     lambda n: frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 3, head(b"GET", b"/1k") + b"\xbe" * 16000)),
]


def reasons():
    """Each flood ends with its reason, costs little memory, and other clients are served meanwhile."""
    said = []
    with Nginx() as nginx, Balancer(nginx.ports, "-w", 1) as front:
        curl(*[front.url("/1k")] * 3)
        before = peak = pss_kib(front.worker())
        for reason, begin, round_of in FLOODS:
            hostile = Hostile(front.port)
            hostile.send(begin)
            end, n = time.monotonic() + 5, 0
            while not hostile.ended and time.monotonic() < end:
                hostile.send(b"".join(round_of(n + k) for k in range(20)))
                hostile.read()
                n += 20
            wait_for(lambda: counted(front, f'h2_goaways_total{{reason="{reason}"}}') == 1, f"the flood {reason} is counted")
            hostile.close()
            expect(hostile.goaways[-1:] in ([], [ENHANCE_YOUR_CALM]), f"{reason}: GOAWAY {hostile.goaways}")
            expect(len(curl(front.url("/1k"))) == KIB, f"{reason}: another client is not served")
            peak = max(peak, pss_kib(front.worker()))
            said.append(f"{reason} after {n}")
    expect(peak - before <= FLOOD_GROWTH_KIB, f"the floods cost {peak - before} KiB")
    return f"{', '.join(said)} rounds; {peak - before} KiB"


def closed_windows(hostile):
    hostile.send(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
    hostile.send(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, head(b"GET", b"/large")) for n in range(STREAMS)))


def nothing_read(hostile):
    """One large response fills the connection, and small ones wait behind it."""
    hostile.send(frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff") + frame(WINDOW_UPDATE, 0, 0, number(1 << 30)))
    for n in range(STREAMS):
        hostile.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, head(b"GET", b"/large" if n < 4 else b"/1k")))


def half_a_block(hostile):
    hostile.send(frame(HEADERS, 0, 1, head(b"GET", b"/1k")) + frame(CONTINUATION, 0, 1, b"\0\1x\x7f\x81\x7f" + bytes([118]) * 16000) * 6)


def hoards():
    """A hundred clients that make the worker hold as much as they can."""
    said = []
    with Nginx() as nginx:
        with open(os.path.join(nginx.www, "large"), "wb") as file:
            file.write(os.urandom(2 * MIB))
        for hoard in (closed_windows, nothing_read, half_a_block):
            with Balancer(nginx.ports, "-w", 1, "--health-interval", "off") as front:
                curl(*[front.url("/1k")] * 3)
                worker = front.worker()
                before = peak = pss_kib(worker)
                clients = []
                for _ in range(HOARDERS):
                    clients.append(Hostile(front.port))
                    hoard(clients[-1])
                    peak = max(peak, pss_kib(worker))
                end = time.monotonic() + 2
                while time.monotonic() < end:
                    peak = max(peak, pss_kib(worker))
                    time.sleep(0.05)
                for client in clients:
                    client.close()
                expect(peak - before <= HOARD_GROWTH_KIB, f"{hoard.__name__}: {HOARDERS} clients cost {peak - before} KiB")
                said.append(f"{hoard.__name__} {peak - before} KiB")
    return f"{HOARDERS} clients: {', '.join(said)}"

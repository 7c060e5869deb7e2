"""gRPC and WebSocket with the Python programs of others: grpcio on both sides, websockets as client and server."""
import asyncio
import itertools
import os
import signal
import sys
import tempfile
import time

from backend import frame, read_frame
from support import Balancer, Program, Skipped, curl, expect, free_port, pss_kib, wait_for

MESSAGES = 40_000

# Debian's modules, for another python3 than Debian's.
sys.path.append("/usr/lib/python3/dist-packages")
PYTHON = ["env", f"PYTHONPATH={os.pathsep.join(filter(None, sys.path[1:]))}", sys.executable, "-c"]

# The server runs in a process of its own, because a check kills it.
SERVER = """
import concurrent.futures, sys, threading, grpc
from grpc import unary_unary_rpc_method_handler as unary, stream_stream_rpc_method_handler as both
from grpc import unary_stream_rpc_method_handler as answers
log = open(sys.argv[2], "a", buffering=1)

def echo(requests, context):
    for request in requests:
        yield request

def hang(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    log.write("hanging %d\\n" % (context.time_remaining() * 1000))
    ended.wait(20)
    log.write("cancelled\\n")
    return b""

def begun(request, context):
    yield b"one"
    hang(request, context)

def health(request, context):
    if request == b"":
        return b"\\x08\\x01"
    if request[2:] == b"down":
        return b"\\x08\\x02"
    context.abort(grpc.StatusCode.NOT_FOUND, "no such service")

def method(handler):
    return {"unary": unary, "both": both, "answers": answers}[handler[0]](handler[1])

class Any(grpc.GenericRpcHandler):
    def service(self, details):
        found = {
            "/t/Same": ("unary", lambda request, context: request),
            "/t/Echo": ("both", echo),
            "/t/Hang": ("unary", hang),
            "/t/Begun": ("answers", begun),
            "/grpc.health.v1.Health/Check": ("unary", health),
        }.get(details.method)
        return method(found) if found else None

server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[Any()], options=[("grpc.so_reuseport", 0)])
server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
server.wait_for_termination()
"""

WEBSOCKET = """
import asyncio, sys, websockets
async def serve(socket):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(serve, "127.0.0.1", int(sys.argv[1]), subprotocols=["b"]):
        await asyncio.Future()
asyncio.run(main())
"""


def grpcio():
    try:
        import grpc
    except ImportError:
        raise Skipped("no python grpcio here (pip install grpcio)") from None
    return grpc


def status_of(grpc, call):
    """The status with which a call fails."""
    try:
        result = call()
        list(result) if hasattr(result, "__next__") else result
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def calls():
    """grpcio on both sides: unary calls, a long stream in both directions, deadlines, and a backend that dies."""
    grpc = grpcio()
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "log")
        server = Program([*PYTHON, SERVER, str(port), log])
        with server, Balancer([f"h2c://127.0.0.1:{port}"], "-w", 1, "--health-interval", "off") as front:
            server.wait_listening(port)
            said = lambda: open(log).read() if os.path.exists(log) else ""
            with grpc.insecure_channel(f"127.0.0.1:{front.port}") as channel:
                same = channel.unary_unary("/t/Same")
                for size in [0, 1, 100_000, 3 << 20]:
                    body = os.urandom(size)
                    expect(same(body, timeout=20) == body, f"a unary call of {size} bytes")
                status = status_of(grpc, lambda: channel.unary_unary("/t/None")(b""))
                expect(status == grpc.StatusCode.UNIMPLEMENTED, f"the server's own status: {status}")
                list(itertools.islice(channel.stream_stream("/t/Echo")(iter([b"x"] * 1000)), 1000))
                before, began = pss_kib(front.worker()), time.monotonic()
                peak, count = before, 0
                answers = channel.stream_stream("/t/Echo")(b"%07d" % n + b"x" * 100 for n in range(MESSAGES))
                for answer in answers:
                    expect(int(answer[:7]) == count, f"message {answer[:7]} instead of {count}")
                    count += 1
                    if count % 5000 == 0:
                        peak = max(peak, pss_kib(front.worker()))
                took = time.monotonic() - began
                expect(count == MESSAGES, f"{count} messages of {MESSAGES}")
                grown = peak - before
                expect(grown < 4096, f"a stream of {MESSAGES} messages took {grown} KiB")
                for path, call in [("/t/Hang", channel.unary_unary), ("/t/Begun", channel.unary_stream)]:
                    before = said().count("cancelled")
                    status = status_of(grpc, lambda: call(path)(b"", timeout=0.5))
                    expect(status == grpc.StatusCode.DEADLINE_EXCEEDED, f"{path}: {status}")
                    wait_for(lambda: said().count("cancelled") > before, "the backend sees the cancellation")
                left = [int(line.split()[1]) for line in said().splitlines() if line.startswith("hanging")]
                # grpcio itself shows up to 4 ms more than its client gave, without a balancer between them.
                expect(all(0 < ms <= 510 for ms in left), f"the deadlines at the backend: {left} ms")
                for service, result in [("", "passed"), (":down", "failed"), (":none", "failed")]:
                    options = ["--health-check", f"grpc{service}", "--health-interval", "100ms"]
                    with Balancer([f"h2c://127.0.0.1:{port}"], "-w", 1, *options) as probing:
                        part = f'result="{result}"'
                        probes = lambda: sum(int(line.rsplit(" ", 1)[1]) for line in
                                             curl(probing.url("/metrics")).decode().splitlines()
                                             if line.startswith("zzz_lb_probes_total") and part in line)
                        wait_for(lambda: probes() > 2, f"probes of '{service}' have {result}")
                # The backend dies in the middle of a stream.
                begun = channel.unary_stream("/t/Begun")(b"", timeout=20)
                expect(next(begun) == b"one", "the first message")
                server.process.send_signal(signal.SIGKILL)
                status = status_of(grpc, lambda: begun)
                expect(status == grpc.StatusCode.UNAVAILABLE, f"a backend that dies in the middle: {status}")
                server.process.wait()
                status = status_of(grpc, lambda: same(b"", timeout=20))
                expect(status == grpc.StatusCode.UNAVAILABLE, f"no backend: {status}")
    return f"{MESSAGES} messages in {took:.0f} s, memory grew by {grown} KiB"


class Socket:
    """A WebSocket by the module websockets, in each of its versions: before 11 it has no client without asyncio."""

    def __init__(self, url, **options):
        import websockets
        # Later versions use the proxies of the environment.
        os.environ["no_proxy"] = "*"
        self.loop = asyncio.new_event_loop()
        self.socket = self.wait(lambda: websockets.connect(url, **options))
        self.subprotocol = self.socket.subprotocol

    def wait(self, begin):
        async def bounded():
            return await asyncio.wait_for(begin(), 10)
        return self.loop.run_until_complete(bounded())

    def send(self, message):
        self.wait(lambda: self.socket.send(message))

    def recv(self):
        return self.wait(self.socket.recv)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait(self.socket.close)
        self.loop.close()


class Stream:
    """A WebSocket over a stream of HTTP/2, by the module h2."""

    def __init__(self, port, path="/", protocol="websocket"):
        import h2.config
        import h2.connection
        import h2.events
        import socket
        self.events = h2.events
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()
        self.headers, self.data, self.ended = None, b"", False
        wait_for(lambda: self.read() or self.h2.remote_settings.enable_connect_protocol, "consent")
        self.stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(self.stream, [
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", path), (":authority", "x"),
            ("sec-websocket-version", "13"), ("sec-websocket-protocol", "a, b")])
        self.flush()
        while self.headers is None:
            self.read()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def read(self):
        for event in self.h2.receive_data(self.socket.recv(65536)):
            if isinstance(event, self.events.ResponseReceived):
                self.headers = dict(event.headers)
            elif isinstance(event, self.events.DataReceived):
                self.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (self.events.StreamEnded, self.events.StreamReset)):
                self.ended = True
        self.flush()

    def echo(self, message):
        """Sends a message and returns the payload of the next frame."""
        self.h2.send_data(self.stream, frame(2, message, b"\x01\x02\x03\x04"))
        self.flush()
        return read_frame(self)[1]

    def exactly(self, count):
        while len(self.data) < count:
            self.read()
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def end(self):
        self.h2.end_stream(self.stream)
        self.flush()
        while not self.ended:
            self.read()
        self.socket.close()


def websocket_pairs():
    """WebSocket in all four pairs of versions, with the modules websockets and h2 as clients."""
    try:
        import h2.connection  # noqa: F401
        import websockets  # noqa: F401
    except ImportError:
        raise Skipped("no python websockets or h2 here (apt install python3-websockets python3-h2)") from None
    said, port = [], free_port()
    with Program([*PYTHON, WEBSOCKET, str(port)]) as server:
        server.wait_listening(port)
        with Balancer([port], "-w", 1, "--health-interval", "off") as inner:
            # The inner balancer is a backend over HTTP/2 that accepts extended CONNECT.
            with Balancer([f"h2c://127.0.0.1:{inner.port}"], "-w", 1, "--health-interval", "off") as outer:
                for name, front in [("h1", inner), ("h2", outer)]:
                    with Socket(f"ws://127.0.0.1:{front.port}/x", subprotocols=["a", "b"]) as client:
                        expect(client.subprotocol == "b", f"{name}: subprotocol {client.subprotocol}")
                        for size in [0, 5, 70_000, 300_000]:
                            body = os.urandom(size)
                            client.send(body)
                            expect(client.recv() == body, f"h1 to {name}: {size} bytes")
                    client = Stream(front.port)
                    expect(client.headers[":status"] == "200", f"h2 to {name}: {client.headers}")
                    expect(client.headers.get("sec-websocket-protocol") == "b", f"h2 to {name}: {client.headers}")
                    for size in [0, 5, 120]:
                        body = os.urandom(size)
                        expect(client.echo(body) == body, f"h2 to {name}: {size} bytes")
                    client.end()
                    said += [f"h1 to {name}", f"h2 to {name}"]
                refused = Stream(inner.port, protocol="connect-udp")
                expect(refused.headers[":status"] == "501", f"another protocol: {refused.headers}")
    return ", ".join(said)

"""Upgraded connections: WebSocket, a refused upgrade, and tunnels that close one side at a time."""
import base64
import hashlib
import json
import os
import random
import socket

from backend import WEBSOCKET_GUID, Stream, frame, read_frame
from support import MIB, Backend, Balancer, Client, expect, wait_for

FRAMES = 200


def switch(front, protocol, *lines):
    """A client whose connection has been switched to `protocol`, its reading side, and the 101's fields."""
    client = Client(front.port)
    client.send_head("GET", "/upgrade", "Connection: Upgrade", f"Upgrade: {protocol}", *lines)
    stream = Stream(client.sock)
    status = stream.line()
    expect(status.startswith(b"HTTP/1.1 101"), f"{protocol}: {status!r}")
    fields = {}
    while line := stream.line():
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    expect(fields.get(b"upgrade") == protocol.encode(), f"{protocol}: the 101 says {fields}")
    return client, stream, fields


def websocket():
    """A handshake, frames of every length form both ways, ping, and the closing handshake."""
    rng, total = random.Random(7), 0
    with Backend() as backend, Balancer([backend.port], "-w", 1) as front:
        key = base64.b64encode(os.urandom(16))
        lines = ("Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key.decode()}")
        client, stream, fields = switch(front, "websocket", *lines)
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())
        expect(fields.get(b"sec-websocket-accept") == accept, f"handshake: {fields}")
        expect(read_frame(stream) == (1, b"welcome"), "the frame that came with the 101 is lost")
        for number in range(FRAMES):
            opcode = rng.choice((1, 2, 9))
            sizes = (0, 1, 125, 126, 65535, 65536, rng.randrange(200_000))
            size = rng.randrange(126) if opcode == 9 else rng.choice(sizes)
            payload = rng.randbytes(size)
            client.sock.sendall(frame(opcode, payload, rng.randbytes(4)))
            echoed = read_frame(stream) == (10 if opcode == 9 else opcode, payload)
            expect(echoed, f"frame {number}, {size} bytes: not echoed")
            total += size
        client.sock.sendall(frame(8, b"\x03\xe8bye", os.urandom(4)))
        expect(read_frame(stream) == (8, b"\x03\xe8bye"), "the close frame is not answered")
        expect(client.sock.recv(1) == b"", "the connection stays open after the closing handshake")
        client.close()
        refused = refused_upgrade(front)
    return f"{FRAMES} frames, {total} bytes each way, close; a refused upgrade leaves {refused} requests served"


def refused_upgrade(front):
    """A backend that does not switch: its answer comes, and the connection serves on."""
    with Client(front.port) as client:
        status, body = client.get("/upgrade", "Connection: Upgrade", "Upgrade: unknown")
        expect((status, body) == (200, b"no upgrade\n"), f"a refused upgrade: {status} {body!r}")
        status, body = client.get("/fixed/10")
        expect(status == 200 and len(body) == 10, f"after a refused upgrade: {status}")
    return 2


def half_close():
    """Either end may close its side of a tunnel, and the other side goes on."""
    data = os.urandom(4 * MIB)
    want = hashlib.sha256(data).hexdigest()
    with Backend() as backend, Balancer([backend.port], "-w", 1) as front:
        client, stream, _ = switch(front, "collect")
        client.sock.sendall(data)
        client.sock.shutdown(socket.SHUT_WR)
        got = b"".join(stream.rest()).decode()
        expect(got == f"{want} {len(data)}", f"the client's side closed first: {got!r}")
        client.close()

        client, stream, _ = switch(front, "greet")
        got = b"".join(stream.rest())
        expect(got == b"greetings", f"the backend's side closed first: {got!r}")
        client.sock.sendall(data)
        client.close()
        with Client(front.port) as asker:
            wait_for(lambda: json.loads(asker.get("/recorded")[1]).get("length") is not None, "the tunnel ends")
            got = json.loads(asker.get("/recorded")[1])
        expect(got == {"sha256": want, "length": len(data)}, f"after the backend's side closed it got {got}")
    return "4 MiB after either side's end, whole"

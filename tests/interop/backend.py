#!/usr/bin/env python3
"""An HTTP/1.1 backend for the interop checks: `backend.py PORT NAME`. One thread a connection.

It streams: an echoed body goes back while it is still arriving, so both directions are busy at
once. What it answers:

  /echo            the request's body, framed as the request was
  /hash            the SHA-256 and the length of the request's body
  /id/ANYTHING     the path, X-Test-Id and body of the request, after a moment, as JSON
  /fixed/N         N bytes of a known pattern with Content-Length
  /chunked/N       the same, chunked
  /eof/N           the same, ended by closing
  /cut/N           the same with Content-Length, closed half-way
  /cut-chunked/N   the same chunked, closed half-way
  /early           413 before the body is read, which is then thrown away
  /stall           reads nothing of the body for ten seconds
  /upgrade         WebSocket; or, as Upgrade asks, `collect` or `greet` (half-closed tunnels)
  /recorded        the SHA-256 and length of what the last `greet` tunnel received
"""
import base64
import hashlib
import json
import random
import socket
import sys
import threading
import time

BLOCK = random.Random(1).randbytes(1 << 20)
READ_BYTES = 256 * 1024
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

recorded = {}


def pattern(length):
    """The bytes that /fixed, /chunked and /eof send, in pieces."""
    while length > 0:
        piece = BLOCK[:length]
        yield piece
        length -= len(piece)


def pattern_sha256(length):
    digest = hashlib.sha256()
    for piece in pattern(length):
        digest.update(piece)
    return digest.hexdigest()


class Closed(Exception):
    """The peer is gone."""


class Stream:
    """Buffered reading from a socket."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def fill(self):
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise Closed
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def pieces(self, length):
        """The next `length` bytes, as they arrive."""
        while length > 0:
            if not self.buffer:
                self.fill()
            piece, self.buffer = self.buffer[:length], self.buffer[length:]
            length -= len(piece)
            yield piece

    def exactly(self, length):
        return b"".join(self.pieces(length))

    def rest(self):
        """Everything until the peer ends its side."""
        try:
            while True:
                if not self.buffer:
                    self.fill()
                piece, self.buffer = self.buffer, b""
                yield piece
        except Closed:
            return


class Request:
    """One request's head, and its body as an iterator."""

    def __init__(self, stream):
        self.stream = stream
        self.method, self.path, self.version = stream.line().decode("latin-1").split(" ", 2)
        self.fields = {}
        while line := stream.line():
            name, _, value = line.decode("latin-1").partition(":")
            self.fields[name.lower()] = value.strip()
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.length = int(self.fields.get("content-length", 0))
        self.body_read = False

    def body(self):
        self.body_read = True
        if self.fields.get("expect", "").lower() == "100-continue":
            self.stream.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.chunked:
            yield from self.stream.pieces(self.length)
            return
        while size := int(self.stream.line().split(b";")[0], 16):
            yield from self.stream.pieces(size)
            if self.stream.line() != b"":
                raise Closed
        while self.stream.line():
            pass


class Connection:
    def __init__(self, sock, name):
        self.sock, self.name = sock, name
        self.stream = Stream(sock)

    def serve(self):
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep = True
            while keep:
                request = Request(self.stream)
                keep = self.answer(request) is not False
                if keep and not request.body_read:
                    for _ in request.body():
                        pass
        except (Closed, OSError):
            pass
        finally:
            self.sock.close()

    def head(self, status, *lines):
        fields = "".join(f"{line}\r\n" for line in (*lines, f"X-Backend: {self.name}"))
        self.sock.sendall(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode("latin-1"))

    def whole(self, body, status="200 OK", content_type="text/plain"):
        self.head(status, f"Content-Type: {content_type}", f"Content-Length: {len(body)}")
        self.sock.sendall(body)

    def chunks(self, pieces):
        for piece in pieces:
            self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))

    def answer(self, request):
        """Answers one request; False where the connection ends with it."""
        route, _, rest = request.path.partition("?")[0].lstrip("/").partition("/")
        method = getattr(self, "answer_" + route.replace("-", "_"), None)
        if method is None:
            return self.whole(b"no such path\n", "404 Not Found")
        return method(request, rest)

    def answer_echo(self, request, _rest):
        if request.chunked:
            self.head("200 OK", "Transfer-Encoding: chunked")
            self.chunks(request.body())
            self.sock.sendall(b"0\r\n\r\n")
        else:
            self.head("200 OK", f"Content-Length: {request.length}")
            for piece in request.body():
                self.sock.sendall(piece)

    def answer_hash(self, request, _rest):
        digest, length = hashlib.sha256(), 0
        for piece in request.body():
            digest.update(piece)
            length += len(piece)
        self.whole(f"{digest.hexdigest()} {length}".encode())

    def answer_id(self, request, _rest):
        body = b"".join(request.body())
        account = {"path": request.path, "id": request.fields.get("x-test-id"), "body": body.decode("latin-1")}
        text = json.dumps(account).encode()
        time.sleep(random.random() * 0.004)
        if random.random() < 0.5:
            self.whole(text, content_type="application/json")
        else:
            self.head("200 OK", "Transfer-Encoding: chunked")
            self.chunks([text[:7], text[7:]])
            self.sock.sendall(b"0\r\n\r\n")

    def answer_fixed(self, request, rest):
        self.head("200 OK", f"Content-Length: {rest}")
        if request.method != "HEAD":
            for piece in pattern(int(rest)):
                self.sock.sendall(piece)

    def answer_chunked(self, _request, rest):
        self.head("200 OK", "Transfer-Encoding: chunked")
        self.chunks(pattern(int(rest)))
        self.sock.sendall(b"0\r\n\r\n")

    def answer_eof(self, _request, rest):
        self.head("200 OK", "Connection: close")
        for piece in pattern(int(rest)):
            self.sock.sendall(piece)
        return False

    def answer_cut(self, _request, rest):
        self.head("200 OK", f"Content-Length: {rest}")
        for piece in pattern(int(rest) // 2):
            self.sock.sendall(piece)
        return False

    def answer_cut_chunked(self, _request, rest):
        self.head("200 OK", "Transfer-Encoding: chunked")
        self.chunks(pattern(int(rest) // 2))
        return False

    def answer_early(self, request, _rest):
        self.whole(b"too large\n", "413 Content Too Large")
        for _ in request.body():
            pass

    def answer_stall(self, request, _rest):
        time.sleep(10)
        return False

    def answer_recorded(self, _request, _rest):
        self.whole(json.dumps(recorded).encode())

    def answer_upgrade(self, request, _rest):
        protocol = request.fields.get("upgrade", "").lower()
        if protocol == "websocket":
            self.websocket(request)
        elif protocol == "collect":
            self.switch("collect")
            digest, length = self.collect()
            self.sock.sendall(f"{digest} {length}".encode())
        elif protocol == "greet":
            self.switch("greet")
            self.sock.sendall(b"greetings")
            self.sock.shutdown(socket.SHUT_WR)
            recorded["sha256"], recorded["length"] = self.collect()
        else:
            return self.whole(b"no upgrade\n")
        return False

    def switch(self, protocol, *lines):
        self.head("101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {protocol}", *lines)

    def collect(self):
        digest, length = hashlib.sha256(), 0
        for piece in self.stream.rest():
            digest.update(piece)
            length += len(piece)
        return digest.hexdigest(), length

    def websocket(self, request):
        """RFC 6455: greets at once, then echoes text and binary frames, answers pings and the close."""
        key = request.fields["sec-websocket-key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest()).decode()
        head = (f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\nX-Backend: {self.name}\r\n\r\n").encode()
        # The first frame shares a segment with the 101.
        self.sock.sendall(head + frame(1, b"welcome"))
        while True:
            opcode, payload = read_frame(self.stream)
            if opcode == 8:
                self.sock.sendall(frame(8, payload))
                return
            self.sock.sendall(frame(10 if opcode == 9 else opcode, payload))


def frame(opcode, payload, mask=None):
    """One final WebSocket frame (RFC 6455, 5.2), masked where `mask` has four bytes."""
    bit = 0x80 if mask else 0
    length = len(payload)
    if length < 126:
        head = bytes([0x80 | opcode, bit | length])
    elif length < 65536:
        head = bytes([0x80 | opcode, bit | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, bit | 127]) + length.to_bytes(8, "big")
    return head + mask + masked(payload, mask) if mask else head + payload


def masked(payload, mask):
    if not payload:
        return payload
    key = (mask * (len(payload) // 4 + 1))[:len(payload)]
    whole = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return whole.to_bytes(len(payload), "big")


def read_frame(stream):
    """The next frame's opcode and unmasked payload."""
    first, second = stream.exactly(2)
    length = second & 0x7F
    if length >= 126:
        length = int.from_bytes(stream.exactly(2 if length == 126 else 8), "big")
    mask = stream.exactly(4) if second & 0x80 else None
    payload = stream.exactly(length)
    return first & 0x0F, masked(payload, mask) if mask else payload


def main():
    port, name = int(sys.argv[1]), sys.argv[2]
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=Connection(sock, name).serve, daemon=True).start()


if __name__ == "__main__":
    main()

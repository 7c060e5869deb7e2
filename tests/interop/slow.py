#!/usr/bin/env python3
"""Slow clients: `slow.py PORT COUNT SECONDS`. Each sends one byte of a request head a second.

A client that is answered or closed comes back at once, so that COUNT are always there. Ends
with a line of JSON: answers by status, closes without an answer, and the least and greatest age
in seconds, from connecting to the answer.
"""
import json
import selectors
import socket
import sys
import time

HEAD = b"GET / HTTP/1.1\r\nHost: slow\r\nX-Slow: " + b"a" * 1000
# Clients take turns in groups this many to a second, so that no burst of theirs is measured for a stall of the balancer.
SLOTS = 500


class Client:
    def __init__(self, port):
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(("127.0.0.1", port))
        self.born = time.monotonic()
        self.sent = 0

    def send_byte(self):
        try:
            self.sent += self.sock.send(HEAD[self.sent:self.sent + 1])
        except OSError:
            pass  # Not connected yet, or closed: reading will tell.


class Crowd:
    def __init__(self, port, count):
        self.port, self.count = port, count
        self.selector = selectors.DefaultSelector()
        self.slots = [set() for _ in range(SLOTS)]
        self.statuses, self.ages, self.silent = {}, [], 0

    def add(self, slot):
        client = Client(self.port)
        self.selector.register(client.sock, selectors.EVENT_READ, (client, slot))
        self.slots[slot].add(client)
        client.send_byte()

    def take(self, client, slot):
        try:
            data = client.sock.recv(4096)
        except OSError:
            data = b""
        if data:
            status = data.split(b" ", 2)[1].decode("latin-1")
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.ages.append(time.monotonic() - client.born)
        else:
            self.silent += 1
        self.selector.unregister(client.sock)
        client.sock.close()
        self.slots[slot].discard(client)
        self.add(slot)

    def run(self, seconds):
        start = time.monotonic()
        turn = 0
        while (now := time.monotonic()) < start + seconds:
            due = start + turn / SLOTS
            if now >= due:
                slot = turn % SLOTS
                if turn < SLOTS:
                    for _ in range(self.count // SLOTS):
                        self.add(slot)
                else:
                    for client in self.slots[slot]:
                        client.send_byte()
                turn += 1
                continue
            for key, _ in self.selector.select(due - now):
                self.take(*key.data)


def main():
    port, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    crowd = Crowd(port, count)
    crowd.run(seconds)
    print(json.dumps({"statuses": crowd.statuses, "silent": crowd.silent,
                      "age_min": min(crowd.ages, default=None), "age_max": max(crowd.ages, default=None)}))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Slow clients: `slow.py PORT COUNT SECONDS`. Each sends one byte of a request head a second.

They come one by one over the first RAMP_S seconds, and one that is answered or closed comes back at once, so
that COUNT are always there from then on, and their bytes, answers and returns are spread evenly. Ends
with a line of JSON: answers by status, closes without an answer, and the age in seconds from
connecting to the answer: the least and the median.

`slow.py --answer PORT SECONDS` is what they are compared with: it reads what comes, and answers 408
SECONDS after a client has connected.

Both stand behind whatever else the machine does, so that they disturb it as little as such clients would
from elsewhere.
"""
import collections
import json
import os
import selectors
import socket
import sys
import time

HEAD = b"GET / HTTP/1.1\r\nHost: slow\r\nX-Slow: " + b"a" * 1000
# Clients take turns in groups this many to a second, so that no burst of theirs is measured for a stall of
# the balancer. A selector waits for whole milliseconds.
SLOTS = 1000
RAMP_S = 5
NICE = 5


class Client:
    def __init__(self, port):
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.born = time.monotonic()
        self.sock.connect_ex(("127.0.0.1", port))
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
        turn = added = 0
        while (now := time.monotonic()) < start + seconds:
            due = start + turn / SLOTS
            if now >= due:
                slot = turn % SLOTS
                for client in self.slots[slot]:
                    client.send_byte()
                turn += 1
                while added < min(self.count, self.count * turn // (SLOTS * RAMP_S)):
                    self.add(slot)
                    added += 1
                continue
            for key, _ in self.selector.select(due - now):
                self.take(*key.data)


def answer(port, seconds):
    """Answers 408 to each client when its time is up, and never before."""
    selector, waiting = selectors.DefaultSelector(), collections.deque()
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in selector.select(pause):
            if key.fileobj is listener:
                sock, _ = listener.accept()
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ)
                waiting.append((time.monotonic() + seconds, sock))
            else:
                try:
                    gone = not key.fileobj.recv(4096)
                except OSError:
                    gone = True
                if gone:
                    selector.unregister(key.fileobj)
        while waiting and waiting[0][0] <= time.monotonic():
            sock = waiting.popleft()[1]
            try:
                sock.send(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                selector.unregister(sock)
            except (OSError, KeyError):
                pass
            sock.close()


def main():
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if sys.argv[1] == "--answer":
        return answer(int(sys.argv[2]), float(sys.argv[3]))
    port, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    crowd = Crowd(port, count)
    crowd.run(seconds)
    ages = sorted(crowd.ages)
    print(json.dumps({"statuses": crowd.statuses, "silent": crowd.silent, "age_min": ages[0] if ages else None,
                      "age_median": ages[len(ages) // 2] if ages else None}))


if __name__ == "__main__":
    main()

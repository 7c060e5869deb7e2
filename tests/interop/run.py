#!/usr/bin/env python3
"""Runs the release binary against curl, nginx, wrk and clients of our own: `run.py [CHECK…]`.

All on loopback and free ports, each check in bounded time; a line for each with its numbers.
Exit 0 where all passed or had to be skipped, else 1. `make interop ONLY=NAME` runs one.

  INTEROP_BINARY   the program to run (target/release/load_balancer)
  INTEROP_GIB      the size of a large body in GiB (1)
"""
import os
import resource
import shutil
import signal
import sys
import time
import traceback

import bodies
import calls
import changes
import floods
import footprint
import front
import goaways
import identity
import load
import messages
import multiplex
import secure
import tunnels
import upgrades
from support import BINARY, Failure, Skipped

# Name, check, and the seconds after which it has failed.
CHECKS = [
    ("chroot", footprint.chroot, 30),
    ("start", footprint.start, 30),
    ("memory", footprint.memory, 30),
    ("methods", messages.methods, 30),
    ("transfers", messages.transfers, 60),
    ("broken-answers", messages.broken_answers, 30),
    ("addresses", messages.addresses, 30),
    ("random-bodies", bodies.random_bodies, 90),
    ("own-answers", bodies.own_answers, 90),
    ("large-bodies", bodies.large_bodies, 120 + 60 * bodies.LARGE_GIB),
    ("stalled-ends", bodies.stalled_ends, 30),
    ("websocket", tunnels.websocket, 30),
    ("websocket-pairs", calls.websocket_pairs, 60),
    ("grpc", calls.calls, 120),
    ("half-close", tunnels.half_close, 30),
    ("wrk", load.wrk_has_no_errors, 30),
    ("idle-close", load.idle_backend_closes, 60),
    ("slow-clients", load.slow_clients, 330),
    ("slow-default", load.slow_clients_by_default, 60),
    ("system-calls", load.system_calls, 30),
    ("headers-in", identity.headers_in, 30),
    ("headers-out", identity.headers_out, 60),
    ("tls-backends", secure.tls_backends, 60),
    ("http2-nginx", multiplex.nginx, 120),
    ("http2-goaway", multiplex.goaway, 60),
    ("goaway-uploads", goaways.uploads, 60),
    ("goaway-clients", goaways.clients, 60),
    ("http2-peers", multiplex.peers, 60),
    ("http2-floods", floods.reasons, 60),
    ("http2-hoards", floods.hoards, 60),
    ("hpack", multiplex.hpack_elsewhere, 30),
    ("front-curl", front.curl_versions, 60),
    ("front-nghttp2", front.nghttp2, 60),
    ("front-openssl", front.s_client, 60),
    ("front-chain", front.chain, 60),
    ("front-grpc", front.grpc_tls, 60),
    ("front-websocket", front.websocket_tls, 30),
    ("front-node", front.node, 60),
    ("front-chromium", front.chromium, 120),
    ("shares", changes.shares, 60),
    ("reloads", changes.reloads, 150),
    ("backend-dies", changes.backend_dies, 60),
    ("names-move", changes.names_move, 60),
    ("true-numbers", changes.true_numbers, 90),
    ("promtool", changes.promtool, 30),
    ("upgrades", upgrades.load, 120),
    ("process-1", upgrades.process_1, 60),
    ("thousand", changes.thousand_backends, 60),
]


def out_of_time(*_):
    raise Failure("it takes too long")


def run(name, check, seconds):
    """Runs one check and prints its line; False where it failed."""
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        result, text = "ok", check()
    except Skipped as reason:
        result, text = "skip", str(reason)
    except Failure as reason:
        result, text = "FAIL", str(reason)
    except Exception as error:
        traceback.print_exc()
        result, text = "FAIL", f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"{result:4}  {name:15} {text}  [{time.monotonic() - started:.1f} s]", flush=True)
    return result != "FAIL"


def main():
    wanted = sys.argv[1:]
    known = [name for name, _, _ in CHECKS]
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"run.py: no check named {' '.join(unknown)}; there are: {' '.join(known)}")
    if missing := [tool for tool in ("curl", "nginx", "wrk") if not shutil.which(tool)]:
        sys.exit(f"run.py: not installed: {' '.join(missing)}; `make interop` installs them")
    if not os.access(BINARY, os.X_OK):
        sys.exit(f"run.py: {BINARY} is not there; `make build` makes it")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGALRM, out_of_time)
    started = time.monotonic()
    checks = [row for row in CHECKS if not wanted or row[0] in wanted]
    failed = [row[0] for row in checks if not run(*row)]
    print(f"interop: {'failed: ' + ' '.join(failed) if failed else 'passed'} in {time.monotonic() - started:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

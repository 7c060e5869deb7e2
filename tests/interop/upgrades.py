"""Upgrades in place under other programs' clients, and as process 1 of a container of one file."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from changes import metrics, total
from support import BINARY, Backend, Balancer, Nginx, Program, Skipped, Wrk, curl, expect, free_port, proc_kib, wait_for

EVERY = 0.3
SECONDS = 9
# By how much the last of many programs may be larger than the first.
DESCRIPTORS_MORE, KIB_MORE = 2, 256


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def load():
    """wrk, with kept connections and with one for each request, while the program is upgraded again and again."""
    story = []
    for options in (["-w", "2"], ["--mode", "sp"]):
        for name, header in (("keep-alive", []), ("close", ["-H", "Connection: close"])):
            with Nginx(2) as nginx, Balancer(nginx.ports, *options) as front:
                pid, runs, processes, upgrades = front.process.pid, [], len(front.pids()), 0
                def upgrade():
                    nonlocal upgrades
                    upgrades += 1
                    os.kill(pid, signal.SIGUSR2)
                    wait_for(lambda: total(metrics(front.port), "upgrade_generation") == upgrades, f"upgrade {upgrades}")

                def size():
                    """Descriptors and KiB of the process that stays, upgraded while there is no load."""
                    upgrade()
                    wait_for(lambda: len(front.pids()) == processes, "the workers of before end")
                    return descriptors(pid), proc_kib(pid, "status", "VmRSS")

                first = size()
                wrk = threading.Thread(
                    target=lambda: runs.append(Wrk(front.url("/1k"), "-t2", "-c32", *header, seconds=SECONDS)))
                wrk.start()
                while wrk.is_alive():
                    upgrade()
                    time.sleep(EVERY)
                wrk.join()
                run, last = runs[0], size()
                generation = total(metrics(front.port), "upgrade_generation")
            where = f"{' '.join(options)}, {name}"
            expect(run.errors == 0, f"{where}: {run.errors} of {run.requests} failed over {upgrades} upgrades")
            expect(generation == upgrades and upgrades >= 10, f"{where}: generation {generation} after {upgrades}")
            expect(last[0] <= first[0] + DESCRIPTORS_MORE and last[1] <= first[1] + KIB_MORE,
                   f"{where}: {first} descriptors and KiB after the first upgrade, {last} after {upgrades}")
            story.append(f"{where}: {run.requests} requests over {upgrades} upgrades")
    return "; ".join(story) + "; none failed"


def process_1():
    """As process 1 of a PID and mount namespace with one file and its configuration: start, reload, upgrade, drain."""
    if os.getuid() != 0 or not shutil.which("unshare"):
        raise Skipped("needs root and unshare")
    done = subprocess.run(["unshare", "--pid", "--mount", "--fork", "true"], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"no namespaces: {done.stderr.strip()}")
    for options in (["-w", "2"], ["--mode", "sp"]):
        with tempfile.TemporaryDirectory(prefix="interop-pid1-") as root, Backend("a") as a, Backend("b") as b:
            os.chmod(root, 0o755)
            shutil.copy(BINARY, os.path.join(root, "load_balancer"))
            os.mkdir(os.path.join(root, "etc"))
            port = free_port()

            def configure(backend):
                with open(os.path.join(root, "etc", "fresh"), "w") as file:
                    json.dump({"backends": [f"127.0.0.1:{backend.port}"], "port": port}, file)
                os.rename(os.path.join(root, "etc", "fresh"), os.path.join(root, "etc", "lb.json"))

            def served():
                head = subprocess.run(["curl", "-sS", "-i", f"http://127.0.0.1:{port}/echo"], capture_output=True)
                return next((line.split()[1] for line in head.stdout.decode("latin-1").splitlines()
                             if line.lower().startswith("x-backend:")), head.stderr)

            configure(a)
            argv = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "chroot", root, "/load_balancer",
                    "-c", "/etc/lb.json", "--drain-timeout", "3s", *options]
            with Program(argv) as program:
                program.wait_listening(port)
                with open(f"/proc/{program.process.pid}/task/{program.process.pid}/children") as children:
                    inner = int(children.read().split()[0])
                expect(served() == "a", f"{options}: a backend is not reached")
                configure(b)
                wait_for(lambda: served() == "b", f"{options}: the reload")
                for generation in range(1, 4):
                    os.kill(inner, signal.SIGUSR2)
                    wait_for(lambda: f"(generation {generation})" in program.said(), f"{options}: upgrade {generation}")
                    expect(served() == "b", f"{options}: not served after upgrade {generation}")
                os.kill(inner, signal.SIGTERM)
                status = program.process.wait(10)
                expect(status == 0, f"{options}: exit status {status}: {program.said()[-500:]}")
                expect("pid 1)" in program.said(), f"{options}: it was not process 1: {program.said()[:300]}")
    return "start, reload, 3 upgrades and drain, with 2 workers and in one process"

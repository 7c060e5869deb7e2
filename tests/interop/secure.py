"""Backends that speak TLS: nginx with certificates by openssl, good and bad ones."""
import concurrent.futures
import hashlib
import os
import shutil
import subprocess
import tempfile

from support import Balancer, Client, Nginx, Skipped, Wrk, curl, expect, wait_for

BODY_MIB = 64


def openssl(*arguments, cwd):
    done = subprocess.run(["openssl", *arguments], cwd=cwd, capture_output=True)
    expect(done.returncode == 0, f"openssl {arguments[0]}: {done.stderr.decode()[-300:]}")


class Authority:
    """A certificate authority in a directory, and what it signs."""

    def __init__(self, directory, name="ca"):
        self.directory, self.name = directory, name
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
                f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", cwd=directory)
        self.pem = os.path.join(directory, f"{name}.pem")

    def sign(self, name, host, days="20"):
        with open(os.path.join(self.directory, f"{name}.ext"), "w") as file:
            file.write(f"subjectAltName=DNS:{host}")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", f"{name}.key", "-out",
                f"{name}.csr", cwd=self.directory)
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key",
                "-CAcreateserial", "-days", days, "-extfile", f"{name}.ext", "-out", f"{name}.pem", cwd=self.directory)
        return (os.path.join(self.directory, f"{name}.pem"), os.path.join(self.directory, f"{name}.key"))


def get(front, path):
    with Client(front.port) as client:
        return client.get(path)


def tls_backends():
    """Bodies over TLS are whole, connections and sessions are used again, and bad certificates are told by name."""
    if not shutil.which("openssl"):
        raise Skipped("no openssl here")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        authority, stranger = Authority(directory), Authority(directory, "stranger")
        good = authority.sign("good", "localhost")
        with Nginx(tls=good) as nginx:
            port = nginx.ports[0]
            roots = ["--ca-file", authority.pem, "-w", 2]
            body = os.urandom(BODY_MIB << 20)
            with open(os.path.join(nginx.www, "large"), "wb") as file:
                file.write(body)
            digest = hashlib.sha256(body).hexdigest()
            with Balancer([f"https://localhost:{port}"], *roots) as front:
                with concurrent.futures.ThreadPoolExecutor(4) as pool:
                    for down in [pool.submit(curl, front.url("/large")) for _ in range(4)]:
                        expect(hashlib.sha256(down.result()).hexdigest() == digest, "a body came back another")
                curl("-T", os.path.join(nginx.www, "large"), front.url("/up"))
                with open(os.path.join(nginx.www, "up"), "rb") as file:
                    expect(hashlib.sha256(file.read()).hexdigest() == digest, "an upload arrived another")
                load = Wrk(front.url("/1k"), "-t1", "-c64", seconds=3)
                expect(load.errors == 0, f"{load.errors} of {load.requests} requests failed")
                peak = front.peak_kib()
            with Balancer([f"https://localhost:{port}"], "-k") as front:
                expect(get(front, "/1k")[0] == 200, "with -k any certificate is taken")
        told = []
        cases = [("unknown issuer", stranger.sign("unknown", "localhost")), ("another name", authority.sign("other", "other.test")),
                 ("expired", authority.sign("old", "localhost", "-1"))]
        for words, pair in cases:
            with Nginx(tls=pair) as nginx, Balancer([f"https://localhost:{nginx.ports[0]}"], *roots) as front:
                status, text = get(front, "/1k")
                expect(status == 502 and b"certificate" in text, f"{words}: {status} {text}")
                # The log has the cause. The answer may be here before its line is written.
                wait_for(lambda: words in front.said(), f"the log says {words}")
                told.append(words)
        with Nginx() as nginx, Balancer([f"https://localhost:{nginx.ports[0]}"], *roots) as front:
            status, text = get(front, "/1k")
            expect(status == 502, f"plain HTTP in place of TLS: {status} {text}")
            wait_for(lambda: "not TLS" in front.said(), "the log says not TLS")
    return (f"4 x {BODY_MIB} MiB down and 1 up whole, {load.requests} small ones in 3 s, none failed, peak {peak} KiB; "
            f"refused: {', '.join(told)}, not TLS")

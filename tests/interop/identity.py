"""PROXY headers in both directions: HAProxy in front of the balancer, and HAProxy and nginx behind it."""
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile

from secure import Authority
from support import Balancer, Program, Skipped, curl, expect, free_port, wait_for

# Addresses of clients that differ from those of the programs between them and the last one.
CLIENTS = ["127.0.0.5", "127.0.0.6"]

HAPROXY = """
global
  maxconn 200
defaults
  timeout connect 5s
  timeout client 20s
  timeout server 20s
{sections}
"""

# A frontend that tells the source of the connection as it knows it, and the client in the fields.
TELLS = """
frontend tells_{name}
  mode http
  bind 127.0.0.1:{port} {options}
  http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port] %[dst]:%[dst_port] [%[req.hdr(x-forwarded-for)]]"
"""

# A frontend that passes bytes on to a server, behind a PROXY header.
PASSES = """
listen passes_{name}
  mode tcp
  bind 127.0.0.1:{port}
  server balancer 127.0.0.1:{to} {options}
"""

NGINX = """
daemon off; pid {d}/pid; error_log {d}/error.log warn; worker_processes 1; {user}
events {{ worker_connections 200; }}
http {{
  access_log off;
  client_body_temp_path {d}/t1; proxy_temp_path {d}/t2; fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4;
  scgi_temp_path {d}/t5; ssl_certificate {pair[0]}; ssl_certificate_key {pair[1]};
  server {{
    {listen}
    location / {{ return 200 "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port [$http_x_forwarded_for]"; }}
  }}
}}
"""


def haproxy(directory, sections, ports):
    config = os.path.join(directory, "haproxy.cfg")
    with open(config, "w") as file:
        file.write(HAPROXY.format(sections="".join(sections)))
    program = Program(["haproxy", "-db", "-f", config])
    for port in ports:
        program.wait_listening(port)
    return program


def needs(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skipped(f"no {program} here")


def client(source, port, context=None):
    """A connection from an address, and its own name."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.sock = socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0))
    name = "{}:{}".format(*connection.sock.getsockname())
    if context:
        connection.sock = context.wrap_socket(connection.sock, server_hostname="localhost")
    return connection, name


def said(connection, host="localhost"):
    connection.request("GET", "/", headers={"Host": host})
    response = connection.getresponse()
    text = response.read().decode()
    expect(response.status == 200, f"{response.status}: {text[:200]}")
    return text


def headers_in():
    """HAProxy sends headers of both versions, with a checksum too, before plain text and before TLS."""
    needs("haproxy", "openssl")
    with tempfile.TemporaryDirectory() as directory:
        authority = Authority(directory)
        pair = authority.sign("good", "localhost")
        context = ssl.create_default_context(cafile=authority.pem)
        tells, plain, secure = free_port(), free_port(), free_port()
        ways = [("v1", plain, "send-proxy"), ("v2", plain, "send-proxy-v2"),
                ("sum", plain, "send-proxy-v2 proxy-v2-options crc32c,unique-id"),
                ("tls1", secure, "send-proxy"), ("tls2", secure, "send-proxy-v2 proxy-v2-options crc32c")]
        ways = [(name, free_port(), to, options) for name, to, options in ways]
        sections = [PASSES.format(name=name, port=port, to=to, options=options) for name, port, to, options in ways]
        sections.append(TELLS.format(name="all", port=tells, options=""))
        options = ["--listen", f"127.0.0.1:{plain},proxy", "--listen", f"127.0.0.1:{secure},tls,proxy",
                   "--tls-cert", pair[0], "--tls-key", pair[1], "--trust", "127.0.0.1", "--health-interval", "off"]
        with haproxy(directory, sections, [tells]), Balancer([tells], *options) as front:
            for name, port, to, _ in ways:
                for source in CLIENTS:
                    connection, _ = client(source, port, context if to == secure else None)
                    for _ in range(2):
                        text = said(connection)
                        expect(text.endswith(f"[{source}]"), f"{name}: {source} is {text}")
                    connection.close()
            # An HTTP/2 client behind a header.
            text = curl("--http2-prior-knowledge", "--interface", CLIENTS[0], f"http://127.0.0.1:{ways[1][1]}/").decode()
            expect(text.endswith(f"[{CLIENTS[0]}]"), f"h2c: {text}")
            metrics = curl("--cacert", authority.pem, "--resolve", f"localhost:{front.port}:127.0.0.1", f"https://localhost:{front.port}/metrics").decode()
            failures = [line for line in metrics.splitlines() if line.startswith("zzz_lb_proxy_header_failures_total{")]
            expect(all(line.endswith(" 0") for line in failures), f"failures: {failures}")
    return f"{len(ways)} ways of sending headers, {len(CLIENTS)} clients over each"


def headers_out():
    """HAProxy and nginx read our headers, over HTTP/1.1 and HTTP/2, with TLS and without."""
    needs("haproxy", "nginx", "nghttp", "openssl")
    told = 0
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        authority = Authority(directory)
        pair = authority.sign("good", "localhost")
        both = os.path.join(directory, "both.pem")
        with open(both, "w") as file:
            file.write(open(pair[0]).read() + open(pair[1]).read())
        binds = [("h1", "accept-proxy", ""), ("h2c", "accept-proxy proto h2", "h2c://"),
                 ("h1s", f"accept-proxy ssl crt {both}", "https://"),
                 ("h2s", f"accept-proxy ssl crt {both} alpn h2", "https://")]
        binds = [(name, free_port(), options, scheme) for name, options, scheme in binds]
        listens = [(free_port(), "proxy_protocol", ""), (free_port(), "proxy_protocol http2", "h2c://"),
                   (free_port(), "proxy_protocol ssl", "https://"), (free_port(), "proxy_protocol ssl http2", "https://")]
        config = os.path.join(directory, "nginx.conf")
        with open(config, "w") as file:
            listen = " ".join(f"listen 127.0.0.1:{port} {options};" for port, options, _ in listens)
            user = "user root;" if os.getuid() == 0 else ""
            file.write(NGINX.format(d=directory, pair=pair, listen=listen, user=user))
        sections = [TELLS.format(name=name, port=port, options=options) for name, port, options, _ in binds]
        specs = [(f"haproxy {name}", f"{scheme}localhost:{port}") for name, port, _, scheme in binds]
        specs += [(f"nginx {options}", f"{scheme}localhost:{port}") for port, options, scheme in listens]
        with haproxy(directory, sections, [port for _, port, *_ in binds]), Program(["nginx", "-c", config]) as nginx:
            nginx.wait_listening(listens[0][0])
            hosts = [f"h{at}.test" for at in range(len(specs))]
            for version in ("v1", "v2"):
                options = ["--send-proxy", version, "--ca-file", authority.pem, "--health-interval", "100ms", "-w", 1]
                backends = [f"{spec},for={host}" for (_, spec), host in zip(specs, hosts)]
                with Balancer(backends, *options) as front:
                    pairs = [client(source, front.port) for source in CLIENTS]
                    for (name, _), host in zip(specs, hosts):
                        for connection, own in pairs * 3:
                            text = said(connection, host)
                            expected = f"{own} 127.0.0.1:{front.port} [{own.split(':')[0]}]"
                            expect(text == expected, f"{name} {version}: {text}, not {expected}")
                            told += 1
                        # The streams of an HTTP/2 client have one address.
                        argv = ["nghttp", "-m", "5", "-H", f":authority: {host}", front.url("/")]
                        streams = subprocess.run(argv, capture_output=True, text=True, timeout=10)
                        sources = re.findall(r"([\d.]+:\d+) [\d.]+:\d+ \[", streams.stdout)
                        expect(len(sources) == 5 and len(set(sources)) == 1, f"{name} {version}: streams came from {sources}")

                    def passed():
                        metrics = curl(front.url("/metrics")).decode().splitlines()
                        probes = [line for line in metrics if line.startswith("zzz_lb_probes_total{")]
                        failed = [line for line in probes if 'result="failed"' in line and not line.endswith(" 0")]
                        expect(not failed, f"{version}: {failed}")
                        return all(line.endswith(" 0") == ('result="failed"' in line) for line in probes)
                    wait_for(passed, f"{version}: all probes pass")
    return f"{told} requests over {2 * len(specs)} ways had the address of their client"

"""Web servers that hand out a folder of static files: nginx as the docs set it up, and Python's own."""

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.docs.blocks import DOCS

from fedperfit.protocol.system.processes import wait_until

LOG = "access.log"
"""File of nginx's log: status, bytes that came and bytes that went of each request."""
_BLOCK = re.compile(r"^```nginx\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CONFIG = """
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
{user}events {{ worker_connections 2048; }}
http {{
    log_format bytes '$status $request_length $bytes_sent';
    access_log {log} bytes;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
{server}}}
"""


def nginx_program() -> str | None:
    """Where nginx is, if it is installed."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def nginx(files: Path, folder: Path) -> Iterator[str]:
    """Serve files by the server that docs/deployment.md shows; its web address."""
    program = nginx_program()
    assert program is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (server,) = _BLOCK.findall((DOCS / "deployment.md").read_text(encoding="utf-8"))
    for shown, ours in (("listen 8080", f"listen 127.0.0.1:{port}"), ("root /srv/releases", f"root {files}")):
        assert shown in server
        server = server.replace(shown, ours)
    folder.mkdir(parents=True, exist_ok=True)
    user = "user root;\n" if os.getuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(user=user, log=folder / LOG, server=server))
    command = [program, "-c", str(config), "-p", str(folder), "-g", "daemon off;"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert wait_until(lambda: process.poll() is not None or _listens(port), 20)
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def python_server(files: Path) -> Iterator[str]:
    """Serve files by `http.server`; its web address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(files)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

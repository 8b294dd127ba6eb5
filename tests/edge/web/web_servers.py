"""The owner's web server over a real agent, on a free port."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from fedperfit.edge.web.app import SERVER, build
from fedperfit.edge.web.hosts import LOOPBACK
from fedperfit.protocol.system.flower import free_ports

TOKEN = "a-token-for-tests"


@contextmanager
def web(folder: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """The server's address."""
    (port,) = free_ports(1)
    app = build(folder, TOKEN, hosts=LOOPBACK)
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, **SERVER))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()

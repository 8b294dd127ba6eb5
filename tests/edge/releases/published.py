"""What a cloud publishes, served by a TLS server of the test's own."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fedperfit.protocol.trust.certificates import issue, new_authority
from fedperfit.protocol.trust.pointer import Pointer
from fedperfit.protocol.trust.published import (
    POINTER_FILE,
    MirrorAddress,
    mirrored_file,
    parse_mirror,
    release_file,
)
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey

Answer = Callable[[BaseHTTPRequestHandler], None]


class Cloud:
    """Files by name, under a certificate of an authority of its own."""

    folder = "/releases/"

    def __init__(self, folder: Path) -> None:
        authority = new_authority("cloud")
        server = issue(authority, ["127.0.0.1"])
        self.authority = folder / "ca.crt"
        self.authority.write_bytes(authority.certificate)
        (folder / "server.pem").write_bytes(server.key + server.certificate)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem")
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.headers: list[list[tuple[str, str]]] = []
        """Headers of each request."""
        self.marks: dict[str, str] = {}
        """Headers of each answer."""
        self.answer: Answer | None = None
        """How it answers in place of handing out files."""
        self.address = ""
        self.lasting = False
        """Whether connections last from one request to the next."""
        self.connections: list[tuple[str, int]] = []
        """Peer of each request."""

    def publish(
        self, release: Release | None, key: SigningKey, *, revoked: tuple[int, ...] = (), **how: object
    ) -> Pointer:
        """Put a release and a new pointer to it in place."""
        data = release.to_bytes() if release is not None else b""
        if release is not None:
            self.files[self.file(release)] = data
        rotations = release.rotations if release is not None else ()
        pointer = Pointer.signed(release, key, size=len(data), revoked=revoked, rotations=rotations, **how)  # type: ignore[arg-type]
        self.files[POINTER_FILE] = pointer.to_bytes()
        return pointer

    def file(self, release: Release) -> str:
        """Name of a release's file."""
        return release_file(release.version)

    def listen(self, server: ThreadingHTTPServer) -> None:
        """Take connections of the kind that it is asked by."""
        server.socket = self._context.wrap_socket(server.socket, server_side=True)

    @contextmanager
    def up(self) -> Iterator["Cloud"]:
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if cloud.lasting else "HTTP/1.0"

            def do_GET(self) -> None:
                cloud.asked.append(self.path)
                cloud.connections.append(self.client_address)
                cloud.headers.append(self.headers.items())
                if cloud.answer is not None:
                    return cloud.answer(self)
                data = cloud.files.get(self.path.removeprefix(cloud.folder))
                self.send_response(200 if data is not None else 404)
                for name, value in cloud.marks.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.listen(server)
        self.address = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class Mirror(Cloud):
    """Files by name, over http, as a web server hands them out."""

    folder = "/our/mirror/"

    @property
    def place(self) -> MirrorAddress:
        """Where it is, as edges are told."""
        return parse_mirror(f"http://{self.address}{self.folder}")

    def file(self, release: Release) -> str:
        """Name of a release's file."""
        return mirrored_file(release.version, release.digest)

    def listen(self, server: ThreadingHTTPServer) -> None:
        """Take connections as they are."""

"""The fetcher of a joined edge: its command and its sandbox.

The agent talks to no network. What fetches releases for it is a program of its own, in a sandbox like the
SuperNode's, in which there are the certificate of the cloud's authority, the way to the cloud, and the socket
on which the agent takes what was fetched: nothing of the person's, and no key. Where the owner agreed to a
mirror, the fetcher alone has a way there too.
"""

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedperfit.edge.deployment.home import Home, cloud_address, read_settings
from fedperfit.edge.sandbox import CLOUD_PORT, MIRROR_PORT
from fedperfit.edge.sandbox.confinement import SHOWN, confined
from fedperfit.edge.sandbox.traffic import Traffic
from fedperfit.edge.sandbox.uplink import SOCKET, Uplink
from fedperfit.edge.vault.keys import PASSPHRASE_VARIABLE
from fedperfit.protocol.system.errors import MalformedFileError
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.system.flower import environment
from fedperfit.protocol.system.processes import Child, Children
from fedperfit.protocol.trust.published import parse_mirror

_AUTHORITY, _FEED, _AUTHORITIES = "ca.crt", "feed", "authorities"


@dataclass(frozen=True)
class FetcherProgram:
    """What runs the fetcher for a person's folder, beside the SuperNode and by its way to the cloud."""

    home: Home
    """Folder of the person."""
    unconfined: bool
    """Whether it runs outside of the sandbox."""

    @property
    def shown(self) -> dict[str, Path]:
        """All of the person's folder that it sees, by the name it has in the sandbox."""
        shown = {_AUTHORITY: self.home.node / _AUTHORITY, _FEED: self.home.feed}
        authorities = _authorities()
        if self.mirror and authorities is not None:
            shown[_AUTHORITIES] = authorities
        return shown

    @property
    def mirror(self) -> str:
        """Web address of the mirror that the owner agreed to; empty for none.

        The agent has verified the policy; a mirror is trusted with nothing, whoever named it.

        Raises:
            MalformedFileError: The file of the policy is none.
        """
        if not self.home.policy.exists():
            return ""
        try:
            mirror: str = read_json(self.home.policy)["policy"].get("mirror", "")
            if mirror:
                parse_mirror(mirror)
            return mirror
        except (AttributeError, KeyError, TypeError):
            raise MalformedFileError(f"{self.home.policy}: not a signed policy") from None

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Keep the way to the mirror open, where there is one."""
        if not self.mirror or self.unconfined:
            yield
            return
        address = parse_mirror(self.mirror).address
        with Traffic(self.home.traffic) as traffic, Uplink(self.home.mirror, address, traffic.count):
            yield

    def start(self, children: Children) -> Child:
        """Start it.

        Args:
            children: Holder of the process.

        Raises:
            InputError: If the system cannot confine it.
        """
        command, variables = self.command(), {}
        if self.unconfined:
            variables = environment(self.home.node / "flower")
            variables.pop(PASSPHRASE_VARIABLE, None)
        else:
            mirror = self.home.mirror / SOCKET if self.mirror else None
            command = confined(command, shown=self.shown, uplink=self.home.uplink / SOCKET, mirror=mirror)
        log = self.home.folder / "fetcher.log"
        return children.start(
            *("fetcher", command),
            log=log,
            environment=variables,
            piped=True,
            sandboxed=not self.unconfined,
        )

    def command(self) -> list[str]:
        """Return the command that runs it."""
        if self.unconfined:
            address = cloud_address(self.home)
            authority, feed = (self.home.node / _AUTHORITY).absolute(), self.home.feed.absolute()
        else:
            address = f"127.0.0.1:{CLOUD_PORT}"
            authority, feed = SHOWN / _AUTHORITY, SHOWN / _FEED
        paths: tuple[Path, Path] = (authority, feed)
        seconds = read_settings(self.home).fetch_seconds
        module = "fedperfit.edge.fetcher_app"
        command = [sys.executable, "-P", "-m", module, address, *map(str, paths), str(seconds)]
        return [*command, *self._mirror()]

    def _mirror(self) -> list[str]:
        """Return the options that tell the fetcher of the mirror."""
        mirror, authorities = self.mirror, _authorities()
        if not mirror:
            return []
        options = ["--mirror", mirror]
        if not self.unconfined:
            options += ["--way", f"127.0.0.1:{MIRROR_PORT}"]
            authorities = authorities and SHOWN / _AUTHORITIES
        return [*options, *(["--authorities", str(authorities)] if authorities else [])]


def _authorities() -> Path | None:
    """Return the file or folder of those that the system trusts to name web servers; None for none."""
    paths = ssl.get_default_verify_paths()
    found = paths.cafile or paths.capath
    return Path(found) if found else None

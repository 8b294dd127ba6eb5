"""The fetcher of a joined edge: its command and its sandbox.

The agent talks to no network. What fetches releases for it is a program of its own, in a sandbox like the
SuperNode's, in which there are the certificate of the cloud's authority, the way to the cloud, and the socket
on which the agent takes what was fetched: nothing of the person's, and no key.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from fedperfit.edge.deployment.home import Home, read_settings
from fedperfit.edge.sandbox import CLOUD_PORT
from fedperfit.edge.sandbox.confinement import SHOWN, confined
from fedperfit.edge.sandbox.uplink import SOCKET
from fedperfit.edge.vault.keys import PASSPHRASE_VARIABLE
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.system.flower import environment
from fedperfit.protocol.system.processes import Child, Children

_AUTHORITY, _FEED = "ca.crt", "feed"


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
        return {_AUTHORITY: self.home.node / _AUTHORITY, _FEED: self.home.feed}

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
            command = confined(command, shown=self.shown, uplink=self.home.uplink / SOCKET)
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
            address: str = read_json(self.home.node / "address.json")["address"]
            authority, feed = (self.home.node / _AUTHORITY).absolute(), self.home.feed.absolute()
        else:
            address = f"127.0.0.1:{CLOUD_PORT}"
            authority, feed = SHOWN / _AUTHORITY, SHOWN / _FEED
        paths: tuple[Path, Path] = (authority, feed)
        seconds = read_settings(self.home).fetch_seconds
        module = "fedperfit.edge.fetcher_app"
        return [sys.executable, "-P", "-m", module, address, *map(str, paths), str(seconds)]

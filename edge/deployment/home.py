"""A person's own folder at a deployed edge: what stands where, and the agent's settings.

client.json      who they are and where their history is (fedperfit.edge.agent.history)
agent.json       the base model, the cloud's release key, how the vault's key is kept
node/            what the SuperNode needs: enrolment, certificates, its log
bridge/          the socket for the SuperNode's ClientApp
owner/           the socket and the token for the owner
vault/           sealed: personal shifts, learned items
releases/        verified releases
sent.jsonl       every message that left this machine
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json


@dataclass(frozen=True)
class Home:
    """The paths in a person's folder."""

    folder: Path

    @property
    def bridge(self) -> Path:
        """All that the SuperNode's ClientApp may reach."""
        return self.folder / "bridge"

    @property
    def owner(self) -> Path:
        """The owner's alone."""
        return self.folder / "owner"

    @property
    def node(self) -> Path:
        """The SuperNode's own."""
        return self.folder / "node"

    @property
    def releases(self) -> Path:
        """The release store."""
        return self.folder / "releases"

    @property
    def sent(self) -> Path:
        """The log of what left this machine."""
        return self.folder / "sent.jsonl"


@dataclass(frozen=True)
class AgentSettings:
    """What an agent is started with; `agent.json`."""

    base_model: str
    """Folder, hub name, or `embedded`."""
    release_key: str
    """The cloud's public key: 64 hexadecimal digits."""
    key: str = "file"
    """How the vault's key is kept: file, passphrase or keyring."""
    device: str = "auto"
    dtype: str = "auto"
    cache_gib: float = -1.0
    """GiB kept of what the base model makes of items; -1 is a quarter of the memory."""
    encoder: str = ""
    """Sentence encoder (folder or hub name) that selects items for the group's directions; empty: the base
    model."""
    tcp: bool = False
    """Serve on the loopback with mutual TLS in place of Unix sockets, as systems without them must."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.release_key):
            raise InputError("release-key: expected 64 hexadecimal digits")

    def write(self, home: Home) -> None:
        """Keep them in `home`."""
        fields = {name.replace("_", "-"): value for name, value in asdict(self).items()}
        write_json(home.folder / "agent.json", fields)


def read_settings(home: Home) -> AgentSettings:
    """The settings in `home`; raises InputError when they are missing or malformed."""
    path = home.folder / "agent.json"
    if not path.exists():
        raise InputError(f"{home.folder}: not a joined edge (no agent.json); see fedperfit-edge join")
    fields = read_json(path)
    kinds = {name: field.type for name, field in AgentSettings.__dataclass_fields__.items()}
    try:
        values = {key.replace("-", "_"): value for key, value in fields.items()}
        for name, value in values.items():
            if type(value) is not kinds[name]:
                raise TypeError(name)
        return AgentSettings(**values)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: {error.args[0] if error.args else 'not an object'} is wrong") from None

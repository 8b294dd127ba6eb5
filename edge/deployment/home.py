"""Layout of a person's own folder at a deployed edge, and the agent's settings in it.

client.json      who they are and where their history is (fedperfit.edge.agent.history)
consent.json     whether the cloud is answered, and which kinds of request are refused
agent.json       the base model, the cloud's release key, how the vault's key is kept
node/            what the SuperNode needs: enrolment, certificates, its key, the programs it starts
bridge/          the socket for the SuperNode's ClientApp
feed/            the socket on which the agent takes fetched releases
uplink/          the socket that leads SuperNode and fetcher to the cloud
mirror/          the socket that leads the fetcher to the mirror of releases, where there is one
owner/           the socket and the token for the owner
vault/           sealed: personal shifts, learned items, imported history
releases/        verified releases, and the cloud's latest word on which is in force
policy.json      what the owner agreed that the cloud may ask, signed (fedperfit.protocol.trust.policy)
authorities.json the cloud's last word on its authorities (fedperfit.edge.enrolment.trusting)
guard.json       requests admitted today, and the items that contributions are made of
sums.key         the private keys for secure sums (fedperfit.edge.sums.party)
sums-answered/   a file for each round in which the machine told a sum as member of a committee
sums-lists/      a file for each release under which it did, with who was in the sums
update.basis     the basis that the cloud's rounds are in, where they have one, as it was sent
audit/           every request, and every message that left this machine (fedperfit.edge.audit)
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from typing_extensions import TypedDict

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.fields import (
    BaseModelName,
    CacheSize,
    Device,
    Encoder,
    ModelType,
    ProcessMemory,
)
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json

if TYPE_CHECKING:
    from fedperfit.protocol.model.base_model import BaseModelCard


@dataclass(frozen=True)
class Home:
    """Paths in a person's folder."""

    folder: Path
    """The folder itself, which only its owner may enter."""

    @property
    def bridge(self) -> Path:
        """Folder of the endpoint for the SuperNode's ClientApp, the only one it may reach."""
        return self.folder / "bridge"

    @property
    def owner(self) -> Path:
        """Folder of the endpoint and the token for the owner alone."""
        return self.folder / "owner"

    @property
    def node(self) -> Path:
        """Folder of the SuperNode: enrolment, certificates, log."""
        return self.folder / "node"

    @property
    def feed(self) -> Path:
        """Folder of the endpoint for the fetcher, the only one it may reach."""
        return self.folder / "feed"

    @property
    def asking(self) -> Path:
        """Folder of the socket by which this machine itself asks the cloud, while it does."""
        return self.folder / "asking"

    @property
    def uplink(self) -> Path:
        """The socket that leads SuperNode and fetcher to the cloud."""
        return self.folder / "uplink"

    @property
    def mirror(self) -> Path:
        """Folder of the socket that leads the fetcher to the mirror of releases."""
        return self.folder / "mirror"

    @property
    def supernode_log(self) -> Path:
        """The SuperNode's log, in a folder that it does not see."""
        return self.folder / "supernode.log"

    @property
    def releases(self) -> Path:
        """Folder of the verified releases."""
        return self.folder / "releases"

    @property
    def vault_key(self) -> Path:
        """File with the vault's key, or where it is; absent before the vault holds anything."""
        return self.folder / "vault" / "vault.key"

    @property
    def audit(self) -> Path:
        """Folder of the log of requests, and of messages that left this machine."""
        return self.folder / "audit"

    @property
    def traffic(self) -> Path:
        """File of the bytes that passed between the sandbox and the cloud, by day."""
        return self.folder / "traffic.json"

    @property
    def enrolment(self) -> Path:
        """File with the digest of the invitation, written once the cloud has registered the node's key."""
        return self.node / "enrolment.sha256"

    @property
    def invitation(self) -> Path:
        """File with the digest of the invitation that the node's key was made for."""
        return self.node / "invitation.sha256"

    @property
    def node_key(self) -> Path:
        """File of the private key that the node authenticates with."""
        return self.node / "node.key"

    @property
    def authority(self) -> Path:
        """File of the authorities that vouch for the cloud, PEM."""
        return self.node / "ca.crt"

    @property
    def authorities(self) -> Path:
        """File of the cloud's last word on its authorities; absent before the first."""
        return self.folder / "authorities.json"

    @property
    def policy(self) -> Path:
        """File of the policy that the owner agreed to."""
        return self.folder / "policy.json"

    @property
    def guard(self) -> Path:
        """File of what the guard remembers."""
        return self.folder / "guard.json"

    @property
    def sent(self) -> Path:
        """File in which earlier versions recorded what left this machine; only read."""
        return self.folder / "sent.jsonl"


_OTHER_MODEL = r"^([0-9a-f]{64})?\z"


class AgentSettings(Settings):
    """What an agent is started with; `agent.json`."""

    base_model: BaseModelName
    release_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z"), Unit("64 hexadecimal digits")]
    """Public key of the cloud that signs its releases."""
    key: Annotated[
        str, Field(pattern=r"^(file|passphrase|keyring)\z"), Unit("file, passphrase or keyring")
    ] = "file"
    """How the vault's key is kept."""
    device: Device = "auto"
    dtype: ModelType = "auto"
    cache_gib: CacheSize = -1.0
    memory_gib: ProcessMemory = 0.0
    encoder: Encoder = ""
    fetch_seconds: Annotated[float, Field(ge=2, le=86_400), Unit("seconds")] = 30.0
    """Time between two looks for a new release, about."""
    tcp: bool = False
    """Serve on the loopback with mutual TLS in place of Unix sockets, as systems without them must."""
    stored_model: Annotated[str, Field(pattern=_OTHER_MODEL), Unit("SHA-256")] = ""
    """Fingerprint of the base model as this machine stores it, where that is not the cloud's precision."""
    federation_model: Annotated[str, Field(pattern=_OTHER_MODEL), Unit("SHA-256")] = ""
    """Fingerprint by which the cloud knows that model."""

    def known(self, card: "BaseModelCard") -> "BaseModelCard":
        """Return the base model's card with the fingerprint by which the cloud knows the model.

        Args:
            card: The model as stored here; one that was not compared with the cloud's stays as it is.
        """
        if card.fingerprint == self.stored_model:
            return replace(card, fingerprint=self.federation_model)
        return card

    def write(self, home: Home) -> None:
        """Keep them in `home`."""
        write_json(home.folder / "agent.json", self.to_flat())


class _Client(TypedDict):
    name: str


class _Address(TypedDict):
    address: str


def client_name(home: Home) -> str:
    """Read the name by which the cloud knows the person; raises InputError where its file is no such."""
    return read_form(home.folder / "client.json", _Client)["name"]


def cloud_address(home: Home) -> str:
    """Read where the cloud is reached, host:port; raises InputError where its file is missing or no such."""
    return read_form(_address_file(home), _Address)["address"]


def write_address(home: Home, address: str) -> None:
    """Keep where the cloud is reached.

    Args:
        home: The person's folder.
        address: Name and port, host:port.
    """
    write_json(_address_file(home), {"address": address})


def _address_file(home: Home) -> Path:
    return home.node / "address.json"


def read_settings(home: Home) -> AgentSettings:
    """The settings in `home`.

    Raises:
        InputError: They are missing or malformed.
    """
    path = home.folder / "agent.json"
    if not path.exists():
        raise InputError(f"{home.folder}: not a joined edge (no agent.json); see fedperfit-edge join")
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: not an object")
    try:
        return AgentSettings.from_flat(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None

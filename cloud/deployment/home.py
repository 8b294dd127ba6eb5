"""The cloud's own folder: its layout and its settings.

cloud.toml       the federation, and the address of the cloud
tls/             certificate authority, and the server's certificate
signing.pem      the key that signs releases (fedperfit.cloud.deployment.release_store)
releases/        the chain of releases
nodes/           enrolled nodes: name, Flower's id, public key
flower/          Flower's state: connection, SuperLink's database
proxy/           generated configuration of the reverse proxy
logs/            output of SuperLink and proxy
runs/            one folder per run
"""

import json
import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.system.flower import environment
from fedperfit.protocol.trust.certificates import issue, new_authority
from fedperfit.protocol.trust.signing import SigningKey

CLOUD_KEY = "cloud-dir"
"""Key of the run's configuration that holds the cloud's folder."""
CONNECTION = "cloud"
"""Name of the SuperLink in Flower's configuration."""


@dataclass(frozen=True, kw_only=True)
class CloudSettings(JobSettings):
    """A deployment; the keys of cloud.toml are these names with hyphens."""

    deadline_seconds: float = 3600.0
    """How long a round waits for replies."""
    clients: int
    """A run begins when so many are connected."""
    connect_seconds: float = 300.0
    """How long it waits for them."""
    host: str
    """Where edges reach the cloud: a name or an address."""
    port: int
    """Of the reverse proxy."""
    superlink_port: int
    """Of the SuperLink behind it, on the loopback only."""
    lifetime_days: int = 90
    """How long a release is valid."""
    max_body_mib: int = 16
    """Largest request let through to the SuperLink."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clients", "lifetime_days", "max_body_mib"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("port", "superlink_port"):
            if not 1 <= getattr(self, name) <= 65535:
                raise InputError(f"{name}={getattr(self, name)}: not a port")
        if self.port == self.superlink_port:
            raise InputError(f"port={self.port}: the proxy and the SuperLink need ports of their own")


@dataclass(frozen=True)
class CloudHome:
    """The paths in a cloud's folder."""

    folder: Path
    """Folder that `init` made."""

    @property
    def tls(self) -> Path:
        """Folder of the certificates and their keys."""
        return self.folder / "tls"

    @property
    def flower(self) -> Path:
        """Folder of Flower's state, its FLWR_HOME."""
        return self.folder / "flower"

    @property
    def logs(self) -> Path:
        """Folder of the logs of SuperLink and proxy."""
        return self.folder / "logs"

    @property
    def runs(self) -> Path:
        """Folder that holds one folder per run."""
        return self.folder / "runs"

    def node(self, name: str) -> Path:
        """Return the file that records the enrolled node called `name`."""
        return self.folder / "nodes" / f"{name}.json"

    def environment(self) -> dict[str, str]:
        """Return the environment variables for Flower's programs."""
        return environment(self.flower)


def init(home: CloudHome, preset: str, values: dict[str, object]) -> CloudSettings:
    """Make a cloud's folder: settings, certificates, signing key.

    Args:
        home: Folder to make.
        preset: Name or file of the preset that the settings start from.
        values: Settings that replace the preset's, by key.

    Raises:
        InputError: If the folder holds a cloud already, or a setting is wrong.
    """
    path = home.folder / "cloud.toml"
    if path.exists():
        raise InputError(f"{home.folder}: already holds a cloud")
    known = {field.name.replace("_", "-") for field in fields(CloudSettings)}
    chosen = {key: value for key, value in read_preset(preset).items() if key in known}
    settings = CloudSettings.from_flat(chosen | values)
    home.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = new_authority("fedperfit")
    hosts = list(dict.fromkeys([settings.host, "127.0.0.1", "localhost"]))
    server = issue(authority, hosts)
    for name, content in (
        ("ca.crt", authority.certificate),
        ("ca.key", authority.key),
        ("server.crt", server.certificate),
        ("server.key", server.key),
    ):
        write_atomic(home.tls / name, content)
    SigningKey().write(home.folder / "signing.pem")
    write_atomic(home.flower / "config.toml", _flower_config(home, settings).encode())
    write_atomic(path, _toml(settings).encode())
    return settings


def read_cloud(home: CloudHome) -> CloudSettings:
    """Read the settings of a cloud.

    Raises:
        InputError: If they are missing or malformed.
    """
    path = home.folder / "cloud.toml"
    try:
        return CloudSettings.from_flat(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{home.folder}: no cloud here (no cloud.toml); see fedperfit-cloud init") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path}: {error}") from None


def _flower_config(home: CloudHome, settings: CloudSettings) -> str:
    return "\n".join(
        [
            "[superlink]",
            f'default = "{CONNECTION}"',
            "",
            f"[superlink.{CONNECTION}]",
            f'address = "127.0.0.1:{settings.superlink_port}"',
            f"root-certificates = {json.dumps(str((home.tls / 'ca.crt').absolute()))}",
            "",
        ]
    )


def _toml(settings: CloudSettings) -> str:
    """Write out every setting, those with a default after those without."""
    ordered = sorted(fields(settings), key=lambda field: field.default is not MISSING)
    values = settings.to_flat()
    lines = ["# fedperfit-cloud up FOLDER", "# Read anew by every `up`, `enroll` and `run`."]
    lines += [f"{key} = {json.dumps(values[key])}" for key in (f.name.replace("_", "-") for f in ordered)]
    return "\n".join(lines) + "\n"

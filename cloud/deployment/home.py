"""The cloud's own folder: its layout and its settings.

cloud.toml       the federation, and the address of the cloud
tls/             the server's certificate and its authority (see `certificate_authority`)
signing.pem      the key that signs releases (fedperfit.cloud.deployment.release_store)
releases/        the chain of releases, and the pointer to the one in force
policy.json      what edges are asked to agree to (fedperfit.cloud.enrolment.policy)
invitations/     who is invited, and which key came (fedperfit.cloud.enrolment.invitations)
nodes/           enrolled nodes: name, Flower's id, public key
flower/          Flower's state: connection, its secrets, SuperLink's database
signer/          the signer's socket (fedperfit.cloud.deployment.signer)
registrar/       the registrar's socket (fedperfit.cloud.enrolment.registrar)
proxy/           generated configuration of the reverse proxy
logs/            output of SuperLink, SuperExec, signer, registrar and proxy
runs/            one folder per run
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedperfit.cloud.deployment.place import check_place
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.settings.describe import described
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import from_home, private_folder, toml_value, toml_values, write_atomic
from fedperfit.protocol.system.flower import environment
from fedperfit.protocol.trust.certificates import Certificate, issue, new_authority
from fedperfit.protocol.trust.signing import SigningKey

CLOUD_KEY = "cloud-dir"
"""Key of the run's configuration that holds the cloud's folder."""
CONNECTION = "cloud"
"""Name of the SuperLink in Flower's configuration."""
REGISTRAR_SOCKET = "registrar.sock"
"""Name of the registrar's socket in its folder."""
_SMALL_UPDATES = {"update-basis": "public", "transport-dtype": "sign", "collective-learning-rate": 1e-2}
"""Settings of updates of one bit a number: a whole shift tells far more of the texts behind it."""
_IN_A_BASIS = (
    *("basis-file", "transport-dtype", "secure-aggregation", "target-epsilon", "noise-multiplier"),
    *("personal-basis", "people-prior", "personal-numbers", "prior-source", "prior-file"),
)
"""Settings that whole shifts refuse."""
_FILES = ("base-model", "basis-file", "prior-file")
"""Settings that may be files."""


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
    def control_token(self) -> Path:
        """File of the token that the SuperLink's control interface asks for."""
        return self.flower / "control.token"

    @property
    def superexec_secret(self) -> Path:
        """File of the secret that the SuperLink shares with its SuperExec."""
        return self.flower / "superexec.secret"

    @property
    def signer(self) -> Path:
        """Folder of the signer's socket."""
        return self.folder / "signer"

    @property
    def registrar(self) -> Path:
        """Folder of the registrar's socket."""
        return self.folder / "registrar"

    @property
    def invitations(self) -> Path:
        """Folder of the invitations."""
        return self.folder / "invitations"

    @property
    def nodes(self) -> Path:
        """Folder of the records of enrolled nodes."""
        return self.folder / "nodes"

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
        return self.nodes / f"{name}.json"

    def environment(self) -> dict[str, str]:
        """Return the environment variables for Flower's programs."""
        return environment(self.flower)


def init(home: CloudHome, preset: str, values: dict[str, object], *, anywhere: bool = False) -> CloudSettings:
    """Make a cloud's folder: settings, certificates, signing key.

    Updates are votes in a public basis, unless the preset or the values name another `update-basis`: a whole
    shift tells far more of the texts behind it, so nobody gets one without having asked for it.

    Args:
        home: Folder to make.
        preset: Name or file of the preset that the settings start from.
        values: Settings that replace the preset's, by key.
        anywhere: Whether the folder may lie in a git work tree or in fedperfit's own folders.

    Raises:
        InputError: If the folder holds a cloud already or is in a bad place, a setting or a file that one
            names is wrong, or no basis ships for the settings and no form of updates was chosen.
    """
    path = home.folder / "cloud.toml"
    if path.exists():
        raise InputError(f"{home.folder}: already holds a cloud")
    if not anywhere:
        check_place(home.folder)
    settings = _new_settings(CloudSettings.own(read_preset(preset)), values)

    from fedperfit.cloud.job.given_files import check_given_files

    check_given_files(settings)
    private_folder(home.folder)
    authority = new_authority("fedperfit")
    for name, content in (("ca.crt", authority.certificate), ("ca.key", authority.key)):
        write_atomic(home.tls / name, content)
    write_server_certificate(home, settings, authority)
    SigningKey().write(home.folder / "signing.pem")
    write_atomic(path, _toml(settings).encode())
    return settings


def _new_settings(preset: Mapping[str, object], values: Mapping[str, object]) -> CloudSettings:
    """Return a preset's settings with these values; whole shifts only if asked for."""
    values = _absolute(values)
    given = {**preset, **values}
    if "update-basis" in given:
        return CloudSettings.from_flat(given)
    whole = "or update-basis=none, for whole shifts, of which more can be read"
    settings = CloudSettings.from_flat({key: value for key, value in given.items() if key not in _IN_A_BASIS})
    if settings.open or settings.warm_start:
        raise InputError(f"warm-start=true and what is auto are for whole shifts: choose otherwise, {whole}")
    small = CloudSettings.from_flat({**preset, **_SMALL_UPDATES, **values})
    if not small.basis_file and not _basis_ships(small):
        raise InputError(
            f"no basis of public items ships for {small.task_id} on {small.base_model} in this shape: give "
            f"basis-file=FILE, which `fedperfit basis` makes, {whole}"
        )
    return small


def _absolute(values: Mapping[str, object]) -> dict[str, object]:
    """Return settings whose files are found from any folder: `up`, `enroll` and `run` may be typed in any."""
    found = {key: from_home(str(values[key])) for key in _FILES if values.get(key)}
    return {**values, **{key: str(path.absolute()) for key, path in found.items() if path.exists()}}


def _basis_ships(settings: CloudSettings) -> bool:
    from fedperfit.cloud.job.basis import shipped_basis
    from fedperfit.protocol.model.base_model import EMBEDDED, read_card

    return settings.base_model == EMBEDDED and shipped_basis(settings, read_card(EMBEDDED)) is not None


def write_server_certificate(home: CloudHome, settings: CloudSettings, authority: Certificate) -> None:
    """Issue the server's certificate, with a new key.

    Args:
        home: The cloud.
        settings: Its settings.
        authority: Authority that signs.
    """
    server = issue(authority, list(dict.fromkeys([settings.host, "127.0.0.1", "localhost"])))
    write_atomic(home.tls / "server.key", server.key)
    write_atomic(home.tls / "server.crt", server.certificate)


def read_cloud(home: CloudHome) -> CloudSettings:
    """Read the settings of a cloud.

    Raises:
        InputError: If they are missing or malformed.
    """
    path = home.folder / "cloud.toml"
    try:
        return CloudSettings.from_flat(toml_values(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{home.folder}: no cloud here (no cloud.toml); see fedperfit-cloud init") from None
    except (UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path}: {error}") from None


def _toml(settings: CloudSettings) -> str:
    """Write out every setting, those with a default after those without."""
    values = settings.to_flat()
    ordered = sorted(described(CloudSettings), key=lambda setting: not setting.required)
    lines = ["# fedperfit-cloud up FOLDER", "# Read anew by every `up`, `enroll` and `run`."]
    lines += [f"{setting.key} = {toml_value(values[setting.key])}" for setting in ordered]
    return "\n".join(lines) + "\n"

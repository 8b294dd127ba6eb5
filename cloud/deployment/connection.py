"""How this cloud's own programs reach its SuperLink: Flower's configuration, written anew by every `up`."""

import ssl

from fedperfit.cloud.deployment.home import CONNECTION, CloudHome
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import toml_value, write_atomic


def write_connection(home: CloudHome, settings: CloudSettings) -> None:
    """Write where the SuperLink is, and which authority vouches for it.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    lines = [
        "[superlink]",
        f'default = "{CONNECTION}"',
        f"[superlink.{CONNECTION}]",
        f"address = {toml_value(superlink_address(settings))}",
        f"root-certificates = {toml_value(str((home.tls / 'ca.crt').absolute()))}",
    ]
    write_atomic(home.flower / "config.toml", ("\n".join(lines) + "\n").encode())


def trusting(home: CloudHome) -> ssl.SSLContext:
    """Return a context that trusts the certificates of the cloud's own authority, and no others.

    Args:
        home: The cloud.

    Raises:
        InputError: If the authority's certificate is missing or broken.
    """
    path = home.tls / "ca.crt"
    try:
        return ssl.create_default_context(cafile=str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ssl.SSLError:
        raise InputError(f"{path}: not a certificate in PEM form") from None


def superlink_address(settings: CloudSettings) -> str:
    """Return where the SuperLink listens, host:port."""
    return f"127.0.0.1:{settings.superlink_port}"

"""How this cloud's own programs reach its SuperLink, and the secrets by which it knows them.

Every `up` writes them anew, readable by the cloud's account only: Flower's configuration, the token of its
control interface, which Flower's command line takes from a file of credentials, and the secret of SuperExec.
"""

import json
import secrets
import ssl
from base64 import b64encode

from fedperfit.cloud.deployment.home import CONNECTION, CloudHome
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import toml_value, write_atomic


def write_connection(home: CloudHome, settings: CloudSettings) -> None:
    """Write where the SuperLink is, which authority vouches for it, and new secrets.

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
    token = secrets.token_hex(32)
    write_atomic(home.control_token, token.encode())
    write_atomic(home.superexec_secret, secrets.token_bytes(32))
    account = {"authn-type": "oidc", "oidc-access-token": token, "oidc-refresh-token": "none"}
    stored = {
        f"flower.account-auth.{superlink_address(settings)}.{key}": b64encode(value.encode()).decode()
        for key, value in account.items()
    }
    write_atomic(home.flower / "credentials.yaml", json.dumps(stored).encode())


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

"""Folders that Flower runs: it wants an app's modules inside them, so they point at the installed ones."""

from collections.abc import Mapping
from pathlib import Path

from fedperfit.protocol.system.files import toml_value, write_atomic

_MODULE = '''"""The installed {title}."""

from {module} import app

__all__ = ["app"]
'''
_PROJECT = """[project]
name = "{name}"
version = "0.1.0"
dependencies = []

[tool.flwr.app]
publisher = "fedperfit"

[tool.flwr.app.components]
serverapp = "server:app"
clientapp = "client:app"

[tool.flwr.app.config]
"""

DEPLOYED = {"server": "fedperfit.cloud.server_app", "client": "fedperfit.edge.client_app"}
"""Modules of a deployment's apps, by the part that runs them."""


def write_app(folder: Path, name: str, *, server: str, client: str, config: Mapping[str, str]) -> None:
    """Write a folder for `flwr run`, with a module for each app: a machine may lack the other's package.

    Args:
        folder: Folder to write; it is made where it is missing.
        name: Name of the app.
        server: Module that holds the ServerApp as `app`.
        client: Module that holds the ClientApp as `app`.
        config: Configuration of the run.
    """
    for file, content in app_modules(server, client).items():
        write_atomic(folder / file, content)
    lines = [f"{key} = {toml_value(value)}\n" for key, value in config.items()]
    write_atomic(folder / "pyproject.toml", (_PROJECT.format(name=name) + "".join(lines)).encode())


def app_modules(server: str, client: str) -> dict[str, bytes]:
    """Return the code in an app's folder, by the file's name.

    Args:
        server: Module that holds the ServerApp as `app`.
        client: Module that holds the ClientApp as `app`.
    """
    apps = {"server.py": ("ServerApp", server), "client.py": ("ClientApp", client)}
    return {
        file: _MODULE.format(title=title, module=module).encode() for file, (title, module) in apps.items()
    }

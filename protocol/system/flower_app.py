"""Folders that Flower runs: it wants an app's modules inside them, so they point at the installed ones."""

import json
from collections.abc import Mapping
from pathlib import Path

from fedperfit.protocol.system.files import write_atomic

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


def write_app(folder: Path, name: str, *, server: str, client: str, config: Mapping[str, str]) -> None:
    """Write a folder for `flwr run`, with a module for each app: a machine may lack the other's package.

    Args:
        folder: Folder to write; it is made where it is missing.
        name: Name of the app.
        server: Module that holds the ServerApp as `app`.
        client: Module that holds the ClientApp as `app`.
        config: Configuration of the run.
    """
    for file, title, module in (("server", "ServerApp", server), ("client", "ClientApp", client)):
        write_atomic(folder / f"{file}.py", _MODULE.format(title=title, module=module).encode())
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in config.items()]
    write_atomic(folder / "pyproject.toml", (_PROJECT.format(name=name) + "".join(lines)).encode())

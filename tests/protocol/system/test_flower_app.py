"""The folder that Flower runs names the installed apps, and carries the run's configuration."""

import tomllib
from pathlib import Path

from fedperfit.protocol.system.flower_app import write_app


def test_an_app_folder_points_at_the_installed_apps(tmp_path: Path) -> None:
    config = {"run-dir": 'a "quoted" \\ folder', "cloud-dir": "/cloud"}
    write_app(tmp_path / "app", "an-app", server="package.server", client="package.client", config=config)
    project = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())
    assert project["project"]["name"] == "an-app"
    assert project["tool"]["flwr"]["app"]["config"] == config
    components = project["tool"]["flwr"]["app"]["components"]
    assert components == {"serverapp": "server:app", "clientapp": "client:app"}
    for file in ("server", "client"):
        assert f"from package.{file} import app" in (tmp_path / "app" / f"{file}.py").read_text()

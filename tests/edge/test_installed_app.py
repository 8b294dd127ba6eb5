import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fedperfit.edge.installed_app import why_refused
from fedperfit.protocol.system.flower import executable
from fedperfit.protocol.system.flower_app import DEPLOYED, app_modules, write_app


def bundle(**changed: bytes) -> bytes:
    """A bundle as Flower packs our app's folder, with some files changed or added."""
    files = {"pyproject.toml": b"", ".info/CONTENT": b"", **app_modules(**DEPLOYED), **changed}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_the_bundle_that_flower_makes_of_our_app_is_not_refused(tmp_path: Path) -> None:
    write_app(tmp_path / "app", "fedperfit-deployed", **DEPLOYED, config={"run-dir": "/any/where"})
    subprocess.run([executable("flwr"), "build"], cwd=tmp_path / "app", check=True, capture_output=True)
    (path,) = (tmp_path / "app").glob("*.fab")
    assert why_refused(path.read_bytes()) == ""


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"client.py": b"import os"}, "'client.py' is not the one of this edge's package"),
        ({"client.py": app_modules(**DEPLOYED)["client.py"] + b"\n"}, "'client.py' is not the one"),
        ({"server.py": b""}, "'server.py' is not the one of this edge's package"),
        ({"fedperfit/__init__.py": b""}, "'fedperfit/__init__.py' is not of this edge's package"),
        ({"grpc.py": b""}, "'grpc.py' is not of this edge's package"),
        ({"client.py": bytes(1 << 26)}, "'client.py' is not the one of this edge's package"),
    ],
)
def test_other_code_is_refused(changed: dict[str, bytes], reason: str) -> None:
    assert why_refused(bundle()) == ""
    assert why_refused(bundle(**changed)).startswith(reason)


@pytest.mark.parametrize(
    "content", [b"", b"no zip", bundle()[:-30], bundle().replace(b"\x08\x00", b"\x63\x00")]
)
def test_what_is_no_bundle_is_refused(content: bytes) -> None:
    assert why_refused(content) == "it is not a zip file"


def test_it_starts_without_torch() -> None:
    code = "import sys, fedperfit.edge.installed_app, fedperfit.edge.client_app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers"} & set(done.stdout.split())

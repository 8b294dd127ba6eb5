"""A whole Llama folder for tests that change one."""

import shutil
from pathlib import Path

import pytest
from tests.protocol.model.folders import save_model

from fedperfit.protocol.model import base_model


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, which no test changes."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_model("llama", folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of one's own, of which nothing is remembered from before."""
    base_model._read_card.cache_clear()
    return shutil.copytree(original, tmp_path / "copy")

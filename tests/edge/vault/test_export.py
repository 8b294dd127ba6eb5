"""A personal shift in a file: by its owner's command alone, after a warning, readable by them alone."""

import json
import stat

import pytest
import torch
from safetensors import safe_open
from tests.edge.deployment.deployments import settings
from tests.edge.edge_clients import write_client

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.vault.keys import FileKey
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.stored_shift import FitRecord, ShiftKey
from fedperfit.edge.vault.vault import Vault

KEY = ShiftKey("LaMP_2M", "f" * 64, "e" * 64, additive=False)


@pytest.fixture
def home(tmp_path):
    home = Home(write_client(tmp_path / "ada", items=2, questions=1))
    settings().write(home)
    return home


@pytest.fixture
def personal(home, shape):
    shift = PersonalShift.start(shape, seed=1)
    with torch.no_grad():
        shift.b += 1.0
    Vault(home.folder / "vault", FileKey()).store("full", shift, KEY, FitRecord())
    return shift


def test_the_owner_is_warned_and_asked(run, home, personal, tmp_path, monkeypatch):
    file = tmp_path / "mine.safetensors"
    monkeypatch.setattr("typer.confirm", lambda *_, **__: (_ for _ in ()).throw(SystemExit(1)))
    code, said = run("export-shift", home.folder, file)
    assert code == 1
    assert "in the clear" in said
    assert not file.exists()


def test_the_file_holds_what_acts_and_only_its_owner_reads_it(run, home, personal, tmp_path):
    file = tmp_path / "mine.safetensors"
    code, said = run("export-shift", home.folder, file, "--yes")
    assert code == 0
    assert "Whoever has it" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with safe_open(file, framework="pt") as kept:
        about = json.loads(kept.metadata()["fedperfit"])
        for name in ("R", "W", "b"):
            assert torch.equal(kept.get_tensor(name), getattr(personal, name))
    assert about["layers"] == list(personal.shape.layers)
    assert (about["task"], about["release"]) == (KEY.task, KEY.release)
    before = file.read_bytes()
    code, said = run("export-shift", home.folder, file, "--yes")
    assert code == 2
    assert "already exists" in said
    assert file.read_bytes() == before


def test_a_shift_that_a_killed_export_left_in_the_clear_is_removed_by_the_next_one(
    run, home, personal, tmp_path
):
    (tmp_path / ".my[1].x.part").write_bytes(b"a shift")
    (tmp_path / ".my1.x.part").write_bytes(b"another's")
    code, _ = run("export-shift", home.folder, tmp_path / "my[1]", "--yes")
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".my1.x.part", "ada", "my[1]"]


@pytest.mark.parametrize("place", ["node", "vault", "."])
def test_it_is_not_written_where_what_talks_to_the_cloud_might_see_it(run, home, personal, place, tmp_path):
    (home.folder / "node").mkdir()
    (tmp_path / "link").symlink_to(home.folder / place)
    for file in (home.folder / place / "mine", tmp_path / "link" / "mine"):
        code, said = run("export-shift", home.folder, file, "--yes")
        assert (code, said.count("\n")) == (2, 1)
        assert f"error: {file}: is in your own folder" in said
        assert not file.exists()


def test_a_place_below_a_file_is_told_by_that_file(run, home, personal, tmp_path):
    (tmp_path / "file").touch()
    code, said = run("export-shift", home.folder, tmp_path / "file" / "mine", "--yes")
    assert code == 2
    assert f"error: {tmp_path / 'file'}: File exists\n" in said


def test_without_a_personal_shift_nothing_is_written(run, home, tmp_path):
    code, said = run("export-shift", home.folder, tmp_path / "mine", "--yes")
    assert code == 2
    assert "no personal shift" in said
    assert not (tmp_path / "mine").exists()

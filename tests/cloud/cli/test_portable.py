"""Releases through folders, from the command line."""

import sys

import pytest
from tests.cloud.fake_grid import HEADER, SHAPE, perturbed

from fedperfit.cloud.cli import main as cli
from fedperfit.protocol.portable.release_folder import from_pretrained
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.protocol.trust.signing import SigningKey


@pytest.fixture
def released(tmp_path):
    shift = perturbed(Shift.identity(SHAPE, seed=0), "release")
    release = Release.first(shift, HEADER, SigningKey())
    path = tmp_path / "release.safetensors"
    path.write_bytes(release.to_bytes())
    return path, release


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fedperfit-cloud", "release", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out + said.err

    return run


def test_a_release_goes_to_a_hub_folder(released, command, tmp_path):
    path, release = released
    assert command("export", path, tmp_path / "hub", "--base-model", "nobody/model")[0] == 0
    assert from_pretrained(str(tmp_path / "hub"), release.key).packed == release.packed
    assert "base_model: nobody/model" in (tmp_path / "hub/README.md").read_text()
    assert command("export", path, tmp_path / "hub")[0] == 2


def test_a_release_goes_to_pyreft_and_comes_back(released, command, tmp_path):
    path, release = released
    assert command("export", path, tmp_path / "reft", "--form", "pyreft")[0] == 0
    back, key = tmp_path / "back.safetensors", tmp_path / "key.pem"
    assert command("import-pyreft", tmp_path / "reft", back, "--key", key)[0] == 0
    again = read_release(back)
    assert (again.header.shape, again.header.task) == (release.header.shape, release.header.task)
    assert all(
        (a == b).all() for a, b in zip(again.shift.parameters(), release.shift.parameters(), strict=True)
    )
    again.check_signed_from(again.key)
    code, said = command("import-pyreft", tmp_path / "reft", back, "--key", key)
    assert (code, said.count("\n")) == (2, 1)
    other = ("--key", key, "--base-model", "embedded")
    code, said = command("import-pyreft", tmp_path / "reft", tmp_path / "other", *other)
    assert code == 2
    assert "for another base model" in said
    (tmp_path / "reft" / "fedperfit.json").unlink()
    code, said = command("import-pyreft", tmp_path / "reft", tmp_path / "other", *other, "--task", "LaMP_9")
    assert code == 2
    assert "LaMP_9" in said
    said_too = ("--task", "LaMP_2M", "--positions", "l2")
    code, said = command("import-pyreft", tmp_path / "reft", tmp_path / "other", *other, *said_too)
    assert code == 2
    assert "hidden size" in said


def test_a_key_made_for_a_release_that_cannot_be_written_is_not_left(released, command, tmp_path):
    path, _ = released
    assert command("export", path, tmp_path / "reft", "--form", "pyreft")[0] == 0
    (tmp_path / "file").touch()
    key, out = tmp_path / "key.pem", tmp_path / "file" / "back.safetensors"
    code, said = command("import-pyreft", tmp_path / "reft", out, "--key", key)
    assert (code, said.count("\n")) == (2, 1)
    assert not key.exists()
    SigningKey().write(key)
    before = key.read_bytes()
    assert command("import-pyreft", tmp_path / "reft", out, "--key", key)[0] == 2
    assert key.read_bytes() == before


def test_a_release_takes_neither_the_place_of_its_key_nor_that_of_a_link(released, command, tmp_path):
    path, _ = released
    assert command("export", path, tmp_path / "reft", "--form", "pyreft")[0] == 0
    both, link, key = tmp_path / "both", tmp_path / "link", tmp_path / "key.pem"
    code, said = command("import-pyreft", tmp_path / "reft", both, "--key", both)
    assert (code, said.count("\n")) == (2, 1)
    assert "--key" in said
    assert not both.exists()
    link.symlink_to("nowhere")
    code, said = command("import-pyreft", tmp_path / "reft", link, "--key", key)
    assert (code, said) == (2, f"error: {link}: already exists\n")
    assert link.is_symlink()
    assert not key.exists()

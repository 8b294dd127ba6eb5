import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.trust.bundle import Bundle, read_bundle

GOOD = Bundle("ada", "cloud.example.org:8443", "ca", "key", "0" * 64, "LaMP_2M", "embedded", "f")


def test_a_bundle_survives_its_file_and_is_its_owners(tmp_path: Path):
    path = tmp_path / "ada.bundle"
    GOOD.write(path)
    assert read_bundle(path) == GOOD
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(InputError, match="others may read"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": "../x"}, "not a client's name"),
        ({"address": "no port"}, "expected host:port"),
        ({"release_key": "0"}, "not a public key"),
        ({"task": "LaMP_9"}, "LaMP_9"),
    ],
)
def test_wrong_values(changed, reason, tmp_path: Path):
    path = tmp_path / "x.bundle"
    replace(GOOD, **changed).write(path)
    with pytest.raises(InputError, match=reason) as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)


def test_wrong_forms(tmp_path: Path):
    path = tmp_path / "x.bundle"
    GOOD.write(path)
    good = read_json(path)
    for wrong in ([], {**good, "format": 2}, {**good, "more": "x"}, {**good, "name": 3}, {"format": 1}):
        write_json(path, wrong)
        with pytest.raises(InputError):
            read_bundle(path)
    path.write_text("{")
    with pytest.raises(InputError, match="broken JSON"):
        read_bundle(path)
    with pytest.raises(InputError, match="no such file"):
        read_bundle(tmp_path / "missing")

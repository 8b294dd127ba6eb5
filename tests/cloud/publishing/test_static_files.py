"""The folder of static files is whole at every moment, and what its names mean never changes."""

import errno
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.protocol.trust.chains import HEADER, shift

from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.publishing import static_files
from fedperfit.cloud.publishing.static_files import StaticFiles, status
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.flower import executable
from fedperfit.protocol.trust.pointer import Pointer, parse_pointer
from fedperfit.protocol.trust.published import POINTER_FILE, mirrored_file, parse_mirror
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.protocol.trust.signing import SigningKey
from fedperfit.protocol.trust.validity import parse_time


@pytest.fixture
def cloud(tmp_path: Path) -> CloudReleases:
    home = tmp_path / "cloud"
    home.mkdir()
    SigningKey().write(home / "signing.pem")
    return CloudReleases(home)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "www"


@pytest.fixture
def files(cloud: CloudReleases, out: Path) -> Iterator[StaticFiles]:
    cloud.publish(shift(1), HEADER)
    with StaticFiles.open(cloud.folder, out) as files:
        yield files


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if not path.name.startswith("."))


def file(release: Release) -> str:
    return mirrored_file(release.version, release.digest)


def test_it_holds_the_chain_and_the_word_on_the_release_in_force(
    cloud: CloudReleases, files: StaticFiles, out: Path
):
    second = cloud.publish(shift(2), HEADER)
    pointer = files.write()
    assert pointer.version == 2
    assert names(out) == [*map(file, cloud.all()), POINTER_FILE]
    assert read_release(out / file(second)) == second
    found = out / POINTER_FILE
    assert parse_pointer(found.read_bytes()) == pointer
    assert found.stat().st_mtime == parse_time(pointer.issued).timestamp()
    modes = {path.stat().st_mode & 0o777 for path in out.glob("*.*s*")}
    assert (modes, out.stat().st_mode & 0o777) == ({0o644}, 0o755)


def test_nothing_is_written_where_nothing_changed(cloud: CloudReleases, files: StaticFiles, out: Path):
    files.write()
    before = {path: (path.stat().st_ino, path.stat().st_mtime) for path in out.iterdir()}
    files.write()
    assert {path: (path.stat().st_ino, path.stat().st_mtime) for path in out.iterdir()} == before


def test_a_revoked_release_is_taken_away_and_its_successor_is_there(
    cloud: CloudReleases, files: StaticFiles, out: Path
):
    first, second = cloud.latest(), cloud.publish(shift(2), HEADER)
    files.write()
    third = cloud.revoke(2)
    assert first is not None
    assert third is not None
    files.write()
    assert names(out) == [file(first), file(third), POINTER_FILE]
    assert file(second) not in names(out)


def test_two_words_are_never_issued_in_the_same_second(cloud: CloudReleases, files: StaticFiles):
    before = files.write()
    cloud.publish(shift(2), HEADER)
    cloud.revoke(2)
    assert parse_time(files.write().issued) >= parse_time(before.issued) + timedelta(seconds=2)


def test_the_word_comes_after_what_it_names(
    cloud: CloudReleases, files: StaticFiles, out: Path, monkeypatch: pytest.MonkeyPatch
):
    written: list[str] = []
    whole = static_files.write_atomic

    def recorded(path: Path, data: bytes, **how: object) -> None:
        written.append(path.name)
        whole(path, data, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(static_files, "write_atomic", recorded)
    cloud.publish(shift(2), HEADER)
    files.write()
    assert written == [*map(file, cloud.all()), POINTER_FILE]


def test_what_is_not_of_the_chain_gets_no_name(cloud: CloudReleases, files: StaticFiles, out: Path):
    cloud.publish(shift(2), HEADER)
    kept = cloud.folder / "releases"
    (kept / "00000001.safetensors").write_bytes((kept / "00000002.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"00000001\.safetensors: is not the release that the chain names"):
        files.write()
    assert names(out) == []


def test_one_process_writes_and_never_into_the_clouds_folder(
    cloud: CloudReleases, files: StaticFiles, out: Path
):
    home = cloud.folder
    with pytest.raises(InputError, match="another process writes"), StaticFiles.open(home, out):
        pass
    within = StaticFiles.open(home, home / "releases" / "www")
    with pytest.raises(InputError, match="in the cloud's own folder"), within:
        pass
    nowhere = StaticFiles.open(cloud.folder / "runs", out / "more")
    with pytest.raises(InputError, match="nothing was released yet"), nowhere:
        pass


def test_keeping_follows_and_says_what_changed_once(
    cloud: CloudReleases, files: StaticFiles, out: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(static_files, "_LOOK_SECONDS", 0.0)
    said: list[str] = []
    changes = iter(
        [lambda: None, lambda: cloud.publish(shift(2), HEADER), lambda: cloud.revoke(2), lambda: None]
    )

    def stopping() -> bool:
        change = next(changes, None)
        if change is not None:
            change()
        return change is None

    files.keep(said.append, stopping)
    assert said == [f"release {version} is in force" for version in (1, 2, 3)]
    expired = Pointer.signed(None, cloud.key(), issued=parse_time("2026-01-01T00:00:00Z"))
    os.unlink(out / POINTER_FILE)
    assert status(expired) == (
        "the word on the release in force expired at 2026-01-01T03:00:00Z: is `up` running?"
    )
    assert status(Pointer.signed(None, cloud.key())) == "no release is in force"


def test_keeping_goes_on_after_a_disk_that_was_full(
    files: StaticFiles, out: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, data: bytes, **how: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(static_files, "_LOOK_SECONDS", 0.0)
    said: list[str] = []
    changes = iter([lambda: monkeypatch.setattr(static_files, "write_atomic", full), monkeypatch.undo, None])

    def stopping() -> bool:
        change = next(changes)
        if change is not None:
            change()
        return change is None

    files.keep(said.append, stopping)
    assert len(said) == 2
    assert said[0].endswith("safetensors: No space left on device")
    assert (said[1], (out / POINTER_FILE).exists()) == ("release 1 is in force", True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://cdn.example.org", (True, "cdn.example.org:443", "/")),
        ("http://127.0.0.1:8080/our/mirror/", (False, "127.0.0.1:8080", "/our/mirror/")),
        ("https://[::1]:8443/a", (True, "[::1]:8443", "/a/")),
    ],
)
def test_addresses_of_mirrors(text: str, found: tuple[bool, str, str]):
    place = parse_mirror(text)
    assert (place.secure, place.address, place.folder) == found


@pytest.mark.parametrize(
    "text",
    [
        *(
            "ftp://a/b",
            "https://",
            "https://user:key@a/b",
            "https://a/b?c=d",
            "https://a/../b",
            "https://a/b#c",
        ),
        *("https://a:99999/", "https://a//b", "https://a b/", "https://a/b\n", ""),
    ],
    ids=range(11),
)
def test_what_is_no_address_of_a_mirror(text: str):
    with pytest.raises(InputError, match="mirror="):
        parse_mirror(text)


def test_whoever_keeps_them_ends_well_when_told_to_stop(cloud: CloudReleases, tmp_path: Path) -> None:
    cloud.publish(shift(1), HEADER)
    command = [executable("fedperfit-cloud"), "release", "publish", str(tmp_path / "cloud"), "out", "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert "release 1 is in force" in process.stdout.readline()
        process.terminate()
        assert process.wait(30) == 0

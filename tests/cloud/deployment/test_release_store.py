from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from tests.protocol.trust.chains import HEADER, shift

from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.edge.releases.store import ReleaseStore
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.pointer import POINTER_LIFETIME, Pointer, parse_pointer
from fedperfit.protocol.trust.release import Release, check_chain
from fedperfit.protocol.trust.signing import SigningKey


@pytest.fixture
def cloud(tmp_path: Path) -> CloudReleases:
    SigningKey().write(tmp_path / "signing.pem")
    return CloudReleases(tmp_path)


def test_publishing_makes_a_chain_and_again_is_no_news(cloud: CloudReleases):
    first = cloud.publish(shift(1), HEADER)
    assert cloud.publish(shift(1), HEADER) == first
    second = cloud.publish(shift(2), HEADER, epsilon=2.0, lifetime=timedelta(days=1))
    assert [release.version for release in cloud.verify()] == [1, 2]
    assert (cloud.latest(), second.epsilon) == (second, 2.0)


def test_the_same_shift_is_released_again_when_expired_or_of_another_privacy(cloud: CloudReleases):
    past = datetime(2020, 1, 1, tzinfo=UTC)
    expired = Release.first(shift(1), HEADER, cloud.key(), issued=past, lifetime=timedelta(days=1))
    (cloud.folder / "releases").mkdir()
    (cloud.folder / "releases" / "00000001.safetensors").write_bytes(expired.to_bytes())
    renewed = cloud.publish(shift(1), HEADER)
    assert (renewed.version, renewed.packed) == (2, expired.packed)
    spent = cloud.publish(shift(1), HEADER, epsilon=2.0)
    assert (spent.version, spent.epsilon) == (3, 2.0)
    assert cloud.publish(shift(1), HEADER, epsilon=2.0) == spent


def test_the_same_shift_with_directions_is_another_release(cloud: CloudReleases):
    directions = Directions.of((0,), torch.ones(1, 2), torch.ones(1, 2))
    bare = cloud.publish(shift(1), HEADER)
    carrying = cloud.publish(shift(1), HEADER, directions=directions)
    assert (bare.version, carrying.version) == (1, 2)
    assert cloud.publish(shift(1), HEADER, directions=directions) == carrying
    assert cloud.publish(shift(1), HEADER).version == 3
    cloud.verify()


def test_rotation(cloud: CloudReleases):
    with pytest.raises(InputError, match="no release yet"):
        cloud.rotate()
    first = cloud.publish(shift(1), HEADER)
    rotated = cloud.rotate()
    assert rotated.packed == first.packed
    third = cloud.publish(shift(2), HEADER)
    assert third.key == rotated.key != first.key
    check_chain(cloud.all(), first.key)


@pytest.mark.parametrize("released", [False, True])
def test_a_killed_rotation_is_finished_or_undone(cloud: CloudReleases, monkeypatch, released: bool):
    cloud.publish(shift(1), HEADER)
    before = cloud.key().public

    def die(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die) if released else monkeypatch.setattr(Release, "rotated", die)
    with pytest.raises(KeyboardInterrupt):
        cloud.rotate()
    monkeypatch.undo()
    assert (cloud.key().public == before) is not released
    assert not (cloud.folder / "signing.next.pem").exists()
    cloud.publish(shift(2), HEADER)
    cloud.rotate()
    assert len(cloud.verify()) == 3 + released


def test_who_asks_for_the_key_during_a_rotation_does_not_undo_it(cloud: CloudReleases, monkeypatch):
    cloud.publish(shift(1), HEADER)
    keys: list[str] = []
    asking = Thread(target=lambda: keys.append(CloudReleases(cloud.folder).key().public))
    rotated = Release.rotated

    def interrupted(*arguments: Any, **named: Any) -> Release:
        asking.start()
        asking.join(0.3)
        return rotated(*arguments, **named)

    monkeypatch.setattr(Release, "rotated", interrupted)
    release = cloud.rotate()
    asking.join()
    assert keys == [release.key]
    assert cloud.publish(shift(2), HEADER).key == release.key


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        CloudReleases(tmp_path / "missing").rotate()
    assert not (tmp_path / "missing").exists()


def test_a_release_that_was_exchanged_is_found(cloud: CloudReleases):
    for number in range(3):
        cloud.publish(shift(number), HEADER)
    paths = sorted((cloud.folder / "releases").iterdir())
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(InputError, match="release 3 does not follow from the 1 before"):
        cloud.verify()


def pointer(cloud: CloudReleases) -> Pointer:
    """The pointer that edges fetch."""
    found = parse_pointer((cloud.folder / "releases" / "in-force.json").read_bytes())
    found.check_signed_from(cloud.key().public)
    return found


def test_the_pointer_follows_what_is_released(cloud: CloudReleases):
    assert cloud.renew_pointer().version == 0
    steps: list[Callable[[], Release]] = [
        *(lambda: cloud.publish(shift(1), HEADER), lambda: cloud.publish(shift(2), HEADER)),
        cloud.rotate,
    ]
    for step in steps:
        release = step()
        said = pointer(cloud)
        assert (said.version, said.digest) == (release.version, release.digest)
        assert said.size == (cloud.folder / "releases" / f"{release.version:08d}.safetensors").stat().st_size
        assert (said.rotations, said.key) == (release.rotations, release.key)
        assert cloud.in_force() == release


def test_the_pointer_is_renewed_when_it_is_old_or_says_something_else(cloud: CloudReleases):
    release = cloud.publish(shift(1), HEADER)
    fresh = pointer(cloud)
    assert cloud.renew_pointer() == fresh
    old = datetime.now(UTC) - POINTER_LIFETIME / 2
    path = cloud.folder / "releases" / "in-force.json"
    path.write_bytes(Pointer.signed(release, cloud.key(), size=fresh.size, issued=old).to_bytes())
    assert cloud.renew_pointer() == pointer(cloud)
    assert not pointer(cloud).issued_after(datetime.now(UTC))
    assert pointer(cloud).issued_after(old)
    path.unlink()
    assert cloud.renew_pointer().digest == release.digest


def test_what_replaces_a_revoked_release_is_a_new_version(cloud: CloudReleases):
    one, two = (cloud.publish(shift(number), HEADER) for number in (1, 2))
    three = cloud.revoke(2)
    assert three is not None
    assert (three.version, three.packed) == (3, one.packed)
    assert cloud.verify() == [one, two, three]
    assert (pointer(cloud).version, pointer(cloud).revoked) == (3, (2,))
    assert cloud.in_force() == cloud.latest() == three


def test_without_another_content_nothing_is_in_force_until_the_next_release(cloud: CloudReleases):
    cloud.publish(shift(1), HEADER)
    cloud.publish(shift(1), HEADER, epsilon=1.0)
    assert cloud.revoke(1) is None
    assert (pointer(cloud).version, pointer(cloud).revoked) == (0, (1, 2))
    assert cloud.in_force() is None
    with pytest.raises(InputError, match="released as version 1, and revoked"):
        cloud.publish(shift(1), HEADER)
    third = cloud.publish(shift(2), HEADER)
    assert (third.version, pointer(cloud).version, pointer(cloud).revoked) == (3, 3, (1, 2))


def kill_before_pointing(cloud: CloudReleases, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cloud, "_point", killed)
        with pytest.raises(KeyboardInterrupt):
            cloud.rotate()


@pytest.mark.parametrize("killed", [False, True])
def test_the_key_is_rotated_while_no_release_is_in_force(cloud: CloudReleases, monkeypatch, tmp_path, killed):
    first = cloud.publish(shift(1), HEADER)
    edge = ReleaseStore(tmp_path / "edge", pinned=first.key, fingerprint=HEADER.fingerprint, task=HEADER.task)
    edge.point(cloud._pointer_path.read_bytes())
    edge.fetched(first.to_bytes(), lambda release: None)
    cloud.revoke(1)
    if killed:
        kill_before_pointing(cloud, monkeypatch)
        cloud.renew_pointer()
    else:
        cloud.rotate()
    assert cloud.in_force() is None
    assert (pointer(cloud).version, pointer(cloud).revoked) == (0, (1, 2))
    assert pointer(cloud).key == cloud.key().public != first.key
    assert edge.point(cloud._pointer_path.read_bytes()) is None
    assert edge.current() is None
    third = cloud.publish(shift(2), HEADER)
    assert cloud.verify()[-1] == third
    assert edge.point(cloud._pointer_path.read_bytes()) is not None
    assert edge.fetched(third.to_bytes(), lambda release: None) == edge.current() == third


def test_revoking_what_is_no_longer_in_force_leaves_what_is(cloud: CloudReleases):
    cloud.publish(shift(1), HEADER)
    two = cloud.publish(shift(2), HEADER)
    assert cloud.revoke(1) == two
    assert (pointer(cloud).version, pointer(cloud).revoked) == (2, (1,))
    for version, reason in ((1, "revoked already"), (3, "no release of version 3"), (0, "no release of")):
        with pytest.raises(InputError, match=reason):
            cloud.revoke(version)


def test_a_killed_revocation_goes_forward_and_can_be_done_again(cloud: CloudReleases, monkeypatch):
    one = cloud.publish(shift(1), HEADER)
    cloud.publish(shift(2), HEADER)

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CloudReleases, "_point", die)
    with pytest.raises(KeyboardInterrupt):
        cloud.revoke(2)
    monkeypatch.undo()
    again = cloud.revoke(2)
    assert again is not None
    assert (again.version, again.packed, pointer(cloud).revoked) == (3, one.packed, (2,))


def test_a_broken_pointer_is_named_and_revokes_nothing_silently(cloud: CloudReleases):
    cloud.publish(shift(1), HEADER)
    (cloud.folder / "releases" / "in-force.json").write_bytes(b"{")
    with pytest.raises(InputError, match=r"in-force\.json: truncated"):
        cloud.in_force()

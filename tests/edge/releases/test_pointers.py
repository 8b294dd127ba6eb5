"""Attacks on the cloud's word on the release in force: freeze, rollback, fork, a stolen key."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.edge.releases.test_store import KEY, NEW, Edge
from tests.protocol.trust.chains import DAY, HEADER, START, chain, first, shift

from fedperfit.edge.releases.trusted_keys import trusted_keys
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.pointer import Pointer
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.rotation import Rotation
from fedperfit.protocol.trust.signing import SigningKey

FOREIGN = SigningKey()
HOUR = timedelta(hours=1)


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    edge = Edge(tmp_path)
    edge.now = START + 3 * DAY
    return edge


def pointing(release: Release | None, key: SigningKey = KEY, hours: float = 0, **how: object) -> Pointer:
    """A pointer issued so many hours after three days."""
    size = len(release.to_bytes()) if release is not None else 0
    rotations = release.rotations if release is not None else ()
    fields = {"rotations": rotations, "issued": START + 3 * DAY + hours * HOUR} | how
    return Pointer.signed(release, key, size=size, **fields)  # type: ignore[arg-type]


def refused(edge: Edge, pointer: Pointer, reason: str) -> None:
    before = edge.files()
    with pytest.raises(InputError, match=f"^pointer refused: .*{reason}"):
        edge.store.point(pointer.to_bytes())
    assert edge.files() == before
    assert reason in edge.store.notice()


def test_freeze_an_old_pointer_is_refused(edge: Edge):
    one, two = chain(KEY, 2)
    old, new = pointing(one), pointing(two, hours=1)
    edge.store.point(old.to_bytes())
    assert edge.store.point(old.to_bytes()) is not None, "the control: in time, it is taken again"
    edge.now += 3 * HOUR
    refused(edge, old, "it expired at 2026-01-04T03:00:00Z")
    edge.store.point(new.to_bytes())
    refused(edge, replace(old, expires=new.expires), "does not verify")


def test_freeze_an_earlier_pointer_that_is_still_valid_is_refused(edge: Edge):
    one, two = chain(KEY, 2)
    edge.store.point(pointing(two, hours=1).to_bytes())
    refused(edge, pointing(one), "before the one of")
    edge.store.point(pointing(two, hours=1).to_bytes())


def test_rollback_a_lower_version_is_refused(edge: Edge):
    one, two = chain(KEY, 2)
    edge.take(two)
    refused(edge, pointing(one), "version 1 is older than 2, which was in force")
    edge.store.point(pointing(two).to_bytes())
    refused(edge, pointing(one, hours=1), "version 1 is older than 2")
    refused(edge, pointing(None, hours=1), "version 0 is older than 2")
    assert edge.store.point(pointing(None, hours=1, revoked=(2,)).to_bytes()) is None
    assert edge.store.current() is None


def test_rollback_by_a_pointer_that_was_never_followed(edge: Edge):
    one, two = chain(KEY, 2)
    edge.take(one)
    edge.store.point(pointing(two).to_bytes())
    refused(edge, pointing(one, hours=1), "version 1 is older than 2")


def test_rollback_a_release_before_the_one_that_the_pointer_names_is_refused(edge: Edge):
    one, two, three = chain(KEY, 3)
    edge.store.point(pointing(two).to_bytes())
    edge.refuses(one, "version 1 is older than 2")
    edge.take(two)
    edge.take(three)
    assert edge.store.current() == three


def test_fork_another_release_of_the_same_version_is_refused(edge: Edge):
    one = first(KEY)
    other = Release.first(shift(5), HEADER, KEY, issued=START, lifetime=10 * DAY)
    later = other.next(shift(6), HEADER, KEY, issued=START, lifetime=10 * DAY)
    edge.store.point(pointing(one).to_bytes())
    refused(edge, pointing(other, hours=1), "another release of version 1")
    edge.refuses(other, "not of the chain of version 1")
    edge.refuses(later, "not of the chain of version 1")
    edge.take(one)
    refused(edge, pointing(other, hours=1), "another release of version 1")


def test_a_revoked_release_is_never_in_force_again(edge: Edge):
    one, two = chain(KEY, 2)
    edge.take(one)
    edge.store.point(pointing(two, revoked=(1,)).to_bytes())
    assert edge.store.current() is None
    edge.refuses(one, "version 1 was revoked")
    refused(edge, pointing(two, hours=1), "takes back a revocation")
    edge.take(two)
    assert edge.store.current() == two


@pytest.mark.parametrize("before", ["known", "marked"])
def test_a_revoked_release_stays_so_after_a_rotation_whose_release_is_withheld(edge: Edge, before: str):
    one = first(KEY)
    two = one.rotated(KEY, NEW, issued=START, lifetime=10 * DAY)
    edge.take(one)
    edge.store.point(pointing(None, revoked=(1,)).to_bytes())
    if before == "known":  # as earlier versions left it
        (edge.store.folder / "00000001.revoked").unlink()
    assert edge.store.point(pointing(two, NEW).to_bytes()) is not None
    assert edge.store.current() is None
    (edge.store.folder / "in-force.json").unlink()
    assert edge.store.current() is None
    edge.refuses(one, "version 1 was revoked")
    edge.take(two)
    assert edge.store.current() == two


def test_a_late_edge_takes_no_revoked_release(edge: Edge, tmp_path: Path):
    one = first(KEY)
    edge.store.point(pointing(None, revoked=(1,)).to_bytes())
    edge.refuses(one, "version 1 was revoked")
    control = Edge(tmp_path / "control")
    control.take(one)


def test_the_future_and_foreign_keys_are_refused(edge: Edge):
    refused(edge, pointing(first(KEY), hours=2), "yet to come")
    refused(edge, pointing(first(KEY), FOREIGN), "foreign key")
    stolen = Rotation.signed(1, FOREIGN, FOREIGN)
    forged = replace(pointing(first(KEY), FOREIGN), rotations=(replace(stolen, old=KEY.public),))
    refused(edge, forged, "rotations are malformed")


@pytest.mark.parametrize("by_release", [True, False])
@pytest.mark.parametrize("by_pointer", [True, False])
def test_a_key_that_was_rotated_out_says_nothing_more(edge: Edge, by_release: bool, by_pointer: bool):
    one = first(KEY)
    two = one.rotated(KEY, NEW, issued=START, lifetime=10 * DAY)
    three = one.next(shift(3), HEADER, KEY, issued=START, lifetime=10 * DAY)
    three = three.next(shift(4), HEADER, KEY, issued=START, lifetime=10 * DAY)
    edge.take(one)
    if by_pointer:
        edge.store.point(pointing(two, NEW).to_bytes())
    if by_release:
        edge.take(two)
    if not (by_release or by_pointer):
        assert edge.store.point(pointing(three, hours=1).to_bytes()) is not None, "the control"
        return
    refused(edge, pointing(three, hours=1), "its rotations of keys")
    edge.refuses(three, "foreign key" if by_release else "rotations of keys are not those known here")


@pytest.mark.parametrize("by_pointer", [True, False])
def test_a_key_that_was_rotated_out_makes_no_longer_chain_of_keys(edge: Edge, by_pointer: bool):
    one, thief = first(KEY), (SigningKey(), SigningKey())
    two = one.rotated(KEY, NEW, issued=START, lifetime=10 * DAY)
    stolen = one.rotated(KEY, thief[0], issued=START, lifetime=10 * DAY)
    stolen = stolen.rotated(*thief, issued=START, lifetime=10 * DAY)
    edge.take(one)
    if by_pointer:  # the new key is known, but not a release of it: it was revoked from the beginning
        edge.store.point(pointing(None, NEW, rotations=two.rotations, revoked=(1, 2)).to_bytes())
        edge.refuses(stolen, "its rotations of keys are not those known here")
        assert trusted_keys(edge.store.folder, KEY.public) == [KEY.public, NEW.public]
    else:
        edge.take(stolen)  # the control


def test_after_a_rotation_what_a_thief_said_by_the_old_key_no_longer_binds(edge: Edge):
    one = first(KEY)
    far = chain(KEY, 9)[8]
    edge.take(one)
    edge.store.point(pointing(far, hours=0.5, revoked=(2,)).to_bytes())
    two = one.rotated(KEY, NEW, issued=START, lifetime=10 * DAY)
    refused(edge, pointing(one, hours=0.6, revoked=(2,)), "higher version")
    assert edge.store.point(pointing(two, NEW).to_bytes()) is not None
    edge.take(two)
    assert edge.store.current() == two


def test_a_damaged_pointer_on_disk_binds_nothing_and_the_next_one_is_kept(edge: Edge):
    edge.store.point(pointing(first(KEY)).to_bytes())
    path = edge.store.folder / "in-force.json"
    path.write_bytes(path.read_bytes()[:-9])
    assert edge.store.pointer() is None
    edge.store.point(pointing(first(KEY)).to_bytes())
    assert edge.store.pointer() is not None


def test_only_the_newest_releases_are_kept(edge: Edge):
    release = first(KEY)
    edge.take(release)
    for number in range(1, 12):
        release = release.next(shift(number), HEADER, KEY, issued=START + DAY, lifetime=10 * DAY)
        edge.take(release)
    assert [release.version for release in edge.store.all()] == list(range(5, 13))
    edge.store.verify()

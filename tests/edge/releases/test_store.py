"""The attacks that python-tuf names, on an edge's release store, with a clock of the test's own."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from tests.protocol.trust.chains import DAY, HEADER, START, chain, first, shift

from fedperfit.edge.releases.store import ReleaseStore
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.pointer import Pointer
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.release_file import parse_release
from fedperfit.protocol.trust.rotation import Rotation
from fedperfit.protocol.trust.signing import SigningKey

KEY, NEW, FOREIGN = SigningKey(), SigningKey(), SigningKey()


class Edge:
    def __init__(self, folder: Path) -> None:
        self.now: datetime = START
        self.store = ReleaseStore(
            *(folder / "releases",),
            pinned=KEY.public,
            fingerprint=HEADER.fingerprint,
            task=HEADER.task,
            clock=lambda: self.now,
        )

    def take(self, release: Release) -> None:
        self.store.accept(release.to_bytes())

    def refuses(self, release: Release | bytes, reason: str) -> None:
        """Refuses with that reason, and everything stays as it was."""
        data = release if isinstance(release, bytes) else release.to_bytes()
        before = self.files()
        with pytest.raises(InputError, match=reason) as caught:
            self.store.accept(data)
        assert str(caught.value).isprintable()
        assert self.files() == before

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.store.folder.glob("**/*")}


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path)


def test_releases_in_order(edge: Edge):
    assert edge.store.current() is None
    for release in chain(KEY, 3):
        edge.now = START + 3 * DAY
        edge.take(release)
        assert edge.store.current() == release
    edge.take(release)
    edge.store.verify()
    assert len(edge.store.all()) == 3


def test_an_edge_that_was_off_may_skip(edge: Edge):
    releases = chain(KEY, 5)
    edge.now = START + 5 * DAY
    edge.take(releases[0])
    edge.take(releases[4])
    edge.store.verify()


def test_arbitrary_software_attack(edge: Edge):
    edge.refuses(first(FOREIGN), "foreign key")
    edge.refuses(replace(first(KEY), packed=pack(shift(7), HEADER)), "signature does not verify")
    edge.refuses(replace(first(KEY), signatures={}), "signature does not verify")
    edge.refuses(replace(first(KEY), signatures={KEY.public: "0" * 128}), "signature does not verify")


def test_rollback_attack(edge: Edge):
    releases = chain(KEY, 3)
    edge.now = START + 3 * DAY
    edge.take(releases[2])
    for old in releases[:2]:
        edge.refuses(old, "is older than 3")


def test_equivocation(edge: Edge):
    one, other = first(KEY), Release.first(shift(5), HEADER, KEY, issued=START, lifetime=10 * DAY)
    edge.take(one)
    edge.refuses(other, "another release of version 1")


def test_what_a_release_has_the_owner_told_is_one_line(edge: Edge):
    one = first(KEY)
    data = one.to_bytes()
    size = int.from_bytes(data[:8], "little")
    head = data[8 : 8 + size].replace(b'\\"chain', b'\\"' + b"x" * 5_000_000 + b'\\": 1, \\"chain')
    data = len(head).to_bytes(8, "little") + head + data[8 + size :]
    edge.store.point(Pointer.signed(one, KEY, size=len(data), issued=START).to_bytes())
    with pytest.raises(InputError, match="unknown field"):
        edge.store.fetched(data, lambda release: None)
    assert "unknown field 'xxx" in edge.store.notice()
    assert len(edge.store.notice()) == 400


def test_two_edges_that_are_shown_different_chains_do_not_know(edge: Edge, tmp_path: Path):
    """What no edge alone can see; their owners can, by the digest that `explain` shows."""
    one, other = first(KEY), Release.first(shift(5), HEADER, KEY, issued=START, lifetime=10 * DAY)
    another_edge = Edge(tmp_path / "another")
    edge.take(one)
    another_edge.take(other)
    found = [each.store.current() for each in (edge, another_edge)]
    assert [release.digest for release in found if release] == [one.digest, other.digest]
    assert one.digest != other.digest


def test_equivocation_at_the_same_moment(edge: Edge):
    one, other = first(KEY), Release.first(shift(5), HEADER, KEY, issued=START, lifetime=10 * DAY)
    refusals: list[str] = []

    def take_other() -> None:
        try:
            edge.take(other)
        except InputError as error:
            refusals.append(str(error))

    beside = Thread(target=take_other)

    def clock() -> datetime:
        if beside.ident is None:
            beside.start()
            beside.join(0.3)
        return START

    edge.store = ReleaseStore(
        *(edge.store.folder,),
        pinned=KEY.public,
        fingerprint=HEADER.fingerprint,
        task=HEADER.task,
        clock=clock,
    )
    edge.take(one)
    beside.join()
    assert edge.store.current() == one
    assert len(refusals) == 1
    assert "another release of version 1" in refusals[0]


def test_a_fork_is_refused(edge: Edge):
    edge.take(first(KEY))
    fork = Release.first(shift(5), HEADER, KEY, issued=START, lifetime=10 * DAY)
    edge.refuses(fork.next(shift(6), HEADER, KEY, issued=START), "does not hold version 1")


def test_indefinite_freeze_attack(edge: Edge):
    release = first(KEY)
    edge.take(release)
    assert not edge.store.expired(release)
    edge.now = START + 10 * DAY
    edge.refuses(release, "expired at")
    assert edge.store.current() == release
    assert edge.store.expired(release)


def test_a_release_of_the_future_is_refused(edge: Edge):
    edge.now = START - DAY
    edge.refuses(first(KEY), "yet to come")
    edge.now = START - timedelta(minutes=5)
    edge.take(first(KEY))


def test_fast_forward_attack(edge: Edge):
    edge.take(first(KEY))
    edge.now = START + 2 * DAY
    far = replace(chain(KEY, 2)[1], chain=tuple(f"{n:064x}" for n in range(1000)), signatures={})
    edge.refuses(far._signed(KEY), "does not hold version 1")


def test_fast_forward_recovery_by_rotation(edge: Edge):
    """A thief of the key pushed a release; after the rotation only the new key counts."""
    releases = chain(KEY, 2)
    edge.now = START + 2 * DAY
    edge.take(releases[0])
    rotated = releases[0].rotated(KEY, NEW, issued=START)
    edge.take(rotated)
    edge.refuses(rotated.next(shift(9), HEADER, NEW)._signed(KEY), "signature does not verify")
    edge.refuses(replace(releases[1], chain=(*rotated.chain, rotated.digest))._signed(KEY), "foreign key")


def test_mix_and_match_attack(edge: Edge):
    one, two = chain(KEY, 2)
    for mixed in (
        replace(one, packed=two.packed),
        replace(two, packed=one.packed),
        replace(two, signatures=one.signatures),
        replace(one, expires=two.expires),
        replace(two, chain=()),
        replace(one, epsilon=1.0),
    ):
        edge.refuses(mixed, "signature does not verify")


def test_extraneous_signatures_do_not_matter_and_missing_ones_do(edge: Edge):
    release = first(KEY)
    edge.take(replace(release, signatures={**release.signatures, FOREIGN.public: "junk"}))
    edge.refuses(
        replace(release.next(shift(), HEADER, KEY), signatures={FOREIGN.public: "junk"}), "signature"
    )


def test_truncation_and_endless_data(edge: Edge):
    data = first(KEY).to_bytes()
    for length in (0, 7, 100, len(data) - 1):
        edge.refuses(data[:length], "truncated")
    edge.refuses(data + bytes(1), "truncated")
    edge.refuses(bytes(17 << 20), "larger than")


def test_another_base_model_or_task(edge: Edge):
    header = replace(HEADER, fingerprint="0" * 64)
    edge.refuses(Release.first(shift(), header, KEY, issued=START), "another base model")
    header = replace(HEADER, task="LaMP_3")
    edge.refuses(Release.first(shift(), header, KEY, issued=START), "for task 'LaMP_3'")


def test_key_rotation_also_for_an_edge_that_missed_it(edge: Edge, tmp_path: Path):
    one = first(KEY)
    two = one.rotated(KEY, NEW, issued=START, lifetime=10 * DAY)
    three = two.next(shift(3), HEADER, NEW, issued=START, lifetime=10 * DAY)
    edge.take(one)
    edge.take(three)
    edge.refuses(two, "older than 3")
    late = Edge(tmp_path / "late")
    late.take(three)
    late.store.verify()
    forged = one.rotated(KEY, FOREIGN, issued=START)
    edge.refuses(
        replace(forged, chain=(*three.chain, three.digest), signatures={})._signed(FOREIGN), "foreign key"
    )


def test_a_later_release_keeps_the_rotations_there_were(edge: Edge):
    one = first(KEY)
    two = one.rotated(KEY, NEW, issued=START, lifetime=10 * DAY)
    edge.take(one)
    edge.take(two)
    three = two.next(shift(3), HEADER, NEW, issued=START, lifetime=10 * DAY)
    dropped = replace(three, rotations=(), signatures={})._signed(NEW)
    other = replace(three, rotations=(Rotation.signed(3, KEY, NEW),), signatures={})._signed(KEY, NEW)
    for changed in (dropped, other):
        edge.refuses(changed, "rotations of keys up to version 2 are not those")
    edge.take(three)
    assert edge.store.current() == three


def test_a_rotation_cannot_be_dated_before_the_release_in_force(edge: Edge):
    one, two = chain(KEY, 2)
    edge.now = START + 2 * DAY
    edge.take(one)
    edge.take(two)
    three = two.rotated(KEY, NEW, issued=START, lifetime=10 * DAY)
    dated = replace(three, rotations=(Rotation.signed(2, KEY, NEW),), signatures={})._signed(NEW)
    edge.refuses(dated, "rotations of keys up to version 2 are not those")
    edge.take(three)


def test_what_an_unsigned_release_says_cannot_break_the_line(edge: Edge):
    header = replace(HEADER, task="x\n\x1b[31m")
    edge.refuses(Release.first(shift(), header, FOREIGN, issued=START), "for task 'x")


def test_a_file_damaged_on_disk_leaves_the_last_good_one(edge: Edge):
    edge.now = START + 2 * DAY
    one, two = chain(KEY, 2)
    edge.take(one)
    edge.take(two)
    path = max(edge.store.folder.iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    assert edge.store.current() == one
    with pytest.raises(InputError, match="truncated"):
        edge.store.verify()
    edge.take(two)
    assert edge.store.current() == two


def test_verifying_finds_a_fork_among_the_files(edge: Edge):
    one = first(KEY)
    edge.take(one)
    fork = Release.first(shift(5), HEADER, KEY, issued=START).next(shift(6), HEADER, KEY, issued=START)
    (edge.store.folder / "00000002.safetensors").write_bytes(fork.to_bytes())
    with pytest.raises(InputError, match="does not hold version 1"):
        edge.store.verify()


def test_a_file_of_another_cloud_is_not_used(edge: Edge):
    edge.take(first(KEY))
    later = first(FOREIGN).next(shift(), HEADER, FOREIGN)
    (edge.store.folder / "00000002.safetensors").write_bytes(later.to_bytes())
    current = edge.store.current()
    assert current is not None
    assert current.version == 1
    assert parse_release(later.to_bytes()) == later

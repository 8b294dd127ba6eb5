"""An edge that was off, late, or on a revoked release reaches the release in force at the first look."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
from tests.edge.releases.published import Cloud
from tests.protocol.trust.chains import DAY, HEADER, START, chain, shift

from fedperfit.edge.releases.download import CloudFiles, NotFetched, WebFolder
from fedperfit.edge.releases.fetching import Fetcher, Told
from fedperfit.edge.releases.store import ReleaseStore
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.pointer import Pointer
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey

KEY, NEW = SigningKey(), SigningKey()


class Edge:
    """A store that is fed from a cloud, without an agent around it."""

    def __init__(
        self, folder: Path, cloud: Cloud, pinned: SigningKey = KEY, mirror: WebFolder | None = None
    ) -> None:
        self.now: datetime = START + 3 * DAY
        self.said: list[str] = []
        self.stale, self.unwilling, self.renewals, self.renewing = False, False, 0, Event()
        self.check: Callable[[Release], None] = lambda release: None
        self.store = ReleaseStore(
            *(folder,),
            pinned=pinned.public,
            fingerprint=HEADER.fingerprint,
            task=HEADER.task,
            clock=lambda: self.now,
        )
        files = CloudFiles(cloud.address, cloud.authority)
        sources = [files] if mirror is None else [mirror, files]
        self.fetcher = Fetcher(sources, self, seconds=30.0, say=self.said.append, draw=max)

    def point(self, pointer: bytes) -> Told:
        wanted = self.store.point(pointer)
        kept = self.store.pointer()
        issued = kept.issued if kept is not None else ""
        if wanted is None:
            return Told(stale=self.stale, issued=issued)
        return Told(wanted.version, wanted.size, digest=wanted.digest, issued=issued)

    def offer(self, release: bytes) -> None:
        self.store.fetched(release, self.check)

    def renew(self) -> None:
        self.renewals += 1
        self.renewing.wait(10)
        if self.unwilling:
            raise NotFetched("not agreed to")
        self.stale = False

    @property
    def version(self) -> int:
        current = self.store.current()
        return current.version if current is not None else 0


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path).up() as cloud:
        yield cloud


@pytest.fixture
def edge(tmp_path: Path, cloud: Cloud) -> Edge:
    return Edge(tmp_path / "releases", cloud)


def publish(cloud: Cloud, release: Release | None, key: SigningKey = KEY, **how: object) -> None:
    cloud.publish(release, key, **({"issued": START + 3 * DAY} | how))  # type: ignore[arg-type]


def test_late_and_returning_edges_reach_the_release_in_force_at_once(edge: Edge, cloud: Cloud):
    releases = chain(KEY, 4)
    publish(cloud, releases[0])
    assert edge.fetcher.step() == 37.5, "30 s, and a quarter"
    assert edge.version == 1, "an edge that joins late"
    for missed in releases[1:]:
        publish(cloud, missed)
    edge.fetcher.step()
    assert edge.version == 4, "an edge that was off for three releases"
    edge.store.verify()
    assert edge.said == ["fetched release 1", "fetched release 4"]
    edge.fetcher.step()
    assert cloud.asked.count("/releases/00000004.safetensors") == 1
    assert edge.store.notice() == ""


def test_without_the_fetcher_they_do_not(edge: Edge, cloud: Cloud):
    publish(cloud, chain(KEY, 1)[0])
    assert edge.version == 0


def test_before_the_first_release_nothing_is_wanted(edge: Edge, cloud: Cloud):
    publish(cloud, None)
    edge.fetcher.step()
    assert (edge.version, edge.store.notice(), edge.said) == (0, "", [])


def test_after_a_revocation_only_what_replaces_it_is_in_force(edge: Edge, cloud: Cloud):
    one, two = chain(KEY, 2)
    for release in (one, two):
        publish(cloud, release)
        edge.fetcher.step()
    three = two.followed_by(one, KEY, issued=START + 2 * DAY, lifetime=10 * DAY)
    publish(cloud, three, revoked=(2,))
    file = cloud.files.pop("00000003.safetensors")
    edge.fetcher.step()
    assert edge.version == 0, "not back to version 1, whose file is still there"
    assert edge.store.notice() == "release 3 is in force, and is yet to be fetched"
    cloud.files["00000003.safetensors"] = file
    edge.fetcher.step()
    assert (edge.version, edge.store.notice()) == (3, "")
    publish(cloud, None, revoked=(1, 2, 3))
    edge.fetcher.step()
    assert edge.version == 0
    assert edge.store.notice() == "the cloud revoked release 3, and none is in force"


def test_an_edge_follows_a_rotation_that_it_missed(edge: Edge, cloud: Cloud):
    one = chain(KEY, 1)[0]
    publish(cloud, one)
    edge.fetcher.step()
    rotated = one.rotated(KEY, NEW, issued=START + DAY, lifetime=10 * DAY)
    later = rotated.next(shift(3), HEADER, NEW, issued=START + 2 * DAY, lifetime=10 * DAY)
    publish(cloud, later, NEW)
    edge.fetcher.step()
    assert edge.version == 3


def test_what_fails_is_said_once_and_tried_less_and_less_often(edge: Edge, cloud: Cloud):
    cloud.files.clear()
    pauses = [edge.fetcher.step() for _ in range(8)]
    assert pauses == [37.5, 75.0, 150.0, 300.0, 375.0, 375.0, 375.0, 375.0]
    assert edge.said == ["in-force.json: status 404"]
    publish(cloud, chain(KEY, 1)[0])
    assert edge.fetcher.step() == 37.5
    assert edge.version == 1


def test_pauses_are_apart_at_random(cloud: Cloud, edge: Edge):
    files = CloudFiles(cloud.address, cloud.authority)
    publish(cloud, None)
    random = Fetcher([files], edge, seconds=30.0, say=edge.said.append)
    pauses = [random.step() for _ in range(20)]
    assert 22.5 <= min(pauses) < max(pauses) <= 37.5


def test_what_the_owner_did_not_agree_to_is_not_kept(edge: Edge, cloud: Cloud):
    def guard(release: Release) -> None:
        raise InputError("release: the shift changes 9, agreed is 8")

    edge.check = guard
    publish(cloud, chain(KEY, 1)[0])
    edge.fetcher.step()
    assert edge.version == 0
    assert edge.store.notice() == "release: the shift changes 9, agreed is 8"
    assert edge.said == ["release: the shift changes 9, agreed is 8"]
    edge.check = lambda release: None
    edge.fetcher.step()
    assert (edge.version, edge.store.notice()) == (1, ""), "the control"


def test_no_more_is_read_of_a_release_than_its_pointer_says(edge: Edge, cloud: Cloud):
    publish(cloud, chain(KEY, 1)[0])
    cloud.files["00000001.safetensors"] += bytes(1)
    edge.fetcher.step()
    assert "at most" in edge.said[0]
    assert edge.version == 0


def test_a_release_that_the_pointer_does_not_name_is_refused(edge: Edge, cloud: Cloud):
    one, two = chain(KEY, 2)
    roomy = Pointer.signed(one, KEY, size=1 << 16, issued=START + 3 * DAY)
    edge.store.point(roomy.to_bytes())
    with pytest.raises(InputError, match="not the one that the pointer names"):
        edge.store.fetched(two.to_bytes(), edge.check)
    with pytest.raises(InputError, match="larger than the pointer says"):
        edge.store.fetched(bytes((1 << 16) + 1), edge.check)
    edge.store.fetched(one.to_bytes(), edge.check)
    assert edge.version == 1


def test_silence_shows_once_the_pointer_has_expired(edge: Edge, cloud: Cloud):
    publish(cloud, chain(KEY, 1)[0])
    edge.fetcher.step()
    cloud.files.clear()
    edge.now += timedelta(hours=2)
    edge.fetcher.step()
    assert edge.store.notice() == ""
    edge.now += timedelta(hours=1)
    edge.fetcher.step()
    assert edge.store.notice() == (
        "what the cloud said of the release in force at 2026-01-04T00:00:00Z has expired: no news since"
    )
    assert edge.version == 1, "the owner is answered as before"


def test_an_error_of_another_kind_is_not_swallowed(cloud: Cloud, edge: Edge):
    class Broken(CloudFiles):
        error: Exception = ZeroDivisionError()

        def get(self, name: str, most: int) -> bytes:
            raise self.error

    files = Broken(cloud.address, cloud.authority)
    with pytest.raises(ZeroDivisionError):
        Fetcher([files], edge, seconds=1.0, say=edge.said.append).step()
    files.error = NotFetched("no")
    Fetcher([files], edge, seconds=1.0, say=edge.said.append).step()
    assert edge.said == ["no"]


def test_a_stale_personal_shift_is_renewed_once_and_beside_the_fetching(edge: Edge, cloud: Cloud):
    publish(cloud, chain(KEY, 1)[0])
    edge.stale = True
    edge.fetcher.step()
    assert (edge.version, edge.renewals) == (1, 0), "a run has until the next look to ask for it itself"
    for _ in range(3):
        edge.fetcher.step()
    assert edge.renewals == 1, "while it is under way, the pointer is looked at as before"
    edge.renewing.set()
    edge.fetcher._renewing.join(10)
    edge.fetcher.step()
    assert (edge.stale, edge.renewals) == (False, 1)


def test_a_renewal_that_was_refused_is_not_asked_for_again_soon(edge: Edge, cloud: Cloud):
    publish(cloud, None)
    edge.stale = edge.unwilling = True
    edge.renewing.set()
    for _ in range(3):
        assert edge.fetcher.step() == 37.5
        edge.fetcher._renewing.join(10)
    assert (edge.renewals, edge.said) == (1, ["not agreed to"])

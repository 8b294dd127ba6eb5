"""A deployed agent fed by the fetcher's own code, from a cloud in the test's process, and asked for fits."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from tests.edge.deployment.deployments import (
    CLOUD,
    PERSONAL,
    TRAINING,
    agree,
    deployed,
    policy,
    releases,
    served,
)
from tests.edge.edge_clients import write_client
from tests.edge.releases.published import Cloud

from fedperfit.edge.agent.consent import Consent, limit_epsilon, write_consent
from fedperfit.edge.audit.files import events
from fedperfit.edge.audit.rates import Rate
from fedperfit.edge.deployment import deployed as module
from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.edge.fetcher_app import AgentFeed
from fedperfit.edge.releases.download import CloudFiles
from fedperfit.edge.releases.fetching import Fetcher
from fedperfit.protocol.messages.settings import PersonalSettings, TrainingSettings
from fedperfit.protocol.schema import owner_pb2, owner_pb2_grpc
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json_lines, write_json_lines
from fedperfit.protocol.trust.release import Release

SAME = (PERSONAL, TRAINING)


class Fed:
    """An agent with its owner's service, and a fetcher that looks when the test says so."""

    def __init__(self, edge: Deployed, cloud: Cloud, owner: grpc.Channel) -> None:
        self.edge, self.said = edge, list[str]()
        self._owner = owner_pb2_grpc.OwnerStub(owner)
        files, feed = CloudFiles(cloud.address, cloud.authority), AgentFeed(edge.home.feed)
        self.fetcher = Fetcher([files], feed, seconds=1.0, say=self.said.append)

    def explained(self) -> owner_pb2.Explanation:
        return self._owner.Explain(owner_pb2.ExplainRequest())

    def logged(self) -> list[str]:
        return [e["reason"] for e in events(self.edge.home.audit) if e["event"] == "fetch"]

    def fitted_on(self, release: Release) -> None:
        """Have the personal shift fitted, as a run asks for it."""
        self.edge.personalize(release.to_bytes(), PERSONAL, TRAINING, lambda: True)

    def settled(self) -> owner_pb2.Explanation:
        """What the owner is told once a look has found nothing to fetch, and a renewal has ended."""
        self.fetcher.step()
        thread = self.fetcher._renewing
        assert thread is not None
        thread.join(60)
        return self.explained()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path).up() as cloud:
        yield cloud


@pytest.fixture
def fed(tmp_path: Path, cloud: Cloud) -> Iterator[Fed]:
    folder = write_client(tmp_path / "ada", items=24)
    agree(folder, policy(largest_change=1.0, contribute_per_day=0, personalize_per_day=2))
    with deployed(folder) as edge, served(edge) as (_, owner):
        yield Fed(edge, cloud, owner)


def test_the_release_in_force_answers_without_a_run(fed: Fed, cloud: Cloud, header: ShiftHeader):
    assert fed.explained().stage == "base"
    (release,) = releases(header, 1)
    pointer = cloud.publish(release, CLOUD)
    fed.fetcher.step()
    told = fed.explained()
    assert (told.stage, told.release.version, told.confirmed) == ("collective", 1, pointer.issued)
    assert told.notice == ""
    assert fed.logged()[-1] == "fetched: it is in force"
    assert told.sent == [], "nothing is sent by it"


def test_a_shift_that_was_not_agreed_to_stays_out(fed: Fed, cloud: Cloud, header: ShiftHeader):
    one, two = releases(header, 2)
    cloud.publish(one, CLOUD)
    fed.fetcher.step()
    shift = two.shift
    shift.b.data.fill_(1.0)
    large = one.next(shift, header, CLOUD)
    cloud.publish(large, CLOUD)
    fed.fetcher.step()
    assert fed.said[-1] == "the agent did not take the release: Refused"
    told = fed.explained()
    assert told.release.version == 1
    assert "release: the shift changes" in told.notice
    assert "release: the shift changes" in fed.logged()[-1]
    fed.fetcher.step()
    assert len(fed.logged()) == len(set(fed.logged())), "what stays the same is recorded once"


def test_a_revoked_release_answers_nobody(fed: Fed, cloud: Cloud, header: ShiftHeader):
    one, _ = releases(header, 2)
    cloud.publish(one, CLOUD)
    fed.fetcher.step()
    cloud.publish(None, CLOUD, revoked=(1,))
    fed.fetcher.step()
    told = fed.explained()
    assert (told.stage, told.release.version) == ("base", 0)
    assert told.problem == "release 1 was revoked, and no other is here yet"
    assert told.notice == fed.logged()[-1] == "the cloud revoked release 1, and none is in force"


def test_while_paused_nothing_is_taken(fed: Fed, cloud: Cloud, header: ShiftHeader):
    write_consent(fed.edge.home.folder, Consent(paused=True))
    cloud.publish(releases(header, 1)[0], CLOUD)
    fed.fetcher.step()
    assert fed.explained().release.version == 0
    assert fed.edge.releases.pointer() is None
    write_consent(fed.edge.home.folder, Consent())
    fed.fetcher.step()
    assert fed.explained().release.version == 1


def test_a_flood_is_turned_away(fed: Fed, cloud: Cloud, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedperfit.edge.audit.rates.OTHERS", Rate(per_second=0.0, burst=5))
    cloud.publish(None, CLOUD, issued=datetime(2020, 1, 1, tzinfo=UTC))
    for _ in range(20):
        fed.fetcher.step()
    assert fed.said[0] == "the agent did not take the pointer: InputError"
    assert fed.said[-1] == "the agent did not take the pointer: TooManyRequests"
    assert len(fed.logged()) == 1


def test_the_personal_shift_is_renewed_on_a_fetched_release(fed: Fed, cloud: Cloud, header: ShiftHeader):
    one, two = releases(header, 2)
    fed.fitted_on(one)
    cloud.publish(two, CLOUD)
    fed.fetcher.step()
    told = fed.explained()
    assert (told.release.version, told.personal.release, told.stage) == (2, 1, "collective")
    assert told.problem == "the personal shift in slot 'full' belongs to another release or base model"
    told = fed.settled()
    assert (told.release.version, told.personal.release, told.problem) == (2, 2, "")
    assert fed.logged()[-1] == "the personal shift was renewed"
    assert fed.edge._not_renewed == ""
    three = two.next(releases(header, 3)[2].shift, header, CLOUD)
    cloud.publish(three, CLOUD)
    fed.fetcher.step()
    told = fed.settled()
    assert told.personal.release == 2
    assert told.problem.endswith("; it is not renewed: personalize: 2 a day are agreed, and were asked for")
    assert fed.logged()[-1].startswith("the personal shift was not renewed: personalize: 2 a day")


def test_without_consent_the_personal_shift_is_not_renewed(fed: Fed, cloud: Cloud, header: ShiftHeader):
    one, two = releases(header, 2)
    fed.fitted_on(one)
    write_consent(fed.edge.home.folder, Consent(refused=("personalize",)))
    cloud.publish(two, CLOUD)
    fed.fetcher.step()
    told = fed.settled()
    assert (told.release.version, told.personal.release, told.stage) == (2, 1, "collective")
    assert "it is not renewed: you do not consent to personalize" in told.problem


def test_the_same_shift_released_again_needs_no_renewal(fed: Fed, cloud: Cloud, header: ShiftHeader):
    one, _ = releases(header, 2)
    fed.fitted_on(one)
    cloud.publish(one.followed_by(one, CLOUD), CLOUD)
    for _ in range(2):
        fed.fetcher.step()
    told = fed.explained()
    assert (told.release.version, told.personal.release, told.problem) == (2, 1, "")
    assert fed.fetcher._renewing is None


def waiting() -> bool:
    return True


def test_the_same_request_is_fitted_once_until_something_changes(
    tmp_path, header: ShiftHeader, monkeypatch: pytest.MonkeyPatch
):
    folder = write_client(tmp_path / "ada", items=8, questions=2)
    fits: list[int] = []
    renew = module.renew

    def counted(*args, **how):
        fits.append(1)
        return renew(*args, **how)

    monkeypatch.setattr(module, "renew", counted)
    one, two = releases(header, 2)
    told: list[object] = []

    def asked(edge: Deployed, personal: PersonalSettings, training: TrainingSettings, release=one) -> int:
        before = len(fits)
        told.append(edge.personalize(release.to_bytes(), personal, training, waiting))
        return len(fits) - before

    def edit_an_item() -> None:
        items = read_json_lines(folder / "history.jsonl")
        items[0]["tag"] = next(item["tag"] for item in items if item["tag"] != items[0]["tag"])
        write_json_lines(folder / "history.jsonl", items)

    with deployed(folder) as edge:
        assert [asked(edge, *SAME) for _ in range(3)] == [1, 0, 0]
        assert told[0] == told[1] == told[2]
        item = dict(edge.agent.history.items[0])
        changes: list[Callable[[], object]] = [
            edit_an_item,
            lambda: edge.learn([item], waiting),
            lambda: edge.unlearn([1], waiting),
            edge.forget,
        ]
        for change in changes:
            change()
            assert [asked(edge, *SAME) for _ in range(2)] == [1, 0]
        assert asked(edge, PERSONAL, TRAINING.replace(epochs=TRAINING.epochs + 1)) == 1
        assert asked(edge, PERSONAL.replace(rank=1), TRAINING) == 1
        assert [asked(edge, *SAME, release) for release in (one, two, two)] == [1, 1, 0]
        limit_epsilon(folder, 8.0)
        with pytest.raises(InputError, match="no basis"):
            asked(edge, *SAME, two)


def test_what_a_fetched_release_was_fitted_with_is_not_fitted_again(tmp_path, header: ShiftHeader):
    one, two = releases(header, 2)
    with deployed(write_client(tmp_path / "ada", items=8, questions=2)) as edge:
        edge.personalize(one.to_bytes(), *SAME, waiting)
        edge.releases.accept(two.to_bytes())
        assert edge.renew(waiting)
        kept = edge.stages.kept()[0]
        assert edge.personalize(two.to_bytes(), *SAME, waiting).items == 8
        assert edge.stages.kept()[0] == kept
        assert kept.fit_record.version == 2

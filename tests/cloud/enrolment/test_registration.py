"""Tokens that are good once, keys that wait for approval, and kills at every step."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cloud.enrolment.fake_superlink import (
    FakeSuperLink,
    Killed,
    Kills,
    check_whole,
    superlink,
)

from fedperfit.cloud.deployment.home import CloudHome, init
from fedperfit.cloud.enrolment.invitations import Invitation, changing, invitations, write_invitation
from fedperfit.cloud.enrolment.inviting import enroll
from fedperfit.cloud.enrolment.registration import approve, enrolled, redeem, repair, unenroll, waiting
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.trust.bundle import Bundle, read_bundle
from fedperfit.protocol.trust.enrolment import EnrolmentRequest
from fedperfit.protocol.trust.node_key import NodeKey, fingerprint

__all__ = ["superlink"]


@pytest.fixture
def home(tmp_path: Path) -> CloudHome:
    home = CloudHome(tmp_path / "cloud")
    init(home, "quickstart", {})
    return home


def invited(home: CloudHome, name: str = "ada", **options: bool | int) -> Bundle:
    out = home.folder.parent / f"{name}.bundle"
    out.unlink(missing_ok=True)
    enroll(home, name, out, **options)  # type: ignore[arg-type]
    return read_bundle(out)


def asking(bundle: Bundle, key: NodeKey | None = None, sums: str = "") -> EnrolmentRequest:
    return EnrolmentRequest.signed(bundle.name, bundle.token, key or NodeKey(), sums)


def expire(home: CloudHome, name: str = "ada") -> None:
    (invitation,) = (one for one in invitations(home) if one.name == name)
    past = datetime.now(UTC) - timedelta(seconds=1)
    write_invitation(home, Invitation(**{**vars(invitation), "expires": past.isoformat()}))


def test_a_key_is_registered_and_the_bundle_holds_no_private_one(home, superlink):
    bundle = invited(home)
    assert not superlink.calls, "inviting needs no SuperLink"
    assert "PRIVATE" not in (home.folder.parent / "ada.bundle").read_text()
    assert bundle.token not in "".join(path.read_text() for path in home.invitations.iterdir())
    request = asking(bundle)
    assert redeem(home, request).state == "enrolled"
    assert enrolled(home) == {superlink.nodes[request.key]: "ada"}
    check_whole(home, superlink)


def test_a_token_is_spent_by_its_first_key_and_the_same_request_may_come_again(home, superlink):
    bundle = invited(home)
    first = asking(bundle)
    assert [redeem(home, first).state for _ in range(2)] == ["enrolled"] * 2
    refused = redeem(home, asking(bundle))
    assert refused.state == "refused"
    assert "was used already" in refused.reason
    assert set(superlink.nodes) == {first.key}


def test_of_many_at_a_time_one_is_registered(home, superlink):
    requests = [asking(invited(home))]
    requests += [asking(read_bundle(home.folder.parent / "ada.bundle")) for _ in range(15)]
    with ThreadPoolExecutor(8) as pool:
        states = [reply.state for reply in pool.map(lambda one: redeem(home, one), requests)]
    assert states.count("enrolled") == 1
    assert states.count("refused") == len(requests) - 1
    assert len(superlink.nodes) == 1
    check_whole(home, superlink)


def test_an_invitation_expires_and_an_expired_one_is_replaced(home, superlink):
    bundle = invited(home)
    expire(home)
    assert "expired at" in redeem(home, asking(bundle)).reason
    assert not superlink.calls
    renewed = invited(home)
    assert "not an invitation" in redeem(home, asking(bundle)).reason
    request = asking(renewed)
    assert redeem(home, request).state == "enrolled"
    expire(home)
    assert redeem(home, request).state == "enrolled", "a key that came in time stays"


def test_invitations_are_the_clouds_accounts_alone(home):
    before = os.umask(0o022)
    try:
        invited(home)
    finally:
        os.umask(before)
    assert home.invitations.stat().st_mode & 0o077 == 0


def test_the_days_are_those_of_the_command_or_of_the_settings(home):
    for options, days in (({}, 7), ({"days": 2}, 2)):
        invited(home, f"after-{days}", **options)
        (kept,) = (one for one in invitations(home) if one.name == f"after-{days}")
        left = datetime.fromisoformat(kept.expires) - datetime.now(UTC)
        assert timedelta(days=days) - timedelta(minutes=5) < left <= timedelta(days=days)
    with pytest.raises(InputError, match="invitation-days=0"):
        invited(home, "never", days=0)


@pytest.mark.parametrize("wrong", ["proof", "key", "name", "token"])
def test_a_request_that_its_key_did_not_sign_is_refused(home, superlink, wrong):
    bundles = {name: invited(home, name) for name in ("ada", "ben")}
    good, other = asking(bundles["ada"]), asking(bundles["ben"])
    refused = redeem(home, good.model_copy(update={wrong: getattr(other, wrong)}))
    assert refused.state == "refused"
    assert superlink.nodes == {}
    assert redeem(home, good).state == "enrolled", "the token is not spent by it"


def test_who_has_no_token_learns_nothing(home, superlink):
    used = invited(home, "ada")
    assert redeem(home, asking(used)).state == "enrolled"
    invited(home, "ben")
    expire(home, "ben")
    reasons = set()
    with changing(home):  # they do not wait for those who have one
        for name in ("ada", "ben", "nobody", "../cloud", "x" * 64):
            reasons.add(redeem(home, EnrolmentRequest.signed(name, "0" * 64, NodeKey())).reason)
    assert reasons == {"this is not an invitation of this cloud, or it was taken back"}


def test_a_name_is_invited_once_and_a_file_is_not_overwritten(home, superlink, tmp_path):
    bundle = invited(home)
    with pytest.raises(InputError, match="ada is already invited"):
        enroll(home, "ada", tmp_path / "again")
    with pytest.raises(InputError, match="already exists"):
        enroll(home, "ben", tmp_path / "ada.bundle")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="already exists"):
        enroll(home, "ben", tmp_path / "link")
    with pytest.raises(InputError, match="at most 64"):
        enroll(home, "../x", tmp_path / "x")
    redeem(home, asking(bundle))
    with pytest.raises(InputError, match="ada is already enrolled"):
        enroll(home, "ada", tmp_path / "again")


def test_a_bundle_that_cannot_be_written_invites_nobody(home, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        enroll(home, "ada", tmp_path / "file" / "ada.bundle")
    assert invitations(home) == []


def test_a_key_waits_for_approval_of_its_fingerprint(home, superlink):
    bundle = invited(home, approve=True)
    with pytest.raises(InputError, match="ada does not wait"):
        approve(home, "ada", "SHA256:x")
    request = asking(bundle)
    assert [redeem(home, request).state for _ in range(2)] == ["waiting"] * 2
    assert superlink.nodes == {}
    assert waiting(home) == {"ada": fingerprint(request.key)}
    with pytest.raises(InputError, match="not SHA256:x"):
        approve(home, "ada", "SHA256:x")
    assert superlink.nodes == {}
    approve(home, "ada", fingerprint(request.key))
    assert waiting(home) == {}
    assert redeem(home, request).state == "enrolled"
    check_whole(home, superlink)


def test_what_the_superlink_refuses_is_not_registered_and_may_be_asked_again(home, superlink):
    request = asking(invited(home))
    superlink.up = False
    with pytest.raises(RunFailed):
        redeem(home, request)
    assert (enrolled(home), superlink.nodes) == ({}, {})
    superlink.up = True
    assert redeem(home, request).state == "enrolled"


def test_a_registration_that_failed_leaves_the_token_free(home, superlink):
    bundle, key = invited(home), NodeKey()
    superlink.keys_ever.add(key.public)
    with pytest.raises(RunFailed, match="already in use"):
        redeem(home, asking(bundle, key))
    assert [invitation.key for invitation in invitations(home)] == [""]
    assert redeem(home, asking(bundle)).state == "enrolled"
    check_whole(home, superlink)


def test_a_key_that_nobody_could_say_was_registered_is_freed_at_the_next_start(home, superlink):
    bundle = invited(home)
    superlink.up = False
    with pytest.raises(RunFailed):
        redeem(home, asking(bundle))
    assert redeem(home, asking(bundle)).state == "refused", "it may have been registered"
    superlink.up = True
    repair(home)
    assert redeem(home, asking(bundle)).state == "enrolled"
    check_whole(home, superlink)


def test_unenrolling_takes_back_an_invitation_and_a_node(home, superlink):
    bundle = invited(home)
    unenroll(home, "ada")
    assert not superlink.calls, "nobody but the cloud knew of it"
    assert "not an invitation" in redeem(home, asking(bundle)).reason
    bundle = invited(home)
    request = asking(bundle)
    assert redeem(home, request).state == "enrolled"
    unenroll(home, "ada")
    assert redeem(home, request).state == "refused"
    with pytest.raises(InputError, match="ada is not enrolled"):
        unenroll(home, "ada")
    assert redeem(home, asking(invited(home))).state == "enrolled", "a new key is"
    check_whole(home, superlink)


def test_a_node_of_an_earlier_version_is_enrolled_until_it_is_unenrolled(home, superlink):
    key = NodeKey().public
    node = superlink.register(home, key)
    write_json(home.node("ada"), {"name": "ada", "node": str(node), "key": key})
    repair(home)
    check_whole(home, superlink)
    assert enrolled(home) == {node: "ada"}
    unenroll(home, "ada")
    assert (enrolled(home), superlink.nodes) == ({}, {})


def _join(home: CloudHome, key: NodeKey, bundle: Bundle) -> None:
    assert redeem(home, asking(bundle, key)).state == "enrolled"


def _approve(home: CloudHome, key: NodeKey, bundle: Bundle) -> None:
    if "ada" in waiting(home):
        approve(home, "ada", fingerprint(key.public))
    _join(home, key, bundle)


def _unenroll(home: CloudHome, key: NodeKey, bundle: Bundle) -> None:
    if home.node("ada").exists() or invitations(home):
        unenroll(home, "ada")
    assert redeem(home, asking(bundle, key)).state == "refused"


@pytest.mark.parametrize("repaired", [True, False], ids=["started-again", "going-on"])
@pytest.mark.parametrize(
    ("operation", "steps", "nodes"), [(_join, 6, 1), (_approve, 4, 1), (_unenroll, 8, 0)]
)
def test_a_kill_at_any_step_leaves_nothing_half_registered(
    tmp_path: Path,
    superlink: FakeSuperLink,
    monkeypatch: pytest.MonkeyPatch,
    operation: Callable[[CloudHome, NodeKey, Bundle], None],
    steps: int,
    nodes: int,
    repaired: bool,
) -> None:
    kills = Kills(monkeypatch)
    for at in range(1, 100):
        home, key = CloudHome(tmp_path / f"{at}" / "cloud"), NodeKey()
        init(home, "quickstart", {})
        superlink.nodes.clear()
        bundle = invited(home, approve=operation is _approve)
        if operation is _approve:
            redeem(home, asking(bundle, key))
        elif operation is _unenroll:
            _join(home, key, bundle)
        kills.steps, kills.at = 0, at
        try:
            operation(home, key, bundle)
        except Killed:
            kills.at = -1
        else:
            break
        if repaired:
            repair(home)
            check_whole(home, superlink)
        operation(home, key, bundle)
        check_whole(home, superlink)
        assert len(superlink.nodes) == nodes
    assert at == steps + 1, "every step was tried"


@pytest.mark.parametrize("both_wait", [True, False])
def test_nobody_takes_anothers_invitation_by_a_key_that_is_known(home, superlink, both_wait):
    own, other = invited(home, "mallory", approve=both_wait), invited(home, "ada", approve=True)
    key = NodeKey()
    assert redeem(home, asking(own, key)).state == ("waiting" if both_wait else "enrolled")
    refused = redeem(home, asking(other, key))
    assert (refused.state, "another client's" in refused.reason) == ("refused", True)
    if both_wait:
        approve(home, "mallory", fingerprint(key.public))
    repair(home)
    assert list(enrolled(home).values()) == ["mallory"], "approved by nobody, a restart would enrol ada"
    assert redeem(home, asking(other)).state == "waiting"

"""Keys for secure sums: they come with the node's, are approved with it, and named in the chain."""

import pytest
from tests.cloud.cli.test_main import command
from tests.cloud.enrolment.fake_superlink import superlink
from tests.cloud.enrolment.test_registration import asking, home, invited
from tests.cloud.fake_grid import perturbed

from fedperfit.cloud.deployment.home import CloudHome, init, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.enrolment.invitations import changing, read_invitation
from fedperfit.cloud.enrolment.members import publish_members
from fedperfit.cloud.enrolment.registration import (
    approve,
    keys_for_sums,
    redeem,
    repair,
    unenroll,
)
from fedperfit.cloud.job.basis import settings_basis
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.secure_sums.keys import Directory, SumKeys
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.trust.node_key import NodeKey, fingerprint
from fedperfit.protocol.trust.release_file import parse_release

__all__ = ["home", "superlink"]


def joined(home: CloudHome, *names: str) -> dict[str, SumKeys]:
    keys = {name: SumKeys.new() for name in names}
    for name, own in keys.items():
        assert redeem(home, asking(invited(home, name), sums=own.public.hex)).state == "enrolled"
    return keys


def test_keys_come_with_the_nodes_and_stay_with_it(home, superlink):
    keys, node = SumKeys.new(), NodeKey()
    bundle = invited(home)
    request = asking(bundle, node, keys.public.hex)
    assert [redeem(home, request).state for _ in range(2)] == ["enrolled"] * 2
    assert keys_for_sums(home).keys == {"ada": keys.public}
    for other in (SumKeys.new().public.hex, ""):
        assert "was used already" in redeem(home, asking(bundle, node, other)).reason
    unenroll(home, "ada")
    assert not keys_for_sums(home).keys


def test_they_wait_for_approval_with_the_nodes_key_and_survive_a_kill(home, superlink):
    keys, node = SumKeys.new(), NodeKey()
    request = asking(invited(home, approve=True), node, keys.public.hex)
    assert redeem(home, request).state == "waiting"
    assert not keys_for_sums(home).keys
    approve(home, "ada", fingerprint(node.public))
    home.node("ada").unlink()  # as a kill before the record leaves it
    repair(home)
    assert keys_for_sums(home).keys == {"ada": keys.public}


def test_nobody_can_put_other_keys_into_a_request(home, superlink):
    request = asking(invited(home), sums=SumKeys.new().public.hex)
    for other in (SumKeys.new().public.hex, ""):
        forged = request.model_copy(update={"sums": other})
        assert "does not show that the key is yours" in redeem(home, forged).reason


def test_keys_that_nothing_can_be_sealed_to_are_refused(home, superlink):
    bundle = invited(home)
    refused = redeem(home, asking(bundle, sums="00" * 64))
    assert (refused.state, refused.reason) == ("refused", "keys for sums: nothing can be sealed to this one")
    assert redeem(home, asking(bundle, sums=SumKeys.new().public.hex)).state == "enrolled"


def test_such_keys_of_an_earlier_version_are_named(home, superlink):
    joined(home, "ada")
    write_json(home.node("ada"), {**read_json(home.node("ada")), "sums": "00" * 64})
    with pytest.raises(
        InputError, match="ada: keys for sums: nothing can be sealed to this one; unenroll it"
    ):
        publish_members(home)


def test_enrolments_of_earlier_versions_are_in_no_list(home, superlink):
    node = NodeKey()
    redeem(home, asking(invited(home, "bob"), node))
    record = read_json(home.node("bob"))
    assert set(record) == {"name", "node", "key"}
    with pytest.raises(InputError, match="no enrolled client has keys for secure sums; invite them again"):
        publish_members(home)
    keys = joined(home, "ada")
    release, without = publish_members(home)
    assert release.directory is not None
    assert (release.directory.keys, without) == ({"ada": keys["ada"].public}, ["bob"])
    with changing(home):
        known = read_invitation(home, "bob")
    assert known is not None
    write_json(home.invitations / "bob.json", {k: v for k, v in vars(known).items() if k != "sums"})
    assert read_invitation(home, "bob") == known


def test_the_first_release_is_the_identity_in_the_runs_basis(tmp_path, superlink):
    home = CloudHome(tmp_path / "cloud")
    init(home, "quickstart", {"update-basis": "random", "transport-dtype": "sign"})
    keys = joined(home, "ada", "bob")
    release, without = publish_members(home)
    assert (release.version, release.header.round, without) == (1, 0, [])
    settings = read_cloud(home)
    basis = settings_basis(settings, read_card(settings.base_model))
    assert basis is not None
    coordinates = Coordinates.of_shift(basis, release.shift)
    assert coordinates is not None
    assert not bool(coordinates.numbers.any())
    assert parse_release(release.to_bytes()).directory.keys == {n: k.public for n, k in keys.items()}
    assert publish_members(home)[0] == release, "the same list is no news"


def test_the_chain_carries_the_list_until_another_is_named(home, superlink):
    joined(home, "ada", "bob")
    first, _ = publish_members(home)
    store = CloudReleases(home.folder)
    trained = store.publish(first.shift, first.header, epsilon=1.0, delta=1e-5)
    rotated = store.rotate()
    assert trained.members == rotated.members == first.members
    joined(home, "cyd")
    named, _ = publish_members(home)
    assert (named.version, named.packed, named.epsilon) == (4, trained.packed, 1.0)
    assert named.directory is not None
    assert set(named.directory.keys) == {"ada", "bob", "cyd"}
    assert len({release.digest for release in store.verify()}) == 4


def test_the_command_names_who_has_keys_and_who_has_none(home, superlink, monkeypatch, capsys):
    assert command(monkeypatch, "release", "members", home.folder) == 2
    assert "no enrolled client has keys for secure sums" in capsys.readouterr().err
    joined(home, "ada", "bob")
    redeem(home, asking(invited(home, "cyd")))
    assert command(monkeypatch, "release", "members", home.folder) == 0
    said = capsys.readouterr().out
    assert "release 1 names ada, bob" in said
    assert "without keys, and in no sum until they join by a new invitation: cyd" in said


def test_a_revoked_release_takes_nobody_off_the_list(home, superlink):
    joined(home, "ada", "bob")
    first, _ = publish_members(home)
    store = CloudReleases(home.folder)
    trained = store.publish(perturbed(first.shift, "trained"), first.header)
    after = store.revoke(trained.version)
    assert after is not None
    assert (after.packed, after.members) == (first.packed, first.members)


def test_where_nothing_is_in_force_nobody_is_named(home, superlink):
    joined(home, "ada", "bob")
    release, _ = publish_members(home)
    CloudReleases(home.folder).revoke(release.version)
    with pytest.raises(InputError, match="no release is in force that could name anybody"):
        publish_members(home)


@pytest.mark.parametrize("data", [b"x", b"[]", b"{}  ", b'{"ada":["00","11"]}', b'{"ada": 1}'])
def test_a_release_with_a_broken_list_is_refused(home, superlink, data):
    joined(home, "ada", "bob")
    release, _ = publish_members(home)
    from dataclasses import replace

    with pytest.raises(InputError):
        parse_release(replace(release, members=data)._signed(CloudReleases(home.folder).key()).to_bytes())


def test_a_list_is_read_as_it_was_written():
    directory = Directory({"ada": SumKeys.new().public, "bob": SumKeys.new().public})
    assert Directory.from_bytes(directory.to_bytes()).keys == directory.keys

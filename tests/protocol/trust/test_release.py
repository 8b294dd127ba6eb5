import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from tests.protocol.trust.chains import DAY, HEADER, OWN, START, chain, first, shift

from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift_file import shift_file
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import id_of_text, task_by_name
from fedperfit.protocol.trust.release import Release, check_chain
from fedperfit.protocol.trust.release_file import parse_release, read_release
from fedperfit.protocol.trust.rotation import Rotation
from fedperfit.protocol.trust.signing import SigningKey

KEY, NEW = SigningKey(), SigningKey()
DIRECTIONS = Directions.of((0, 1), torch.tensor([[1.0, 0], [3, 4]]), torch.tensor([[0.0, 1], [1, 1]]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("epsilon", [None, 0.0, 3.5])
def test_round_trip(dtype, epsilon, tmp_path: Path):
    header = replace(HEADER, dtype=dtype)
    release = Release.first(shift(), header, KEY, issued=START, epsilon=epsilon)
    path = tmp_path / "release.safetensors"
    path.write_bytes(release.to_bytes())
    assert read_release(path) == parse_release(release.to_bytes()) == release
    assert read_release(path).to_bytes() == release.to_bytes()


def test_epsilon_stands_in_the_signed_fields_with_its_delta():
    release = first(KEY, epsilon=2.0, delta=1e-5)
    assert release.promise == "epsilon 2 at delta 1e-05"
    assert parse_release(release.to_bytes()) == release
    assert (release.fields()["epsilon"], release.fields()["delta"]) == (2.0, 1e-5)
    assert "delta" not in first(KEY).fields()
    assert first(KEY).promise == ""
    with pytest.raises(InputError, match="signature"):
        replace(release, delta=1e-6).check_signed_from(KEY.public)
    rotated = release.rotated(KEY, NEW, issued=START)
    assert rotated.promise == release.promise
    for epsilon, delta in ((None, 1e-5), (2.0, 0.0), (2.0, 1.0)):
        broken = replace(release, epsilon=epsilon, delta=delta)
        with pytest.raises(InputError, match="delta"):
            parse_release(broken.to_bytes())


def test_a_release_may_carry_directions():
    release = first(KEY, directions=DIRECTIONS)
    parsed = parse_release(release.to_bytes())
    assert parsed == release
    assert parsed.directions is not None
    assert parsed.directions.layers == DIRECTIONS.layers
    torch.testing.assert_close(parsed.directions.personalized, DIRECTIONS.personalized)
    torch.testing.assert_close(parsed.directions.neutral, DIRECTIONS.neutral)
    parsed.check_signed_from(KEY.public)
    assert first(KEY).directions is None
    assert "directions" not in first(KEY).fields()
    rotated = release.rotated(KEY, NEW, issued=START)
    assert rotated.edit == release.edit
    assert rotated.next(shift(), HEADER, NEW, issued=START).directions is None


def test_directions_are_signed_with_everything_else():
    release, bare = first(KEY, directions=DIRECTIONS), first(KEY)
    others = Directions.of((0, 1), -DIRECTIONS.neutral, DIRECTIONS.neutral).to_bytes()
    for changed in (
        replace(release, edit=others),
        replace(release, edit=b""),
        replace(bare, edit=release.edit),
    ):
        with pytest.raises(InputError, match="signature does not verify"):
            parse_release(changed.to_bytes()).check_signed_from(KEY.public)
    fields = {**release.fields(), "signatures": release.signatures}
    with pytest.raises(InputError, match="directions do not match their SHA-256"):
        parse_release(shift_file("release", release.packed, fields))
    hidden = load(release.to_bytes()) | {"directions": np.frombuffer(others, np.uint8)}
    header = release.to_bytes()[8 : 8 + int.from_bytes(release.to_bytes()[:8], "little")]
    with pytest.raises(InputError, match="directions do not match their SHA-256"):
        parse_release(save(hidden, metadata=json.loads(header)["__metadata__"]))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (b"x", "directions are truncated"),
        (Directions.of((0,), torch.ones(1, 3), torch.ones(1, 3)).to_bytes(), "of another size"),
    ],
)
def test_directions_that_do_not_fit_are_refused(edit, reason):
    with pytest.raises(InputError, match=reason):
        parse_release(replace(first(KEY), edit=edit)._signed(KEY).to_bytes())


def test_releases_form_a_chain():
    releases = chain(KEY, 4)
    assert [release.version for release in releases] == [1, 2, 3, 4]
    assert [release.chain[-1] for release in releases[1:]] == [release.digest for release in releases[:-1]]
    check_chain(releases, KEY.public)
    for wrong in (
        releases[1:],
        releases[:1] + releases[2:],
        list(reversed(releases)),
        releases + releases[-1:],
    ):
        with pytest.raises(InputError, match="does not follow"):
            check_chain(wrong, KEY.public)
    with pytest.raises(InputError, match="foreign key"):
        check_chain(releases, NEW.public)


def test_a_chain_stays_with_its_task_and_key():
    with pytest.raises(InputError, match="one task"):
        first(KEY).next(shift(), replace(HEADER, task="LaMP_3"), KEY)
    with pytest.raises(InputError, match="a new key needs a rotation"):
        first(KEY).next(shift(), HEADER, NEW)


def test_a_rotation_leads_from_the_pinned_key_to_the_new_one():
    second = first(KEY).rotated(KEY, NEW, issued=START)
    third = second.next(shift(3), HEADER, NEW, issued=START + DAY)
    fourth = third.rotated(NEW, last := SigningKey(), issued=START)
    for release in (second, third, fourth):
        parse_release(release.to_bytes()).check_signed_from(KEY.public)
    assert set(second.signatures) == {KEY.public, NEW.public}
    fourth.check_signed_from(last.public)
    check_chain([first(KEY), second, third, fourth], KEY.public)
    for release in (second, third):
        with pytest.raises(InputError, match="foreign key"):
            release.check_signed_from(last.public)


def test_a_rotation_needs_both_signatures():
    second = first(KEY).rotated(KEY, NEW, issued=START)
    for signer in (KEY, NEW):
        alone = replace(second, signatures={signer.public: second.signatures[signer.public]})
        with pytest.raises(InputError, match="signature does not verify"):
            alone.check_signed_from(KEY.public)
    (rotation,) = second.rotations
    stolen = Rotation.signed(2, NEW, NEW)
    forged = replace(rotation, by_old=stolen.by_old)
    with pytest.raises(InputError, match="not signed by both"):
        replace(second, rotations=(forged,))._signed(KEY, NEW).check_signed_from(KEY.public)


def test_what_the_old_key_signs_after_a_rotation_is_refused():
    second = first(KEY).rotated(KEY, NEW, issued=START)
    later = replace(second, chain=(*second.chain, second.digest), key=KEY.public, signatures={})._signed(KEY)
    with pytest.raises(InputError, match="rotated out"):
        later.check_signed_from(KEY.public)


def test_only_the_key_in_use_can_be_rotated():
    with pytest.raises(InputError, match="not the one that signed the latest"):
        first(KEY).rotated(NEW, KEY)


@pytest.mark.parametrize(
    "rotations",
    [
        [Rotation.signed(1, KEY, NEW)],
        [Rotation.signed(5, KEY, NEW)],
        [Rotation.signed(3, KEY, NEW), Rotation.signed(2, NEW, KEY)],
        [Rotation.signed(2, KEY, NEW), Rotation.signed(2, NEW, KEY)],
        [Rotation.signed(2, KEY, NEW), Rotation.signed(3, KEY, NEW)],
    ],
)
def test_rotations_go_from_key_to_key_and_version_to_version(rotations):
    changed = replace(chain(KEY, 4)[3], rotations=tuple(rotations))
    with pytest.raises(InputError, match="its rotations"):
        parse_release(changed.to_bytes())


def test_the_packed_shift_is_what_is_signed():
    release = first(KEY)
    other = replace(release, packed=pack(shift(9), HEADER))
    with pytest.raises(InputError, match="signature does not verify"):
        parse_release(other.to_bytes()).check_signed_from(KEY.public)


def test_an_own_task_travels_in_the_release():
    task = task_by_name(OWN)
    header = replace(HEADER, task=task.id)
    release = Release.first(shift(), header, KEY, issued=START)
    assert id_of_text(parse_release(release.to_bytes()).task_text) == task.id
    assert release.next(shift(1), header, KEY).task_text == OWN
    assert "task-text" not in first(KEY).fields()

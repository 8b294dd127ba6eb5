import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from tests.fuzzing import FUZZED
from tests.protocol.trust.chains import DAY, HEADER, START, chain, first, shift

from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift_file import shift_file
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import id_of_text, task_by_name
from fedperfit.protocol.trust.release import (
    MAX_BYTES,
    Release,
    check_chain,
    parse_release,
    read_release,
)
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


def file_of(**changed: object) -> bytes:
    release = first(KEY)
    fields = {**release.fields(), "signatures": release.signatures, **changed}
    return shift_file("release", release.packed, {k: v for k, v in fields.items() if v is not ...})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"fingerprint": "0" * 64}, "fingerprint contradicts"),
        ({"rounds": 4}, "rounds contradicts"),
        ({"version": 2**31}, "not explained by a chain"),
        ({"version": True}, "not explained by a chain"),
        ({"chain": ["0" * 64] * 2, "version": 3}, "distinct digests"),
        ({"chain": "x"}, "distinct digests"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": "0"}, "epsilon"),
        ({"issued": "2026-01-01"}, "ISO 8601"),
        ({"issued": ...}, "ISO 8601"),
        ({"issued": "2026-1-1T0:0:0Z"}, "ISO 8601"),
        ({"expires": "2025-01-01T00:00:00Z"}, "expires before"),
        ({"key": "0"}, "public key"),
        ({"signatures": []}, "signatures"),
        ({"signatures": {"a": 1}}, "signatures"),
        ({"rotations": [{}]}, "rotations"),
        ({"rotations": None}, "rotations"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"layers": ...}, "layers contradicts"),
    ],
)
def test_a_malformed_release_is_one_line(changed, reason):
    with pytest.raises(InputError, match=reason) as caught:
        parse_release(file_of(**changed))
    assert str(caught.value).isprintable()


def test_an_unknown_format_cannot_break_the_line(monkeypatch):
    monkeypatch.setattr("fedperfit.protocol.shift.shift_file.FORMAT", "1\n\x1b[2J")
    data = file_of()
    monkeypatch.undo()
    with pytest.raises(InputError, match="of format '1") as caught:
        parse_release(data)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("tensors", "metadata"), [({"more": np.zeros(1)}, {}), ({}, {"more": ""})], ids=["tensor", "metadata"]
)
def test_a_file_with_something_else_in_it_is_refused(tensors, metadata):
    data = first(KEY).to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    more = save({**load(data), **tensors}, metadata={**header["__metadata__"], **metadata})
    with pytest.raises(InputError, match="unknown tensors or metadata"):
        parse_release(more)


def test_a_broken_header_cannot_break_the_line():
    header = b'{"packed": {"dtype": "F\\n\\u001b[2J", "shape": [1], "data_offsets": [0, 1]}}'
    with pytest.raises(InputError, match="truncated, or not a release") as caught:
        parse_release(len(header).to_bytes(8, "little") + header + bytes(1))
    assert str(caught.value).isprintable()


def test_endless_data_is_refused_unread(tmp_path: Path):
    path = tmp_path / "endless"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="larger than"):
        read_release(path)
    with pytest.raises(InputError, match="larger than"):
        parse_release(bytes(MAX_BYTES + 1))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_endless_data_of_no_size_is_read_no_further_than_the_limit(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def feed() -> None:
        with suppress(BrokenPipeError), pipe.open("wb") as file:
            file.write(bytes(2 * MAX_BYTES))

    feeder = Thread(target=feed)
    feeder.start()
    with pytest.raises(InputError, match="larger than"):
        read_release(pipe)
    feeder.join()


def refused_or_equal(data: bytes, release: Release) -> None:
    try:
        parsed = parse_release(data)
        parsed.check_signed_from(KEY.public)
    except InputError as error:
        assert str(error).isprintable(), error  # noqa: PT017
        return
    assert parsed == release


@pytest.mark.parametrize("directions", [None, DIRECTIONS])
def test_every_bit_flip_and_every_truncation_is_refused(directions):
    release = first(KEY, directions=directions)
    data = release.to_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        refused_or_equal(bytes(changed), release)
    for length in range(len(data)):
        with pytest.raises(InputError):
            parse_release(data[:length])


_TWO = chain(KEY, 1)[0].next(shift(1), HEADER, KEY, issued=START, directions=DIRECTIONS).to_bytes()


@FUZZED
@given(st.integers(0, len(_TWO)), st.integers(0, 200), st.binary(max_size=64), st.booleans())
def test_fuzzed_bytes_are_a_typed_error(start, cut, inserted, whole):
    data = inserted if whole else _TWO[:start] + inserted + _TWO[start + cut :]
    refused_or_equal(data, parse_release(_TWO))


@FUZZED
@given(
    st.dictionaries(
        st.sampled_from([*first(KEY).fields(), "signatures", "kind", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        max_size=3,
    )
)
def test_fuzzed_fields_are_a_typed_error(changed):
    release = first(KEY)
    try:
        json.dumps(changed)
        data = file_of(**changed)
    except ValueError:
        return
    refused_or_equal(data, release)


def test_the_packed_shift_is_what_is_signed():
    release = first(KEY)
    other = replace(release, packed=pack(shift(9), HEADER))
    with pytest.raises(InputError, match="signature does not verify"):
        parse_release(other.to_bytes()).check_signed_from(KEY.public)


OWN = """
name = "Urgency"
kind = "labels"
fields = ["mail"]
target = "urgency"
labels = ["now", "later"]
"""


def test_an_own_task_travels_in_the_release():
    task = task_by_name(OWN)
    header = replace(HEADER, task=task.id)
    release = Release.first(shift(), header, KEY, issued=START)
    assert id_of_text(parse_release(release.to_bytes()).task_text) == task.id
    assert release.next(shift(1), header, KEY).task_text == OWN
    assert "task-text" not in first(KEY).fields()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (OWN.replace("later", "never"), "its task-text is that of task 'Urgency-"),
        ("name = 1\n", "its task-text is not the file of a task"),
        (3, "its task-text is not a text"),
        (OWN, "its task-text is that of task 'Urgency-"),
    ],
)
def test_a_text_of_another_task_is_refused(text, told):
    with pytest.raises(InputError, match=told):
        parse_release(file_of(**{"task-text": text}))

"""What a pointer says, who may say it, and what cannot be one."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import FUZZED
from tests.protocol.trust.chains import START, chain, first

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.pointer import Pointer, parse_pointer
from fedperfit.protocol.trust.published import MAX_POINTER_BYTES
from fedperfit.protocol.trust.release import MAX_BYTES, Release
from fedperfit.protocol.trust.rotation import Rotation
from fedperfit.protocol.trust.signing import SigningKey

KEY, NEW, FOREIGN = SigningKey(), SigningKey(), SigningKey()


def pointing(release: Release | None, key: SigningKey = KEY, **how: Any) -> Pointer:
    size = len(release.to_bytes()) if release is not None else 0
    return Pointer.signed(release, key, size=size, issued=START, **how)


def resigned(pointer: Pointer, **changed: Any) -> bytes:
    """The bytes of a pointer that says something else, with a signature that verifies."""
    changed_pointer = replace(pointer, **changed)
    return replace(changed_pointer, signature=KEY.sign("in-force", changed_pointer.fields())).to_bytes()


def test_round_trip_with_rotations_and_revocations():
    release = first(KEY).rotated(KEY, NEW, issued=START)
    pointer = pointing(release, NEW, revoked=(1,), rotations=release.rotations)
    assert parse_pointer(pointer.to_bytes()) == pointer
    assert (pointer.version, pointer.digest, pointer.newest) == (2, release.digest, 2)
    parse_pointer(pointer.to_bytes()).check_signed_from(KEY.public)


def test_none_may_be_in_force():
    pointer = parse_pointer(pointing(None, revoked=(1, 2)).to_bytes())
    assert (pointer.version, pointer.digest, pointer.newest) == (0, "", 2)
    pointer.check_signed_from(KEY.public)
    assert pointing(None).newest == 0


def test_it_is_valid_for_a_while():
    pointer = pointing(first(KEY), lifetime=timedelta(hours=1))
    assert not pointer.expired(START + timedelta(minutes=59))
    assert pointer.expired(START + timedelta(hours=1))
    assert pointer.issued_after(START - timedelta(seconds=1))
    assert not pointer.issued_after(START)


def test_another_signer_or_another_content_does_not_verify():
    good = pointing(first(KEY))
    good.check_signed_from(KEY.public)
    stolen = Rotation.signed(2, FOREIGN, FOREIGN)
    for bad, reason in (
        (pointing(first(KEY), FOREIGN), "foreign key"),
        (replace(good, version=2), "does not verify"),
        (replace(good, revoked=(1,)), "does not verify"),
        (replace(good, signature=KEY.sign("release", good.fields())), "does not verify"),
        (replace(good, rotations=(replace(stolen, old=KEY.public),)), "not signed by both"),
    ):
        with pytest.raises(InputError, match=reason):
            bad.check_signed_from(KEY.public)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"version": -1}, "not a pointer"),
        ({"version": True}, "not a pointer"),
        ({"version": 10**4000}, "cannot be"),
        ({"version": 10**9, "revoked": (10**9 - 1,)}, "cannot be"),
        ({"size": 0}, "digest or size"),
        ({"digest": "x"}, "digest or size"),
        ({"version": 0}, "digest or size"),
        ({"size": MAX_BYTES + 1}, "cannot be"),
        ({"revoked": (3,)}, "cannot be"),
        ({"revoked": (4,)}, "higher version"),
        ({"revoked": (2, 1)}, "not ascending"),
        ({"revoked": (0,)}, "not ascending"),
        ({"expires": "2026-01-01T00:00:00Z"}, "expires before"),
        ({"issued": "yesterday"}, "ISO 8601"),
        ({"key": "x"}, "public key"),
        ({"rotations": (Rotation.signed(4, KEY, NEW),)}, "rotations"),
    ],
)
def test_what_contradicts_itself_is_no_pointer(changed: dict[str, Any], reason: str):
    pointer = pointing(chain(KEY, 3)[2])
    assert parse_pointer(resigned(pointer)) == pointer, "the control: unchanged, it is one"
    with pytest.raises(InputError, match=reason):
        parse_pointer(resigned(pointer, **changed))


def test_a_large_one_is_not_read():
    data = pointing(first(KEY)).to_bytes()
    parse_pointer(data.ljust(MAX_POINTER_BYTES))
    with pytest.raises(InputError, match="larger than"):
        parse_pointer(data.ljust(MAX_POINTER_BYTES + 1))


@FUZZED
@given(st.data())
def test_any_bytes_are_a_pointer_or_refused_in_one_line(data: st.DataObject):
    fields = json.loads(pointing(first(KEY)).to_bytes())
    values = st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.lists(st.integers()))
    changed = data.draw(st.dictionaries(st.sampled_from([*fields, "more"]), values))
    raw = data.draw(st.one_of(st.binary(), st.just(json.dumps({**fields, **changed}).encode())))
    refusal = ""
    try:
        parse_pointer(raw)
    except InputError as error:
        refusal = str(error)
    assert "\n" not in refusal

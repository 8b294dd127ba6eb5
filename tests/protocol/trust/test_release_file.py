import json
import os
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from tests.fuzzing import FUZZED
from tests.protocol.trust.chains import HEADER, OWN, START, chain, first, shift

from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.shift_file import shift_file
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.release import MAX_BYTES, Release
from fedperfit.protocol.trust.release_file import parse_release, read_release
from fedperfit.protocol.trust.signing import SigningKey

KEY, NEW = SigningKey(), SigningKey()
DIRECTIONS = Directions.of((0, 1), torch.tensor([[1.0, 0], [3, 4]]), torch.tensor([[0.0, 1], [1, 1]]))


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

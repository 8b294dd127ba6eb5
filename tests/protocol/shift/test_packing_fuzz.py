"""Whatever the bytes, the packed shift's reader gives a shift or one line."""

import json
import struct

from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import FUZZED
from tests.protocol.trust.chains import HEADER, shift

from fedperfit.protocol.shift.packing import MAGIC, pack, unpack
from fedperfit.protocol.system.errors import InputError

_GOOD = pack(shift(), HEADER)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def read(data: bytes) -> None:
    try:
        found, header = unpack(data)
    except InputError as error:
        assert "\n" not in str(error), error  # noqa: PT017
    else:
        assert found.shape == header.shape


@FUZZED
@given(st.integers(0, len(_GOOD)), st.integers(0, 200), st.binary(max_size=64), st.booleans())
def test_changed_bytes(start, cut, inserted, whole):
    read(inserted if whole else _GOOD[:start] + inserted + _GOOD[start + cut :])


@FUZZED
@given(
    st.dictionaries(
        st.sampled_from(
            ["dtype", "fingerprint", "hidden_size", "layers", "positions", "rank", "round", "task", "x"]
        ),
        _JSON,
        max_size=3,
    ),
    st.binary(max_size=100),
)
def test_changed_headers(changed, values):
    (length,) = struct.unpack("<I", _GOOD[4:8])
    fields = json.loads(_GOOD[8 : 8 + length]) | changed
    encoded = json.dumps(fields).encode("utf-8", "surrogatepass")
    read(MAGIC + struct.pack("<I", len(encoded)) + encoded + (values or _GOOD[8 + length :]))

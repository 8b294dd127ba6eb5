"""Whatever is in LaMP's files, their reader gives users or one line, and writes nothing."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import FUZZED
from tests.simulation.data.lamp_folders import oppu, time_split, user_split

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.data.lamp_files import detect, layout_of, rows

_LAYOUTS = [
    {name: json.dumps(value, ensure_ascii=False).encode() for name, value in layout().items()}
    for layout in (oppu, user_split, time_split)
]
_KEYS = st.sampled_from(["id", "input", "profile", "query", "golds", "text", "score", "x"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "input", "profile", "query", "golds", "text", "score", "x"]), inner
        )
    ),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def read(folder: Path) -> int:
    files = detect(folder)
    found = 0
    for group in files:
        for _ in rows(folder, group, layout_of(folder, files), TASKS["LaMP_3"]):
            found += 1
    return found


@FUZZED
@given(data=st.data())
def test_fuzzed_files(folder, data):
    layout = data.draw(st.sampled_from(_LAYOUTS))
    broken = data.draw(st.sampled_from(sorted(layout)))
    good = layout[broken]
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 200)))
    changed = good[:start] + data.draw(st.binary(max_size=16) | _VALUES) + good[end:]
    for path in folder.iterdir():
        path.unlink()
    for name, content in layout.items():
        (folder / name).write_bytes(changed if name == broken else content)
    before = sorted(path.name for path in folder.iterdir())
    try:
        assert read(folder) > 0
    except InputError as error:
        assert "\n" not in str(error), error  # noqa: PT017
    assert sorted(path.name for path in folder.iterdir()) == before

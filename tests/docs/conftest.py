"""A reader for the pages that a file of tests is about."""

from collections.abc import Iterator

import pytest
from tests.docs.reader import Reader, reading


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with reading(tmp_path_factory.mktemp("reader")) as reader:
        yield reader

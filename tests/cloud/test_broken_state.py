"""Files that a cloud keeps, cut off or of something else: what reads them names them in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.broken_files import check_named

from fedperfit.cloud.deployment.certificate_authority import next_day
from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.enrolment.invitations import read_invitation
from fedperfit.cloud.enrolment.registration import enrolled, keys_for_sums
from fedperfit.cloud.privacy.told_lists import FILE, ToldLists

READERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("nodes/ada.json", lambda folder: enrolled(CloudHome(folder))),
    ("nodes/ada.json", lambda folder: keys_for_sums(CloudHome(folder))),
    ("invitations/ada.json", lambda folder: read_invitation(CloudHome(folder), "ada")),
    ("tls/next.json", lambda folder: next_day(CloudHome(folder))),
    (FILE, lambda folder: ToldLists(folder, "", 2).claim(["ada", "bob"], 2)),
]


@pytest.mark.parametrize("content", [b'{"name": "a', b"[7]", b'{"name": 7}', b"\xff"])
@pytest.mark.parametrize(("file", "read"), READERS)
def test_a_broken_file_is_named(
    tmp_path: Path, file: str, read: Callable[[Path], Any], content: bytes
) -> None:
    check_named(tmp_path, file, read, content)

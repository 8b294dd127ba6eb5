"""Public keys for sums to which nothing can be sealed: one client's would end everybody's sums."""

import numpy as np
import pytest
from tests.protocol.secure_sums.parties import session_of

from fedperfit.protocol.secure_sums.keys import KEY_BYTES, Directory, PublicKeys, SumKeys
from fedperfit.protocol.secure_sums.sealing import contribute
from fedperfit.protocol.system.errors import InputError

SMALL_ORDER = [bytes(KEY_BYTES), bytes([1, *bytes(KEY_BYTES - 1)]), bytes.fromhex(f"ec{'ff' * 30}7f")]
"""Points whose secret with every key is zero, as the curve has a few."""


def test_without_the_check_one_clients_key_ends_the_contribution_of_all(monkeypatch):
    keys = {f"c{number}": SumKeys.new() for number in range(7)}
    session = session_of(keys)
    monkeypatch.setattr(PublicKeys, "__post_init__", lambda self: None)
    bad = {**session.directory.keys, "c3": PublicKeys(SMALL_ORDER[0], keys["c3"].public.signing)}
    object.__setattr__(session, "directory", Directory(bad))
    with pytest.raises(ValueError, match="shared key"):
        contribute(np.ones(11, np.int64), session, "c0", keys["c0"])


@pytest.mark.parametrize("box", SMALL_ORDER)
def test_such_a_key_is_none(box):
    with pytest.raises(InputError, match="nothing can be sealed"):
        PublicKeys(box, SumKeys.new().public.signing)
    with pytest.raises(InputError, match="not a directory"):
        Directory.from_json({"c3": [box.hex(), SumKeys.new().public.signing.hex()]})

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.protocol.secure_sums.parties import later, party, session_of

from fedperfit.protocol.secure_sums.keys import Directory, SumKeys
from fedperfit.protocol.secure_sums.sealing import BadShare, contribute, envelopes, open_share
from fedperfit.protocol.secure_sums.sharing import reconstruct
from fedperfit.protocol.system.errors import InputError

KEYS = party(9)
SESSION = session_of(KEYS)
VALUES = np.array([1, -1] * 5 + [1])


def sealed(name="c0", session=SESSION):
    return contribute(VALUES, session, name, KEYS[name])


def opened(envelope, place, *, name="c0", session=SESSION):
    member = SESSION.members[place]
    return open_share(envelope, session, name, member, KEYS[member])


def test_members_sums_of_opened_shares_are_shares_of_the_sum():
    field, names = SESSION.numbers.field, ["c0", "c3", "c5"]
    sent = {name: envelopes(sealed(name), SESSION, name) for name in names}
    sums = {
        place: sum(opened(sent[name][place], place, name=name) for name in names) % field.prime
        for place in (0, 2, 3, 4, 6)
    }
    total, liars = reconstruct(sums, 11, SESSION.shape, field)
    assert total.tolist() == (3 * VALUES).tolist()
    assert liars == []


def test_a_contribution_has_the_bytes_that_are_promised():
    assert len(sealed()) == 32 + 64 + 7 * (SESSION.columns * 1 + 16)


def test_another_member_cannot_open_a_share():
    envelope = envelopes(sealed(), SESSION, "c0")[0]
    with pytest.raises(BadShare, match="the share of c0"):
        opened(envelope, 1)
    member = SESSION.members[0]
    with pytest.raises(BadShare):
        open_share(envelope, SESSION, "c0", member, KEYS[SESSION.members[1]])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 8 * 114 - 1))
def test_a_flipped_bit_is_refused_and_names_the_sender(bit):
    envelope = bytearray(envelopes(sealed(), SESSION, "c0")[2])
    bit %= 8 * len(envelope)
    envelope[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadShare, match="c0"):
        opened(bytes(envelope), 2)


def test_a_share_of_another_round_is_refused():
    next_round = later(SESSION)
    with pytest.raises(InputError, match="not signed by c0 for this sum"):
        envelopes(sealed(), next_round, "c0")
    with pytest.raises(BadShare):
        opened(envelopes(sealed(), SESSION, "c0")[0], 0, session=next_round)


@pytest.mark.parametrize(
    "other",
    [
        {"run": "11" * 16},
        {"agreement": "cd"},
        {"least": 3},
        {"numbers": replace(SESSION.numbers, codec="float32")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_share_made_for_other_terms_is_refused(other):
    with pytest.raises(BadShare):
        opened(envelopes(sealed(), SESSION, "c0")[0], 0, session=replace(SESSION, **other))


def test_a_share_passed_off_as_another_clients_is_refused():
    with pytest.raises(BadShare, match="not signed by c1"):
        opened(envelopes(sealed(), SESSION, "c0")[0], 0, name="c1")


def test_swapped_keys_are_refused():
    one, two = (envelopes(sealed(name), SESSION, name)[0] for name in ("c0", "c1"))
    with pytest.raises(BadShare):
        opened(two[:96] + one[96:], 0)
    swapped = Directory({**SESSION.directory.keys, SESSION.members[0]: SumKeys.new().public})
    with pytest.raises(BadShare):
        opened(envelopes(sealed(), SESSION, "c0")[0], 0, session=replace(SESSION, directory=swapped))


def test_a_contributor_must_be_enrolled_with_its_keys():
    with pytest.raises(InputError, match="other keys"):
        contribute(VALUES, SESSION, "c0", KEYS["c1"])
    with pytest.raises(InputError, match="not enrolled"):
        contribute(VALUES, SESSION, "stranger", SumKeys.new())


def test_a_cut_contribution_is_refused():
    with pytest.raises(InputError, match="expected"):
        envelopes(sealed()[:-1], SESSION, "c0")


def test_keys_and_directories_survive_their_files():
    key = SumKeys.from_bytes(KEYS["c0"].to_bytes())
    assert key.public == KEYS["c0"].public
    assert Directory.from_json(SESSION.directory.to_json()).keys == SESSION.directory.keys
    with pytest.raises(InputError):
        SumKeys.from_bytes(b"short")
    for broken in (None, [], {"a": 1}, {"a": ["zz", "zz"]}, {"a": ["00", "00"]}):
        with pytest.raises(InputError):
            Directory.from_json(broken)

from dataclasses import replace

import pytest
from tests.protocol.secure_sums.parties import party, session_of

from fedperfit.protocol.secure_sums.session import draw_committee
from fedperfit.protocol.system.errors import InputError

SESSION = session_of(party(40))


def test_all_parties_draw_the_same_members_whatever_the_order_of_the_directory():
    turned = replace(SESSION.directory, keys=dict(sorted(SESSION.directory.keys.items(), reverse=True)))
    assert draw_committee(turned, "", 7) == SESSION.members
    assert len(set(SESSION.members)) == 7


def test_another_release_or_another_enrolment_draws_others():
    assert draw_committee(SESSION.directory, "ab" * 32, 7) != SESSION.members
    fewer = replace(SESSION.directory, keys=dict(list(SESSION.directory.keys.items())[1:]))
    assert draw_committee(fewer, "", 7) != SESSION.members


def test_neither_run_nor_round_has_a_say_in_the_committee():
    assert replace(SESSION, run="ff" * 16, round=9).members == SESSION.members
    assert replace(SESSION, round=9).digest != SESSION.digest


def test_every_client_is_drawn_about_as_often():
    drawn = [name for number in range(250) for name in draw_committee(SESSION.directory, f"{number}", 7)]
    counts = [drawn.count(name) for name in SESSION.directory.keys]
    assert min(counts) > 20
    assert max(counts) < 80


def test_too_few_enrolled_are_refused():
    with pytest.raises(InputError, match="only 3 clients are enrolled"):
        draw_committee(session_of(party(3)).directory, "", 7)


def test_a_sum_of_one_is_none():
    with pytest.raises(InputError, match="at least 2 clients"):
        replace(SESSION, least=1)
    with pytest.raises(InputError, match="not a member"):
        SESSION.place("nobody")

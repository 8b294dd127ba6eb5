"""What a guard counts, remembers and refuses, and what a refused release leaves in force."""

import json
import shutil
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from tests.attacks.cloud_requests import packed, policy, shape, training
from tests.edge.deployment.deployments import CLOUD, PERSONAL, TRAINING, agree, deployed
from tests.edge.deployment.deployments import policy as lax
from tests.edge.edge_clients import evaluation, write_client

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.enrolment.policy import offered
from fedperfit.edge.consent.guard import Guard
from fedperfit.edge.consent.refusal import Refused
from fedperfit.protocol.messages.settings import EvaluationSettings, LayerGradientSettings, PairSettings
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.tasks import Pair
from fedperfit.protocol.trust.policy import verify_policy
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey

PAIRS = [Pair(f"prompt {n}", "target") for n in range(32)]
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Clock:
    now = NOON

    def __call__(self):
        return self.now


@pytest.mark.parametrize("back", [0, 1, 365])
def test_no_more_in_a_day_than_agreed_whatever_the_clock_and_restarts(tmp_path, base, back):
    clock, path, agreed = Clock(), tmp_path / "guard.json", policy(base, contribute_per_day=2)
    data = packed(Shift.identity(shape(base), seed=0), base)
    for _ in range(2):
        Guard(path, agreed, clock=clock).contribution(data, training(), PAIRS)
    clock.now = NOON - timedelta(days=back)
    with pytest.raises(Refused, match="2 a day"):
        Guard(path, agreed, clock=clock).contribution(data, training(), PAIRS)
    clock.now = NOON + timedelta(days=1)
    Guard(path, agreed, clock=clock).contribution(data, training(), PAIRS)


@pytest.mark.parametrize("carried", [False, True])
def test_who_joins_again_tells_no_item_by_a_difference_where_the_guards_memory_came_along(
    tmp_path, base, carried
):
    """In a new folder nothing is known of earlier contributions, unless `guard.json` is copied into it."""
    before, after = PAIRS[:24], PAIRS[:25]
    old, new = tmp_path / "guard.json", tmp_path / "again.json"
    agreed = policy(base, max_items=0)
    Guard(old, agreed).items(before)
    if carried:
        shutil.copy(old, new)
    assert Guard(new, agreed).items(after) == (24 if carried else 25)


@pytest.mark.parametrize("change", [{"task": "LaMP_3"}, {"fingerprint": "0" * 64}])
def test_a_shift_for_another_task_or_model_is_refused(tmp_path, base, change):
    shift = Shift.identity(shape(base), seed=0)
    header = {"shape": shift.shape, "task": "LaMP_2M", "fingerprint": base.card.fingerprint, "round": 0}
    guard, data = Guard(tmp_path / "guard.json", policy(base)), pack(shift, ShiftHeader(**header | change))
    with pytest.raises(Refused, match="another task or base model"):
        guard.contribution(data, training(), PAIRS)


def test_changes_outside_of_what_is_sent_do_not_cover_one_inside(tmp_path, base):
    guard = Guard(tmp_path / "guard.json", policy(base, max_items=24))
    whole = [*PAIRS, *(Pair(f"later {n}", "target") for n in range(8))]
    assert guard.items(whole) == 40
    new = [Pair(f"changed {n}", "target") for n in range(8)]
    with pytest.raises(Refused, match="differ"):
        guard.items([*new[:7], *whole[7:-1], new[7]])
    assert guard.items([*new, *whole[8:]]) == 40
    assert guard.items([*whole, *new]) == 48


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (PAIRS[::-1], "the items used before are in another order"),
        ([*PAIRS, *PAIRS[:3]], None),
        ([PAIRS[0], *PAIRS], "copies of items used before were added or removed"),
        (PAIRS[1:], "1 of the items differ from those used before"),
    ],
)
def test_what_changed_of_items_that_were_used_is_said_as_it_is(tmp_path, base, after, said):
    guard = Guard(tmp_path / "guard.json", policy(base))
    assert guard.items(PAIRS) == len(PAIRS)
    with pytest.raises(Refused, match=f"^{said}; ") if said else nullcontext():
        guard.items(after)


def test_copies_of_one_item_are_not_many(tmp_path, base):
    guard = Guard(tmp_path / "guard.json", policy(base, max_items=24))
    with pytest.raises(Refused, match="23 different items"):
        guard.items([*PAIRS[:23], *PAIRS[:9]])
    with pytest.raises(Refused, match="1 different items"):
        guard.items([PAIRS[0]] * 64)
    assert guard.items([*PAIRS[:24]]) == 24


@pytest.mark.parametrize("change", [{"items": 25}, {"items": 23}, {"source": "insights"}])
def test_sums_over_one_pair_more_are_refused(tmp_path, base, change):
    agreed = policy(base, moments_per_day=5, probe_per_day=5, pair_items=24)
    guard = Guard(tmp_path / "guard.json", agreed)
    honest = {"items": 24, "source": "contrast", "batch_size": 8, "prompt_form": "lamp"}
    assert guard.probe(PairSettings(**honest), PAIRS) == len(PAIRS)
    with pytest.raises(Refused, match="agreed are"):
        guard.probe(PairSettings(**honest | change), PAIRS)
    with pytest.raises(Refused, match="agreed are"):
        guard.moments(PairSettings(**honest | change), "", PAIRS)


def test_moments_are_told_once_for_a_release_and_of_enough_pairs(tmp_path, base):
    agreed = policy(base, moments_per_day=5, pair_items=24)
    settings = PairSettings(items=24, source="contrast", batch_size=8, prompt_form="lamp")
    Guard(tmp_path / "guard.json", agreed).moments(settings, "one", PAIRS)
    guard = Guard(tmp_path / "guard.json", agreed)
    with pytest.raises(Refused, match="already"):
        guard.moments(settings, "one", PAIRS)
    guard.moments(settings, "two", PAIRS)
    with pytest.raises(Refused, match="23 pairs"):
        guard.enough("moments", 23)
    guard.enough("moments", 24)


def test_losses_are_told_of_enough_items_and_of_no_two_sets_that_differ_by_few(tmp_path, base):
    path, agreed = tmp_path / "guard.json", policy(base)

    def tells(pairs, most=0, kind="personalize", agreed=agreed):
        return Guard(path, agreed).tells(kind, pairs, most)

    whole = [*PAIRS, *(Pair(f"later {n}", "target") for n in range(9))]
    assert not tells(PAIRS[:23])
    assert not tells(PAIRS, most=1)
    assert not tells([PAIRS[0]] * 40), "copies of one are one"
    assert tells(PAIRS)
    assert tells(PAIRS)
    assert not tells(PAIRS, most=31), "all but one would tell that one"
    assert not tells(whole[:33])
    assert not tells([*PAIRS[:31], whole[-1]])
    assert not tells(whole[:39])
    assert tells(whole[:40])
    assert not tells(whole)
    assert tells(PAIRS[:24], kind="evaluate"), "questions are counted apart"
    assert tells(PAIRS, agreed=policy(base, version=2)), "the same set tells nothing new"
    assert not tells(PAIRS[:31], agreed=policy(base, version=3)), "a new agreement forgets no set"
    assert not tells(PAIRS[1:], agreed=policy(base, version=2)), "also where it was not the last"


def test_a_copy_of_an_item_makes_another_set_that_differs_by_one(tmp_path, base):
    path, agreed = tmp_path / "guard.json", policy(base)

    def tells(pairs):
        return Guard(path, agreed).tells("personalize", pairs)

    later = [Pair(f"later {n}", "target") for n in range(8)]
    assert tells(PAIRS)
    assert not tells([*PAIRS, PAIRS[0]])
    assert not tells([*PAIRS, *[PAIRS[0]] * 8]), "copies of one tell that one"
    assert tells([*PAIRS, *PAIRS[:8]])
    assert not tells([*PAIRS, *PAIRS[:8], PAIRS[0]])
    assert tells([*PAIRS, *later])
    assert not tells([*PAIRS, PAIRS[0]]), "also where it was not the last"
    assert tells(PAIRS)


def test_pairs_of_a_copy_are_made_of_the_items_before(tmp_path, base):
    guard, items = Guard(tmp_path / "guard.json", policy(base)), [{"text": f"item {n}"} for n in range(24)]
    assert guard.selection(items, items) == items
    assert guard.selection([*items, items[0]], [*items, items[0]]) == items


def test_no_pairs_are_made_of_copies(tmp_path, base):
    path, agreed = tmp_path / "guard.json", policy(base)
    items = [{"text": f"item {n}"} for n in range(24)]
    assert Guard(path, agreed).selection([*items, *items], items) == items
    state = json.loads(path.read_text())
    told = [*state["selected"], state["selected"][0]]
    path.write_text(
        json.dumps(state | {"selected": told, "chains": {"pairs": {"last": told, "changes": []}}})
    )
    with pytest.raises(Refused, match="were changed"):  # an earlier version told of the first one twice
        Guard(path, agreed).selection(items, items)


def test_a_copy_at_the_end_of_what_is_sent_is_one_item_more(tmp_path, base):
    guard = Guard(tmp_path / "guard.json", policy(base, max_items=33))
    earlier = [Pair(f"earlier {n}", "target") for n in range(8)]
    assert guard.items(PAIRS) == 32
    with pytest.raises(Refused, match="fewer than 8 items differ from those of some earlier"):
        guard.items([*earlier, *PAIRS, PAIRS[1]])


def test_pairs_are_made_of_the_same_items_until_enough_others_represent_the_person(tmp_path, base):
    path, agreed = tmp_path / "guard.json", policy(base)
    items = [{"text": f"item {n}", "tag": "x"} for n in range(60)]

    def selection(chosen, every=items):
        return Guard(path, agreed).selection(chosen, every)

    assert selection(items[:24]) == items[:24]
    assert selection([*items[1:24], items[30]]) == items[:24], "one was swapped"
    assert selection([*items[3:24], *items[30:33]]) == items[:24]
    swapped = [*items[4:24], *items[30:34]]
    assert selection(swapped) == swapped, "eight differ"
    with pytest.raises(Refused, match="were changed"):
        selection([*items[5:24], *items[30:35]], [*items[:4], *items[5:]])
    with pytest.raises(Refused, match="were changed"):
        selection([*items[1:24], items[40]])  # far from the last, near the first
    assert selection(items[:24]) == items[:24]


@pytest.mark.parametrize("kind", ["evaluate", "moments", "probe", "pull"])
def test_no_request_takes_all_memory_by_the_size_of_a_batch(tmp_path, base, kind):
    budget = {f"{kind}_per_day": 9}
    guard = Guard(tmp_path / "guard.json", policy(base, most_answers=32, pair_items=24, **budget))

    def ask(size):
        form = {"batch_size": size, "prompt_form": "lamp"}
        pairs = PairSettings(items=24, source="contrast", **form)
        if kind == "evaluate":
            guard.evaluation(EvaluationSettings(stage="base", slot="full", additive=False, **form))
        elif kind == "pull":
            agreed = guard.policy
            about = {"positions": agreed.positions, "max_items": agreed.max_items}
            guard.layer_gradient(LayerGradientSettings(**about, **form), "one", PAIRS)
        elif kind == "moments":
            guard.moments(pairs, "one", PAIRS)
        else:
            guard.probe(pairs, PAIRS)

    with pytest.raises(Refused, match="batch-size=33, agreed are at most 32"):
        ask(33)
    ask(32)


@pytest.mark.parametrize("kind", ["personalize", "evaluate"])
def test_a_release_that_was_not_agreed_to_does_not_come_into_force(tmp_path, header, kind):
    folder = write_client(tmp_path / "ada", items=8, questions=2)
    agree(folder, lax(largest_change=8.0))
    far = Shift.identity(header.shape, seed=1)
    far.b.data += 1e3
    good = Release.first(Shift.identity(header.shape, seed=0), header, CLOUD)
    bad = good.next(far, header, CLOUD)
    with deployed(folder) as edge:
        edge.releases.accept(good.to_bytes())
        ask = {
            "evaluate": lambda: edge.evaluate(bad.to_bytes(), evaluation("collective"), lambda: True),
            "personalize": lambda: edge.personalize(bad.to_bytes(), PERSONAL, TRAINING, lambda: True),
        }[kind]
        with pytest.raises(Refused, match="agreed is 8"):
            ask()
        assert edge.releases.current().version == 1


def test_a_policy_is_offered_anew_after_a_rotation(tmp_path):
    home, settings = (
        CloudHome(tmp_path),
        CloudSettings.from_flat(CloudSettings.own(read_preset("quickstart"))),
    )
    old, new = SigningKey(), SigningKey()
    offered(home, settings, old)
    signed = offered(home, settings, new)
    assert verify_policy(signed, new.public).version == 2
    assert offered(home, settings, new) == signed

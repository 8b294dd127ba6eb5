"""Reading one item's loss by asking for a fit on that item alone, or on all but one; and few scores.

The owner shares metrics. Without the guard the cloud chooses how many items a loss is of; with it losses are
of enough items, and no two of sets that differ by a few.
"""

import pytest
from tests.edge.deployment.deployments import PERSONAL, TRAINING, agree, deployed, policy, releases
from tests.edge.edge_clients import evaluation, write_client

from fedperfit.edge.consent.guard import Guard
from fedperfit.edge.consent.refusal import Refused
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.system.files import read_json_lines, write_json_lines


@pytest.mark.parametrize("guarded", [False, True])
def test_a_loss_of_one_item(tmp_path, monkeypatch, guarded):
    folder = write_client(tmp_path / "ada", items=9, questions=3)
    agreed = policy(least_items=8, growth=8)
    agree(folder, agreed)
    header = ShiftHeader(shape=agreed.shape, task="LaMP_2M", fingerprint=agreed.fingerprint, round=0)
    if not guarded:
        monkeypatch.setattr(Guard, "tells", lambda *_: True)
    data = releases(header, 1)[0].to_bytes()
    with deployed(folder) as edge:
        told = {}
        for most in (8, 9):
            training = TRAINING.replace(max_items=most, epochs=1)
            told[most] = edge.personalize(data, PERSONAL, training, lambda: True)
        with pytest.raises(Refused, match="agreed is at least 8"):  # scores of a shift of one tell its answer
            edge.personalize(data, PERSONAL, TRAINING.replace(max_items=1, epochs=1), lambda: True)
        scores = edge.evaluate(data, evaluation("collective"), lambda: True)
    losses = {most: outcome.metrics for most, outcome in told.items() if outcome.metrics}
    assert set(losses) == ({8} if guarded else {8, 9})
    assert told[9].items == 9, "the fit itself is the person's, and is made"
    assert bool(scores.metrics) is not guarded, "of three questions"


@pytest.mark.parametrize("without", [0, 1])
def test_questions_without_a_right_answer_hide_no_other_ones_score(tmp_path, without):
    """Of eight questions and one answer the sums would be the score of one, and name its answer."""
    folder = write_client(tmp_path / "ada", questions=8)
    questions = read_json_lines(folder / "questions.jsonl")
    unanswered = [question | {"gold": ""} for question in questions[:without]]
    write_json_lines(folder / "questions.jsonl", [*unanswered, *questions[without:]])
    agreed = policy(least_items=8, growth=8)
    agree(folder, agreed)
    header = ShiftHeader(shape=agreed.shape, task="LaMP_2M", fingerprint=agreed.fingerprint, round=0)
    with deployed(folder) as edge:
        told = edge.evaluate(releases(header, 1)[0].to_bytes(), evaluation("collective"), lambda: True)
    assert told.items == 8 - without
    assert bool(told.metrics) is not bool(without)


@pytest.mark.parametrize("items", [7, 8])
def test_scores_of_a_personal_shift_are_of_as_many_items(tmp_path, items):
    """A shift of one item answers questions like that item, and its scores count the answers."""
    folder = write_client(tmp_path / "ada", items=items, questions=8)
    agreed = policy(least_items=8, growth=8)
    agree(folder, agreed)
    header = ShiftHeader(shape=agreed.shape, task="LaMP_2M", fingerprint=agreed.fingerprint, round=0)
    data = releases(header, 1)[0].to_bytes()

    def told(edge, stage):
        return set(edge.evaluate(data, evaluation(stage), lambda: True).metrics)

    with deployed(folder) as edge:
        edge.personalize(data, PERSONAL, TRAINING.replace(epochs=1), lambda: True)
        assert told(edge, "collective")
        assert bool(told(edge, "personal")) is (items == 8)
        edge.learn([{"description": "a storm", "tag": "classic"}], lambda: True)
        assert bool(told(edge, "personal")) is (items == 7), "by one item more than before it would be told"
        assert told(edge, "collective")

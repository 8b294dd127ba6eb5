"""`fedperfit analyze`: delta-vectors against plain forward passes, texts of equal length, the command."""

import csv
import re
import sys
from dataclasses import replace

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save
from tests.simulation.compare.small_comparison import started, tiny_base

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.analyze.page import _by_label
from fedperfit.simulation.analyze.settings import AnalyzeSettings
from fedperfit.simulation.analyze.study import VECTORS, begin, run_study
from fedperfit.simulation.analyze.vectors import HISTORY, OTHER, RANDOM, delta_vectors, user_texts
from fedperfit.simulation.compare.building_blocks.prompts import PAIRS, SENTENCES, with_items
from fedperfit.simulation.data.participants import Target
from fedperfit.simulation.study_folder import LOCK


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """The context of the tiny model, and three users."""
    state = started(tmp_path_factory.mktemp("analyze") / "run", methods=["base"])
    return state.context("LaMP_2M", 0), state.participants("LaMP_2M").targets


def test_delta_vectors_are_those_of_one_plain_forward_per_text(studied):
    context, targets = studied
    users = user_texts(context, targets, 2, SENTENCES)
    found = [delta_vectors(context.base, user) for user in users]
    start = [context.base.tokenizer.bos_token_id]

    def last(ids):
        out = context.base.model(torch.tensor([[*start, *ids]]), output_hidden_states=True)
        return torch.stack([hidden[0, -1] for hidden in out.hidden_states[1:-1]])  # the last is normed

    for kind in (HISTORY, RANDOM, OTHER):
        for user, vectors in zip(users, found, strict=True):
            v = vectors[kind]
            assert v.shape == (4, 32)
            with torch.no_grad():
                each = [
                    last((*text, *query)) - last(query)
                    for text, query in zip(user.contexts[kind], user.queries, strict=True)
                ]
            torch.testing.assert_close(v[:-1], torch.stack(each).mean(0), atol=1e-4, rtol=1e-4)


def test_no_text_moves_nothing(studied):
    context, targets = studied
    users = [replace(user, contexts={HISTORY: ((), ())}) for user in user_texts(context, targets, 2, PAIRS)]
    for user in users:
        assert torch.equal(delta_vectors(context.base, user)[HISTORY], torch.zeros(4, 32))


@pytest.mark.parametrize("template", [PAIRS, SENTENCES])
def test_controls_have_as_many_tokens_as_the_history(studied, template):
    context, targets = studied
    users = user_texts(context, targets, 3, template)
    texts = [with_items(context, target.history.items[::-1], "", template) for target in targets]
    shown = [tuple(context.base.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    vocabulary = {token for ids in shown for token in ids}
    for user, following in zip(users, [*shown[1:], shown[0]], strict=True):
        for own, drawn, other in zip(*user.contexts.values(), strict=True):
            assert 0 < len(own) == len(drawn) == len(other)
            assert len({own, drawn, other}) == 3
            assert vocabulary >= {*drawn}
            assert other[-10:] == following[-10:]
    again = user_texts(context, targets, 3, template)
    assert [user.contexts for user in users] == [user.contexts for user in again]


def test_latest_items_come_first_and_who_has_none_that_fits_is_left_out(studied):
    context, targets = studied
    (user, *_) = user_texts(context, targets, 1, SENTENCES)
    text = context.base.tokenizer.decode(user.contexts[HISTORY][0])
    places = [text.index(item["description"][:12]) for item in user.target.history.items]
    assert places == sorted(places, reverse=True)
    empty = Target(History("none", TASKS["LaMP_2M"], []), ("q",), targets[0].questions[:1], ("",))
    long = replace(targets[0], questions=(targets[0].questions[0] + " word" * 600,))
    assert [one.target for one in user_texts(context, [empty, long, *targets], 2, SENTENCES)] == targets


def analyze(monkeypatch, *arguments: str) -> int:
    from fedperfit.simulation.cli import main

    monkeypatch.setattr(sys, "argv", ["fedperfit", "analyze", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_command_leaves_tables_and_a_report(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    fast = ("--users", "5", "--queries", "2", "--base-model", tiny_base(), "--device", "cpu")
    assert analyze(monkeypatch, "--tasks", "LaMP_2M,LaMP_4", "--run-dir", str(folder), *fast) == 0
    said = capsys.readouterr().out
    about = read_json(folder / "metrics.json")["tasks"]["LaMP_2M"]
    verdict = about["findings"]["collective-shift"]["verdict"]
    assert f"random text of the same length: {verdict}." in said
    assert (about["users"], about["queries"], about["middle"], len(about["layers"])) == (5, 10, 2, 4)
    with (folder / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == "LaMP_2M" and row["layer"] == "2"]
    found = {(row["text"], row["quantity"]): row for row in rows}
    middle = about["layers"][2]
    assert float(found[RANDOM, "difference"]["low"]) == middle[RANDOM]["difference"]["low"]
    assert float(found[HISTORY, "ranks 0.9"]["value"]) == middle[HISTORY]["ranks"]["0.9"]["value"]
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 2 * 5
    assert "http" not in page.replace("http://www.w3.org", "")
    assert analyze(monkeypatch, "--run-dir", str(folder)) == 2
    assert "is not empty" in capsys.readouterr().err


SMALL = {"tasks": ["LaMP_2M", "LaMP_4"], "data": "world", "device": "cpu", "users": 5, "queries": 1}


def test_stopped_anywhere_it_goes_on_to_the_same_figures(tmp_path):
    settings = AnalyzeSettings(**SMALL, base_model=tiny_base())
    begin(tmp_path / "whole", settings)
    whole = run_study(tmp_path / "whole", lambda event: None)
    done = []

    def stop_after_three(event):
        if event["event"] == "work":
            done.append(event["last"])
            if len(done) % 3 == 0:
                raise KeyboardInterrupt

    begin(tmp_path / "stopped", settings)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run_study(tmp_path / "stopped", stop_after_three)
    assert run_study(tmp_path / "stopped", stop_after_three) == whole
    assert done == ["LaMP_2M"] * 5 + ["LaMP_4"] * 5
    for file in ("metrics.json", "results.csv", "report.html"):
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_broken_file_of_vectors_is_named(tmp_path):
    begin(tmp_path, AnalyzeSettings(**SMALL, base_model=tiny_base()))
    run_study(tmp_path, lambda event: None)
    file = tmp_path / VECTORS / "LaMP_4" / "1.safetensors"
    for content in (b"", b"{}", file.read_bytes()[:-1], save({"other": torch.zeros(1)})):
        file.write_bytes(content)
        with pytest.raises(MalformedFileError, match=re.escape(str(file))):
            run_study(tmp_path, lambda event: None)


def test_two_processes_do_not_work_on_one_study(tmp_path):
    begin(tmp_path, AnalyzeSettings(**SMALL, base_model=tiny_base()))
    with FileLock(tmp_path / LOCK), pytest.raises(InputError, match="another process is running this study"):
        run_study(tmp_path, lambda event: None)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--resume"], "--resume needs --run-dir"),
        (["--resume", "--run-dir", "nowhere"], "holds no study that was begun"),
        (["--resume", "--run-dir", ".", "--users", "9"], "leave the other options out"),
    ],
)
def test_what_cannot_be_gone_on_with_is_one_line(tmp_path, arguments, reason, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "settings.json", {})
    assert analyze(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tasks", "LaMP_9"], "unknown task"),
        (["--tasks", ""], "of at least one"),
        (["--tasks", "LaMP_2M,LaMP_2M"], "each once"),
        (["--tasks", "LaMP_2N"], "the world has no task"),
        (["--users", "3"], "users=3: expected a whole number of at least 4"),
        (["--queries", "0"], "queries=0"),
        (["--template", "prose"], "template='prose': expected sentences or pairs"),
        (["--prompt-form", "other"], "expected one of lamp, oppu"),
        (["--data", "nowhere"], "nowhere"),
        (["--base-model", "./nowhere"], "no such folder"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, arguments, reason, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert analyze(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert "\n" not in error


def test_labels_that_one_user_each_has_tell_nothing():
    groups = {kind: {"share": 1.0, "p": 1.0, "chance": 1.0} for kind in (HISTORY, RANDOM, OTHER)}
    assert _by_label(groups) == "Users by their most frequent label: each user has another one."
    groups[HISTORY] |= {"share": 0.5, "chance": 0.25}
    assert "50% (p = 1) of the variance of their delta-vectors is between labels, 25% by" in _by_label(groups)

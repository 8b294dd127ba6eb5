"""The owner's commands against a running agent, and without one."""

import hashlib
import io
import json
import os
import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from tests.edge.deployment.deployments import (
    CLOUD,
    PERSONAL,
    TRAINING,
    deployed,
    policy,
    releases,
    served,
    settings,
)
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent.history import files_to_seal
from fedperfit.edge.cli.owner import owner
from fedperfit.edge.deployment.home import Home, read_settings
from fedperfit.edge.enrolment.settling import settle, settled
from fedperfit.edge.sandbox.traffic import Traffic
from fedperfit.edge.vault.keys import PassphraseKey, keeper
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.model.base_model import _read_card, load, read_card
from fedperfit.protocol.model.functional import functional_fingerprint
from fedperfit.protocol.schema import bridge_pb2, owner_pb2
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.trust.bundle import Bundle, identify_bundle
from fedperfit.protocol.trust.policy import sign_policy


@pytest.fixture
def home(tmp_path):
    home = Home(write_client(tmp_path / "ada", items=24, questions=8))
    settings().write(home)
    return home


def test_the_life_of_an_edge(run, home, header, tmp_path, monkeypatch):
    question = json.loads((home.folder / "questions.jsonl").read_text().splitlines()[0])
    with deployed(home.folder) as edge, served(edge):
        assert run("ask", home.folder, question["input"])[1].startswith("error: there is no release yet")
        edge.personalize(releases(header, 1)[0].to_bytes(), PERSONAL, TRAINING, lambda: True)
        code, said = run("explain", home.folder)
        assert code == 0
        assert re.search("your questions are answered by +│ the base model", said)
        assert re.search("how it was made +│ fitted on 24 items, for release 1", said)
        assert "a file beside the vault" in said
        items = tmp_path / "items.jsonl"
        items.write_text('{"description": "a film about the sea", "tag": "classic"}\n\n')
        code, said = run("learn", home.folder, items)
        assert (code, "learned 1, 1 in the vault; 4 steps" in said) == (0, True)
        items.write_bytes('{"description": "cut off"}\n'.encode("utf-16")[:-1])
        assert run("learn", home.folder, items) == (2, "error: not UTF-16 text\n")
        lines = '\n{"description": "\ud800"}\n{}\n\n{"description": "a film", "tag": "classic"}\n'
        items.write_bytes(lines.encode("utf-16", "surrogatepass"))
        code, said = run("learn", home.folder, items)
        assert said.startswith(
            "line 2: not UTF-8 text; left out\nline 3: no text field 'description'; left out\n"
        )
        assert (code, "learned 1, 2 in the vault; 4 steps" in said) == (0, True)
        code, said = run("ask", home.folder, question["input"], "--stage", "personal")
        assert said.strip() in edge.agent.history.task.labels
        assert run("generate", home.folder, "a film", "--max-new-tokens", 4)[0] == 0
        for command, prompt in (("generate", "a film"), ("ask", question["input"])):
            aloud = run(command, home.folder, prompt)
            monkeypatch.setattr("sys.stdin", io.StringIO(f"{prompt}\n"))
            assert run(command, home.folder, "-") == aloud
            assert run(command, home.folder, "-") == (2, "error: standard input: empty\n")
        assert run("sent", home.folder)[1].strip().endswith("0 messages, 0 bytes in all")
        number = edge.record.received("status", bridge_pb2.StatusRequest())
        edge.record.refused(number, "status", "InputError", "a \x1b[31mred reason")
        with Traffic(home.traffic) as traffic:
            traffic.count(1234, 56)
        said = run("sent", home.folder)[1]
        assert "REFUSED: 1, the latest at" in said
        assert "1,234 bytes up, 56 down" in said
        code, said = run("log", home.folder)
        assert (code, said.count("\n")) == (0, 2)
        assert said.endswith(f"refused status to {number} error=InputError (10) a ?[31mred reason\n")
        items.write_text("{}")
        code, said = run("learn", home.folder, items)
        assert (code, said.count("\n")) == (2, 1)
        assert run("rotate-key", home.folder)[1].endswith("another process is using this vault\n")
        assert "forgot 2 personal shifts and 2 learned items" in run("forget", home.folder, "--yes")[1]
    assert run("explain", home.folder) == (
        2,
        f"error: {home.folder}: the agent is not running; see fedperfit-edge join\n",
    )
    code, said = run("log", home.folder, "--verify")
    assert code == 0
    assert said.startswith("3 lines in 1 file, 0 older ones dropped; the last is 3, SHA-256 ")
    (file,) = home.audit.iterdir()
    file.write_bytes(file.read_bytes().replace(b"red reason", b"good cause"))
    assert run("log", home.folder, "--verify")[0] == 0, "nothing follows the last line yet"
    with deployed(home.folder) as edge:
        edge.record.received("status", bridge_pb2.StatusRequest())
    file.write_bytes(file.read_bytes().replace(b"good cause", b"bad excuse"))
    code, said = run("log", home.folder, "--verify")
    assert (code, "line 4: does not follow the line before it" in said) == (1, True)


def test_keys_are_rotated_and_forgotten_without_an_agent(run, home, header, monkeypatch):
    with deployed(home.folder) as edge:
        edge.personalize(releases(header, 1)[0].to_bytes(), PERSONAL, TRAINING, lambda: True)
    monkeypatch.setenv("FEDPERFIT_PASSPHRASE", "open sesame")
    before = (home.folder / "vault" / "vault.key").read_bytes()
    assert "kept by a passphrase" in run("rotate-key", home.folder, "--to", "passphrase")[1]
    assert (home.folder / "vault" / "vault.key").read_bytes() != before
    assert read_settings(home).key == "passphrase"
    with pytest.raises(InputError, match="kept by 'passphrase'"):
        Vault(home.folder / "vault").open("full")
    monkeypatch.delenv("FEDPERFIT_PASSPHRASE")
    assert "forgot 2 personal shifts" in run("forget", home.folder, "--yes")[1]


def entering(monkeypatch, *entries):
    """The prompts for passphrases that are shown while these are typed, one after the other."""
    prompts, left = [], list(entries)

    def getpass(prompt: str) -> str:
        prompts.append(prompt)
        return left.pop(0)

    monkeypatch.setattr("fedperfit.edge.vault.keys.getpass", getpass)
    return prompts


def test_a_passphrase_is_confirmed_and_a_rotation_asks_for_old_and_new(run, home, monkeypatch):
    monkeypatch.delenv("FEDPERFIT_PASSPHRASE", raising=False)
    Vault(home.folder / "vault").learn([{"a": "1"}])
    entering(monkeypatch, "one", "other")
    code, said = run("rotate-key", home.folder, "--to", "passphrase")
    assert (code, said) == (2, "error: the two passphrases differ\n")
    assert Vault(home.folder / "vault").learned() == [{"a": "1"}]
    entering(monkeypatch, "one", "one")
    code, said = run("rotate-key", home.folder, "--to", "passphrase")
    assert (code, "kept by a passphrase: the vault is as safe as" in said) == (0, True)
    prompts = entering(monkeypatch, "one", "two", "two")
    assert run("rotate-key", home.folder)[0] == 0
    assert prompts == [
        "passphrase of the vault: ",
        "new passphrase of the vault: ",
        "new passphrase of the vault, once more: ",
    ]
    assert Vault(home.folder / "vault", PassphraseKey("two")).learned() == [{"a": "1"}]
    monkeypatch.setenv("FEDPERFIT_PASSPHRASE", "two")
    monkeypatch.setenv("FEDPERFIT_NEW_PASSPHRASE", "three")
    assert run("rotate-key", home.folder)[0] == 0
    assert Vault(home.folder / "vault", PassphraseKey("three")).learned() == [{"a": "1"}]


def test_a_vault_that_holds_nothing_has_nothing_to_seal(run, home, monkeypatch):
    monkeypatch.delenv("FEDPERFIT_PASSPHRASE", raising=False)
    Vault(home.folder / "vault").learn([{"a": "1"}])
    assert run("forget", home.folder, "--yes")[0] == 0
    prompts = entering(monkeypatch)
    code, said = run("rotate-key", home.folder, "--to", "passphrase")
    assert (code, said.split(" by ")[0]) == (
        0,
        "sealed nothing: the vault is empty; its first key will be kept",
    )
    assert "a passphrase: the vault is as safe" in said
    assert (read_settings(home).key, prompts) == ("passphrase", [])
    assert run("rotate-key", home.folder)[1] == said, "no passphrase of a key that there is not"
    code, said = run("rotate-key", home.folder, "--to", "a-drawer")
    assert (code, said.count("\n"), "file, passphrase or keyring" in said) == (2, 1, True)


def test_a_first_passphrase_is_asked_for_twice_a_known_one_once(monkeypatch):
    monkeypatch.delenv("FEDPERFIT_PASSPHRASE", raising=False)
    prompts = entering(monkeypatch, "one", "one")
    keeper("passphrase", new=True)
    assert len(prompts) == 2
    prompts = entering(monkeypatch, "one")
    keeper("passphrase")
    assert len(prompts) == 1


def bundle(**changed):
    fingerprint = read_card("embedded").fingerprint
    fields = {"name": "ada", "address": "127.0.0.1:1", "authority": "ca", "token": "0" * 64}
    fields |= {"release_key": CLOUD.public, "task": "LaMP_2M", "base_model": "embedded"}
    fields["policy"] = json.dumps(sign_policy(policy(), CLOUD))
    return Bundle(**(fields | {"fingerprint": fingerprint} | changed))


JOINING = {
    "questions": None,
    "base_model": "",
    "shares_metrics": False,
    "key": "file",
    "device": "cpu",
}


def test_a_model_in_another_precision_joins_under_the_clouds_name(tmp_path):
    mine, history = tmp_path / "wide", tmp_path / "mine.jsonl"
    history.write_text('{"description": "a film", "tag": "classic"}\n')
    base = load("embedded", device="cpu", dtype="float32")
    base.model.save_pretrained(mine)  # it ships in bf16
    base.tokenizer.save_pretrained(mine)
    joining = {**JOINING, "base_model": str(mine), "history": history}
    functional = functional_fingerprint(base).text()
    home = Home(tmp_path / "ada")
    with pytest.raises(InputError, match="not the base model"):
        settle(bundle(), home, **joining)
    settings = settle(bundle(functional=functional), home, **joining)
    assert settings == read_settings(home)
    assert settings.stored_model == read_card(str(mine)).fingerprint != base.card.fingerprint
    assert settings.known(read_card(str(mine))).fingerprint == base.card.fingerprint
    with deployed(home.folder) as edge:
        assert edge.agent.base.card.fingerprint == base.card.fingerprint
    torch.nn.init.normal_(base.model.lm_head.weight)
    base.model.save_pretrained(mine)
    _read_card.cache_clear()
    with pytest.raises(InputError, match="is another base model"):
        settle(bundle(functional=functional), Home(tmp_path / "bea"), **joining)
    assert settings.known(read_card(str(mine))).fingerprint != base.card.fingerprint


def test_settling_makes_a_folder(tmp_path):
    home = Home(tmp_path / "ada")
    history = tmp_path / "mine.jsonl"
    with pytest.raises(InputError, match="where is your history"):
        settle(bundle(), home, history=None, **JOINING)
    with pytest.raises(InputError, match=r"mine\.jsonl: no such file"):
        settle(bundle(), home, history=history, **JOINING)
    history.write_text('{"description": "a film", "tag": "classic"}\n')
    with pytest.raises(InputError, match="not the base model"):
        settle(bundle(fingerprint="0"), home, history=history, **JOINING)
    assert not home.folder.exists()
    home.folder.mkdir(mode=0o755)
    assert settle(bundle(), home, history=history, **JOINING) == read_settings(home)
    assert home.folder.stat().st_mode & 0o777 == 0o700, "whoever made the folder, and however open"
    assert files_to_seal(home.folder) == [history]
    with deployed(home.folder) as edge:
        assert len(edge.agent.history.items) == 1
        assert edge.agent.history.sealed
        assert not edge.agent.history.shares_metrics
    assert not settled(home, "mine"), "no node is registered yet"
    home.enrolment.write_text("mine")
    assert settled(home, "mine")
    with pytest.raises(InputError, match="another enrolment"):
        settled(home, "other")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--history", "FOLDER"], "a folder, not a file"),
        (["--history", "PIPE"], "PIPE: not a file"),
        (["--history", "FILE"], "FILE, line 1: broken JSON"),
        (["--history", "GOOD", "--questions", "FILE"], "FILE, line 1: broken JSON"),
        (["--history", "GOOD", "--key", "a-drawer"], "key='a-drawer': expected file"),
        (["--history", "GOOD", "--personal-epsilon", "-1"], "personal-epsilon: expected a number"),
    ],
)
def test_what_cannot_be_joined_with_leaves_nothing(run, tmp_path, monkeypatch, options, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    os.mkfifo(tmp_path / "PIPE")
    (tmp_path / "FILE").write_text("{'description': 'a film', 'tag': 'classic'}\n")
    (tmp_path / "GOOD").write_text('{"description": "a film", "tag": "classic"}\n')
    bundle().write(tmp_path / "ada.bundle")
    monkeypatch.setattr("fedperfit.edge.enrolment.registering.register", None)
    code, said = run("join", "ada.bundle", "--folder", "ada", "--agree", *options)
    assert (code, reason in said.splitlines()[-1], (tmp_path / "ada").exists()) == (2, True, False)


def test_a_folder_of_the_old_way_goes_on_with_the_same_command(run, tmp_path, monkeypatch):
    """Its key was made by the cloud, and its enrolment is of a format that nobody can join by any more."""
    old = {name: value for name, value in vars(bundle()).items() if name != "token"} | {"node_key": "key"}
    path, home, kept = tmp_path / "ada.bundle", Home(tmp_path / "ada"), []
    write_json(path, {"format": 2, **old})
    monkeypatch.setattr("fedperfit.edge.deployment.joining.keep_running", lambda home, **_: kept.append(home))
    code, said = run("join", path, "--folder", home.folder)
    assert (code, "ask for a new one" in said, said.count("\n")) == (2, True, 1)
    home.node.mkdir(parents=True)
    home.enrolment.write_text(hashlib.sha256(repr(sorted(old.items())).encode()).hexdigest())
    assert run("join", path, "--folder", home.folder)[0] == 0
    assert kept == [home]


def test_a_later_join_says_which_options_change_nothing(run, tmp_path, monkeypatch):
    path, home = tmp_path / "ada.bundle", Home(tmp_path / "ada")
    bundle().write(path)
    write_json(home.folder / "client.json", {"shares_metrics": False, "personal-epsilon": 4.0})
    home.node.mkdir()
    home.enrolment.write_text(identify_bundle(path)[1])
    monkeypatch.setattr("fedperfit.edge.deployment.joining.keep_running", lambda home, **_: None)
    join = ("join", path, "--folder", home.folder)
    assert run(*join, "--personal-epsilon", 4) == (0, "")
    code, said = run(*join, "--personal-epsilon", 2, "--share-metrics")
    assert (code, said.count("changes nothing")) == (0, 2)


def test_words_of_a_cloud_are_no_markup_that_ends_a_command(run, home, tmp_path, monkeypatch):
    """A malformed reply of the cloud's, quoted in a line, would end `join`, and with it the agent."""
    path, words, inner = tmp_path / "ada.bundle", "illegal status line: '[/x]'", "positions='[/x]\x1b'"
    bundle().write(path)
    home.node.mkdir()
    home.enrolment.write_text(identify_bundle(path)[1])
    keeping = "fedperfit.edge.deployment.joining.keep_running"
    monkeypatch.setattr(keeping, lambda home, say, **_: say(f"no contact: {words}"))
    assert run("join", path, "--folder", home.folder) == (0, f"no contact: {words}\n")
    told = owner_pb2.Explanation(client="ada", refusal=inner)
    agent = SimpleNamespace(Explain=lambda request: told)
    monkeypatch.setattr("fedperfit.edge.cli.explain.owner", lambda folder: nullcontext(agent))
    code, said = run("explain", home.folder)
    assert (code, "positions='[/x]?'" in said) == (0, True)


def test_what_is_not_there_yet_is_said_in_words(run, home, monkeypatch):
    agent = SimpleNamespace(Explain=lambda request: owner_pb2.Explanation(client="ada", stage="base"))
    monkeypatch.setattr("fedperfit.edge.cli.explain.owner", lambda folder: nullcontext(agent))
    code, said = run("explain", home.folder)
    rows = [line.split("│")[1:3] for line in said.splitlines() if "│" in line]
    told = {name.strip(): text.strip() for name, text in rows if name.strip()}
    assert code == 0
    assert told["your questions are answered by"] == "the base model alone"
    assert told["collective shift"].startswith("none yet")
    assert told["your personal shift"] == "none yet"
    assert told["the cloud last confirmed what is in force"] == "never"
    assert told["answers that were sent"] == "none"
    assert not [name for name in told if "_" in name]


def test_a_plain_history_stays_where_it_is(tmp_path):
    home, history = Home(tmp_path / "ada"), tmp_path / "mine.jsonl"
    history.write_text('{"description": "a film", "tag": "classic"}\n')
    settle(bundle(), home, history=history, plain_history=True, **JOINING)
    assert files_to_seal(home.folder) == []
    for text in ("a film", "another"):
        history.write_text(f'{{"description": "{text}", "tag": "classic"}}\n')
        with deployed(home.folder) as edge:
            assert [item["description"] for item in edge.agent.history.items] == [text]
            assert not edge.agent.history.sealed


def test_no_message_is_larger_than_gRPC_takes(run, home, tmp_path, monkeypatch):
    large, items = "x" * (18 << 20), tmp_path / "items.jsonl"
    items.write_text(json.dumps({"description": large, "tag": "classic"}))
    code, said = run("learn", home.folder, items)  # no agent is there: it is told before anything is sent
    assert (code, said) == (2, f"error: {items}: 18.0 MiB; the agent takes 17 at once: divide it\n")
    for command, name in (("ask", "the question"), ("generate", "the text")):
        monkeypatch.setattr("sys.stdin", io.StringIO(large))
        code, said = run(command, home.folder, "-")
        assert (code, said) == (2, f"error: {name}: 18.0 MiB; the agent takes 17 at once: divide it\n")
    with deployed(home.folder) as edge, served(edge):
        items.write_text("x\n" * 400_000 + '{"description": "a film", "tag": "classic"}')
        code, said = run("learn", home.folder, items)
        assert said.startswith("400,000 lines (1, 2, 3, ")
        assert said.splitlines()[0].endswith("100, and 399,900 more): not JSON; left out")
        assert "learned 1, 1 in the vault" in said
        edge.agent.vault.learn([{"description": large[: 9 << 20], "tag": "classic"}] * 2)
        with owner(home.folder) as agent:
            assert [len(part.items) for part in agent.Learned(owner_pb2.LearnedRequest())] == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["join", "missing.bundle"], "missing.bundle: no such file"),
        (["agent", "."], "not a joined edge"),
        (["serve", "."], "not a joined edge"),
        (["serve", "HOME", "--host", "0.0.0.0"], "--allow-remote"),
        (["forget", ".", "--yes"], "not a joined edge"),
        (["log", "HOME"], "holds no log"),
    ],
)
def test_a_mistake_is_one_line(run, home, monkeypatch, tmp_path, arguments, reason):
    monkeypatch.chdir(tmp_path)
    code, said = run(*(home.folder if part == "HOME" else part for part in arguments))
    assert code == 2
    assert reason in said
    assert said.count("\n") == 1


def test_a_folder_that_is_no_edge_or_holds_nothing_is_told(run, home, tmp_path):
    for command in (["explain"], ["learned"], ["forget", "--yes"]):
        code, said = run(command[0], tmp_path / "nowhere", *command[1:])
        assert (code, "nowhere: not a joined edge" in said) == (2, True)
    assert run("explain", home.folder)[1].endswith("the agent is not running; see fedperfit-edge join\n")
    assert run("forget", home.folder, "--yes") == (0, "forgot nothing: there is no vault yet\n")
    assert not (home.folder / "vault").exists()
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert run("trust", home.folder, other) == (2, f"error: {other}: not a statement of authorities\n")

"""What the owner is shown and asked, and what changes only with their consent."""

import pytest
from tests.edge.deployment.deployments import CLOUD, policy, settings
from typer.testing import CliRunner

from fedperfit.edge.cli.main import app
from fedperfit.edge.cli.policy import ask_for_consent
from fedperfit.edge.deployment.home import Home
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.policy import read_policy, sign_policy, write_policy
from fedperfit.protocol.trust.signing import SigningKey


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "ada")
    settings().write(home)
    write_policy(home.policy, sign_policy(policy(), CLOUD))
    return home


def run(*arguments: object):
    return CliRunner().invoke(app, ["policy", *map(str, arguments)])


def test_the_policy_is_told_in_words(home):
    said = run(home.folder).output
    assert "everything else is refused" in said
    assert "3,080 numbers" in " ".join(said.split())
    assert "sums of fewer than 24 items" in said


def test_nothing_changes_without_the_owners_yes(home, tmp_path):
    new = tmp_path / "new.json"
    write_policy(new, sign_policy(policy(version=2, rank=16), CLOUD))
    refused = run(home.folder, "--accept", new)
    assert isinstance(refused.exception, InputError)
    assert "add --agree" in str(refused.exception)
    assert read_policy(home.policy, CLOUD.public).rank == 4
    assert run(home.folder, "--accept", new, "--agree").exit_code == 0
    assert read_policy(home.policy, CLOUD.public).rank == 16


def test_an_older_policy_and_a_foreign_one_are_refused(home, tmp_path):
    for version, key, words in ((1, CLOUD, "not newer"), (2, SigningKey(), "not signed")):
        new = tmp_path / f"{version}.json"
        write_policy(new, sign_policy(policy(version=version), key))
        assert words in str(run(home.folder, "--accept", new, "--agree").exception)


def test_a_no_is_a_no(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question: False)
    with pytest.raises(InputError, match="did not agree"):
        ask_for_consent(policy(), agree=False)

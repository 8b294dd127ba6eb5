"""What the owner is shown and asked, and what changes only with their consent."""

import pytest
from tests.edge.deployment.deployments import CLOUD, policy, releases, settings
from typer.testing import CliRunner

from fedperfit.edge.cli.main import app
from fedperfit.edge.cli.policy import ask_for_consent
from fedperfit.edge.deployment.home import Home
from fedperfit.edge.releases.trusted_keys import trusted_keys
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
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


def header() -> ShiftHeader:
    shape = ShiftShape(layers=(3, 4), rank=4, hidden_size=192, positions=Positions.parse("l7"))
    return ShiftHeader(shape=shape, fingerprint="f" * 64, task="LaMP_2M", round=1, dtype="bfloat16")


def test_a_policy_under_a_rotated_key_is_agreed_to_once_a_release_vouches_for_the_key(home, tmp_path):
    new_key, new = SigningKey(), tmp_path / "new.json"
    write_policy(new, sign_policy(policy(version=2, rank=16), new_key))
    (first,) = releases(header(), 1)
    rotated = first.rotated(CLOUD, new_key)
    foreign = first.rotated(CLOUD, SigningKey())
    for kept in (first, foreign):
        write_atomic(home.releases / f"{kept.version:08d}.safetensors", kept.to_bytes())
        refused = run(home.folder, "--accept", new, "--agree").exception
        assert "as far as the releases kept here tell" in str(refused)
    write_atomic(home.releases / f"{rotated.version:08d}.safetensors", rotated.to_bytes())
    assert trusted_keys(home.releases, CLOUD.public) == [CLOUD.public, new_key.public]
    assert run(home.folder).exit_code == 0, "what was agreed to under the earlier key still holds"
    old = tmp_path / "old.json"
    write_policy(old, sign_policy(policy(version=3), CLOUD))
    assert "not signed" in str(run(home.folder, "--accept", old, "--agree").exception)
    assert run(home.folder, "--accept", new, "--agree").exit_code == 0
    assert read_policy(home.policy, *trusted_keys(home.releases, CLOUD.public)).rank == 16


def test_a_no_is_a_no(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question: False)
    with pytest.raises(InputError, match="did not agree"):
        ask_for_consent(policy(), agree=False)

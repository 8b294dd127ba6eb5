import hashlib
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.trust.bundle import Bundle, identify_bundle, read_bundle
from fedperfit.protocol.trust.policy import Policy, sign_policy
from fedperfit.protocol.trust.signing import SigningKey

CLOUD = SigningKey()
POLICY = Policy(
    version=1,
    fingerprint="f" * 64,
    task="LaMP_2M",
    prompt_form="lamp",
    layers=[3, 4],
    rank=8,
    hidden_size=192,
    positions="l7",
    personal_rank=4,
    least_rate=1e-3,
    most_rate=1e-2,
    least_clip=0.1,
    most_clip=1.0,
    batch_size=8,
    most_epochs=10,
    most_steps=1000,
    max_items=24,
)


def signed(policy: Policy, key: SigningKey) -> str:
    return json.dumps(sign_policy(policy, key))


GOOD = Bundle(
    name="ada",
    address="cloud.example.org:8443",
    authority="ca",
    token="0" * 64,
    release_key=CLOUD.public,
    task="LaMP_2M",
    base_model="embedded",
    fingerprint="f" * 64,
    policy=signed(POLICY, CLOUD),
)


def test_a_bundle_survives_its_file_and_is_its_owners(tmp_path: Path):
    path = tmp_path / "ada.bundle"
    GOOD.write(path)
    assert read_bundle(path) == GOOD
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(InputError, match="others may read"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": "../x"}, "not a client's name"),
        ({"address": "no port"}, "expected host:port"),
        ({"token": "0"}, "64 hexadecimal digits"),
        ({"release_key": "0"}, "not a public key"),
        ({"task": "LaMP_9"}, "policy is for another task"),
        ({"task": "LaMP_3"}, "policy is for another task"),
        ({"fingerprint": "0" * 64}, "policy is for another task or base model"),
        ({"policy": "{}"}, "not a signed policy"),
        ({"policy": "{"}, "Expecting"),
        ({"policy": signed(POLICY, SigningKey())}, "not signed by the cloud's key"),
        ({"policy": GOOD.policy.replace('"rank": 8', '"rank": 192')}, "not signed by the cloud's key"),
    ],
)
def test_wrong_values(changed, reason, tmp_path: Path):
    path = tmp_path / "x.bundle"
    replace(GOOD, **changed).write(path)
    with pytest.raises(InputError, match=reason) as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)


def test_an_enrolment_of_the_old_format_is_one_line_and_known_by_its_digest(tmp_path: Path):
    path = tmp_path / "ada.bundle"
    texts = {name: value for name, value in vars(GOOD).items() if name != "token"} | {"node_key": "key"}
    write_json(path, {"format": 2, **texts})
    with pytest.raises(InputError, match="format 2, with a key that the cloud made; ask for a new one"):
        read_bundle(path)
    before = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()  # as that version had it
    assert identify_bundle(path) == ("ada", before)


def test_wrong_forms(tmp_path: Path):
    path = tmp_path / "x.bundle"
    GOOD.write(path)
    good = read_json(path)
    for wrong in (
        [],
        {**good, "policy": "[" * 100_000},
        {**good, "format": 1},
        {**good, "more": "x"},
        {**good, "name": 3},
        {"format": 9},
    ):
        write_json(path, wrong)
        with pytest.raises(InputError):
            read_bundle(path)
    path.write_text("{")
    with pytest.raises(InputError, match="broken JSON"):
        read_bundle(path)
    with pytest.raises(InputError, match="no such file"):
        read_bundle(tmp_path / "missing")

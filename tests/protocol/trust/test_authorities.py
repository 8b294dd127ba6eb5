import json

import pytest

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.authorities import Authorities, parse_authorities, sign_authorities
from fedperfit.protocol.trust.certificates import new_authority
from fedperfit.protocol.trust.rotation import Rotation
from fedperfit.protocol.trust.signing import SigningKey

CLOUD, LATER = SigningKey(), SigningKey()
STATED = Authorities(3, tuple(new_authority("x").certificate.decode() for _ in range(2)))


def data(stated: Authorities = STATED, key: SigningKey = CLOUD, *rotations: Rotation) -> bytes:
    return json.dumps(sign_authorities(stated, key, rotations)).encode()


def test_a_statement_is_read_as_it_was_signed():
    assert parse_authorities(data(), CLOUD.public) == STATED


def test_rotations_of_the_key_are_followed_and_only_forwards():
    rotated = data(STATED, LATER, Rotation.signed(2, CLOUD, LATER))
    assert parse_authorities(rotated, CLOUD.public) == STATED
    assert parse_authorities(rotated, LATER.public) == STATED
    forged = data(STATED, LATER, Rotation.signed(2, SigningKey(), LATER))
    for wrong, trusted in ((data(), LATER), (data(STATED, LATER), CLOUD), (forged, CLOUD)):
        with pytest.raises(InputError, match="not signed by the cloud's key"):
            parse_authorities(wrong, trusted.public)


@pytest.mark.parametrize(
    "changed",
    [
        *({"number": 0}, {"number": True}, {"number": "3"}, {"certificates": []}, {"certificates": ["x"]}),
        *({"certificates": [1]}, {"certificates": list(STATED.certificates) * 5}, {"kind": "policy"}),
        *({"format": 2}, {"rotations": [{}]}, {"rotations": 1}, {"more": 1}),
    ],
)
def test_what_is_malformed_is_refused_though_it_be_signed(changed):
    values = {**sign_authorities(STATED, CLOUD), **changed}
    del values["signature"]
    values["signature"] = CLOUD.sign("authorities", values)
    with pytest.raises(InputError) as caught:
        parse_authorities(json.dumps(values).encode(), CLOUD.public)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_nonsense_is_refused(wrong):
    with pytest.raises(InputError):
        parse_authorities(wrong, CLOUD.public)


def test_no_signature_holds_for_other_values():
    values = json.loads(data()) | {"number": 4}
    with pytest.raises(InputError, match="not signed"):
        parse_authorities(json.dumps(values).encode(), CLOUD.public)

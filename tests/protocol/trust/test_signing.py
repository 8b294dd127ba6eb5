import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.signing import SigningKey, is_public_key, read_signing_key, signed_by

KEY = SigningKey()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(VALUES, VALUES)
def test_only_the_statement_that_was_signed_verifies(statement, other):
    signature = KEY.sign("release", statement)
    assert signed_by(KEY.public, "release", statement, signature)
    assert not signed_by(KEY.public, "rotation", statement, signature)
    assert not signed_by(SigningKey().public, "release", statement, signature)
    assert signed_by(KEY.public, "release", other, signature) == (
        other == statement and repr(other) == repr(statement)
    ) or sorted(map(str, [other])) == sorted(map(str, [statement]))


@pytest.mark.parametrize("signature", [None, 3, "", "0" * 128, "z" * 128, KEY.sign("release", 1).upper()])
def test_what_is_no_signature_does_not_verify(signature):
    assert not signed_by(KEY.public, "release", 1, signature)


def test_a_key_survives_its_file(tmp_path: Path):
    path = tmp_path / "signing.pem"
    KEY.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_signing_key(path).public == KEY.public
    assert is_public_key(KEY.public)
    assert not is_public_key(KEY.public[:-1])


def test_a_bad_key_file_is_one_line(tmp_path: Path):
    path = tmp_path / "signing.pem"
    with pytest.raises(InputError, match="no such file"):
        read_signing_key(path)
    KEY.write(path)
    path.chmod(0o640)
    with pytest.raises(InputError, match="others may read"):
        read_signing_key(path)
    other = Ed448PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content, reason in (
        (b"", "not a private key"),
        (b"\xff" * 80, "not a private key"),
        (other, "Ed25519"),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(InputError, match=reason):
            read_signing_key(path)

import subprocess
from shutil import which

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.node_key import NodeKey, fingerprint, node_key_signed, read_node_key


def test_a_key_survives_its_file_and_signs(tmp_path):
    key = NodeKey()
    key.write(tmp_path / "key")
    read = read_node_key(tmp_path / "key")
    assert read.public == key.public
    assert node_key_signed(key.public, b"this", read.sign(b"this"))
    assert not node_key_signed(key.public, b"that", read.sign(b"this"))
    assert not node_key_signed(NodeKey().public, b"this", read.sign(b"this"))
    assert not node_key_signed(key.public, b"this", "00")
    (tmp_path / "key").write_text("x")
    with pytest.raises(InputError, match="not a node's key"):
        read_node_key(tmp_path / "key")


def written(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "ecdsa-sha2-nistp384 AAAA", "ssh-ed25519 é"),
        written(ec.generate_private_key(ec.SECP256R1())),
        written(ed25519.Ed25519PrivateKey.generate()),
        NodeKey().public + " ada@laptop",
        NodeKey().public + "\n",
    ],
    ids=["empty", "one word", "cut", "not ASCII", "another curve", "another kind", "comment", "line break"],
)
def test_what_is_not_a_nodes_key_is_refused(text):
    with pytest.raises(InputError, match="the key is"):
        node_key_signed(text, b"", "")


@pytest.mark.skipif(which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_the_fingerprint_is_the_one_that_others_show(tmp_path):
    key = NodeKey()
    (tmp_path / "key.pub").write_text(f"{key.public}\n")
    command = ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.split()[1] == fingerprint(key.public)

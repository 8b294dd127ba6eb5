"""Sealed shares: what only one member can open, and only of the client that it names.

A contributor draws an X25519 key for one sum and signs it, with the session, by its Ed25519 key. A member's
seal has the key HKDF(their Diffie-Hellman secret; session, contributor, member) and holds one share, under
ChaCha20-Poly1305 with a nonce of zero, since no key is used twice. On the wire, for k members:

    contribution = key (32) | signature (64) | k sealed shares (width x columns + 16 each)
    envelope     = key (32) | signature (64) | the member's sealed share
"""

import json

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedperfit.protocol.secure_sums.field import Elements
from fedperfit.protocol.secure_sums.keys import KEY_BYTES, SIGNATURE_BYTES, SumKeys
from fedperfit.protocol.secure_sums.session import Session
from fedperfit.protocol.secure_sums.sharing import share
from fedperfit.protocol.system.errors import InputError

_HEAD_BYTES = KEY_BYTES + SIGNATURE_BYTES
_TAG_BYTES = 16
_NONCE = bytes(12)
_LABEL = b"fedperfit secure sums 1"


class BadShare(InputError):
    """What a contributor sealed cannot be opened, or is no share."""


def sealed_bytes(session: Session) -> int:
    """Return the bytes of one sealed share."""
    return session.numbers.field.width * session.columns + _TAG_BYTES


def contribute(values: Elements, session: Session, name: str, keys: SumKeys) -> bytes:
    """Share whole numbers among the session's members and seal the shares.

    Args:
        values: (n,) whole numbers.
        session: The sum that they are for.
        name: Name of the contributor.
        keys: Its own keys.

    Returns:
        The contribution.

    Raises:
        InputError: If the contributor is not enrolled with these keys.
    """
    if session.directory.of(name) != keys.public:
        raise InputError(f"{name} is enrolled with other keys for sums")
    field, own = session.numbers.field, X25519PrivateKey.generate()
    public = own.public_key().public_bytes_raw()
    sealed = []
    for member, row in zip(session.members, share(values, session.shape, field), strict=True):
        secret = own.exchange(session.directory.of(member).sealing)
        context = _context(session, name, member, public)
        sealed.append(_cipher(secret, context).encrypt(_NONCE, field.to_bytes(row), context))
    return public + keys.sign(_signed(session, name, public)) + b"".join(sealed)


def envelopes(contribution: bytes, session: Session, name: str) -> list[bytes]:
    """Take a contribution apart into an envelope for each member, by place; what is in them nobody sees.

    Raises:
        InputError: If it has a wrong length or is not signed by the contributor for this session.
    """
    size = sealed_bytes(session)
    expected = _HEAD_BYTES + size * session.shape.size
    if len(contribution) != expected:
        raise InputError(f"a contribution of {len(contribution)} bytes, expected {expected}")
    head = contribution[:_HEAD_BYTES]
    _check_signature(head, session, name)
    return [head + contribution[at : at + size] for at in range(_HEAD_BYTES, expected, size)]


def open_share(envelope: bytes, session: Session, name: str, member: str, keys: SumKeys) -> Elements:
    """Open an envelope as a member.

    Args:
        envelope: As `envelopes` makes it.
        session: The sum that it must be for.
        name: Name of the contributor.
        member: Name of the member.
        keys: The member's own keys.

    Returns:
        (columns,) the share.

    Raises:
        BadShare: If anything was changed, or made for another session, contributor or member.
    """
    field = session.numbers.field
    try:
        _check_signature(envelope[:_HEAD_BYTES], session, name)
        public = envelope[:KEY_BYTES]
        context = _context(session, name, member, public)
        secret = keys.box.exchange(X25519PublicKey.from_public_bytes(public))
        data = _cipher(secret, context).decrypt(_NONCE, envelope[_HEAD_BYTES:], context)
        return field.from_bytes(data, session.columns)
    except (InputError, InvalidTag, ValueError) as error:
        raise BadShare(f"the share of {name} cannot be opened ({error or type(error).__name__})") from None


def _check_signature(head: bytes, session: Session, name: str) -> None:
    public, signature = head[:KEY_BYTES], head[KEY_BYTES:]
    if not session.directory.of(name).verifies(signature, _signed(session, name, public)):
        raise InputError(f"not signed by {name} for this sum")


def _signed(session: Session, name: str, public: bytes) -> bytes:
    return _LABEL + session.digest + public + name.encode()


def _context(session: Session, name: str, member: str, public: bytes) -> bytes:
    names = json.dumps([name, member, session.place(member)]).encode()
    return _LABEL + session.digest + public + session.directory.of(member).box + names


def _cipher(secret: bytes, context: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt=None, info=context).derive(secret))

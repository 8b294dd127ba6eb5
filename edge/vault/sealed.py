"""Seals bytes under a key, with a header that anyone can read and nobody can change unnoticed.

Layout: 4 bytes magic `FPV1`, 4 bytes header length (little endian), the header as canonical JSON, 12 bytes
nonce, the ciphertext with its tag (AES-256-GCM). All that stands before the nonce is associated data.
"""

import json
import secrets
import struct
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedperfit.protocol.system.errors import InputError

MAGIC = b"FPV1"
_NONCE = 12
_TAG = 16
_MAX_HEADER = 65_536


def seal(header: dict[str, Any], content: bytes, key: bytes) -> bytes:
    """Encrypt content and bind it to a header.

    Args:
        header: JSON values, readable without the key.
        content: bytes to be encrypted.
        key: 32 bytes.

    Returns:
        The sealed bytes in the layout above.

    Raises:
        InputError: the header is longer than 64 KiB.
    """
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    if len(encoded) > _MAX_HEADER:
        raise InputError(f"a header of {len(encoded)} bytes is too long to seal")
    open_part = MAGIC + struct.pack("<I", len(encoded)) + encoded
    nonce = secrets.token_bytes(_NONCE)
    return open_part + nonce + AESGCM(key).encrypt(nonce, content, open_part)


def read_header(data: bytes) -> tuple[dict[str, Any], int]:
    """Read the header of sealed bytes without verifying it.

    Returns:
        The header, and the offset of the nonce in bytes.

    Raises:
        InputError: the bytes are not in the layout above.
    """
    if data[:4] != MAGIC:
        raise InputError("not a sealed file of format FPV1")
    if len(data) < 8:
        raise InputError("truncated")
    (length,) = struct.unpack("<I", data[4:8])
    if length > _MAX_HEADER or len(data) < 8 + length + _NONCE + _TAG:
        raise InputError("truncated")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        raise InputError("its header is not JSON") from None
    if not isinstance(header, dict):
        raise InputError("its header is not a JSON object")
    return header, 8 + length


def unseal(data: bytes, key: bytes) -> tuple[dict[str, Any], bytes]:
    """Verify and decrypt sealed bytes.

    Args:
        data: result of `seal`.
        key: 32 bytes.

    Returns:
        Header and content.

    Raises:
        InputError: the key is another one, or the bytes were changed.
    """
    header, start = read_header(data)
    try:
        content = AESGCM(key).decrypt(data[start : start + _NONCE], data[start + _NONCE :], data[:start])
    except InvalidTag:
        raise InputError("changed, truncated, or sealed under another key") from None
    return header, content

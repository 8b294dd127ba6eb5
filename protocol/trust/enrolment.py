"""The request by which a machine has its node's key registered: the key, the token of its invitation, its
public keys for secure sums, and a proof that it holds the node's private key.

It is sent to the cloud by TLS, under the authority that the invitation names. The proof is a signature of
everything else by the key, so that nobody can enrol a key that is another's, and a request that was
overheard says nothing else than it did.
"""

import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.node_key import NodeKey, node_key_signed

PATH = "/v1/enrolment"
"""Path of the cloud's address to which requests are posted."""
MAX_BYTES = 4096
"""Largest request or reply, in bytes."""


class EnrolmentRequest(BaseModel):
    """A request to register a key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(max_length=64)]
    """Name of the client."""
    token: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
    """Secret of the invitation."""
    key: Annotated[str, Field(max_length=512)]
    """Public key of the node, in OpenSSH form."""
    sums: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?\z")] = ""
    """Public keys for secure sums, as `PublicKeys.hex` writes them; empty of a machine without."""
    proof: Annotated[str, Field(pattern=r"^[0-9a-f]{16,256}\z")]
    """Signature of the other fields by the key."""

    @classmethod
    def signed(cls, name: str, token: str, key: NodeKey, sums: str = "") -> Self:
        """Make a request.

        Args:
            name: Name of the client.
            token: Secret of the invitation.
            key: Key of the node.
            sums: Public keys for secure sums; empty for none.
        """
        proof = key.sign(_message(name, token, key.public, sums))
        return cls(name=name, token=token, key=key.public, sums=sums, proof=proof)

    def check_proof(self) -> None:
        """Raise InputError unless whoever made the request holds the private key."""
        message = _message(self.name, self.token, self.key, self.sums)
        if not node_key_signed(self.key, message, self.proof):
            raise InputError("the proof does not show that the key is yours")


class EnrolmentReply(BaseModel):
    """What the cloud says to a request."""

    model_config = ConfigDict(frozen=True, strict=True)

    state: Literal["enrolled", "waiting", "refused"]
    """Whether the node may connect, somebody at the cloud must approve of it, or it was turned away."""
    reason: Annotated[str, Field(max_length=1000)] = ""
    """Why it was turned away, for its owner."""


def parse_request(data: bytes) -> EnrolmentRequest:
    """Parse a request.

    Raises:
        InputError: If it is malformed; no part of it is quoted.
    """
    try:
        return EnrolmentRequest.model_validate_json(data)
    except ValidationError:
        raise InputError("not a request to enrol") from None


def _message(name: str, token: str, key: str, sums: str) -> bytes:
    values = {"key": key, "name": name, "token": token} | ({"sums": sums} if sums else {})
    return f"fedperfit enrolment\0{json.dumps(values, sort_keys=True, separators=(',', ':'))}".encode()

"""Having the keys of this machine registered by the cloud: made here; their public halves are told with the
invitation's token, the private ones never leave.
"""

import ssl
from collections.abc import Callable

from pydantic import ValidationError

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.enrolment.asking import NoAnswer, answer
from fedperfit.edge.sums.party import make_keys
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.system.processes import wait_until
from fedperfit.protocol.trust.bundle import Bundle
from fedperfit.protocol.trust.enrolment import MAX_BYTES, PATH, EnrolmentReply, EnrolmentRequest
from fedperfit.protocol.trust.node_key import NodeKey, fingerprint, read_node_key

_SECONDS = 150.0
"""Longest time that the cloud may take; it registers one node after the other."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
"""Seconds between two requests; they double as long as the cloud does not answer."""


def register(
    bundle: Bundle, home: Home, digest: str, *, say: Callable[[str], None], stopping: Callable[[], bool]
) -> bool:
    """Ask the cloud to register this machine's key until it has, and note in the folder that it did.

    A key is made for each invitation, once: where an earlier attempt was killed, the same key is told again.

    Args:
        bundle: The invitation.
        home: The person's folder, as `settle` made it.
        digest: Digest of the invitation's file.
        say: Shows a line to the owner.
        stopping: Returns whether to give up.

    Returns:
        Whether the node is registered; False if it was stopped before.

    Raises:
        InputError: If the cloud refuses.
    """
    key = _key(home, digest)
    sums = make_keys(home.folder).public.hex
    request = EnrolmentRequest.signed(bundle.name, bundle.token, key, sums)
    said, pause = "", _SHORTEST_PAUSE
    while not stopping():
        reply, problem = _asked(bundle, home, request)
        if reply is not None and reply.state == "enrolled":
            write_atomic(home.enrolment, digest.encode())
            return True
        if reply is not None and reply.state == "refused":
            raise InputError(f"{bundle.address}: {reply.reason}")
        if reply is not None:
            line = f"waiting until your cloud approves of this machine's key {fingerprint(key.public)}"
            pause = _SHORTEST_PAUSE
        else:
            line = f"the cloud at {bundle.address} does not answer ({problem}); trying again"
        if line != said:
            say(line)
            said = line
        wait_until(stopping, pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return False


def _key(home: Home, digest: str) -> NodeKey:
    if (
        home.node_key.exists()
        and home.invitation.exists()
        and home.invitation.read_bytes() == digest.encode()
    ):
        return read_node_key(home.node_key)
    home.invitation.unlink(missing_ok=True)
    key = NodeKey()
    key.write(home.node_key)
    write_atomic(home.invitation, digest.encode())
    return key


def _asked(bundle: Bundle, home: Home, request: EnrolmentRequest) -> tuple[EnrolmentReply | None, str]:
    """Return the cloud's reply, or None and what is in the way."""
    try:
        trusted = ssl.create_default_context(cadata=bundle.authority)
    except ssl.SSLError:
        raise InputError("the invitation's authority is not a certificate in PEM form") from None
    try:
        with answer(
            *(home, bundle.address, trusted, "POST", PATH, _SECONDS),
            content=request.model_dump_json(),
            headers={"content-type": "application/json"},
        ) as response:
            data = b""
            for part in response.iter_raw():
                data += part
                if len(data) > MAX_BYTES:
                    return None, "its reply is too large"
        return EnrolmentReply.model_validate_json(data), ""
    except NoAnswer as error:
        return None, str(error)
    except ValidationError:
        return None, f"status {response.status_code}"

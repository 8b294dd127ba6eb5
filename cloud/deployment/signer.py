"""The signer: the only process of a cloud that opens the signing key, asked for releases over a socket.

It releases what the federation of cloud.toml is for and nothing else: a shift of the task, the base model
and the shape agreed there, after all rounds, as the next of the chain, valid for `lifetime-days`. It answers
the account that it runs as, over a Unix socket that nobody else can open. `up` starts it; what runs
federations is confined where the key is not (see `fedperfit.cloud.deployment.confinement`). By itself it
renews the pointer to the release in force.

    python -P -m fedperfit.cloud.deployment.signer FOLDER

One exchange per connection. Request: the packed shift, then the directions, or nothing for none,
then epsilon and delta as a JSON list, both null without differential privacy.
Reply: JSON `{"refused": reason}`, or `{"refused": ""}` and then the release.
"""

import json
import os
import socket
import struct
import sys
import threading
import time
from datetime import timedelta
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from fedperfit.cloud.deployment.certificate_authority import publish_authorities
from fedperfit.cloud.deployment.home import CloudHome, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.people.people import People
from fedperfit.protocol.settings.fields import AUTO
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import FedperfitError, InputError, RunFailed
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.release_file import parse_release

_SOCKET = "signer.sock"
_LARGEST = 1 << 28
"""Largest part of a request or a reply, in bytes."""
_RENEWAL_SECONDS = 60.0
"""Time between two looks at the pointer."""
_PATIENCE = 10
"""Seconds that the signer waits for a caller in the middle of an exchange."""


def serve(home: CloudHome) -> None:
    """Answer requests until the process is told to stop; a release is written whole or not at all.

    Args:
        home: The cloud.
    """
    home.signer.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chdir(home.signer)  # the name of a socket may have 107 bytes at most
    Path(_SOCKET).unlink(missing_ok=True)
    os.umask(0o077)
    publish_authorities(home)
    threading.Thread(target=_renew_pointer, args=(home,), name="pointer", daemon=True).start()
    with Listener(_SOCKET, "AF_UNIX", backlog=16) as listener:
        while True:
            with listener.accept() as connection:
                try:
                    _answer(home, connection)
                except (EOFError, OSError):
                    continue  # the caller is gone


def signer_command(home: CloudHome) -> list[str]:
    """Return the command that runs the signer of a cloud."""
    module = "fedperfit.cloud.deployment.signer"
    return [sys.executable, "-P", "-m", module, str(home.folder.absolute())]


def signer_ready(home: CloudHome) -> bool:
    """Return whether the signer takes connections."""
    try:
        with _connect(home):
            return True
    except OSError:
        return False


def ask_for_release(
    home: CloudHome,
    shift: Shift,
    header: ShiftHeader,
    directions: Directions | None = None,
    people: People | None = None,
    *,
    epsilon: float | None = None,
    delta: float | None = None,
) -> Release:
    """Have the signer release a shift, the next of the chain; the same again if it is in force already.

    Args:
        home: The cloud.
        shift: The collective shift.
        header: Its description.
        directions: The group's directions, if any.
        people: Basis of personal shifts and prior over people, if any.
        epsilon: What all rounds so far tell of any one client; None without differential privacy.
        delta: Delta that it holds at.

    Raises:
        RunFailed: If the signer refuses, or is not there.
    """
    try:
        with _connect(home) as connection:
            connection.send_bytes(pack(shift, header))
            connection.send_bytes(directions.to_bytes() if directions is not None else b"")
            connection.send_bytes(people.to_bytes() if people is not None else b"")
            connection.send_bytes(json.dumps([epsilon, delta]).encode())
            refused = json.loads(connection.recv_bytes(_LARGEST))["refused"]
            if refused:
                raise RunFailed(f"the signer refused the release: {refused}")
            return parse_release(connection.recv_bytes(_LARGEST))
    except (EOFError, OSError) as error:
        raise RunFailed(f"the signer does not answer ({error}); is this cloud up?") from None


def check_agreed(
    settings: CloudSettings, header: ShiftHeader, directions: Directions | None, people: People | None
) -> None:
    """Refuse what the federation of these settings does not release.

    Args:
        settings: The cloud's settings.
        header: Description of the shift.
        directions: The group's directions, if any.
        people: Basis of personal shifts and prior over people, if any.

    Raises:
        InputError: Naming what differs.
    """
    card = read_card(settings.base_model)
    expected = {"task": settings.task_id, "base model": card.fingerprint, "rounds": settings.rounds}
    given = {"task": header.task, "base model": header.fingerprint, "rounds": header.round}
    shape = header.shape
    chosen = {
        **({"layers": list(shape.layers), "layers-of": card.layers} if settings.layers == AUTO else {}),
        **({"collective-rank": shape.rank} if settings.collective_rank == AUTO else {}),
        **({"personal-rank": 1} if settings.personal_rank == AUTO else {}),
    }
    expected |= {"shape": _text(settings.settled(chosen).shape(card)), "encoding": settings.release_dtype}
    given |= {"shape": _text(shape), "encoding": header.dtype}
    for name, value in expected.items():
        if given[name] != value:
            raise InputError(f"{name} is {given[name]!r}; cloud.toml says {value!r}")
    if (directions is not None) is not settings.directions:
        raise InputError(f"directions are {'there' if directions else 'missing'}, against cloud.toml")
    _check_people(settings, header, people)


def _check_people(settings: CloudSettings, header: ShiftHeader, people: People | None) -> None:
    if (people is not None) is not (settings.personal_basis != "none"):
        raise InputError(f"a personal basis is {'there' if people else 'missing'}, against cloud.toml")
    if people is None:
        return
    people.check(header)
    prior = people.prior
    if people.basis.columns != settings.personal_columns or (prior is not None) is not settings.people_prior:
        raise InputError("the personal basis or the prior over people is not that of cloud.toml")
    if prior is not None:
        wanted = {
            "strength": settings.prior_strength,
            "items": settings.prior_items,
            "numbers": settings.personal_numbers,
            "gives_way": settings.prior_gives_way,
        }
        for name, expected in wanted.items():
            value = getattr(prior, name)
            if value != expected:
                raise InputError(f"the prior's {name} is {value}; cloud.toml says {expected}")


def check_promised(settings: CloudSettings, promise: bytes) -> tuple[float | None, float | None]:
    """Read epsilon and delta of a request; refuse what cloud.toml does not promise.

    Args:
        settings: The cloud's settings.
        promise: JSON list of epsilon and delta.

    Raises:
        InputError: If it is malformed, or says more than the promise, or nothing where there is one.
    """
    try:
        epsilon, delta = json.loads(promise)
    except (ValueError, TypeError):
        raise InputError("its epsilon and delta are malformed") from None
    if not settings.private:
        if (epsilon, delta) != (None, None):
            raise InputError("it has an epsilon; cloud.toml has no target-epsilon")
        return None, None
    if type(epsilon) is not float or not 0 <= epsilon <= settings.target_epsilon * (1 + 1e-9):
        raise InputError(f"its epsilon is {epsilon}; cloud.toml promises {settings.target_epsilon:g}")
    if delta != settings.target_delta:
        raise InputError(f"its delta is {delta}; cloud.toml promises {settings.target_delta:g}")
    return epsilon, delta


def _text(shape: ShiftShape) -> str:
    where = f"layers {list(shape.layers)}, positions {shape.positions}"
    return f"{where}, rank {shape.rank} of {shape.hidden_size}"


def _answer(home: CloudHome, connection: Connection) -> None:
    if _caller(connection) != os.geteuid():
        return
    _limit_waiting(connection)
    packed, edit, crowd, promise = (connection.recv_bytes(_LARGEST) for _ in range(4))
    try:
        release = _released(home, packed, edit, crowd, promise)
    except FedperfitError as error:
        connection.send_bytes(json.dumps({"refused": str(error)}).encode())
        print(f"refused: {error}", flush=True)
    else:
        connection.send_bytes(json.dumps({"refused": ""}).encode())
        connection.send_bytes(release.to_bytes())
        print(f"released version {release.version}", flush=True)


def _released(home: CloudHome, packed: bytes, edit: bytes, crowd: bytes, promise: bytes) -> Release:
    settings = read_cloud(home)
    shift, header = unpack(packed)
    directions = Directions.from_bytes(edit) if edit else None
    people = People.from_bytes(crowd) if crowd else None
    check_agreed(settings, header, directions, people)
    epsilon, delta = check_promised(settings, promise)
    return CloudReleases(home.folder).publish(
        shift,
        header,
        epsilon=epsilon,
        delta=delta,
        lifetime=timedelta(days=settings.lifetime_days),
        directions=directions,
        people=people,
    )


def _renew_pointer(home: CloudHome) -> None:
    """Renew the pointer for ever; what keeps it from being renewed is said once."""
    said = ""
    while True:
        try:
            CloudReleases(home.folder).renew_pointer()
            said = ""
        except (FedperfitError, OSError) as error:
            if str(error) != said:
                said = str(error)
                print(f"the pointer to the release in force was not renewed: {said}", flush=True)
        time.sleep(_RENEWAL_SECONDS)


def _caller(connection: Connection) -> int:
    """Return the user id of the account at the other end of a Unix socket."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _limit_waiting(connection: Connection) -> None:
    """Let reads and writes that make no progress end with OSError, so that no caller holds up others."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _PATIENCE, 0))


def _connect(home: CloudHome) -> Connection:
    folder = os.open(home.signer, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return Client(f"/proc/self/fd/{folder}/{_SOCKET}", "AF_UNIX")
    finally:
        os.close(folder)


def main() -> None:
    """Serve the cloud whose folder the command line names."""
    serve(CloudHome(Path(sys.argv[1]).absolute()))


if __name__ == "__main__":
    main()

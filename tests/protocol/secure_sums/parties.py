"""Sessions and keys for tests of secure sums."""

from dataclasses import replace
from functools import lru_cache
from hashlib import sha512

from fedperfit.protocol.secure_sums.fixed_point import FixedPoint
from fedperfit.protocol.secure_sums.keys import Directory, SumKeys
from fedperfit.protocol.secure_sums.parameters import CommitteeShape
from fedperfit.protocol.secure_sums.session import Session

SHAPE = CommitteeShape(7, 1, 5)


@lru_cache
def party(count: int) -> dict[str, SumKeys]:
    """Make keys for so many clients, the same ones each time: a committee is drawn from them."""
    names = (f"c{number}" for number in range(count))
    return {name: SumKeys.from_bytes(sha512(name.encode()).digest()) for name in names}


def session_of(
    keys: dict[str, SumKeys], codec: str = "sign", numbers: int = 11, shape: CommitteeShape = SHAPE
) -> Session:
    """Make the session of a first round among all these clients."""
    return Session(
        run="00" * 16,
        round=1,
        agreement="ab",
        shape=shape,
        numbers=FixedPoint(codec, numbers, len(keys)),
        least=2,
        release="",
        directory=Directory({name: key.public for name, key in keys.items()}),
    )


def later(session: Session) -> Session:
    """Return the same session one round later."""
    return replace(session, round=session.round + 1)

"""Forms of the events that the page draws; whatever else they hold stays as it is."""

from typing import Any, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import in_form

_open = with_config(ConfigDict(extra="allow"))


@_open
class _Event(TypedDict):
    event: str
    time: float


@_open
class _Phase(_Event):
    phase: str
    clients: int


@_open
class _Reply(_Phase):
    replies: int


@_open
class _Round(_Event):
    phase: str
    round: int
    rounds: int
    admitted: int
    dropped: int
    loss: float | None
    down: int
    up: int


@_open
class _Work(_Event):
    done: int
    total: int
    last: str
    left: NotRequired[float | None]
    least: NotRequired[bool]


@_open
class _Figures(_Event):
    figures: dict[str, float]


@_open
class _Failed(_Event):
    reason: str


_Trial = TypedDict(
    "_Trial",
    {
        "event": str,
        "time": float,
        "learning-rate": float,
        "epochs": int,
        "score": float,
        "without": float,
    },
)
_FORMS: dict[str, Any] = {
    "phase": _Phase,
    "result": _Phase,
    "reply": _Reply,
    "round": _Round,
    "work": _Work,
    "trial": _open(_Trial),
    "figures": _Figures,
    "failed": _Failed,
}


def event_of(value: Any, place: str) -> dict[str, Any]:
    """Return a value of JSON as an event.

    Args:
        value: The value.
        place: File and line that it came from.

    Raises:
        MalformedFileError: It is no event; the message names the place.
    """
    kind = in_form(value, _Event, place)["event"]
    event: dict[str, Any] = in_form(value, _FORMS.get(kind, _Event), place)
    return event

"""Time that units of work will still take, from what those of their kind took."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any


class Pace:
    """Units done and left, by kind: units of one kind take about as long as each other, others do not."""

    def __init__(self, left: Iterable[Hashable], workers: int) -> None:
        """Start to count.

        Args:
            left: Kind of each unit that is left.
            workers: Number of workers, side by side.
        """
        self._left = Counter(left)
        self._workers, self._total, self._done = workers, self._left.total(), 0
        self._seconds: dict[Hashable, list[float]] = defaultdict(list)

    def took(self, kind: Hashable, seconds: float) -> dict[str, Any]:
        """Count a unit that is done.

        Args:
            kind: Kind of the unit.
            seconds: Seconds that it took.

        Returns:
            Fields of an event: units that are `done` of the `total`; seconds that are `left`, None while no
            unit is left of a kind that was seen; whether that is the `least`, as units of other kinds come on
            top.
        """
        self._done += 1
        self._left[kind] -= 1
        self._seconds[kind].append(seconds)
        left = {kind: count for kind, count in self._left.items() if count > 0}
        known = {kind: count for kind, count in left.items() if kind in self._seconds}
        needed = sum(count * sum(self._seconds[k]) / len(self._seconds[k]) for k, count in known.items())
        return {
            **{"done": self._done, "total": self._total, "seconds": seconds},
            **{"left": needed / self._workers if known or not left else None, "least": known != left},
        }


def progress(event: Mapping[str, Any], passed: float) -> str:
    """Say in one line how far a study has come.

    Args:
        event: Event of its start, or of work that is done.
        passed: Seconds since it was begun or resumed.
    """
    left = time_left(event)
    done = f"{event.get('done', 0)} of {event['total']} after {span(passed)}"
    return f"{done}{', ' * bool(left)}{left}  {event.get('last', '')}"


def time_left(event: Mapping[str, Any]) -> str:
    """Say how long it will take according to an event: `about 5 min left`; empty where nobody can know.

    Args:
        event: Event with what `Pace` says, or without.
    """
    if event.get("left") is None:
        return ""
    return f"{'more than' if event.get('least') else 'about'} {span(event['left'])} left"


def span(seconds: float) -> str:
    """Return a time in the unit that suits it, e.g. `90 s`, `5 min` or `2.5 h`.

    Args:
        seconds: The time.
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

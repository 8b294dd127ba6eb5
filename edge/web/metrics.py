"""Health and numbers of one person's agent for whoever operates the machine: counts, and nothing personal."""

import time
from datetime import UTC, datetime
from pathlib import Path

from fedperfit.edge.audit.verification import verify
from fedperfit.protocol.schema import owner_pb2
from fedperfit.protocol.system.metrics import Metric, gauge, text
from fedperfit.protocol.trust.validity import parse_time

_VERIFIED_SECONDS = 300.0
"""Time for which a check of the whole log is told again; it reads all of it."""


class ChainCheck:
    """The check of a log, made anew every few minutes."""

    def __init__(self, audit: Path) -> None:
        """Check nothing yet; audit: folder of the log."""
        self._audit = audit
        self._sound, self._checked = True, float("-inf")

    def sound(self) -> bool:
        """Return whether the log was as it was written when it was checked last; reads all of it at times."""
        if time.monotonic() - self._checked > _VERIFIED_SECONDS:
            self._sound = not verify(self._audit).problems
            self._checked = time.monotonic()
        return self._sound


def agent_metrics(told: owner_pb2.Explanation | None, *, sound: bool) -> str:
    """Write an agent's state as Prometheus' text: no name, path, text or digest is in it.

    Args:
        told: What the agent says of itself; None where it does not answer.
        sound: Whether the log is as it was written.
    """
    metrics = [
        gauge("up", "Whether the agent answers.", told is not None),
        gauge("audit_chain_ok", "Whether the log of requests is as it was written.", sound),
    ]
    if told is not None:
        metrics += [*_requests(told), *_release(told), *_state(told)]
    return text("fedperfit_edge", metrics)


def _requests(told: owner_pb2.Explanation) -> list[Metric]:
    requests: dict[tuple[str, ...], float] = {}
    for total in told.sent:
        requests[total.call, "answered"] = total.messages - total.refused
        requests[total.call, "refused"] = total.refused
    sizes: dict[tuple[str, ...], float] = {(total.call,): total.bytes for total in told.sent}
    about = "Requests of the cloud's since the log began, by kind and decision."
    return [
        Metric("requests_total", "counter", about, requests, ("kind", "decision")),
        Metric("sent_bytes_total", "counter", "Bytes that left, by kind of request.", sizes, ("kind",)),
    ]


def _release(told: owner_pb2.Explanation) -> list[Metric]:
    if not told.HasField("release"):
        return []
    metrics = [
        gauge("release_version", "Version of the release in force.", told.release.version),
        gauge("release_age_seconds", "Time since that release was issued.", _age(told.release.issued)),
        gauge("release_expires_seconds", "Time until it expires.", -_age(told.release.expires)),
    ]
    if told.confirmed:
        about = "Time since the cloud last said which release is in force."
        metrics.append(gauge("confirmed_age_seconds", about, _age(told.confirmed)))
    return metrics


def _state(told: owner_pb2.Explanation) -> list[Metric]:
    return [
        gauge("paused", "Whether the owner has paused the agent.", told.paused),
        gauge("busy", "Whether a training is under way.", bool(told.busy)),
        gauge("notice", "Whether something is not well with the release in force.", bool(told.notice)),
    ]


def _age(when: str) -> float:
    return (datetime.now(UTC) - parse_time(when)).total_seconds()

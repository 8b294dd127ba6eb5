"""The owner's record of a deployed edge: each request when it comes, each message before it leaves."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from fedperfit.edge.audit.bursts import Bursts, Counts
from fedperfit.edge.audit.files import events, latest
from fedperfit.edge.audit.log import AuditLog
from fedperfit.edge.audit.messages import SentField, SentMessage, fields_of, old_messages, settings_of
from fedperfit.edge.audit.totals import BURST, REFUSED, SENT, Totals
from fedperfit.protocol.system.errors import InputError, count_of, line_of

_REQUEST, _CONSENT, _FETCH = "request", "consent", "fetch"


class Record:
    """Requests and messages in an `AuditLog`."""

    def __init__(self, folder: Path, old: Path) -> None:
        """Open the log in `folder`.

        Args:
            folder: Folder of the log alone.
            old: Record of an earlier version, `sent.jsonl`; only read.
        """
        self._folder, self._old = folder, old
        self._log = AuditLog(folder)
        self._bursts = Bursts(self._write_burst)
        self._consent: dict[str, Any] = {}

    @property
    def totals(self) -> Totals:
        """Messages and refusals since the log began."""
        return self._log.totals

    def received(self, call: str, request: Message) -> int:
        """Record a request before anything is computed for it.

        Args:
            call: Kind of request.
            request: Message of the cloud's.

        Returns:
            Number of its line, by which the answer refers to it.

        Raises:
            Unrecorded: It cannot be recorded, and must be refused.
        """
        return self._log.add({"event": _REQUEST, "call": call, "settings": settings_of(request)})

    def answered(self, number: int, call: str, reply: Message) -> None:
        """Record a reply before it leaves.

        Args:
            number: Line of the request.
            call: Kind of request.
            reply: Message that is about to leave.

        Raises:
            Unrecorded: It cannot be recorded, and must not leave.
        """
        self._send(SENT, number, call, reply.ByteSize(), list(fields_of(reply)))

    def refused(self, number: int, call: str, kind: str, reason: str) -> None:
        """Record a refusal before it leaves.

        Args:
            number: Line of the request; 0 where the request itself could not be recorded.
            call: Kind of request.
            kind: Type of the error, which is all that leaves.
            reason: Words for the owner.

        Raises:
            Unrecorded: It cannot be recorded.
        """
        self._send(
            REFUSED, number, call, len(kind), [SentField("error", kind, len(kind))], reason=line_of(reason)
        )

    def consented(self, consent: dict[str, Any]) -> None:
        """Record what the owner consents to, where it is not what was recorded last.

        Args:
            consent: Its state, as JSON values.

        Raises:
            Unrecorded: It cannot be recorded.
        """
        if consent != self._consent:
            self._log.add({"event": _CONSENT, **consent})
            self._consent = consent

    def fetched(self, *, reason: str, version: int = 0) -> int:
        """Record what became of a release or a pointer that was fetched.

        Args:
            reason: What was decided, in words for the owner.
            version: Version of the release; 0 where it is not known.

        Returns:
            Number of its line.

        Raises:
            Unrecorded: It cannot be recorded.
        """
        about = {"version": version} if version else {}
        return self._log.add({"event": _FETCH, **about, "reason": line_of(reason)})

    def turned_away(self, call: str, kind: str) -> None:
        """Count a request that came too fast; the counts are recorded once a second.

        Args:
            call: Kind of request.
            kind: Type of the error, which is all that leaves.
        """
        self._bursts.count(call, len(kind))

    def messages(self, after: int = 0, newest: int = 0) -> Iterator[SentMessage]:
        """Yield messages that left, oldest first; lines that cannot be read are left to `verify`.

        Args:
            after: Only those after this line of the log; 0 also yields what an earlier version recorded.
            newest: Only the newest of the log's last so many lines; 0 for all.
        """
        if not after and not newest:
            yield from old_messages(self._old)
        for event in latest(self._folder, newest) if newest else events(self._folder, after):
            if event.get("event") in (SENT, REFUSED) and event["n"] > after:
                try:
                    yield SentMessage.of(event)
                except InputError:
                    continue
            elif event.get("event") == BURST:
                yield from _burst(event)

    def close(self) -> None:
        """Write what is still only counted, and release the file."""
        self._bursts.flush()
        self._log.close()

    def _send(
        self, event: str, number: int, call: str, size: int, fields: list[SentField], **more: str
    ) -> None:
        described = [asdict(field) for field in fields]
        self._log.add(
            {"event": event, "request": number, "call": call, "bytes": size, "fields": described, **more}
        )

    def _write_burst(self, counts: Counts) -> None:
        self._log.add({"event": BURST, "calls": counts})


def _burst(event: dict[str, Any]) -> Iterator[SentMessage]:
    for call, (count, size) in event["calls"].items():
        field = SentField("error", f"{count} times TooManyRequests", size)
        reason = f"{count_of(count, 'request')} came too fast"
        yield SentMessage(call, size, [field], event["time"], event["n"], reason)

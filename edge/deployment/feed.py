"""Serves what fetches releases: takes pointers and releases from it, and tells it which one to fetch next."""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar

from fedperfit.edge.agent.consent import read_consent
from fedperfit.edge.audit.log import Unrecorded
from fedperfit.edge.audit.rates import Rates
from fedperfit.edge.deployment.call_errors import CallContext, status_of
from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.protocol.schema import feed_pb2, feed_pb2_grpc
from fedperfit.protocol.system.errors import InputError

_Reply = TypeVar("_Reply")
_POINT, _OFFER, _RENEW = "point", "offer", "renew"


def _told_by_type(
    call: Callable[[Any, Any, CallContext], _Reply],
) -> Callable[[Any, Any, CallContext], _Reply]:
    """Decorate a call so that an error ends it with the error's type, which is all that is told."""

    @wraps(call)
    def answer(service: Any, request: Any, context: CallContext) -> _Reply:
        try:
            return call(service, request, context)
        except Exception as error:
            context.abort(status_of(error), type(error).__name__)

    return answer


class FeedService(feed_pb2_grpc.FeedServicer):
    """Calls that the fetcher may make; its bytes are trusted as little as the cloud's messages."""

    def __init__(self, deployed: Deployed) -> None:
        """Serve one deployed agent."""
        self._deployed = deployed
        self._rates = Rates()
        self._told = deployed.releases.notice()

    @_told_by_type
    def Point(self, request: feed_pb2.PointRequest, context: CallContext) -> feed_pb2.PointReply:
        """Take the pointer to the release in force; while the owner has paused, nothing is taken."""
        self._rates.take(_POINT)
        if read_consent(self._deployed.home.folder).paused:
            return feed_pb2.PointReply()
        try:
            wanted = self._deployed.releases.point(request.pointer)
        finally:
            self._record_news()
        kept = self._deployed.releases.pointer()
        issued = kept.issued if kept is not None else ""
        if wanted is None:
            return feed_pb2.PointReply(stale=self._deployed.stages.stale(), issued=issued)
        return feed_pb2.PointReply(
            version=wanted.version, size=wanted.size, digest=wanted.digest, issued=issued
        )

    @_told_by_type
    def Offer(self, request: feed_pb2.OfferRequest, context: CallContext) -> feed_pb2.OfferReply:
        """Take the release that the pointer names, if the owner's policy allows its shift."""
        self._rates.take(_OFFER)
        if read_consent(self._deployed.home.folder).paused:
            raise InputError("paused")
        try:
            release = self._deployed.fetched(request.release, context.is_active)
            self._record(version=release.version, reason="fetched: it is in force")
        finally:
            self._record_news()
        return feed_pb2.OfferReply()

    @_told_by_type
    def Renew(self, request: feed_pb2.RenewRequest, context: CallContext) -> feed_pb2.RenewReply:
        """Renew the personal shift where it is of another release, within what the owner agreed to."""
        self._rates.take(_RENEW)
        try:
            self._deployed.record.fetched(reason="the personal shift is of another release: to be renewed")
            if self._deployed.renew(context.is_active):
                self._record(reason="the personal shift was renewed")
        except InputError as error:
            self._record(reason=f"the personal shift was not renewed: {error}")
            raise
        return feed_pb2.RenewReply()

    def _record_news(self) -> None:
        """Record what the owner should know of the release in force, where it is news."""
        notice = self._deployed.releases.notice()
        if notice and notice != self._told:
            self._record(reason=notice)
        self._told = notice

    def _record(self, **values: Any) -> None:
        with suppress(Unrecorded):  # nothing leaves by this, and the log counts what it could not write
            self._deployed.record.fetched(**values)

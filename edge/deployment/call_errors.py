"""Ends gRPC calls that fail with a status for each kind of error, so that no traceback leaves the agent."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn, Protocol, TypeVar

import grpc

from fedperfit.edge.audit.log import Unrecorded
from fedperfit.edge.audit.rates import TooManyRequests
from fedperfit.edge.deployment.fair_lock import Busy, Cancelled
from fedperfit.protocol.system.errors import InputError, PromptError, PromptTooLong

_Reply = TypeVar("_Reply")
_STATUS = {
    PromptTooLong: grpc.StatusCode.OUT_OF_RANGE,
    PromptError: grpc.StatusCode.INVALID_ARGUMENT,
    InputError: grpc.StatusCode.FAILED_PRECONDITION,
    Unrecorded: grpc.StatusCode.FAILED_PRECONDITION,
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooManyRequests: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Cancelled: grpc.StatusCode.CANCELLED,
}


class CallContext(Protocol):
    """The part of gRPC's context that the agent's services use."""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with a status; raises an exception of gRPC's own.

        Args:
            code: status of the call.
            details: text the caller gets.
        """

    def is_active(self) -> bool:
        """Whether the caller still waits for the reply."""


def status_of(error: Exception) -> grpc.StatusCode:
    """Status of a call that ended with an error; INTERNAL for errors that are not foreseen."""
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def tells_errors(
    call: Callable[[Any, Any, CallContext], _Reply],
) -> Callable[[Any, Any, CallContext], _Reply]:
    """Decorate a call of the owner's so that an error ends it with the error's text."""

    @wraps(call)
    def answer(service: Any, request: Any, context: CallContext) -> _Reply:
        try:
            return call(service, request, context)
        except Exception as error:  # a traceback could quote what must stay here
            context.abort(status_of(error), str(error) or type(error).__name__)

    return answer


def tells_stream_errors(
    call: Callable[[Any, Any, CallContext], Iterator[_Reply]],
) -> Callable[[Any, Any, CallContext], Iterator[_Reply]]:
    """Decorate a call of the owner's with several replies so that an error ends it with the error's text."""

    @wraps(call)
    def answer(service: Any, request: Any, context: CallContext) -> Iterator[_Reply]:
        try:
            yield from call(service, request, context)
        except Exception as error:  # a traceback could quote what must stay here
            context.abort(status_of(error), str(error) or type(error).__name__)

    return answer

"""Calls the agent's owner service from a web server."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from fedperfit.edge.deployment.endpoint import connect_async
from fedperfit.edge.deployment.home import Home
from fedperfit.protocol.schema import owner_pb2, owner_pb2_grpc

_STATUS = {
    grpc.StatusCode.UNAVAILABLE: (503, "the agent is not running"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "too many requests are waiting for the model"),
    grpc.StatusCode.FAILED_PRECONDITION: (409, ""),
    grpc.StatusCode.INVALID_ARGUMENT: (400, ""),
    grpc.StatusCode.OUT_OF_RANGE: (400, ""),
    grpc.StatusCode.CANCELLED: (503, "the agent is stopping"),
}


class AgentError(Exception):
    """The agent refused a call, or is not running."""

    def __init__(self, error: grpc.RpcError) -> None:
        """Take the HTTP status and the text from gRPC's error."""
        self.status, text = _STATUS.get(error.code(), (500, "the agent failed"))
        self.text: str = text or error.details()
        self.kind = "invalid_request_error" if self.status == 400 else "agent_error"
        too_long = error.code() is grpc.StatusCode.OUT_OF_RANGE
        self.code = "context_length_exceeded" if too_long else None
        super().__init__(self.text)


class Owner:
    """Client of one person's agent; its calls raise AgentError."""

    def __init__(self, folder: Path) -> None:
        """Connect to nothing yet; folder: the person's own folder."""
        self._folder = Home(folder).owner

    async def state(self) -> dict[str, Any]:
        """Ask what the agent is, holds and does; fields by their names in the schema."""
        return _dict(await self.explanation())

    async def explanation(self) -> owner_pb2.Explanation:
        """Ask the same, for the message itself."""
        async with connect_async(self._folder) as channel:
            try:
                told: owner_pb2.Explanation = await owner_pb2_grpc.OwnerStub(channel).Explain(
                    owner_pb2.ExplainRequest()
                )
            except grpc.RpcError as error:
                raise AgentError(error) from None
        return told

    async def sent(self, after: int, newest: int) -> list[dict[str, Any]]:
        """List messages that left this machine, oldest first.

        Args:
            after: only those after this line of the log; 0 for all.
            newest: only the newest of the log's last so many lines; 0 for all.
        """
        request = owner_pb2.SentRequest(after=after, newest=newest)
        async with connect_async(self._folder) as channel:
            try:
                call = owner_pb2_grpc.OwnerStub(channel).Sent(request)
                return [_dict(message) async for message in call]
            except grpc.RpcError as error:
                raise AgentError(error) from None

    async def generate(self, request: owner_pb2.GenerateRequest) -> AsyncGenerator[owner_pb2.Piece, None]:
        """Yield the pieces of a text; closing the iterator cancels the call."""
        async with connect_async(self._folder) as channel:
            call = owner_pb2_grpc.OwnerStub(channel).Generate(request)
            try:
                async for piece in call:
                    yield piece
            except grpc.RpcError as error:
                raise AgentError(error) from None
            finally:
                call.cancel()


def _dict(message: Any) -> dict[str, Any]:
    fields: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return fields

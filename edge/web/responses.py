"""Replies of the responses interface in its simple form: whole, or in events as the text comes."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from fedperfit.edge.web.failures import error_fields
from fedperfit.edge.web.owner import AgentError
from fedperfit.edge.web.replies import Answered, metadata
from fedperfit.edge.web.requests import Respond


class ResponseForm:
    """Format of one reply, whose only output is one message with one text."""

    def __init__(self, body: Respond) -> None:
        """Begin a reply.

        Args:
            body: The request.
        """
        self._body = body
        self._id, self._message_id = f"resp_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._sent = 0

    def whole(self, answer: Answered, model: str) -> dict[str, Any]:
        """Reply with a whole answer.

        Args:
            answer: The answer, with the piece that ended it.
            model: Name of the model that answered.
        """
        status = _status(answer)
        counted = answer.last
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            **self._named(model, status),
            "incomplete_details": cut,
            "output": [self._message(status, [_text(answer.text)])],
            "metadata": metadata(counted, self._body.ignored),
            "usage": {
                "input_tokens": counted.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": counted.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": counted.prompt_tokens + counted.completion_tokens,
            },
        }

    def opening(self, model: str) -> Iterator[str]:
        """Yield the events before the first piece of text.

        Args:
            model: Name of the model that answers.
        """
        begun = self._named(model, "in_progress")
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        yield self._event("response.output_item.added", output_index=0, item=self._message("in_progress", []))
        yield self._event("response.content_part.added", **self._place(), part=_text(""))

    def delta(self, text: str) -> str:
        """Write the event of one piece of text."""
        return self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def closing(self, answer: Answered, model: str) -> Iterator[str]:
        """Yield the events after the last piece of text.

        Args:
            answer: The whole answer.
            model: Name of the model that answered.
        """
        reply = self.whole(answer, model)
        place, (message,) = self._place(), reply["output"]
        yield self._event("response.output_text.done", **place, text=answer.text, logprobs=[])
        yield self._event("response.content_part.done", **place, part=_text(answer.text))
        yield self._event("response.output_item.done", output_index=0, item=message)
        yield self._event(f"response.{reply['status']}", response=reply)

    def failed(self, error: AgentError) -> str:
        """Write the event of an error after the beginning."""
        fields = error_fields(error.text, error.kind, error.code)
        return self._event("error", message=fields["message"], code=fields["code"], param=fields["param"])

    def _named(self, model: str, status: str) -> dict[str, Any]:
        body = self._body
        return {
            **{"id": self._id, "object": "response", "created_at": self._created},
            **{"model": model, "status": status, "error": None, "instructions": body.instructions},
            **{"incomplete_details": None, "output": [], "metadata": {}, "usage": None},
            **{"temperature": body.temperature, "top_p": body.top_p},
            **{"max_output_tokens": body.max_output_tokens},
            **{"tools": [], "tool_choice": "none", "parallel_tool_calls": False},
        }

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        head = {"type": "message", "id": self._message_id, "status": status, "role": "assistant"}
        return {**head, "content": content}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **values: Any) -> str:
        number, self._sent = self._sent, self._sent + 1
        data = {"type": kind, "sequence_number": number, **values}
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def _status(answer: Answered) -> str:
    return "incomplete" if answer.last.finish == "length" else "completed"


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

"""Conversations in OpenAI's format: read from JSON, and unfolded into turns to be learned."""

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks.prompt import ASSISTANT, SYSTEM, USER, Conversation, Turn

NO_TOOLS = "this model calls no tools"
UNREAD = {
    **dict.fromkeys(("tool_calls", "function_call"), NO_TOOLS),
    "name": "who speaks is told by the role alone",
    "audio": "models here read text only",
    "prefix": "every answer is begun anew",
}
"""Parts of a message that would change a prompt, and why one that has them is refused."""
_NO_LINE = ("tools", "functions")
"""Keys beside a conversation that a fine-tuning service would show its model, which none here is shown."""
_OTHER_ROLES = ("tool", "function")
_OTHER_PARTS = ("image_url", "input_image", "input_audio", "input_file", "file", "tool_use", "tool_result")
"""What errors name; any other word may be a person's own, which errors that reach a log do not quote."""
_SWAPPED = {USER: ASSISTANT, ASSISTANT: USER, SYSTEM: SYSTEM}
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
Cut = Callable[[Conversation], Conversation]
"""What leaves out the turns of a conversation that nothing is learned from."""


def whole(turns: Conversation) -> Conversation:
    """Leave nothing out of a conversation."""
    return turns


def content_text(content: Any) -> Any:
    """Return a message's content as one text where it is in parts of text, or nothing.

    Args:
        content: Any JSON value; one that is neither is returned as it is.

    Raises:
        InputError: A part is no text.
    """
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else None
        if kind not in _TEXT_PARTS or not isinstance(text, str):
            named = f"content of type {kind!r}" if kind in _OTHER_PARTS else "content of an unknown type"
            raise InputError(f"{named}: models here read text only")
        texts.append(text)
    return "\n".join(texts)


def message_content(message: Mapping[str, Any]) -> Any:
    """Return what a message says: its content, or where that is empty its refusal.

    Args:
        message: Message in OpenAI's format; a content that is neither text nor parts is returned as it is.

    Raises:
        InputError: It holds more than a text, such as calls of tools.
    """
    for key, reason in UNREAD.items():
        if message.get(key) not in (None, "", [], {}, False):
            raise InputError(f"{key}: {reason}")
    content = content_text(message.get("content"))
    return content if content != "" else message.get("refusal") or ""


def turns_of(value: Any) -> Conversation:
    """Read a conversation.

    Args:
        value: List of messages with `role` and `content`, or the JSON text of one.

    Raises:
        InputError: It is neither, or a message is of another role, or no text.
    """
    return tuple(map(_turn, _messages(value)))


def _messages(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not value:
        raise InputError("expected a list of messages")
    return value


def asked_turns(value: Any) -> Conversation:
    """Read what is asked: a conversation, or a bare text, which is one turn of the user's.

    Args:
        value: As for `turns_of`, or a text that is no JSON list.

    Raises:
        InputError: It is a list, and no conversation.
    """
    bare = isinstance(value, str) and value.strip() and not value.lstrip().startswith("[")
    return (Turn(USER, value),) if bare else turns_of(value)


def as_text(turns: Conversation) -> str:
    """Write a conversation as the JSON text that `turns_of` reads."""
    return json.dumps([{"role": turn.role, "content": turn.text} for turn in turns], ensure_ascii=False)


def learned(
    turns: Conversation, role: str, passed: Container[int] = ()
) -> Iterator[tuple[Conversation, str]]:
    """Yield what comes before each turn of a role, and its text.

    The model is to speak for that role: where it is the user's, the two change places.

    Args:
        turns: A whole conversation.
        role: `assistant`, or `user`.
        passed: Places of turns that are only there to be answered.
    """
    if role == USER:
        turns = tuple(turn._replace(role=_SWAPPED[turn.role]) for turn in turns)
    for place, turn in enumerate(turns):
        before = turns[:place]
        if place in passed or turn.role != ASSISTANT or not turn.text.strip():
            continue
        if any(one.role == USER for one in before):
            yield before, turn.text


def unfolded(
    values: Iterable[tuple[int | str, Any]], role: str, field: str, target: str, cut: Cut = whole
) -> Iterator[tuple[int | str, Any]]:
    """Unfold whole conversations into one value for each turn that is learned; all else passes.

    Args:
        values: Numbers and JSON values.
        role: Role that is learned; empty where there are no conversations.
        field: Key of the conversation, before and after.
        target: Key that the learned text gets; a value that has it is unfolded already.
        cut: Leaves out what comes too long before a learned turn: each value would hold all of it once more.
    """
    for number, value in values:
        if not role or not isinstance(value, Mapping) or field not in value:
            yield number, value
            continue
        try:
            for one in _unfolded(value, role, field, target, cut):
                yield number, one
        except InputError as error:
            yield number, error


def _unfolded(
    value: Mapping[str, Any], role: str, field: str, target: str, cut: Cut
) -> Iterator[dict[str, Any]]:
    if target in value:
        yield {**value, field: as_text(cut(turns_of(value[field])))}
        return
    for key in _NO_LINE:
        if value.get(key):
            raise InputError(f"{key}: {NO_TOOLS}")
    messages = _messages(value[field])
    turns = tuple(map(_turn, messages))
    passed = {place for place, message in enumerate(messages) if message.get("weight") == 0}
    pairs = learned(turns, role, passed)
    first = next(pairs, None)
    if first is None:
        raise InputError(f"no turn of the {role} has another's before it, or all have weight 0")
    for before, text in chain([first], pairs):
        yield {**value, field: as_text(cut(before)), target: text}


def _turn(message: Any) -> Turn:
    if not isinstance(message, Mapping):
        raise InputError("a message is an object with role and content")
    role, text = message.get("role"), message_content(message)
    role = SYSTEM if role == "developer" else role
    if role not in (SYSTEM, USER, ASSISTANT):
        named = f"role {role!r}" if role in _OTHER_ROLES else "an unknown role"
        raise InputError(f"{named}: expected system, user or assistant")
    if not isinstance(text, str):
        raise InputError("the content of a message is a text")
    return Turn(str(role), text)

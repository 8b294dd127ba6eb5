"""Conversations written out by the model's own chat template, whatever roles and orders it refuses."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from fedperfit.protocol.model.bounds.templates import filled_in
from fedperfit.protocol.model.bounds.tokenizers import tokens_of
from fedperfit.protocol.system.errors import InputError, PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = Sequence[tuple[str, str]]
"""Role (`system`, `user` or `assistant`) and text of each message, oldest first."""
_TODAY = (
    "{% macro strftime_now(form) %}"
    "{{ {'%Y-%m-%d': '2024-07-26', '%d/%m/%Y': '26/07/2024'}.get(form, '26 Jul 2024') }}"
    "{% endmacro %}"
)
"""Head of a template that asks for today's date: it is the same at training and ever after."""
NO_TEMPLATE = "prompt-form=chat needs an instruct model: the base model has no chat template"
"""Error of a conversation with a model that knows none."""
_SAID = "Zz9"
"""Message of a user that no template has words of."""
_JOINT = "\n\n"
"""Text between two messages that become one."""


def written_out(tokenizer: "PreTrainedTokenizerBase", turns: Turns) -> str:
    """Write a conversation by the chat template, up to where the assistant begins to speak.

    A template that refuses or drops the system's turn gets its text in the user's turn after it; one that
    wants users and assistants to alternate gets neighbours of one role as one turn.

    Args:
        tokenizer: Tokenizer with a chat template.
        turns: At least one message.

    Raises:
        InputError: There is no chat template, or it takes too much, or refuses every order.
    """
    if not tokenizer.chat_template:
        raise InputError(NO_TEMPLATE)
    reason = ""
    for fold in (list, _one_system, _without_system, _alternating):
        folded = fold(turns)
        try:
            text = rendered(tokenizer, folded)
        except PromptError as error:
            reason = reason or str(error)
            continue
        if all(said.strip() in text for role, said in folded if role == "system"):
            return text
        reason = reason or "it leaves the system's message out"
    raise PromptError(f"the base model's chat template refuses the conversation: {reason}")


def check_template(template: str) -> None:
    """Check that a chat template ends with what it makes of a word.

    Args:
        template: Its text.

    Raises:
        InputError: It takes more than any needs.
    """
    with suppress(PromptError):  # that it refuses the word, without any special tokens, is no matter
        filled_in(_dated(template), [{"role": "user", "content": _SAID}], {})


def before_answers(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens between a user's words and the assistant's answer; none where no template tells.

    Args:
        tokenizer: Any tokenizer.
    """
    if not tokenizer.chat_template:
        return []
    try:
        *_, behind = written_out(tokenizer, [("user", _SAID)]).split(_SAID)
    except PromptError:
        return []
    return tokens_of(tokenizer, [behind])[0]


def rendered(tokenizer: "PreTrainedTokenizerBase", turns: Turns) -> str:
    """Return what the chat template makes of a conversation.

    Args:
        tokenizer: Tokenizer with a chat template.
        turns: Messages as they are given to it.

    Raises:
        PromptError: It refuses the conversation.
        InputError: It takes too much.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # there are several, and none is the default
        raise PromptError(" ".join(str(error).split())) from None
    messages = [{"role": role, "content": text} for role, text in turns]
    values = {**tokenizer.special_tokens_map, "enable_thinking": False}  # an answer follows at once
    return filled_in(_dated(template), messages, values)


def _dated(template: str) -> str:
    """Return a template for which it is always the same day."""
    return _TODAY + template if "strftime_now" in template else template


def _one_system(turns: Turns) -> list[tuple[str, str]]:
    """Turns with all that the system says in front."""
    said = [text for role, text in turns if role == "system"]
    others = [(role, text) for role, text in turns if role != "system"]
    return [*([("system", _JOINT.join(said))] if said else []), *others]


def _without_system(turns: Turns) -> list[tuple[str, str]]:
    """Turns with each text of the system's at the head of the user's turn after it."""
    folded: list[tuple[str, str]] = []
    held: list[str] = []
    for role, text in turns:
        if role == "system":
            held.append(text)
            continue
        if held and role != "user":
            folded.append(("user", _JOINT.join(held)))
            held = []
        folded.append((role, _JOINT.join([*held, text])))
        held = []
    return [*folded, *([("user", _JOINT.join(held))] if held else [])]


def _alternating(turns: Turns) -> list[tuple[str, str]]:
    """Turns without the system's in which a user begins and no role speaks twice in succession."""
    folded: list[tuple[str, str]] = []
    for role, text in _without_system(turns):
        if folded and folded[-1][0] == role:
            folded[-1] = (role, _JOINT.join([folded[-1][1], text]))
        else:
            folded.append((role, text))
    return [*([("user", "")] if folded[0][0] == "assistant" else []), *folded]

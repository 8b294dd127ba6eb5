"""Conversations written out by the model's own chat template, whatever roles and orders it refuses."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
        InputError: There is no chat template, or it refuses the conversation in every order.
    """
    if not tokenizer.chat_template:
        raise InputError(NO_TEMPLATE)
    reason = ""
    for fold in (list, _one_system, _without_system, _alternating):
        folded = fold(turns)
        try:
            text = rendered(tokenizer, folded)
        except Exception as error:  # a template raises what it likes
            reason = reason or " ".join(str(error).split())[:200] or type(error).__name__
            continue
        if all(said.strip() in text for role, said in folded if role == "system"):
            return text
        reason = reason or "it leaves the system's message out"
    raise PromptError(f"the base model's chat template refuses the conversation: {reason}")


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
    tokens: list[int] = tokenizer(behind, add_special_tokens=False)["input_ids"]
    return tokens


def rendered(tokenizer: "PreTrainedTokenizerBase", turns: Turns) -> str:
    """Return what the chat template makes of a conversation; it may raise anything.

    Args:
        tokenizer: Tokenizer with a chat template.
        turns: Messages as they are given to it.
    """
    dated = "strftime_now" in str(tokenizer.chat_template)
    return str(
        tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in turns],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # an answer follows at once, as targets do in training
            chat_template=_TODAY + tokenizer.get_chat_template() if dated else None,
        )
    )


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

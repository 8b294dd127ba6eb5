"""Prompts: a text that the model continues, or a conversation that its chat template writes out."""

from typing import NamedTuple

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
"""Roles that a turn may have."""


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    """Role of who says it: `system`, `user` or `assistant`."""
    text: str


Conversation = tuple[Turn, ...]
"""Messages, oldest first; the assistant is to speak next."""
Prompt = str | Conversation
"""What a model is asked: text as it stands, or a conversation."""


def asking(text: str, system: str = "") -> Conversation:
    """Make the conversation that asks one thing.

    Args:
        text: Text of the user's turn.
        system: Text of the system's turn before it; empty for none.
    """
    return (*([Turn(SYSTEM, system)] if system else []), Turn(USER, text))


def asked_text(prompt: Prompt) -> str:
    """Return the text that a prompt closes with: all of a text, the last turn's of a conversation."""
    return prompt if isinstance(prompt, str) else prompt[-1].text


def preceded(text: str, prompt: Prompt) -> Prompt:
    """Put a text before what a prompt asks: before a text, or into the last turn of a conversation.

    Args:
        text: Text that comes first.
        prompt: Prompt that follows it.
    """
    if isinstance(prompt, str):
        return text + prompt
    *before, last = prompt
    return (*before, last._replace(text=text + last.text))

"""Chat templates as models have them, and the embedded model's tokenizer with one."""

import copy
from typing import Any

CHATML = (
    "{% for m in messages %}{{ '[' + m['role'] + ']\n' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
)
"""Takes roles in any order, and ends turns with the tokenizer's end token."""
_SYSTEM = "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
_ALTERNATE = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}"
    "{% endif %}"
)
_TURN = "{{ '[' + m['role'] + '] ' + m['content'] | trim + '<pad>\n' }}{% endfor %}"
_ASKED = "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
_START = "{{ bos_token }}{% for m in messages %}"
STRICT = _START + _SYSTEM + _ALTERNATE + _TURN + _ASKED
"""Refuses what Gemma's template refuses, begins with the start token, ends turns with a token of its own."""
DEAF = _START + "{% if m['role'] == 'system' %}{% continue %}{% endif %}" + _TURN + _ASKED
"""Leaves the system's turn out without a word."""
DATED = "{{ strftime_now('%d %b %Y') }}" + CHATML
"""Tells the model today's date."""


def with_template(tokenizer: Any, template: str, **tokens: str) -> Any:
    """A copy of a tokenizer with a chat template."""
    copied = copy.deepcopy(tokenizer)
    copied.chat_template = template
    for name, token in tokens.items():
        setattr(copied, name, token)
    return copied

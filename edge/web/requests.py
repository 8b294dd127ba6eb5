"""Requests in OpenAI's form: what may be asked, and what is refused because it would change an answer."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from fedperfit.edge.web.failures import Refusal
from fedperfit.protocol.tasks.conversations import NO_TOOLS, UNREAD, message_content

MOST_CHOICES = 128
"""Answers of one request."""
_Count = Annotated[int, Field(ge=1, lt=1 << 31)]
_Likeliest = Annotated[int, Field(ge=0, le=20)]
_TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
_GRAMMAR = "no grammar is enforced here: ask for the format in words"
_NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    **dict.fromkeys(("frequency_penalty", "presence_penalty"), ((0,), "penalties are not offered")),
    **dict.fromkeys(("repetition_penalty", "length_penalty"), ((1,), "penalties are not offered")),
    **dict.fromkeys(("top_k", "min_p"), ((0, -1), "only temperature and top_p are offered")),
    "typical_p": ((1,), "only temperature and top_p are offered"),
    **dict.fromkeys(("tools", "functions", "web_search_options"), (([], {}), NO_TOOLS)),
    **dict.fromkeys(("tool_choice", "function_call"), (("none", "auto"), NO_TOOLS)),
    **dict.fromkeys(("logit_bias", "audio"), (({},), "it is not offered")),
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), ((), _GRAMMAR)),
    **dict.fromkeys(("structured_outputs", "grammar", "json_schema"), ((), _GRAMMAR)),
    "response_format": (({"type": "text"},), _GRAMMAR),
    "modalities": ((["text"],), "this model writes text only"),
    "suffix": (("",), "a text is continued, not filled in"),
    "best_of": ((1,), "every answer is returned: ask for n"),
    **dict.fromkeys(("use_beam_search", "ignore_eos"), ((False,), "it is not offered")),
    **dict.fromkeys(("stop_token_ids", "bad_words", "allowed_token_ids"), (([],), "only stop is offered")),
    **dict.fromkeys(("min_tokens", "mirostat"), ((0,), "it is not offered")),
    **dict.fromkeys(("num_beams", "beam_width"), ((1,), "it is not offered")),
    "continue_final_message": ((False,), "every answer is begun anew"),
    "add_generation_prompt": ((True,), "every answer is begun anew"),
    **dict.fromkeys(("chat_template", "documents"), ((), "the base model's own template is used")),
    "previous_response_id": ((), "no conversation is kept here: send it whole"),
    "conversation": ((), "no conversation is kept here: send it whole"),
    "background": ((False,), "it is not offered"),
}
"""By field, values that change no answer beside null, and why another one is refused."""
_HARMLESS = {
    *("user", "metadata", "store", "service_tier", "parallel_tool_calls", "prediction", "include"),
    *("prompt_cache_key", "prompt_cache_retention", "safety_identifier"),
}
"""Fields that concern no answer of a model that runs here."""
_READ = {*UNREAD, *("refusal", "annotations", "type", "id", "status")}
"""Fields of messages that are checked, or that say nothing more than the text."""


def _role(role: Any) -> Any:
    if role in ("tool", "function"):
        raise Refusal(f"role {role!r}: {NO_TOOLS}")
    return "system" if role == "developer" else role


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_role)]
    content: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        return {**given, "content": message_content(given)} if isinstance(given, dict) else given


class StreamOptions(BaseModel):
    """Options of a streamed reply."""

    include_usage: bool = False


class Asking(BaseModel):
    """Fields that all requests have."""

    model_config = ConfigDict(extra="allow")

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Divisor of the logits; greedy where it is not given."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_whole(cls, given: Any) -> Any:
        """Refuse half of a character anywhere, in names of fields too, of which a reply tells some."""
        try:
            if isinstance(given, dict):
                json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refusal("a text has half of a character in it: a surrogate without the other") from None
        except RecursionError:
            raise Refusal("the body is nested too deeply") from None
        return given

    @model_validator(mode="after")
    def _check_neutral(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            neutral, reason = _NEUTRAL.get(name, ((value,), ""))
            if value is not None and value not in neutral:
                raise Refusal(f"{name}: {reason}")
        return self

    @property
    def ignored(self) -> list[str]:
        """Names of fields that nothing here knows."""
        own = set(self.model_extra or ()) - _HARMLESS - set(_NEUTRAL)
        of_turns = {key for turn in self.turns for key in turn.model_extra or ()} - _READ
        return sorted(own | self._unused | {f"messages.{key}" for key in of_turns})

    @property
    def _unused(self) -> set[str]:
        return set()

    @property
    def turns(self) -> list[Turn]:
        """The conversation; empty where a text is to be continued."""
        return []


class Generating(Asking):
    """Fields of both kinds of completions."""

    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63 - MOST_CHOICES)] | None = None
    stop: str | list[str] | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None

    @property
    def stops(self) -> list[str]:
        """Texts that end an answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in given if stop]


class Completion(Generating):
    """Request to continue texts."""

    prompt: str | list[str] | list[_TokenId] | list[list[_TokenId]]
    echo: bool | None = None
    logprobs: _Likeliest | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """All prompts, each a text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [prompt for prompt in self.prompt if not isinstance(prompt, int)]

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        if not 1 <= len(self.prompts) * (self.n or 1) <= MOST_CHOICES:
            raise Refusal(f"prompt: from 1 to {MOST_CHOICES} answers at once")
        return self


class Chat(Generating):
    """Request to speak next in a conversation."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: _Likeliest | None = None

    @property
    def turns(self) -> list[Turn]:
        """The conversation to speak next in."""
        return self.messages

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise Refusal("top_logprobs: only with logprobs=true")
        return self


class Respond(Asking):
    """Request of the responses interface, in its simple form."""

    input: str | Annotated[list[Turn], Field(min_length=1)]
    text: dict[str, Any] | None = None
    instructions: str | None = None
    max_output_tokens: _Count | None = None

    @field_validator("text")
    @classmethod
    def _check_text(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if given and given.get("format") not in (None, {"type": "text"}):
            raise Refusal(f"text.format: {_GRAMMAR}")
        return given

    @property
    def _unused(self) -> set[str]:
        return {f"text.{key}" for key in self.text or ()} - {"text.format"}

    @property
    def turns(self) -> list[Turn]:
        """The conversation, the instructions first."""
        said = [Turn(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return [*([Turn(role="system", content=self.instructions)] if self.instructions else []), *said]

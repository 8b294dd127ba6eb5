"""A task's file: its keys, their checks, and what a mistake in it reads like."""

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.protocol.system.files import toml_values
from fedperfit.protocol.tasks.answers import AnswerKind, Estimate
from fedperfit.protocol.tasks.metrics import check_metrics
from fedperfit.protocol.tasks.templates import (
    FIELD_NAME,
    LABELS,
    check_shows,
    check_template,
    in_braces,
    nearest_of,
)

LARGEST = 1 << 16
"""Characters a task's file may have."""
MOST_LABELS = 1000
"""Labels a task may have; each is scored for every question."""

MOST_TOKENS = 1 << 16
"""Tokens that a task may let an answer have."""
_MOST_METRICS = 32
"""Metrics that a task may have."""


def _key(name: str) -> str:
    return name.replace("_", "-")


class Table(BaseModel):
    """A table of a TOML file: keys with hyphens, checked once."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=_key,
        validate_by_name=False,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        defer_build=True,
    )


class PromptTable(Table):
    """Templates of one form of the prompts; what is missing is made of instruction and cue."""

    prompt: str | None = None
    """Prompt of a question, with the task's fields in braces."""
    target: str | None = None
    """Target text: the target field in braces, with blanks around it at most."""


class ChatTable(PromptTable):
    """Templates of the form `chat`; `prompt` is the user's turn."""

    system: str = ""
    """Text of the system's turn; without it, there is none but what the model's chat template adds."""


class PromptsTable(Table):
    """Templates by form of the prompts."""

    lamp: PromptTable = PromptTable()
    oppu: PromptTable = PromptTable()
    chat: ChatTable = ChatTable()


class ChameleonTable(Table):
    """Words of CHAMELEON's prompts."""

    opening: str | None = None
    """Text before the history."""
    item: str | None = None
    """One line of the history, with the item's fields."""
    asked: str | None = None
    """Text before the query."""
    question: str | None = None
    """Question about the query."""
    guess: str | None = None
    """Sentence on what the personalized agent tries."""
    closing: str | None = None
    """Text at the end of both agents' prompts."""


class WordingTable(Table):
    """Words that other methods need; each has a default that suits any task."""

    sentence: str | None = None
    """An item in the prompt of another question, with its fields."""
    joint: str | None = None
    """Text between the last such item and the question."""
    profile: str | None = None
    """Question that PAG asks about a history to have a profile written."""
    chameleon: ChameleonTable = ChameleonTable()


class TaskTable(Table):
    """The keys of a task's file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,47}\z")]
    """Name of the task: letters, digits and `_.-`."""
    kind: Annotated[AnswerKind, Field(strict=False)]
    """Kind of its answers: `labels`, `number` or `text`."""
    fields: Annotated[list[str], Field(min_length=1, max_length=16)]
    """Fields of an item that a prompt asks about."""
    target: str
    """Field of an item that holds the answer."""
    labels: Annotated[list[str], Field(max_length=MOST_LABELS)] = []
    """All possible answers, in the order of the prompt; none for free text."""
    estimate: Annotated[Estimate, Field(strict=False)] = Estimate.MODE
    """Which of the labels is the answer: the likeliest, `mode`, or of numbers the `median`."""
    metrics: Annotated[list[str], Field(max_length=_MOST_METRICS)] = []
    """Metrics of its answers, the main one first: names, or `module:function` in simulations; else LaMP's."""
    instruction: str = ""
    """Text before the fields, in all forms of the prompts; `{labels}` stands for the list of labels."""
    marker: str = ""
    """End of the instruction in questions that the data word themselves: the field is what follows it.
    Without it, a question is the bare field."""
    cue: str | None = None
    """Last word of the prompts that call for an answer, e.g. `category:`."""
    answer_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 64
    """Most tokens of an answer that the model writes, of kind `text`."""
    conversation: Literal["", "assistant", "user"] = ""
    """Role whose turns are learned, where the one field is a conversation in OpenAI's format and the target
    what is said next; where that is the user's, the two roles change places."""
    free_history: bool = False
    """Whether history items hold only a target: their prompt is then the cue alone."""
    prompts: PromptsTable = PromptsTable()
    wording: WordingTable = WordingTable()

    def check(self) -> None:
        """Check what concerns several keys; raises InputError."""
        for name in (*self.fields, self.target):
            if name == LABELS:
                raise InputError(
                    f"{name!r} cannot be a field's name: {{{name}}} stands for the task's labels"
                )
            if not FIELD_NAME.fullmatch(name):
                raise InputError(f"{name!r} cannot be a field's name: letters, digits and _- only")
        if len(set(self.fields)) < len(self.fields):
            raise InputError("fields: one is named twice")
        if self.target in self.fields and not self.free_history:
            raise InputError(f"target={self.target!r} is also a field that the prompt shows")
        if self.marker and (len(self.fields) > 1 or not self.instruction.endswith(self.marker)):
            raise InputError(f"marker={self.marker!r}: expected the end of the instruction, before one field")
        if self.conversation and (len(self.fields) > 1 or self.kind is not AnswerKind.TEXT or self._worded):
            raise InputError(
                f"conversation={self.conversation!r}: expected one field, kind 'text', and no words of the "
                "task's own but prompts.chat.system"
            )
        check_metrics(self.kind, self.metrics)
        self._check_labels()
        self._check_templates()

    @property
    def _worded(self) -> bool:
        """Whether the file words prompts beyond the system's turn."""
        forms = (self.prompts.lamp, self.prompts.oppu, self.prompts.chat)
        stated = [text for form in forms for text in (form.prompt, form.target)]
        return bool(self.instruction or self.cue or self.free_history or any(stated))

    def _check_labels(self) -> None:
        if (self.kind is AnswerKind.TEXT) is bool(self.labels):
            raise InputError(f"a task of kind {self.kind} has {'no ' if self.labels else ''}labels")
        if self.estimate is Estimate.MEDIAN and self.kind is not AnswerKind.NUMBER:
            raise InputError(f"estimate='median': expected kind 'number' in place of {self.kind.value!r}")
        if len(set(self.labels)) < len(self.labels):
            raise InputError("labels: one stands twice")
        for label in self.labels:
            if not label or label != label.strip():
                raise InputError(f"label {label!r} is empty or begins or ends with a blank")
            if self.kind is AnswerKind.NUMBER and not _is_number(label):
                raise InputError(f"label {label!r} is no number, as kind 'number' needs")

    def _check_templates(self) -> None:
        shown, whole = (*self.fields, LABELS), (*self.fields, self.target, LABELS)
        check_template("instruction", self.instruction, [LABELS])
        check_template("cue", self.cue or "", [LABELS])
        check_template("prompts.chat.system", self.prompts.chat.system, [LABELS])
        forms = {"lamp": self.prompts.lamp, "oppu": self.prompts.oppu, "chat": self.prompts.chat}
        for form, table in forms.items():
            check_template(f"prompts.{form}.prompt", table.prompt or "", shown)
            check_shows(f"prompts.{form}.prompt", table.prompt, self.fields)
            target = table.target
            if target is not None and target.strip() != in_braces(self.target):
                raise InputError(
                    f"prompts.{form}.target={target!r}: expected {in_braces(self.target)}, blanks around it"
                )
        items = (self.target,) if self.free_history else whole
        check_template("wording.sentence", self.wording.sentence or "", items)
        for key, text in self.wording.chameleon.model_dump().items():
            check_template(f"wording.chameleon.{key}", text or "", items if key == "item" else [LABELS])
        needed = [name for name in items if name != LABELS]
        check_shows("wording.sentence", self.wording.sentence, needed)
        check_shows("wording.chameleon.item", self.wording.chameleon.item, needed)
        for key in ("joint", "profile"):
            check_template(f"wording.{key}", getattr(self.wording, key) or "", [LABELS])


def read_table(text: str, source: str) -> TaskTable:
    """Read the text of a task's file.

    Args:
        text: TOML.
        source: Name of the file, for errors.

    Raises:
        MalformedFileError: It is not TOML, or a key is unknown, missing or wrong; one line.
    """
    table = read_toml(TaskTable, text, source)
    try:
        table.check()
    except InputError as error:
        raise MalformedFileError(f"{source}: {error}") from None
    return table


_Model = TypeVar("_Model", bound=Table)


def read_toml(model: type[_Model], text: str, source: str) -> _Model:
    """Read the text of a file with one kind of table.

    Args:
        model: What the table holds.
        text: TOML.
        source: Name of the file, for errors.

    Raises:
        MalformedFileError: It is not TOML, or a key is unknown, missing or wrong; one line.
    """
    if len(text) > LARGEST:
        raise MalformedFileError(f"{source}: more than {LARGEST} characters")
    try:
        return model(**toml_values(text))
    except MalformedFileError as error:
        raise MalformedFileError(f"{source}: {error}") from None
    except ValidationError as error:
        raise MalformedFileError(f"{source}: {_explained(model, error)}") from None


def _explained(model: type[Table], error: ValidationError) -> str:
    """Tell the first mistake: an unknown key before a missing one before a wrong value."""
    ranks = {"extra_forbidden": 0, "missing": 1}
    detail = min(error.errors(), key=lambda one: ranks.get(one["type"], 2))
    place = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        known = _keys_beside(model, detail["loc"])
        return f"unknown key {place!r}; the nearest is {nearest_of(str(detail['loc'][-1]), known)!r}"
    if detail["type"] == "missing":
        return f"the key {place!r} is missing"
    value = repr(detail["input"])
    near = ""
    if detail["type"] == "enum" and isinstance(detail["input"], str):
        near = f"; the nearest is {nearest_of(detail['input'], list(AnswerKind))!s}"
    return f"{place}={value[:80]}: {detail['msg'][:1].lower()}{detail['msg'][1:]}{near}"


def _keys_beside(model: type[Table], place: tuple[int | str, ...]) -> list[str]:
    """Keys of the table in which a key stands."""
    table: Any = model
    for part in place[:-1]:
        table = next(f for name, f in table.model_fields.items() if _key(name) == part).annotation
    return [_key(name) for name in table.model_fields]


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label)) and not set(label) & set("_ ")
    except ValueError:
        return False

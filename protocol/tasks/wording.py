"""Everything a task says in prompts: what its file states, and defaults that suit any task."""

from dataclasses import dataclass, replace
from enum import StrEnum

from fedperfit.protocol.tasks.answers import AnswerKind
from fedperfit.protocol.tasks.task_file import PromptTable, TaskTable


class PromptForm(StrEnum):
    """The template that turns a field into a prompt."""

    LAMP = "lamp"
    """The benchmark's own question followed by a line break, which small models are trained on."""
    OPPU = "oppu"
    """The template of OPPU and PerFit, which closes with the field's name."""
    CHAT = "chat"
    """A conversation in the model's own chat template, which instruct models are trained on."""


@dataclass(frozen=True)
class Templates:
    """Templates that one form of the prompts is made of."""

    prompt: str
    """Prompt of a question."""
    item: str
    """Prompt of a history item; that of a question unless items hold only a target."""
    target: str
    """Target text: the answer, with blanks around it."""
    system: str = ""
    """Text of the system's turn, in the form `chat` alone."""


@dataclass(frozen=True)
class ChameleonWording:
    """Words of CHAMELEON's prompts; see `ChameleonTable`."""

    opening: str
    item: str
    asked: str
    question: str
    guess: str
    closing: str


@dataclass(frozen=True)
class Wording:
    """Templates that other methods need; see `WordingTable`."""

    sentence: str
    joint: str
    profile: str
    chameleon: ChameleonWording


def body(table: TaskTable) -> str:
    """Return the template of the fields: one field bare, several each after its name."""
    if len(table.fields) == 1:
        return f"{{{table.fields[0]}}}"
    return " ".join(f"{name}: {{{name}}}" for name in table.fields)


def templates(table: TaskTable) -> dict[PromptForm, Templates]:
    """Return the templates of all forms, with what the file leaves out."""
    cue = f"{table.target}:" if table.cue is None else table.cue
    asked = table.instruction + body(table)
    return {
        PromptForm.LAMP: _form(table, table.prompts.lamp, f"{asked}\n", f"{cue}\n", ""),
        PromptForm.OPPU: _form(table, table.prompts.oppu, f"{asked} {cue}", cue, " "),
        PromptForm.CHAT: replace(
            _form(table, table.prompts.chat, asked, cue, ""), system=table.prompts.chat.system
        ),
    }


def _form(table: TaskTable, stated: PromptTable, prompt: str, bare: str, lead: str) -> Templates:
    """Fill in one form.

    Args:
        table: The task's file.
        stated: Its templates of this form.
        prompt: Default prompt.
        bare: Prompt of an item that holds only a target.
        lead: Blank before the target, where the prompt ends without one.
    """
    prompt = prompt if stated.prompt is None else stated.prompt
    target = f"{lead}{{{table.target}}}" if stated.target is None else stated.target
    return Templates(prompt, bare if table.free_history else prompt, target)


def wording(table: TaskTable) -> Wording:
    """Return the words of other methods, with what the file leaves out."""
    stated, target = table.wording, table.target
    text = table.kind is AnswerKind.TEXT
    if table.free_history:
        sentence = f'"{{{target}}}"'
    elif text:
        sentence = f'"{{{target}}}" is the {target} for "{body(table)}"'
    else:
        sentence = f'the {target} for "{body(table)}" is "{{{target}}}"'
    sentence = _or(stated.sentence, sentence)
    profile = (
        f"Given what this person wrote before, try to describe a template for their {target}. Be specific "
        "about their style and wording."
        if text
        else f"Look at what this person answered before and determine the most common {target}. Answer in "
        f"the following form: most common {target}: <{target}>"
    )
    said = stated.chameleon
    return Wording(
        sentence=sentence,
        joint=_or(stated.joint, ". "),
        profile=_or(stated.profile, profile),
        chameleon=ChameleonWording(
            opening=_or(said.opening, "Suppose you are a user with the following user profile history:"),
            item=_or(said.item, f"{sentence}."),
            asked=_or(said.asked, f"Now, given a new {' and '.join(table.fields)}: "),
            question=_or(said.question, table.instruction.strip() or f"What is the {target}?"),
            guess=_or(
                said.guess, f"You try to give the {target} that the user gives, based on their history."
            ),
            closing=_or(said.closing, "" if text else f" Answer only with one {target} ({{labels}})."),
        ),
    )


def _or(stated: str | None, default: str) -> str:
    return default if stated is None else stated

"""Answers what an owner asks: questions of the person's task as `evaluate` does, all else as it stands."""

from collections.abc import Callable
from dataclasses import dataclass

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.personalization import answer_questions
from fedperfit.edge.asking.stages import Stages
from fedperfit.edge.engine.answering import label_tokens
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.generation import GREEDY, Sampling
from fedperfit.edge.writing.streaming import Alive, Finished, free_prompt, stream
from fedperfit.protocol.messages.settings import FULL_SLOT, EvaluationSettings, Stage
from fedperfit.protocol.tasks import AnswerKind, Pair, Prompt, Turn

OnText = Callable[[str], None]
"""Called with each piece of text as it comes."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an owner asks for."""

    prompt: Prompt
    """Text to be continued, or a conversation."""
    stage: str = ""
    """Stage that answers; empty for the one that suits the person best."""
    sampling: Sampling = GREEDY
    task_form: bool = False
    """Whether a conversation that closes with a question of the person's task is asked in the task's form."""


class Asking:
    """What one person's agent answers its owner; the caller holds the model meanwhile."""

    def __init__(self, agent: Agent, stages: Stages) -> None:
        """Ask an agent at its stages, whatever they are at each call."""
        self._agent, self._stages = agent, stages

    def reply(self, asked: Asked, stage: Stage, on_text: OnText, alive: Alive) -> Finished:
        """Reply piece by piece.

        Args:
            asked: what is asked.
            stage: stage that replies.
            on_text: called with each piece of text.
            alive: asked before every token whether the caller still waits.
        """
        question = self._question(asked)
        if question is not None and self._agent.history.task.kind is not AnswerKind.TEXT:
            return self._label(question, stage, on_text)
        most = None if question is None else self._agent.history.task.answer_tokens
        prompt = free_prompt(self._agent.base, asked.prompt) if question is None else self._row(question)
        told = on_text if question is None else _Stripped(on_text)
        with self._stages.edited(stage):
            stack = self._stages.stack(stage)
            done = stream(self._agent.base, stack, prompt, asked.sampling.within(most), told, alive)
        return done if question is None else done.of_task(self._agent.history.task.id)

    def answer(self, question: str, stage: Stage) -> str:
        """Answer a question of the task, with a label or with text.

        Args:
            question: question as the data word it.
            stage: stage that answers.

        Raises:
            InputError: it is another task's question, or the stage cannot answer.
        """
        agent, form = self._agent, self._stages.prompt_form()
        if stage is Stage.BASE:
            (text,) = answer_questions(
                agent.base, agent.history.task, [question], prompt_form=form, batch_size=1
            )
            return text
        settings = EvaluationSettings(
            stage=stage,
            slot=FULL_SLOT,
            additive=self._stages.personal().additive,
            batch_size=1,
            prompt_form=form,
        )
        return agent.answer(self._stages.open(self._stages.current()), question, settings)

    def _question(self, asked: Asked) -> str | None:
        """The question of the task that a conversation closes with; None where it is to be taken as it is."""
        if not asked.task_form or isinstance(asked.prompt, str):
            return None
        last: Turn = asked.prompt[-1]
        return last.text if last.role == "user" and self._agent.history.task.asks(last.text) else None

    def _label(self, question: str, stage: Stage, on_text: OnText) -> Finished:
        base, task = self._agent.base, self._agent.history.task
        text = self.answer(question, stage)
        on_text(text)
        tokens = dict(zip(task.labels, label_tokens(base, task, self._stages.prompt_form()), strict=True))
        return Finished("stop", len(self._row(question)), len(tokens[text]), task.id)

    def _row(self, question: str) -> tuple[int, ...]:
        """Token ids of a question's prompt, as in training."""
        task, form = self._agent.history.task, self._stages.prompt_form()
        prompt = task.query_pair(question, "", form).prompt
        (row,) = encode(self._agent.base, [Pair(prompt, "")], reserve=task.answer_tokens)
        return row.prompt


class _Stripped:
    """Text without the blanks that it begins with, as answers are scored."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text, self._begun = on_text, False

    def __call__(self, text: str) -> None:
        text = text if self._begun else text.lstrip()
        if text:
            self._begun = True
            self._on_text(text)

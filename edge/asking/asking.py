"""Answers what an owner asks: questions of the person's task as `evaluate` does, all else as it stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.personalization import answer_questions
from fedperfit.edge.asking.stages import Stages
from fedperfit.edge.engine.answering import label_tokens
from fedperfit.edge.engine.generation import GREEDY, Sampling
from fedperfit.edge.writing.scores import TokenScore, prompt_scores
from fedperfit.edge.writing.stops import Stops
from fedperfit.edge.writing.streaming import Alive, Finished, Scoring, free_prompt, given_tokens, stream
from fedperfit.protocol.messages.settings import FULL_SLOT, EvaluationSettings, Stage
from fedperfit.protocol.system.errors import PromptError
from fedperfit.protocol.tasks import AnswerKind, Prompt, Turn

OnPart = Callable[[str | Sequence[TokenScore]], None]
"""Called with each piece of text as it comes, and where they are wanted with its tokens' scores before it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an owner asks for."""

    prompt: Prompt
    """Text to be continued, or a conversation."""
    stage: str = ""
    """Stage that answers; empty for the one that suits the person best."""
    sampling: Sampling = GREEDY
    tokens: tuple[int, ...] = ()
    """Token ids to be continued as they are, in place of a prompt."""
    likeliest: int | None = None
    """Number of likeliest tokens to be told beside each token's log-likelihood; None for neither."""
    echo: bool = False
    """Whether the prompt comes first, with its own scores where they are wanted."""
    task_form: bool = False
    """Whether a conversation that closes with a question of the person's task is asked in the task's form."""
    stops: tuple[str, ...] = ()
    """Texts that end the answer, and are no part of it."""


class Asking:
    """What one person's agent answers its owner; the caller holds the model meanwhile."""

    def __init__(self, agent: Agent, stages: Stages) -> None:
        """Ask an agent at its stages, whatever they are at each call."""
        self._agent, self._stages = agent, stages

    def reply(self, asked: Asked, stage: Stage, on_part: OnPart, alive: Alive) -> Finished:
        """Reply piece by piece.

        Args:
            asked: what is asked.
            stage: stage that replies.
            on_part: called with each piece of text, and with scores.
            alive: asked before every token whether the caller still waits.

        Raises:
            PromptError: the model cannot be asked that, or no scores can be told.
        """
        if asked.echo:  # what stops the answer may be in the prompt
            self._echo(asked, stage, on_part)
        if not asked.stops:
            return self._replied(asked, stage, on_part, alive)
        told = Stops(asked.stops, on_part)
        done = self._replied(asked, stage, told, lambda: alive() and not told.found)
        told.close()
        return replace(done, reason="stop") if told.found else done

    def _replied(self, asked: Asked, stage: Stage, on_part: OnPart, alive: Alive) -> Finished:
        """Reply without a thought of stop texts."""
        question, task = self._question(asked), self._agent.history.task
        if task.conversation and asked.task_form and not isinstance(asked.prompt, str):
            row = free_prompt(self._agent.base, task.next_turn(asked.prompt, self._stages.prompt_form()))
            return self._written(asked, row, stage, on_part, alive)
        if question is None:
            return self._continued(asked, stage, on_part, alive)
        if task.kind is not AnswerKind.TEXT:
            return self._label(asked, question, stage, on_part)
        return self._written(asked, self._row(question), stage, on_part, alive)

    def answer(self, question: str, stage: Stage, alive: Alive) -> str:
        """Answer a question of the task, with a label or with text.

        Args:
            question: question as the data word it.
            stage: stage that answers.
            alive: asked before every token of a text whether the caller still waits.

        Raises:
            InputError: it is another task's question or too long, or the stage cannot answer.
        """
        if self._agent.history.task.kind is not AnswerKind.TEXT:
            return self._chosen_label(question, stage)
        pieces: list[str] = []
        row = self._row(question)
        self._written(Asked(prompt=""), row, stage, lambda part: pieces.append(str(part)), alive)
        return "".join(pieces).rstrip()

    def _chosen_label(self, question: str, stage: Stage) -> str:
        """The label that answers a question, which has to fit into the context."""
        agent, form = self._agent, self._stages.prompt_form()
        if stage is Stage.BASE:
            self._row(question)
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

    def _written(
        self, asked: Asked, row: tuple[int, ...], stage: Stage, on_part: OnPart, alive: Alive
    ) -> Finished:
        """Write the task's answer to a prompt of the task."""
        task = self._agent.history.task
        asked = replace(asked, sampling=asked.sampling.within(task.answer_tokens))
        done = self._streamed(asked, row, stage, _Stripped(on_part), alive)
        return replace(done, task=task.id)

    def _continued(self, asked: Asked, stage: Stage, on_part: OnPart, alive: Alive) -> Finished:
        return self._streamed(asked, self._free_row(asked), stage, on_part, alive)

    def _echo(self, asked: Asked, stage: Stage, on_part: OnPart) -> None:
        """Tell the prompt itself, as it was given or as its token ids read."""
        base, row = self._agent.base, self._free_row(asked)
        if asked.likeliest is not None:
            with self._stages.edited(stage):
                on_part(prompt_scores(base, self._stages.stack(stage), row, asked.likeliest))
        text = asked.prompt if isinstance(asked.prompt, str) and not asked.tokens else ""
        on_part(text or str(base.tokenizer.decode([token for token in row if token not in base.mark])))

    def _free_row(self, asked: Asked) -> tuple[int, ...]:
        """Token ids of what is to be continued as it stands."""
        base = self._agent.base
        return given_tokens(base, asked.tokens) if asked.tokens else free_prompt(base, asked.prompt)

    def _streamed(
        self, asked: Asked, row: tuple[int, ...], stage: Stage, on_part: OnPart, alive: Alive
    ) -> Finished:
        base = self._agent.base
        scoring = None if asked.likeliest is None else Scoring(asked.likeliest, on_part)
        with self._stages.edited(stage):
            return stream(base, self._stages.stack(stage), row, asked.sampling, on_part, alive, scoring)

    def _label(self, asked: Asked, question: str, stage: Stage, on_part: OnPart) -> Finished:
        base, task = self._agent.base, self._agent.history.task
        if asked.likeliest is not None:
            raise PromptError("logprobs: an answer that is chosen among a task's labels has none")
        text = self._chosen_label(question, stage)
        on_part(text)
        tokens = dict(zip(task.labels, label_tokens(base, task, self._stages.prompt_form()), strict=True))
        return Finished("stop", len(self._row(question)), len(tokens[text]), task.id)

    def _row(self, question: str) -> tuple[int, ...]:
        """Token ids of a question's prompt, as in training; behind it there is room for an answer."""
        task, form = self._agent.history.task, self._stages.prompt_form()
        room = 1 if task.kind is AnswerKind.TEXT else task.answer_tokens
        return free_prompt(self._agent.base, task.asked(question, form), room)


class _Stripped:
    """Text without the blanks that it begins with, as answers are scored."""

    def __init__(self, on_part: OnPart) -> None:
        self._on_part, self._begun = on_part, False

    def __call__(self, part: str | Sequence[TokenScore]) -> None:
        if isinstance(part, str) and not self._begun:
            part = part.lstrip()
            self._begun = bool(part)
        if part:
            self._on_part(part)

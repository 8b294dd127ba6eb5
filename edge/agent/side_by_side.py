"""Training for many agents side by side: groups that fill the device, one result for each agent."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fedperfit.edge.agent.outcome import Outcome
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.prefix import common_prefix
from fedperfit.edge.engine.training import Fit, FitJob, Trained, cohorts, fit
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm, Task

if TYPE_CHECKING:
    from fedperfit.edge.agent.agent import Agent, Result


def trained(
    agents: Iterable["Agent"],
    make: Callable[["Agent"], FitJob[Trained]],
    conclude: Callable[["Agent", FitJob[Trained], Fit], Outcome],
    settings: TrainingSettings,
    items: ItemCache,
    **how: Any,
) -> Iterator["Result"]:
    """Prepare, train and conclude for many agents side by side.

    Args:
        agents: share the base model of `items`.
        make: prepares an agent's job; an InputError that it raises is the agent's result.
        conclude: makes the outcome of a trained job.
        settings: epochs, batch size and rates.
        items: cache shared by the agents.
        **how: further arguments of `fit`.

    Yields:
        Each agent with its outcome, as they come.
    """
    owners: list[Agent] = []
    refused: list[Result] = []

    def jobs() -> Iterator[FitJob[Trained]]:
        for agent in agents:
            try:
                job = make(agent)
            except InputError as error:
                refused.append((agent, error))
            else:
                owners.append(agent)
                yield job

    prefix: Sequence[int] | None = None
    for cohort in cohorts(jobs(), settings, items):
        if prefix is None:
            prefix = shared_prefix(items.base, owners[0].history.task, settings.prompt_form)
        company, owners[:] = owners[: len(cohort)], owners[len(cohort) :]
        fits = fit(cohort, settings, items, prefix=prefix, **how)
        for agent, job, done in zip(company, cohort, fits, strict=True):
            if done.failed:
                yield agent, InputError("the loss is not finite: the learning rate may be too high")
            else:
                yield agent, conclude(agent, job, done)
    yield from refused


def shared_prefix(base: BaseModel, task: Task, form: PromptForm) -> tuple[int, ...]:
    """Tokens that every training prompt of a task begins with, whatever its items are.

    Args:
        base: model whose tokenizer counts.
        task: task of the prompts.
        form: form of the prompts.
    """
    unlike = [task.item_pair(task.specimen(text), form) for text in ("a", "Zz", "9")]
    prompts = [example.prompt for example in encode(base, unlike)]
    return prompts[0][: common_prefix(prompts)]

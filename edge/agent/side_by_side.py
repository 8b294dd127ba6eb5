"""Training for many agents side by side: groups that fill the device, one result for each agent."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fedperfit.edge.agent.outcome import Outcome
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import CachePlan, ItemCache, ItemKind, context_length
from fedperfit.edge.engine.people.whitened import Whitened
from fedperfit.edge.engine.prefix import common_prefix
from fedperfit.edge.engine.training import Fit, FitJob, Trained, fit
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm, Task

if TYPE_CHECKING:
    from fedperfit.edge.agent.agent import Agent, Result

_TOKENS = (2048, 16384)
"""Most tokens a step of a cohort runs, on a CPU and on CUDA: enough to keep the device busy."""
_STEP_BYTES = (2**30, 2**33)
"""Most bytes a step of a cohort is reckoned to take; alike on all machines, so that its rounding is, too."""


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
        conclude: makes the outcome of a trained job; an InputError that it raises is the agent's result.
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
            try:
                if done.failed:
                    raise InputError("the loss is not finite: the learning rate may be too high")
                outcome = conclude(agent, job, done)
            except InputError as error:
                yield agent, error
            else:
                yield agent, outcome
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


def cohorts(
    jobs: Iterable[FitJob[Trained]], settings: TrainingSettings, cache: ItemCache
) -> Iterator[list[FitJob[Trained]]]:
    """Group successive jobs so that a step fills the device, and each group's items and steps fit in memory.

    Args:
        jobs: taken one at a time, as the groups are used.
        settings: only the batch size is used.
        cache: its budget in bytes bounds the prepared items of a group.

    Yields:
        Groups of at least one job, in the order of the jobs.
    """
    cuda = cache.base.device.type == "cuda"
    rooms = (_TOKENS[cuda], cache.budget, _STEP_BYTES[cuda])
    cohort: list[FitJob[Trained]] = []
    taken = [0, 0, 0]
    for job in jobs:
        more = needs(job, settings, cache)
        full = any(used + own > room for used, own, room in zip(taken, more, rooms, strict=True))
        if cohort and full:
            yield cohort
            cohort, taken = [], [0, 0, 0]
        cohort.append(job)
        taken = [used + own for used, own in zip(taken, more, strict=True)]
    if cohort:
        yield cohort


def needs(job: FitJob[Any], settings: TrainingSettings, cache: ItemCache) -> tuple[int, int, int]:
    """Reckon what one job adds to a group.

    Args:
        job: A shift and its owner's examples.
        settings: Only the batch size is used.
        cache: Cache of the base model.

    Returns:
        Tokens that a step runs, bytes of the prepared items, and bytes that a step takes.
    """
    kind, examples = _kind(job), set(job.examples)
    whole = isinstance(job.shift, Whitened)
    rows = len(job.examples) if whole else min(settings.batch_size, len(job.examples))
    run = rows * max(len(e.prompt) + len(e.target) - 1 - kind.start(e) for e in examples)
    if kind.positions.first:  # the shared prefix runs once per user and step
        run += len(kind.prefix)
    kept = sum(cache.size(example, kind) for example in examples)
    return run, kept, rows * max(cache.step_bytes(example, kind) for example in examples)


def _kind(job: FitJob[Any]) -> ItemKind:
    """The kind a job's items would have if memory did not matter."""
    shape = job.shift.shape
    positions = shape.positions
    contexts = [e.prompt[: context_length(e.prompt, positions.last)] for e in job.examples]
    shared = common_prefix(contexts) if len(contexts) > 1 else 0
    plan = CachePlan.STATES if positions.first else CachePlan.CONTEXTS
    return ItemKind(shape.layers[0], positions, plan, contexts[0][:shared])

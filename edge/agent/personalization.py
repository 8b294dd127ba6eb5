"""Personal shifts of histories in memory: fit one, answer under it, write under it.

What `Agent` does for a person's folder and vault, for programs that hold the history themselves. Nothing
here touches a disk.
"""

import secrets
from collections.abc import Sequence

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.answering import answer
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.generation import GREEDY, Sampling
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.slab import Stack
from fedperfit.edge.engine.training import Fit, FitJob, fit
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.writing.streaming import free_prompt, stream
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Pair, PromptForm, Task

PERSONAL_TRAINING = TrainingSettings(
    seed=0,
    epochs=10,
    batch_size=8,
    learning_rate=1e-2,
    weight_decay=0.01,
    clip_norm=1.0,
    max_items=0,
    prompt_form=PromptForm.LAMP,
)
"""Training settings that suit the embedded model; a 7B model wants a learning rate of about 1e-4."""


def fit_personal_shift(
    base: BaseModel,
    history: History,
    shape: ShiftShape,
    *,
    collective: Shift | None = None,
    additive: bool = False,
    settings: TrainingSettings = PERSONAL_TRAINING,
    start: int | None = None,
    cache: ItemCache | None = None,
) -> tuple[PersonalShift, Fit]:
    """Fit one person's shift to their history, on top of a frozen collective shift (PerFit, stage 2).

    Minimises the mean loss of the targets given their prompts by AdamW, with the rate falling linearly to
    a tenth; R keeps orthonormal rows. The result is frozen.

    Args:
        base: Frozen base model.
        history: Items (and answered questions) to train on, oldest first.
        shape: Layers, rank and positions of the personal shift.
        collective: Shift that acts before the personal one; none by default.
        additive: Add the two shifts' deltas instead of applying one after the other.
        settings: Epochs, batch size, rate and so on; `max_items` keeps the latest items only.
        start: Seed of the random start (R has random orthonormal rows, W = R, b = 0); by default it comes
            from the operating system, so that a shift tells nothing of who was fitted.
        cache: Prepared items of `base`, shared by several fits; by default a cache of this fit alone.

    Returns:
        The personal shift, on the device of `base`, and what the training did.

    Raises:
        InputError: There are no items, an item lacks a field of its task, the shape does not suit the model
            or can change no answer, or the loss became infinite (the learning rate is too high).
    """
    shape.check_depth(base.card.layers)
    if shape.hidden_size != base.card.hidden_size:
        raise InputError(f"hidden_size={shape.hidden_size}: the base model has {base.card.hidden_size}")
    pairs = history.pairs(PromptForm(settings.prompt_form), settings.max_items)
    shift = PersonalShift.start(shape, seed=secrets.randbits(63) if start is None else start)
    shift.to(base.device)
    frozen = [] if collective is None else [collective.requires_grad_(False).to(base.device)]
    job = FitJob(shift, encode(base, pairs), f"{settings.seed}/{history.name}")
    (done,) = fit(
        [job], settings, cache or ItemCache(base), frozen=frozen, additive=additive, decay_rate=True
    )
    if done.failed:
        raise InputError("the loss is not finite: the learning rate may be too high")
    shift.requires_grad_(False)
    return shift, done


def answer_questions(
    base: BaseModel,
    task: Task,
    questions: Sequence[str],
    shifts: Sequence[Shift] = (),
    *,
    additive: bool = False,
    prompt_form: PromptForm = PromptForm.LAMP,
    batch_size: int = 20,
    cache: ItemCache | None = None,
) -> list[str]:
    """Answer questions of a task under shifts: the likeliest label, or greedy text.

    Args:
        base: Frozen base model.
        task: Task of the questions.
        questions: Texts in the task's own form, e.g. LaMP's `input`.
        shifts: Shifts in the order in which they act; none asks the base model alone.
        additive: Add the shifts' deltas instead of applying one after the other.
        prompt_form: Template in which the shifts were trained.
        batch_size: Questions answered side by side.
        cache: Prepared items of `base`, for questions that are asked again under another shift.

    Returns:
        One answer per question, in their order.

    Raises:
        InputError: A question is not of the task's form, or a shift lies beyond the model.
    """
    prompts = [Pair(task.asked(question, prompt_form), "") for question in questions]
    rows = [Question(example.prompt) for example in encode(base, prompts, reserve=task.answer_tokens)]
    if not rows:
        return []
    stack = _stack(base, shifts, additive)
    return answer(base, task, prompt_form, stack, rows, batch_size=batch_size, items=cache)


def generate_text(
    base: BaseModel,
    prompt: str,
    shifts: Sequence[Shift] = (),
    *,
    additive: bool = False,
    sampling: Sampling | None = None,
) -> str:
    """Continue a free text under shifts, which act on the prompt's positions only.

    Args:
        base: Frozen base model.
        prompt: Text to continue.
        shifts: Shifts in the order in which they act.
        additive: Add the shifts' deltas instead of applying one after the other.
        sampling: Temperature, nucleus, seed and length; greedy by default.

    Returns:
        The continuation, without the prompt.

    Raises:
        InputError: The prompt is empty or fills the model's context, or a shift lies beyond the model.
    """
    pieces: list[str] = []
    stack = _stack(base, shifts, additive)
    stream(base, stack, free_prompt(base, prompt), sampling or GREEDY, pieces.append, lambda: True)
    return "".join(pieces)


def _stack(base: BaseModel, shifts: Sequence[Shift], additive: bool) -> Stack:
    for shift in shifts:
        shift.shape.check_depth(base.card.layers)
    return Stack([shift.to(base.device) for shift in shifts], None, additive)

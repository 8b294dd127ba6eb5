"""Which trainings a policy allows."""

from fedperfit.edge.consent.refusal import Refused
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.trust.policy import Policy, RequestKind


def check_form(kind: RequestKind, form: str, policy: Policy) -> None:
    """Refuse another form of the prompts than the one that was agreed to.

    Args:
        kind: Kind of request.
        form: Form that the request names.
        policy: What the owner agreed to.

    Raises:
        Refused: It is another one.
    """
    if form != policy.prompt_form:
        raise Refused(f"{kind}: prompt-form={form}, agreed is {policy.prompt_form}")


def check_training(kind: RequestKind, training: TrainingSettings, policy: Policy) -> None:
    """Refuse a training that was not agreed to.

    Args:
        kind: Kind of request.
        training: How it asks for a shift to be trained.
        policy: What the owner agreed to.

    Raises:
        Refused: A setting is outside of what was agreed.
    """
    check_form(kind, training.prompt_form, policy)
    within = {
        "learning-rate": policy.least_rate <= training.learning_rate <= policy.most_rate,
        "clip-norm": policy.least_clip <= training.clip_norm <= policy.most_clip,
        "weight-decay": training.weight_decay <= policy.most_decay,
        "epochs": training.epochs <= policy.most_epochs_of(kind),
        "batch-size": training.batch_size == policy.batch_size,
    }
    for name, holds in within.items():
        if not holds:
            value = getattr(training, name.replace("-", "_"))
            raise Refused(f"{kind}: {name}={value:g} is outside of what was agreed")


def check_steps(
    kind: RequestKind, items: int, training: TrainingSettings, policy: Policy, *, fits: int = 1
) -> None:
    """Refuse a training that would take longer than was agreed.

    Args:
        kind: Kind of request.
        items: Number of items that it is on.
        training: How it asks for a shift to be trained.
        policy: What the owner agreed to.
        fits: Number of fits that it makes, one after the other.

    Raises:
        Refused: It has more steps.
    """
    steps = fits * training.epochs * -(-items // training.batch_size)
    if steps > policy.most_steps:
        raise Refused(f"{kind}: {steps} steps, agreed are at most {policy.most_steps}")

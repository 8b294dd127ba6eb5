"""pyreft 0.1.0 (Wu et al., 2024) as its users run it.

LoreftIntervention (R through torch's `orthogonal` parametrization), data set, collator, hooks, trainer and
loop are the library's own; logging, saving and evaluation are off. Written for transformers 4.45, it runs on
5 with one adaptation: the trainer now hands `compute_loss` the number of target tokens, which pyreft's does
not take. Both average the loss over the batch's target tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from fedperfit.edge.engine.examples import Example
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.simulation.benchmark.workload import Workload
from fedperfit.simulation.cluster.scratch import scratch
from fedperfit.simulation.optional import required

_NO_LOSS = -100
"""Label of a token that is not predicted."""


def pyreft(base: BaseModel, users: Iterable[Sequence[Example]], workload: Workload) -> int:
    """Fit LoReFT interventions per user.

    Args:
        base: The frozen base model.
        users: Each user's examples.
        workload: Settings of the training.

    Returns:
        Bytes of one user's interventions.

    Raises:
        InputError: pyreft or accelerate is not installed.
    """
    with scratch() as folder:
        try:
            sizes = [
                _bytes(fitted(base, examples, workload, user, folder)) for user, examples in enumerate(users)
            ]
        finally:
            base.model.eval()
    return sizes[-1]


def fitted(base: BaseModel, examples: Sequence[Example], workload: Workload, user: int, folder: Path) -> Any:
    """Fit one user's interventions, and return pyreft's model with them.

    Args:
        base: The frozen base model, which is in train mode afterwards.
        examples: The user's examples.
        workload: Settings of the training.
        user: Number of the user, for the seed.
        folder: Folder for the trainer.

    Raises:
        InputError: pyreft or accelerate is not installed.
    """
    library = required("pyreft")
    required("accelerate")  # by transformers' Trainer
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, TrainingArguments

    settings = workload.settings
    torch.manual_seed(settings.seed + user)
    model = make_model(base, workload)
    padding = _padding_tokenizer()
    collator = DataCollatorForSeq2Seq(padding, label_pad_token_id=_NO_LOSS, padding="longest")
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.personal_epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.personal_learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip_norm,
        seed=settings.seed + user,
        use_cpu=base.device.type == "cpu",
        dataloader_pin_memory=base.device.type != "cpu",
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = library.ReftTrainerForCausalLM(
        model=model,
        args=arguments,
        train_dataset=_dataset(examples, workload, padding, len(model.interventions)),
        data_collator=library.ReftDataCollator(data_collator=collator),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.compute_loss = _without_count(trainer.compute_loss)
    trainer.train()
    return model


def as_shift(model: Any, shape: ShiftShape) -> Shift:
    """Return pyreft's interventions as a shift, which changes hidden states as they do.

    Args:
        model: pyreft's model.
        shape: Layers, rank, hidden size and positions of the interventions.
    """
    states = [intervention.state_dict() for intervention in model.interventions.values()]
    R, W, b = (
        torch.stack([state[name].detach().float().cpu() for state in states])
        for name in ("rotate_layer", "weight", "bias")
    )
    return Shift(shape, R=R.mT.contiguous(), W=W, b=b)


def _bytes(model: Any) -> int:
    """Bytes of one user's interventions."""
    return sum(
        tensor.numel() * tensor.itemsize
        for intervention in model.interventions.values()
        for tensor in intervention.state_dict().values()
    )


def make_model(base: BaseModel, workload: Workload) -> Any:
    """Give the base model one new intervention per shifted layer, shared by first and last positions.

    Args:
        base: The frozen base model.
        workload: Layers and rank.
    """
    library = required("pyreft")
    rank = workload.settings.personal().rank
    sizes = {"embed_dim": base.card.hidden_size, "low_rank_dimension": rank, "dtype": base.model.dtype}
    representations = [
        {
            "layer": layer,
            "component": "block_output",
            "low_rank_dimension": rank,
            "intervention": library.LoreftIntervention(**sizes),
        }
        for layer in workload.settings.shape(base.card).layers
    ]
    return library.get_reft_model(base.model, library.ReftConfig(representations=representations))


def _dataset(examples: Sequence[Example], workload: Workload, padding: Any, interventions: int) -> Any:
    """Make pyreft's data set, which puts one padding token before each row for locations of short prompts."""

    class History(required("pyreft").ReftDataset):  # type: ignore[misc]
        def tokenize(self, data_item: dict[str, Example]) -> tuple[dict[str, torch.Tensor], int]:
            example = data_item["example"]
            ids = torch.tensor(example.prompt + example.target)
            labels = ids.clone()
            labels[: len(example.prompt)] = _NO_LOSS
            return {"input_ids": ids, "labels": labels}, len(example.prompt)

    return History(
        "history",
        None,
        padding,
        dataset=[{"example": example} for example in examples],
        position=workload.settings.positions,
        num_interventions=interventions,
        share_weights=True,
    )


def _padding_tokenizer() -> Any:
    """Make a tokenizer with all that the collator needs of one; 0 is no token of an example."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")


def _without_count(compute_loss: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        return compute_loss(model, inputs, return_outputs)

    return adapted

"""StyleVector (Zhang et al., 2025): the mean difference between the user's and the model's own answers.

s = mean_i [h(x_i + y_i) - h(x_i + y'_i)], h the hidden state of the last token after a layer, y' the base
model's answer. alpha s is added there while decoding: at the last prompt token and all after it.
"""

from collections.abc import Sequence
from typing import Any

import torch

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.answering import choose, label_tokens
from fedperfit.edge.engine.examples import Example, encode, pad_left
from fedperfit.edge.engine.generation import generation_config
from fedperfit.edge.engine.prefix import forgets, prefix_parts_of, run_prefix, starting_with
from fedperfit.edge.engine.rows import collate
from fedperfit.protocol.model.layers import changing, decoder_layers
from fedperfit.protocol.tasks import AnswerKind, Pair
from fedperfit.simulation.compare.method import Family, Method

_LAYERS = (0.25, 0.4, 0.5, 0.6, 0.75)
"""Layers to search among, as parts of the depth."""
_ROWS = 32
"""Rows that are run at once."""


class StyleVector(Method):
    """A style vector per user; layer, strength and the number of items are chosen on validation."""

    name = "style-vector"
    title = "StyleVector"
    family = Family.STEERING
    space = {"layer": _LAYERS, "alpha": (0.25, 0.5, 1.0, 2.0, 4.0), "items": (8, 16, 64)}

    def fit(self, history: History) -> Any:
        pairs = self.context.pairs(history)[-self.values["items"] :]
        if not pairs:
            return None
        user_states = self._last([Pair(pair.prompt, pair.target.rstrip()) for pair in pairs])
        answers = self.context.answer([pair.prompt for pair in pairs])
        form = self.context.form
        own = [Pair(p.prompt, self.context.task.target(a, form)) for p, a in zip(pairs, answers, strict=True)]
        return self.values["alpha"] * (user_states - self._last(own)).mean(0)

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        prompts = [self.context.prompt(question) for question in questions]
        if fitted is None:
            return self.context.answer(prompts)
        rows = encode(
            self.context.base,
            [Pair(prompt, "") for prompt in prompts],
            reserve=self.context.task.answer_tokens,
        )
        if self.context.task.kind is AnswerKind.TEXT:
            return [text for row in rows for text in self._texts(fitted, row.prompt)]
        scores = [self._scores(fitted, row.prompt) for row in rows]
        return choose(self.context.task, torch.stack(scores)) if scores else []

    def parameters(self, fitted: Any) -> int:
        return 0 if fitted is None else int(fitted.numel())

    @property
    def _layer(self) -> int:
        return int(self.values["layer"] * len(decoder_layers(self.context.base.model)))

    @torch.no_grad()
    def _last(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """Return the states after the layer at each row's last token: (pairs, d)."""
        examples = self.context.encode(pairs)
        states = []
        for start in range(0, len(examples), _ROWS):
            batch = collate(examples[start : start + _ROWS], self.context.base.device)
            states_of_batch: list[torch.Tensor] = []
            with changing(self.context.base.model, [self._layer], _recording(states_of_batch)):
                self.context.base.model(
                    input_ids=batch.ids, attention_mask=batch.attention.long(), logits_to_keep=1
                )
            ends = batch.attention.sum(1) - 2  # the end token closes each row
            states.append(states_of_batch[0][torch.arange(len(ends)), ends].float())
        return torch.cat(states)

    @torch.inference_mode()
    def _texts(self, vector: torch.Tensor, prompt: tuple[int, ...]) -> list[str]:
        base = self.context.base
        ids, mask = pad_left([prompt], base.device)

        def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
            shifted = hidden.clone()
            shifted[:, -1] += vector.to(hidden.dtype)
            return shifted

        with changing(base.model, [self._layer], change):
            out = base.model.generate(
                input_ids=ids,
                attention_mask=mask.long(),
                generation_config=generation_config(base, self.context.task.answer_tokens),
            )
        texts = base.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    @torch.inference_mode()
    def _scores(self, vector: torch.Tensor, prompt: tuple[int, ...]) -> torch.Tensor:
        """Return the log-likelihood of each label; the unchanged part of the prompt is run once."""
        base, start = self.context.base, len(prompt) - 1
        labels = label_tokens(base, self.context.task, self.context.form)
        layers = range(len(decoder_layers(base.model)))
        prefix = (
            None
            if forgets(base, len(prompt) + max(map(len, labels)))
            else (run_prefix(base, prompt[:start], 0, layers))
        )
        if prefix is None:
            start = 0
        batch = collate([Example(prompt[start:], label) for label in labels], base.device)
        before = torch.ones(len(labels), start, dtype=torch.long, device=base.device)

        def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
            shifted = hidden.clone()
            shifted[:, len(prompt) - 1 - start :] += vector.to(hidden.dtype)
            return shifted

        with changing(base.model, [self._layer], change):
            logits = base.model(
                input_ids=batch.ids,
                attention_mask=torch.cat([before, batch.attention.long()], dim=1),
                past_key_values=starting_with(base, prefix_parts_of(prefix)),
                use_cache=prefix is not None,
            ).logits
        wanted = torch.where(batch.target, batch.ids, 0)[:, 1:, None]
        logs = logits[:, :-1].float().log_softmax(-1).gather(2, wanted)[:, :, 0]
        scores: torch.Tensor = (logs * batch.target[:, 1:]).sum(1).cpu()
        return scores


def _recording(states: list[torch.Tensor]) -> Any:
    def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
        states.append(hidden)
        return hidden

    return change

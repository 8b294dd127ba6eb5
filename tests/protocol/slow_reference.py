"""The intervention written out: one example, no padding, no cache, one position at a time."""

import torch

from fedperfit.protocol.model.layers import decoder_layers


def phi(h, R, W, b):
    """h + R^T (W h + b - R h) for one hidden state h (d,)."""
    return h + R.T @ (W @ h + b - R @ h)


def shift_position(h, shifts, layer, additive):
    """h (d,) after the shifts of `layer`, each applied to the last result or all to h."""
    result, origin = h, h
    for shift in shifts:
        if layer in shift.shape.layers:
            index = list(shift.shape.layers).index(layer)
            tensors = shift.R[index], shift.W[index], shift.b[index]
            result = result + phi(origin, *tensors) - origin if additive else phi(result, *tensors)
    return result


def chosen(first, last, prompt_length):
    """Indices of the shifted prompt tokens."""
    return [i for i in range(prompt_length) if i < first or i >= prompt_length - last]


def logits(model, tokens, prompt_length, shifts, *, first, last, additive=False):
    """Next-token logits (tokens, vocabulary) of one unpadded sequence whose first part is the prompt.

    Each decoder layer's `forward` is replaced for the call, so no hook is shared with the code under test.
    """
    layers = decoder_layers(model)
    plain = [layer.forward for layer in layers]

    def shifted(index):
        def forward(*args, **kwargs):
            output = plain[index](*args, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
            rows = list(hidden[0])
            for position in chosen(first, last, prompt_length):
                rows[position] = shift_position(rows[position], shifts, index, additive)
            hidden = torch.stack(rows)[None]
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return forward

    try:
        for index, layer in enumerate(layers):
            layer.forward = shifted(index)
        return model(torch.tensor([tokens]), use_cache=False).logits[0]
    finally:
        for layer in layers:
            del layer.forward

"""What a whole Whisper of OpenAI understands of our encoder's hidden states: its decoder, in the plainest form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

START_OF_TRANSCRIPT, NO_TIMESTAMPS, END_OF_TEXT = 50257, 50362, 50256  # of the English models
LAYERS, HEADS = 4, 6


def words_heard(state: Mapping[str, Tensor], heard: Tensor, most: int) -> list[int]:
    """GPT-2's numbers of the words in a sound, at most so many. state: the file's tensors; heard: the last hidden states [1, 1500, 384]."""
    weights = {name.removeprefix("decoder."): tensor.float() for name, tensor in state.items() if name.startswith("decoder.")}
    tokens = [START_OF_TRANSCRIPT, NO_TIMESTAMPS]
    while len(tokens) < most + 2:
        token = int(_next(weights, heard, torch.tensor([tokens])))
        if token == END_OF_TEXT:
            break
        tokens.append(token)
    return tokens[2:]


def _next(weights: Mapping[str, Tensor], heard: Tensor, tokens: Tensor) -> Tensor:
    words = weights["token_embedding.weight"]
    hidden = words[tokens] + weights["positional_embedding"][: tokens.shape[1]]
    for index in range(LAYERS):
        block = f"blocks.{index}."
        own = _norm(weights, block + "attn_ln", hidden)
        hidden = hidden + _attention(weights, block + "attn", own, own, causal=True)
        hidden = hidden + _attention(weights, block + "cross_attn", _norm(weights, block + "cross_attn_ln", hidden), heard)
        inner = functional.gelu(_linear(weights, block + "mlp.0", _norm(weights, block + "mlp_ln", hidden)))
        hidden = hidden + _linear(weights, block + "mlp.2", inner)
    return (_norm(weights, "ln", hidden)[0, -1] @ words.T).argmax()


def _attention(weights: Mapping[str, Tensor], name: str, tokens: Tensor, context: Tensor, *, causal: bool = False) -> Tensor:
    parts = (
        _linear(weights, f"{name}.query", tokens),
        _linear(weights, f"{name}.key", context),
        _linear(weights, f"{name}.value", context),
    )
    query, key, value = (part.reshape(1, part.shape[1], HEADS, -1).transpose(1, 2) for part in parts)
    mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return _linear(weights, f"{name}.out", mixed.transpose(1, 2).flatten(2))


def _linear(weights: Mapping[str, Tensor], name: str, values: Tensor) -> Tensor:
    return functional.linear(values, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _norm(weights: Mapping[str, Tensor], name: str, values: Tensor) -> Tensor:
    return functional.layer_norm(values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

"""Brings the names that weight files use for parameters to those of our networks; what is not known is left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

# The VAE's file in the .bin format is older than these names.
_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# OpenAI's own names of the encoder's parts, and those of Hugging Face.
_OPENAI = {
    "positional_embedding": "embed_positions.weight",
    "ln_post": "layer_norm",
    "blocks": "layers",
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}


def vae_names(state: Mapping[str, Value]) -> dict[str, Value]:
    """`mid_block.attentions.0.query.weight` becomes `mid_block.attentions.0.to_q.weight`, and so on."""
    return {_renamed(name, _VAE_ATTENTION) if ".attentions." in name else name: value for name, value in state.items()}


def whisper_names(state: Mapping[str, Value]) -> dict[str, Value]:
    """The encoder's parameters relative to the encoder, out of a whole Whisper model or an encoder alone.

    Known are the names of Hugging Face ("model.encoder." or "encoder." before each) and of OpenAI ("encoder.").
    """
    bare = {name.removeprefix("model."): value for name, value in state.items()}
    encoder = {name.removeprefix("encoder."): value for name, value in bare.items() if name.startswith("encoder.")} or bare
    return {_renamed(name, _OPENAI): value for name, value in encoder.items()}


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """Replace every part of a dotted name that stands in the table; a part of the table may itself be two parts of the name."""
    parts = name.split(".")
    result: list[str] = []
    while parts:
        pair = ".".join(parts[:2])
        if len(parts) > 1 and pair in table:
            result.append(table[pair])
            parts = parts[2:]
        else:
            result.append(table.get(parts[0], parts[0]))
            parts = parts[1:]
    return ".".join(result)

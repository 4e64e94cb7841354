"""Decoder of an encoder's memory: a causal `TextEncoder` that may share the encoder's parameters."""
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from embeddings_jax.nets.text_encoder import TextEncoder
from embeddings_jax.types import InputError

TIES = ("layers", "embeddings", "none")


def decoder_of(encoder: TextEncoder, tie: str, num_layers: int = 0, num_heads: int = 0,
               mlp_dim: int = 0) -> TextEncoder:
  """Returns the decoder of an encoder, of its dimensions.

  Args:
    encoder: The encoder.
    tie: What is the encoder's own: `layers`, all but the attention to the memory; `embeddings`, the embedding of
      tokens; or `none`.
    num_layers, num_heads, mlp_dim: Sizes; 0: the encoder's.

  Raises:
    InputError: With tie=layers the sizes differ.
  """
  sizes = {"num_layers": num_layers, "num_heads": num_heads, "mlp_dim": mlp_dim}
  for name, value in sizes.items():
    if value < 0 or (tie == "layers" and value not in (0, getattr(encoder, name))):
      raise InputError(f"decoder_{name.removeprefix('num_')}={value}: must be 0, the encoder's, or above; with "
                       f"tie=layers it is the encoder's {getattr(encoder, name)}")
  sizes = {name: value or getattr(encoder, name) for name, value in sizes.items()}
  if encoder.dim % sizes["num_heads"]:
    raise InputError(f"decoder_heads={num_heads}: does not divide dim={encoder.dim}")
  own = {} if tie == "layers" else {"num_segments": 0}
  if encoder.position_init == "neighbors":  # A causal layer does not see the next token.
    own["position_init"] = "sinusoidal"
  return encoder.clone(causal=True, cross=True, **sizes, **own)


def untied(params: Mapping[str, Any], tie: str) -> dict[str, Any]:
  """Returns the parameters of a decoder that are its own."""
  if tie == "layers":
    return {"layers": {name: leaf for name, leaf in params["layers"].items() if name.startswith("cross_")}}
  return {name: leaf for name, leaf in params.items() if tie == "none" or name != "token_embedding"}


def decoder_params(encoder: Mapping[str, Any], own: Mapping[str, Any], tie: str) -> dict[str, Any]:
  """Returns all parameters of a decoder, from those of the encoder and its own."""
  if tie == "layers":
    return {**encoder, "layers": {**encoder["layers"], **own["layers"]}}
  return {"token_embedding": encoder["token_embedding"], **own} if tie == "embeddings" else dict(own)


def shifted(tokens: Int[Array, "batch time"], first_id: int | None) -> tuple[Array, Array]:
  """Returns what a decoder reads and what it predicts: all tokens behind `first_id`; None: all but a row's first."""
  if first_id is None:
    return tokens[:, :-1], tokens[:, 1:]
  return jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=first_id), tokens


def with_bias(hidden: Float[Array, "*shape dim"], table: Float[Array, "vocab dim"], bias: Float[Array, " vocab"],
              ) -> tuple[Array, Array]:
  """Returns queries and a table whose products are hidden @ table.T + bias: the bias is two further features, of
  which the first is exact in bfloat16 as well."""
  coarse = jax.lax.stop_gradient(bias.astype(jnp.bfloat16).astype(bias.dtype))
  ones = jnp.ones((*hidden.shape[:-1], 2), hidden.dtype)
  return jnp.concatenate([hidden, ones], -1), jnp.concatenate([table, coarse[:, None], (bias - coarse)[:, None]], -1)


def write(scores_at: Callable[[Array, Array], Array], choose: Callable[[Array, Array], Array], num: int, length: int,
          first_id: int, end_id: int | None) -> Int[Array, "num length"]:
  """Writes texts token by token.

  Args:
    scores_at: (tokens [num, length], place) -> scores [num, vocab] of the token behind that place.
    choose: (place, scores) -> tokens [num].
    num: Number of texts.
    length: Most tokens of a text.
    first_id: The token that stands before a text.
    end_id: The token that ends one; -1 follows it.
  """
  def one(place, carry):
    tokens, ended = carry
    token = jnp.where(ended, -1, choose(place, scores_at(tokens[:, :-1], place)))
    tokens = tokens.at[:, place + 1].set(token, mode="drop")
    return tokens, ended if end_id is None else ended | (token == end_id)

  tokens = jnp.full((num, length + 1), -1, jnp.int32).at[:, 0].set(first_id)
  return jax.lax.fori_loop(0, length, one, (tokens, jnp.zeros(num, bool)))[0][:, 1:]


def likeliest(place: Array, scores: Float[Array, "num vocab"]) -> Int[Array, " num"]:
  """Returns the tokens of the highest scores."""
  del place
  return scores.argmax(-1).astype(jnp.int32)

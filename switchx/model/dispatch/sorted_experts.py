"""Rows that have an expert each: sorted by expert, computed by it, and put back."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from switchx.model.dispatch.dispatcher import ExpertNetworks, Operations, number_of
from switchx.model.dispatch.sorted_product import sorted_product, sorted_relu_network
from switchx.model.dispatch.stacked import Kernel, Kernels
from switchx.model.noise import Noise, dropout
from switchx.model.tpu import from_v5_on


@dataclasses.dataclass(frozen=True)
class SortedExperts:
    """The experts that one device has, each of which multiplies just its own rows.

    Attributes:
      experts: of each width.
      dropout_rate: of their interim activations.
      share: rows that an expert has where all have as many, about.
      num_model: over how many devices each expert's width is shared out.
    """

    experts: Sequence[ExpertNetworks]
    dropout_rate: float
    share: int
    num_model: int = 1

    def of_rows(
        self, kernels: Sequence[Kernels], x_ND: jax.Array, expert_N: jax.Array, noise_N: Noise
    ) -> jax.Array:
        """The outputs [N, D] of rows in any order; anything finite for those of no expert.

        Args:
          expert_N: the number of each row's expert among these, theirs for a row of none.
        """
        with jax.named_scope("dispatch"):
            order_N, place_N = argsort(expert_N)
            size_E = sizes(expert_N, sum(map(number_of, kernels)))
            x_ND = permute(x_ND, order_N, place_N)
        y_ND = self.of_sorted_rows(kernels, x_ND, size_E, noise_N.take(order_N))
        with jax.named_scope("combine"):
            return permute(y_ND, place_N, order_N)

    def of_sorted_rows(
        self, kernels: Sequence[Kernels], x_RD: jax.Array, size_E: jax.Array, noise_R: Noise
    ) -> jax.Array:
        """The outputs of rows that are sorted by expert, `size_E` for each.

        Each width takes its rows from where they begin: they are turned to the front, and back.
        """
        counts = [*map(number_of, kernels)]
        by_width = jnp.split(size_E, np.cumsum(counts[:-1])) if len(counts) > 1 else [size_E]
        y_RD = self._of_width(self.experts[0], kernels[0], x_RD, by_width[0], noise_R)
        R, start = x_RD.shape[0], jnp.zeros((), jnp.int32)
        for width in range(1, len(counts)):
            start += by_width[width - 1].sum(dtype=jnp.int32)
            number_R = jnp.arange(R, dtype=jnp.int32)
            order_R, place_R = (number_R + start) % R, (number_R - start) % R
            turned_RD = permute(x_RD, order_R, place_R)
            own = self.experts[width], kernels[width], turned_RD, by_width[width]
            there_RD = permute(self._of_width(*own, noise_R.take(order_R)), place_R, order_R)
            y_RD = jnp.where((number_R < start)[:, None], y_RD, there_RD)
        return y_RD

    def _of_width(
        self,
        networks: ExpertNetworks,
        kernels: Kernels,
        x_RD: jax.Array,
        size_E: jax.Array,
        noise_R: Noise,
    ) -> jax.Array:
        """The outputs of the first rows, `size_E` for each of the experts of one width."""

        def drop(h_RF: jax.Array) -> jax.Array:
            number = jax.lax.axis_index("model") if self.num_model > 1 else 0
            return dropout(h_RF, self.dropout_rate, noise_R.shifted(number * h_RF.shape[1]))

        def product(x_RD: jax.Array, kernel: Kernel) -> jax.Array:
            return sorted_product(x_RD, kernel, size_E, self.share)

        def network(x_RD: jax.Array, wi: Kernel, wo: Kernel) -> jax.Array:
            return sorted_relu_network(x_RD, wi, wo, size_E, self.share)

        as_one = None if self.dropout_rate or not from_v5_on() else network
        with jax.named_scope("experts"):
            return networks.compute(kernels, x_RD, Operations(product, drop, as_one))


def sizes(expert_N: jax.Array, E: int) -> jax.Array:
    """How many rows each of the first E experts has: int32 [E]."""
    return jnp.sum(expert_N[:, None] == jnp.arange(E), axis=0, dtype=jnp.int32)


def argsort(key_R: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The stable order of the keys, and its inverse: the place of each key in it."""
    number_R = jnp.arange(key_R.shape[0], dtype=jnp.int32)
    _, order_R = jax.lax.sort_key_val(key_R, number_R, is_stable=True)
    return order_R, jnp.zeros_like(order_R).at[order_R].set(number_R, unique_indices=True)


@jax.custom_vjp
def permute(x_ND: jax.Array, order_N: jax.Array, place_N: jax.Array) -> jax.Array:
    """x[order], whose transpose is the gather by the inverse, `place_N`."""
    return x_ND[order_N]


permute.defvjp(lambda x, order, place: (x[order], place), lambda place, dy: (dy[place], None, None))

"""The products of sorted rows as loops over experts and over blocks of their rows."""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

_SCOPE = re.compile(r"\babout_(\d+)_rows_by_(\d+)\b")


def scope_of(share: int, block: int) -> str:
    """The named scope of a loop over an expert's blocks: how often it goes round is not static."""
    return f"about_{share}_rows_by_{block}"


def rows_of(scope: str) -> tuple[int, int] | None:
    """An expert's rows, about, and those of a block, if this is such a loop's path of scopes."""
    found = _SCOPE.search(scope)
    return (int(found[1]), int(found[2])) if found else None


@dataclasses.dataclass(frozen=True)
class XlaLoops:
    """One form of the products, see sorted_product.

    Attributes:
      block: rows that are multiplied at a time.
      share: rows that an expert has where all have as many, about.
      precision: of the products, as `jax.default_matmul_precision` names it.
    """

    block: int
    share: int
    precision: str | None

    def rows(
        self, x_RK: jax.Array, kernel: jax.Array, size_E: jax.Array, transposed: bool
    ) -> jax.Array:
        """[R, N]: each row times its expert's kernel, [E, K, N], or [E, N, K] transposed."""
        b, R = self.block, x_RK.shape[0]
        kernel_EKN = kernel.swapaxes(1, 2) if transposed else kernel
        x_RK = self._pad(x_RK)

        def expert(y_RN: jax.Array, per_expert: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            kernel_KN, start, size = per_expert

            # A block may run on into the next expert's rows, which that expert then overwrites.
            def block(i: jax.Array, y_RN: jax.Array) -> jax.Array:
                x_bK = jax.lax.dynamic_slice_in_dim(x_RK, start + i * b, b)
                y_bN = jnp.matmul(x_bK, kernel_KN, precision=self.precision)
                return jax.lax.dynamic_update_slice_in_dim(y_RN, y_bN, start + i * b, axis=0)

            return self._loop(size, block, y_RN), None

        y_RN = jnp.zeros((x_RK.shape[0], kernel_EKN.shape[-1]), x_RK.dtype)
        y_RN, _ = jax.lax.scan(expert, y_RN, (kernel_EKN, _starts(size_E), size_E))
        return y_RN[:R]

    def outer(self, x_RD: jax.Array, dy_RF: jax.Array, size_E: jax.Array) -> jax.Array:
        """[E, D, F]: x^T dy over each expert's rows, summed in float32."""
        b, dtype = self.block, x_RD.dtype
        D, F = x_RD.shape[1], dy_RF.shape[1]
        x_RD, dy_RF = self._pad(x_RD), self._pad(dy_RF)

        def expert(_: None, per_expert: tuple[jax.Array, ...]) -> tuple[None, jax.Array]:
            start, size = per_expert

            def block(i: jax.Array, sum_DF: jax.Array) -> jax.Array:
                mine_b1 = (jnp.arange(b) + i * b < size)[:, None]
                x_bD = jax.lax.dynamic_slice_in_dim(x_RD, start + i * b, b)
                dy_bF = jax.lax.dynamic_slice_in_dim(dy_RF, start + i * b, b)
                return sum_DF + jnp.matmul(
                    jnp.where(mine_b1, x_bD, 0).T,
                    dy_bF,
                    precision=self.precision,
                    preferred_element_type=jnp.float32,
                )

            sum_DF = self._loop(size, block, jnp.zeros((D, F), jnp.float32))
            return None, sum_DF.astype(dtype)

        return jax.lax.scan(expert, None, (_starts(size_E), size_E))[1]

    def _loop(self, size: jax.Array, block: Callable, start: jax.Array) -> jax.Array:
        """A loop over the blocks of an expert's rows."""
        with jax.named_scope(scope_of(self.share, self.block)):
            return jax.lax.fori_loop(0, -(-size // self.block), block, start)

    def _pad(self, x_RD: jax.Array) -> jax.Array:
        """Room for the last block to run on into."""
        return jnp.pad(x_RD, ((0, self.block), (0, 0)))


def _starts(size_E: jax.Array) -> jax.Array:
    return jnp.cumsum(size_E) - size_E

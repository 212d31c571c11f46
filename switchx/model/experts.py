"""The experts: feed-forward networks, those of one width stacked on a leading E axis."""

import jax
from flax import nnx

from switchx.model.activations import function_of
from switchx.model.config import ModelConfig
from switchx.model.dispatch import Kernel, Kernels, Operations, Stacked
from switchx.model.layers import parameter, truncated_normal
from switchx.model.remat import kept
from switchx.sharding import gathered, platform


def experts_of(config: ModelConfig, rngs: nnx.Rngs) -> "Experts | ExpertsOfWidths":
    """Those of a layer, of the one width that there is or of several."""
    widths = config.expert_widths
    if len(widths) == 1:
        return Experts(config, *widths[0], rngs)
    return ExpertsOfWidths(config, widths, rngs)


def paths_of_widths(config: ModelConfig) -> list[tuple[tuple[str, ...], int]]:
    """Where below a layer's `experts` the parameters of each width lie, and of how many experts."""
    numbers = [number for number, _ in config.expert_widths]
    return [((f"width_{i}",) if len(numbers) > 1 else (), n) for i, n in enumerate(numbers)]


class ExpertsOfWidths(nnx.Module):
    """Feed-forward networks of several widths: the first's are `width_0`, and so on."""

    def __init__(self, config: ModelConfig, widths: tuple[tuple[int, int], ...], rngs: nnx.Rngs):
        """`widths`: as ModelConfig.expert_widths."""
        self.num_widths = len(widths)
        for i, width in enumerate(widths):
            setattr(self, f"width_{i}", Experts(config, *width, rngs))

    @property
    def by_width(self) -> tuple["Experts", ...]:
        """Those of each, in the order of the experts' numbers."""
        return tuple(getattr(self, f"width_{i}") for i in range(self.num_widths))


class Experts(nnx.Module):
    """E feed-forward networks of one width and the model's activation, each on its own tokens.

    As a dispatcher needs them: see ExpertNetworks.
    """

    output_axis = "embed"

    def __init__(self, config: ModelConfig, num_experts: int, d_ff: int, rngs: nnx.Rngs):
        E, D, F = num_experts, config.d_model, d_ff
        self.config = config
        into = truncated_normal(config.init_scale, D)
        axes = self.kernel_axes
        if config.gated:
            self.gate_EDF = parameter(rngs, into, (E, D, F), axes["gate_EDF"])
        self.wi_EDF = parameter(rngs, into, (E, D, F), axes["wi_EDF"])
        outof = truncated_normal(config.init_scale, F)
        self.wo_EFD = parameter(rngs, outof, (E, F, D), axes["wo_EFD"])

    @property
    def by_width(self) -> tuple["Experts", ...]:
        """Themselves: all are alike."""
        return (self,)

    @property
    def kernel_axes(self) -> dict[str, tuple[str, ...]]:
        into: dict[str, tuple[str, ...]] = {"wi_EDF": ("expert", "embed", "mlp")}
        if self.config.gated:
            into["gate_EDF"] = into["wi_EDF"]
        return into | {"wo_EFD": ("expert", "mlp", "embed")}

    def kernels(self) -> Kernels:
        """The parameters by name, each [E, ...], in the compute dtype or in stacks."""
        return {name: self._kernel(name, axes) for name, axes in self.kernel_axes.items()}

    def _kernel(self, name: str, axes: tuple[str, ...]) -> Kernel:
        value = getattr(self, name).get_raw_value()  # itself, as it takes what is handed on
        if isinstance(value, Stacked):
            return value
        return gathered(value.astype(self.config.dtype), axes)

    def compute(self, kernels: Kernels, x: jax.Array, operations: Operations) -> jax.Array:
        """f(x wi) wo, or (f(x gate) * (x wi)) wo, of every expert on its rows.

        Interim activations are dropped at the paper's expert dropout. See ExpertNetworks.
        """
        product, as_one = operations.product, operations.relu_network
        if as_one and self.config.activation == "relu":
            return as_one(x, kernels["wi_EDF"], kernels["wo_EFD"])
        function = function_of(self.config.activation, self.config.passes_apart)
        names = ("wi_EDF", "gate_EDF")
        into = [kept(product(x, kernels[name])) for name in names if name in kernels]

        def outof(into: list[jax.Array], kernel_EFD: jax.Array) -> jax.Array:
            h, *gate = into
            h = function(*gate) * h if gate else function(h)
            return product(operations.drop(h), kernel_EFD)

        if platform() == "cpu":  # hashed again, dropout's bits cost less than keeping what it made
            outof = jax.checkpoint(outof)
        return outof(into, kernels["wo_EFD"])

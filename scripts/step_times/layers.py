"""The parts of a decoder's layer as programs for one chip, and what the compiler says they cost.

Forward and backward pass in bfloat16, the forward pass computed again where the recipe does. What
attention's kernel multiplies is left out: in its place queries, keys and values are read and a
context of its size is written.
"""

import functools

from switchx.planning import environment

environment.prepare()

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import NamedSharding, PartitionSpec

from step_times.recipes import Part
from switchx.planning.cycles import Cost, costs, total
from switchx.planning.devices import compile_only_devices
from switchx.planning.network import Network
from switchx.planning.topology import parse
from switchx.sharding import MeshConfig, make_mesh

ONE_CHIP = {"v4": "v4:2x2x1", "v5e": "v5e:1x1", "v5p": "v5p:2x2x1", "v6e": "v6e:1x1"}


def compiled(part: Part) -> Cost:
    """The compiler's estimate of one run."""
    topology = parse(ONE_CHIP[part.chip])
    chip = topology.chip
    assert chip is not None
    mesh = make_mesh(MeshConfig(), compile_only_devices(topology)[:1])
    sharding = NamedSharding(mesh, PartitionSpec())
    block, shapes, widths = BLOCKS[part.kind](part.tokens, part.sizes)
    array = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.bfloat16, sharding=sharding)
    policy = jax.checkpoint_policies.save_only_these_names(*part.saved)

    def step(params: list[jax.Array], x: jax.Array, dy: jax.Array) -> tuple:
        y, back = jax.vjp(jax.checkpoint(block, policy=policy), params, x)
        return y, back(dy)

    arguments = ([array(shape) for shape in shapes], *(array(shape) for shape in widths))
    program = jax.jit(step, donate_argnums=(1, 2)).lower(*arguments).compile()
    return total(costs(program.as_text() or "", chip, Network.of(mesh, topology)).values())


def norm(x_TD: jax.Array) -> jax.Array:
    x_TD = x_TD.astype(jnp.float32)
    rms = jnp.sqrt(jnp.mean(jnp.square(x_TD), axis=-1, keepdims=True) + 1e-6)
    return (x_TD / rms).astype(jnp.bfloat16)


def turned(x_THK: jax.Array) -> jax.Array:
    """Rotary positions."""
    tokens, _, size = x_THK.shape
    angle = jnp.arange(tokens)[:, None] / 10000 ** (jnp.arange(size // 2) / (size // 2))
    cos, sin = (f(angle)[:, None].astype(jnp.bfloat16) for f in (jnp.cos, jnp.sin))
    a, b = jnp.split(x_THK, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attention(tokens: int, sizes: tuple[int, ...]) -> tuple:
    d, heads, kv_heads, k = sizes[:4]
    groups = heads // kv_heads
    if len(sizes) > 4:
        return low_rank_attention(tokens, sizes)

    def block(params: list[jax.Array], x_TD: jax.Array) -> jax.Array:
        wq, wk, wv, wo = params
        h_TD = norm(x_TD)
        q, key, v = (checkpoint_name(h_TD @ w, "qkv").reshape(tokens, -1, k) for w in (wq, wk, wv))
        q, key = turned(q), turned(key)
        q = q.reshape(tokens, kv_heads, groups, k)
        context = checkpoint_name(q * key[:, :, None] * v[:, :, None], "context")
        return x_TD + checkpoint_name(context.reshape(tokens, -1) @ wo, "out")

    shapes = [(d, heads * k), (d, kv_heads * k), (d, kv_heads * k), (heads * k, d)]
    return block, shapes, [(tokens, d)] * 2


def low_rank_attention(tokens: int, sizes: tuple[int, ...]) -> tuple:
    """Queries, keys and values through narrow products (DeepSeek-V2, section 2.1)."""
    d, heads, _, k, q_rank, kv_rank, rope = sizes

    def block(params: list[jax.Array], x_TD: jax.Array) -> jax.Array:
        down_q, up_q, down_kv, up_kv, wo = params
        h_TD = norm(x_TD)
        q = norm(h_TD @ down_q) @ up_q
        narrow = h_TD @ down_kv
        wide = (norm(narrow[:, :kv_rank]) @ up_kv).reshape(tokens, heads, 2 * k)
        q = checkpoint_name(q, "qkv").reshape(tokens, heads, k + rope)
        key, v = jnp.split(checkpoint_name(wide, "qkv"), 2, axis=-1)
        at = turned(q[..., k:]) * turned(narrow[:, None, kv_rank:])
        context = q[..., :k] * key * v + jnp.tile(at, k // rope)
        context = checkpoint_name(context, "context")
        return x_TD + checkpoint_name(context.reshape(tokens, -1) @ wo, "out")

    shapes = [(d, q_rank), (q_rank, heads * (k + rope)), (d, kv_rank + rope)]
    shapes += [(kv_rank, heads * 2 * k), (heads * k, d)]
    return block, shapes, [(tokens, d)] * 2


def feed_forward(tokens: int, sizes: tuple[int, ...]) -> tuple:
    d, f, gated = sizes

    def block(params: list[jax.Array], x_TD: jax.Array) -> jax.Array:
        h_TD = norm(x_TD)
        *wi, wo = params
        hidden = [checkpoint_name(h_TD @ w, "wi") for w in wi]
        act = jax.nn.silu(hidden[0]) * hidden[1] if gated else jax.nn.gelu(hidden[0])
        return x_TD + checkpoint_name(act @ wo, "wo")

    return block, [(d, f)] * (1 + gated) + [(f, d)], [(tokens, d)] * 2


def experts(tokens: int, sizes: tuple[int, ...]) -> tuple:
    """Tokens that are already with their experts, as many with each."""
    d, f, gated, number = sizes

    def block(params: list[jax.Array], x_ECD: jax.Array) -> jax.Array:
        *wi, wo = params
        hidden = [checkpoint_name(jnp.einsum("ecd,edf->ecf", x_ECD, w), "wi") for w in wi]
        act = jax.nn.silu(hidden[0]) * hidden[1] if gated else jax.nn.gelu(hidden[0])
        return checkpoint_name(jnp.einsum("ecf,efd->ecd", act, wo), "wo")

    shapes = [(number, d, f)] * (1 + gated) + [(number, f, d)]
    return block, shapes, [(number, tokens // number, d)] * 2


def logits(tokens: int, sizes: tuple[int, ...]) -> tuple:
    """The loss too."""
    d, vocab = sizes

    def block(params: list[jax.Array], x_TD: jax.Array) -> jax.Array:
        (w,) = params
        l_TV = checkpoint_name(norm(x_TD) @ w, "logits").astype(jnp.float32)
        target = jnp.arange(l_TV.shape[0]) % vocab
        chosen = jnp.take_along_axis(l_TV, target[:, None], axis=-1)[:, 0]
        return (jax.nn.logsumexp(l_TV, axis=-1) - chosen).astype(jnp.bfloat16)

    return block, [(d, vocab)], [(tokens, d), (tokens,)]


BLOCKS = {
    "attention": attention,
    "feed_forward": feed_forward,
    "experts": experts,
    "logits": logits,
}

"""Colours that tell groups apart, on light and on dark, for colour-blind eyes too."""

import math
from collections.abc import Sequence

from switchx.reports.groups import Group

DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2")  # of families, beside each other
_UNORDERED = [
    ("#0072b2", "#56a8e0"),
    ("#d55e00", "#ff9147"),
    ("#009e73", "#2fcf9f"),
    ("#b8548f", "#ee9fcd"),
    ("#b58900", "#f0d24a"),
    ("#3a9fd6", "#a4dcff"),
    ("#7a4fb5", "#c0a2f2"),
    ("#6f6f6f", "#b5b5b5"),
]
_DENSE = ("#4d4d4d", "#c9c9c9")
# Parts of viridis, which is even in lightness, that stand out from white and from black.
_ON_LIGHT, _ON_DARK = (0.0, 0.8), (0.42, 1.0)


def colours(groups: Sequence[Group], by_experts: bool = True) -> list[tuple[str, str]]:
    """For light and for dark of each group: from few experts to many, dense ones grey.

    Where all have the same number of experts, or not `by_experts`, in the order of the groups.
    """
    experts = [group.num_experts for group in groups]
    if by_experts and len(set(experts)) > 1:
        most, least = max(experts), min(e for e in experts if e > 1)
        span = math.log(most / least) or 1.0
        return [_DENSE if e == 1 else _at(math.log(e / least) / span) for e in experts]
    return [_at(n / max(len(groups) - 1, 1)) for n in range(len(groups))]


def dashes(groups: Sequence[Group], by_experts: bool = True) -> list[str]:
    """Of each group its family's, where experts tell the colours and there are several families."""
    families = list(dict.fromkeys(group.family for group in groups))
    if not by_experts or len({group.num_experts for group in groups}) == 1:
        return [""] * len(groups)
    return [DASHES[families.index(group.family) % len(DASHES)] for group in groups]


def _at(share: float) -> tuple[str, str]:
    import matplotlib
    from matplotlib.colors import to_hex

    viridis = matplotlib.colormaps["viridis"]
    light, dark = (low + share * (high - low) for low, high in (_ON_LIGHT, _ON_DARK))
    return to_hex(viridis(light)), to_hex(viridis(dark))


def categories(count: int) -> list[tuple[str, str]]:
    """As many colours, for light and for dark, each unlike its neighbours: of things in no order.

    The first eight are those of Okabe and Ito (2008), darker on light and lighter on dark; more go
    round the colours by the golden angle, in three lightnesses.
    """
    import colorsys

    def turned(n: int, light: float) -> str:
        part = colorsys.hls_to_rgb((0.07 + n * 0.381966) % 1, light, 0.55)
        return "#" + "".join(f"{round(255 * x):02x}" for x in part)

    more = (
        (turned(n, (0.34, 0.44, 0.52)[n % 3]), turned(n, (0.74, 0.64, 0.56)[n % 3]))
        for n in range(max(count - len(_UNORDERED), 0))
    )
    return [*_UNORDERED[:count], *more]

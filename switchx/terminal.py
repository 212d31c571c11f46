"""What is shown on a terminal alike everywhere: tables."""

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of aligned columns; words stand left, numbers right, as the last row has them.

    Whole numbers get commas, others four decimals; a text that ends in % is a number too.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    is_number = [isinstance(value, int | float) or _cell(value)[-1:] == "%" for value in rows[-1]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in cells
    ]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)

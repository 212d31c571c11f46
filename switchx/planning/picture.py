"""A plan as a picture: memory against the chip's, least times, what moves along which axis."""
from pathlib import Path
from switchx.planning.plan import Plan
def draw(plan: Plan, path: Path) -> None:
    pass

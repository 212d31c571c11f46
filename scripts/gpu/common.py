"""What the parts share: their flags, and the file that says a part is done."""

import argparse
import json
import os
import time
from pathlib import Path


def arguments(description: str) -> argparse.Namespace:
    """The flags of every part; sets JAX's platform, so before JAX is imported."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--platform", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for a try on a CPU")
    parser.add_argument(
        "--set", type=Path, default=Path("gpu_set"), help="made by `on_gpu.sh pack`"
    )
    parser.add_argument("--seconds", type=float, default=400, help="no new case after so many")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.began = time.monotonic()
    os.environ["JAX_PLATFORMS"] = args.platform
    return args


def out_of_time(args: argparse.Namespace) -> bool:
    return time.monotonic() - args.began > args.seconds


def done(results: list[dict], measured: str) -> None:
    """Ends the part as not done where no result has what it measures."""
    if not any(result.get(measured) is not None for result in results):
        raise SystemExit(f"nothing was measured: {results}")


def write(args: argparse.Namespace, part: str, **found: object) -> None:
    """Writes OUT/part.json whole: it appears when the part is done."""
    import jax

    record = {
        "part": part,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "seconds": round(time.monotonic() - args.began, 1),
        **found,
    }
    unfinished = args.out / f"{part}.unfinished"
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    unfinished.rename(args.out / f"{part}.json")

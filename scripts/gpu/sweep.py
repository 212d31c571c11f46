"""Four small runs from a prepared set: dense, then more and more experts at equal FLOPs."""

import json
import subprocess
import sys
from pathlib import Path

from gpu.common import arguments, done, out_of_time, write

LENGTHS = {"inputs": 128, "targets": 32}
POINTS = {"dense": 0, "4 experts": 4, "16 experts": 16, "64 experts": 64}
SIZES = {
    "ModelConfig.d_model": 512,
    "ModelConfig.d_ff": 2048,
    "ModelConfig.num_heads": 8,
    "ModelConfig.d_kv": 64,
    "ModelConfig.num_layers": 6,
    "ModelConfig.init_scale": 1.0,
    "DTYPE": "bfloat16",
    "BATCH_SIZE": 128,
    "TRAIN_STEPS": 1000,
    "EVAL_PERIOD": 200,
    "CHECKPOINT_PERIOD": 1000,
}
TINY = {
    "BATCH_SIZE": 16,
    "TRAIN_STEPS": 4,
    "EVAL_PERIOD": 4,
    "EVAL_STEPS": 1,
    "CHECKPOINT_PERIOD": 4,
}


def settings(folder: Path) -> list[str]:
    """The flags that say what is read: the set of a folder that `gpu.pack` made."""
    return [
        f"--gin.TASK_FEATURE_LENGTHS={LENGTHS}",
        f"--gin.VOCABULARY={str(folder.resolve() / 'vocabulary.model')!r}",
        f"--gin.PREPARED_DIR={str(folder.resolve() / 'prepared')!r}",
    ]


def main() -> None:
    args = arguments(__doc__)
    runs = args.out.with_name(f"{args.out.name}_runs")  # resumed if this part is started again
    results = []
    for name, experts in list(POINTS.items())[: 2 if args.tiny else None]:
        if out_of_time(args):
            break
        directory = runs / name.replace(" ", "_")
        model = f"configs/models/tiny_{'switch' if experts else 'dense'}.gin"
        sizes = dict(TINY if args.tiny else SIZES)
        if experts:  # groups of 8 sequences
            groups = {"ENCODER_GROUP_SIZE": 8 * LENGTHS["inputs"]}
            groups["DECODER_GROUP_SIZE"] = 8 * LENGTHS["targets"]
            sizes |= groups | {"NUM_EXPERTS": experts}
        command = [sys.executable, "-m", "switchx.cli.main", "train", f"--model_dir={directory}"]
        command += ["--gin_file=configs/runs/quickstart.gin", f"--gin_file={model}"]
        command += [*settings(args.set), *(f"--gin.{key}={value}" for key, value in sizes.items())]
        ended = subprocess.run(command)
        results.append({"point": name, "status": ended.returncode, **curve(directory)})
        print(name, results[-1].get("validation"), flush=True)
    done(results, "validation")
    write(args, "sweep", results=results)


def curve(directory: Path) -> dict:
    """Losses by step, the last validation loss, and the median speed of a run's metrics."""
    file = directory / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    train = [row for row in rows if row["split"] == "train"]
    validation = [[row["step"], row["loss"]] for row in rows if row["split"] == "validation"]
    speeds = sorted(row["tokens_per_second"] for row in train if "tokens_per_second" in row)
    return {
        "losses": [[row["step"], row["loss"]] for row in train],
        "validation_losses": validation,
        "validation": validation[-1][1] if validation else None,
        "tokens_per_second": speeds[len(speeds) // 2] if speeds else None,
    }


if __name__ == "__main__":
    main()

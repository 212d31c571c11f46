"""Pictures of what the parts wrote: the step's speed, and the sweep's losses."""

import json

from gpu.common import arguments


def main() -> None:
    args = arguments(__doc__)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for part, draw in {"step": step, "sweep": sweep}.items():
        file = args.out / f"{part}.json"
        if file.exists():
            found = json.loads(file.read_text())
            figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
            draw(axes, found["results"])
            axes.set_title(f"{found['device']}, jax {found['jax']}", fontsize=9)
            figure.savefig(args.out / f"{part}.png", dpi=110)
            pyplot.close(figure)


def step(axes, results) -> None:
    done = [result for result in results if "seconds" in result]
    names = [
        f"{r['experts']} experts, {r['dispatcher']}" if r["experts"] else "dense" for r in done
    ]
    axes.barh(names, [result["share_of_matmul_rate"] for result in done])
    axes.invert_yaxis()
    axes.set_xlabel("model FLOPs of a step, as a share of the measured matrix rate")


def sweep(axes, results) -> None:
    for result in results:
        if result["validation_losses"]:
            axes.plot(*zip(*result["validation_losses"], strict=True), "o-", label=result["point"])
    axes.set_xlabel("step")
    axes.set_ylabel("validation loss, nats per token")
    axes.legend()


if __name__ == "__main__":
    main()

"""The training step at T5-Base and Switch-Base sizes in bfloat16, against dense and the card."""

import dataclasses
import subprocess

import bench_step

from gpu.common import arguments, done, out_of_time, write

# (experts, dispatcher); 0 experts are dense.
CASES = [(0, "index"), (8, "index"), (8, "ragged"), (32, "index"), (32, "ragged"), (64, "index")]


def main() -> None:
    args = arguments(__doc__)
    size, batch = ("tiny", 8) if args.tiny else ("base", 32)
    tokens = batch * sum(bench_step.SIZES[size][1])
    results: list[dict] = []
    for experts, dispatcher in CASES[:3] if args.tiny else CASES:
        case = bench_step.Case(experts, dispatcher, size, batch, "bfloat16", args.platform)
        if out_of_time(args):
            results.append({**dataclasses.asdict(case), "error": "no time was left"})
            continue
        print(case, flush=True)
        try:
            results.append(dataclasses.asdict(case) | bench_step.in_process_of_its_own(case))
        except subprocess.CalledProcessError as error:
            results.append({**dataclasses.asdict(case), "error": f"ended with {error.returncode}"})
    dense = next((r["seconds"] for r in results if not r["experts"] and "seconds" in r), None)
    for result in results:
        if "seconds" in result:
            rate = result["flops"] / result["seconds"]
            result["share_of_matmul_rate"] = rate / result["matmul_rate"]
            result["x_dense"] = result["seconds"] / dense if dense else None
            result["tokens_per_second"] = tokens / result["seconds"]
    done(results, "seconds")
    write(args, "step", results=results)
    for result in results:
        print(result)


if __name__ == "__main__":
    main()

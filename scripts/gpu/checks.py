"""What no CPU runs, against the oracles: the project's own tests, on the accelerator.

float32 products are computed as such (JAX's default on NVIDIA is TF32), and operations
deterministically, which bitwise resume needs.
"""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from gpu.common import arguments, write

REPOSITORY = Path(__file__).resolve().parents[2]
# Most important first; each holds on one device, and runs on a mesh of all there are.
TESTS = (
    "tests/model/test_dispatch_ragged.py",
    "tests/model/test_exchange.py::test_rows_go_and_come_back_on_one_device",
    "tests/model/test_dispatch.py",
    "tests/model/test_switch_layer.py::test_the_layer_equals_the_oracle",
    "tests/training/test_loop.py::test_train_then_resume_is_bitwise_the_same",
    "tests/training/test_loop.py::test_evaluation_of_the_checkpoint_equals_the_runs_own",
    "tests/model/test_routing.py",
    "tests/model/test_blocked_attention.py::test_blocks_equal_whole_arrays",
    "tests/model/test_attention.py",
    "tests/inference/test_decoding.py",
)
TINY = TESTS[1:2]


def main() -> None:
    args = arguments(__doc__.split("\n")[0])
    report = args.out / "checks.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    environment = {
        **os.environ,
        "SWITCHX_TEST_PLATFORM": args.platform,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_FLAGS": flags if args.platform != "cpu" else os.environ.get("XLA_FLAGS", ""),
    }
    tests = TINY if args.tiny else TESTS
    ended = subprocess.run([*command, *tests], cwd=REPOSITORY, env=environment)
    results = [outcome(case) for case in ElementTree.parse(report).iter("testcase")]
    report.unlink()
    counts = {kind: sum(r["outcome"] == kind for r in results) for kind in ("passed", "failed")}
    failed = [result for result in results if result["outcome"] == "failed"]
    if not counts["passed"]:
        raise SystemExit(f"no check ran: pytest ended with {ended.returncode}")
    write(args, "checks", status=ended.returncode, **counts, failures=failed, results=results)
    print(f"{counts['passed']} checks passed, {counts['failed']} failed")


def outcome(case: ElementTree.Element) -> dict:
    """A test's name, what became of it, and the end of what it said if it failed."""
    bad = [child for child in case if child.tag in ("failure", "error")]
    skipped = any(child.tag == "skipped" for child in case)
    record = {
        "test": f"{case.get('classname')}.{case.get('name')}",
        "outcome": "failed" if bad else "skipped" if skipped else "passed",
        "seconds": float(case.get("time", 0)),
    }
    return record | ({"says": (bad[0].text or "")[-2000:]} if bad else {})


if __name__ == "__main__":
    main()

"""What the tests of the launchers share: running one, reading a dry run, stand-ins for tools.

No cloud is reached. Programs such as gcloud are stand-ins on the PATH that write down how they were
called; the layers between us and a host (ssh's shell, xpk's container, SLURM's job script) are
played by a real shell.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"

# What must survive every layer: spaces, both quotes, and all that a shell would act on.
HARD = [
    "train",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 114}",
    '--gin.X="two  words"',
    "--gin.Y=$HOME `id` \\ ; | & > * ~ ! # %s {0}",
    "--gin.Z=é ''",
    "",
]

# Writes down its name and arguments, prints the next line of $STATES, leaves with $STATUS.
RECORDER = r"""#!/usr/bin/env bash
printf '%s\0' "${0##*/}" "$@" >>"$RECORD"
printf '\036' >>"$RECORD"
if [[ -s ${STATES-} ]]; then
  { read -r state; rest=$(cat); } <"$STATES"
  echo "$state"
  printf '%s' "$rest" >"$STATES"
fi
exit "${STATUS:-0}"
"""

# Stands for switchx: says how it was called, then runs until a signal, saving at SIGTERM.
STUB = (
    f"#!{sys.executable}"
    + r"""
import json, os, signal, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
def leave(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    if "--stubborn" in sys.argv: return
    time.sleep(0.3)
    print("saved", flush=True)
    if "--orphan" not in sys.argv: child.kill()
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
with open(os.environ["STARTED"], "a") as file:
    said = {"argv": sys.argv[1:], "secret": os.environ.get("SWITCHX_JOB_SECRET")}
    file.write(json.dumps({**said, "pids": [os.getpid(), child.pid]}) + "\n")
print("started", flush=True)
index = [word[13:] for word in sys.argv if word.startswith("--process_id=")] or ["0"]
for word in sys.argv:  # --leave=INDEX:STATUS
    if word.startswith(f"--leave={index[0]}:"):
        time.sleep(0.2)
        if "--orphan" not in sys.argv: child.kill()
        sys.exit(int(word.split(":")[1]))
while True: time.sleep(0.05)
"""
)


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def launch(script, *args, scripts=SCRIPTS, **kwargs):
    return subprocess.run(
        [scripts / f"{script}.sh", *args], capture_output=True, text=True, timeout=60, **kwargs
    )


def dry_run(script, *args, **kwargs):
    """The commands, each a list of words."""
    result = launch(script, *place_before_command(args, "--dry_run"), **kwargs)
    assert result.returncode == 0, result.stderr
    return [shlex.split(line) for line in result.stdout.splitlines()]


def place_before_command(args, option):
    """args with option before the lone `--`, if there is one."""
    at = args.index("--") if "--" in args else len(args)
    return [*args[:at], option, *args[at:]]


class Tools:
    """Stand-ins on the PATH, and the calls they got."""

    def __init__(self, folder):
        self.folder, self.record = folder / "tools", folder / "record"
        self.states = folder / "states"
        self.env = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "RECORD": str(self.record),
            "STATES": str(self.states),
            "STARTED": str(folder / "started"),
        }

    def add(self, *names, text=RECORDER):
        for name in names:
            executable(self.folder / name, text)
        return self

    def calls(self):
        if not self.record.exists():
            return []
        return [call.split("\0")[:-1] for call in self.record.read_text().split("\036")[:-1]]

    def started(self):
        path = Path(self.env["STARTED"])
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def alive(pid):
    ps = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return ps.stdout.strip()[:1] not in ("", "Z")


def eventually(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen: {what}"
        time.sleep(0.02)

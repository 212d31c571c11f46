"""The parts of scripts/on_gpu.sh: each a module run as `python -m gpu.NAME`, one JSON file each."""

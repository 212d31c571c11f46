"""The parts of scripts/reproduce_paper.py."""

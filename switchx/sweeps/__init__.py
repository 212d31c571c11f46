"""What happens over a grid of runs? Points, claims, workers, status: docs/sweeps.md."""

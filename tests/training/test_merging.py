"""A feed-forward made of experts, against NumPy."""

import numpy as np
import pytest

from switchx.training.merging import merge, one

E, D, F = 4, 6, 8
LOAD = np.array([0.1, 0.2, 0.4, 0.3], np.float32)


def experts(gated=False):
    """Small whole numbers: sums of them and their quarters are exact, whatever their order."""
    rng = np.random.default_rng(0)
    shapes = {"wi_EDF": (E, D, F), "wo_EFD": (E, F, D)}
    shapes |= {"gate_EDF": (E, D, F)} if gated else {}
    return {name: rng.integers(-9, 9, shape).astype(np.float32) for name, shape in shapes.items()}


def test_mean_sum_and_the_most_used_are_that_to_the_bit():
    kernels = experts()
    wi_EDF, wo_EFD = kernels["wi_EDF"], kernels["wo_EFD"]
    ways = {
        "mean": (wi_EDF.mean(0), wo_EFD.mean(0)),
        "sum": (wi_EDF.sum(0), wo_EFD.sum(0)),
        "most_used": (wi_EDF[2], wo_EFD[2]),
    }
    for way, (wi_DF, wo_FD) in ways.items():
        made = merge(way, kernels, LOAD, F)
        np.testing.assert_array_equal(made["wi_DF"], wi_DF, err_msg=way)
        np.testing.assert_array_equal(made["wo_FD"], wo_FD, err_msg=way)
    np.testing.assert_array_equal(one(kernels, 3)["wo_FD"], wo_EFD[3])


@pytest.mark.parametrize(("gated", "width"), [(False, F), (True, 12)])
def test_the_neurons_that_matter_most_are_gathered_as_they_are(gated, width):
    kernels = experts(gated)
    worth = {}
    for e in range(E):
        for f in range(F):
            rows = [kernels[n][e, :, f] for n in kernels if n != "wo_EFD"]
            norms = [np.sqrt(np.sum(row**2)) for row in (*rows, kernels["wo_EFD"][e, f])]
            worth[e, f] = LOAD[e] * np.prod(norms)
    chosen = sorted(sorted(worth, key=lambda at: -worth[at])[:width])
    assert len({e for e, _ in chosen}) > 1
    made = merge("top_k", kernels, LOAD, width)
    for name in made:
        of_expert = {"wi_DF": "wi_EDF", "gate_DF": "gate_EDF", "wo_FD": "wo_EFD"}[name]
        kernel = kernels[of_expert]
        rows = [kernel[e, f] if name == "wo_FD" else kernel[e, :, f] for e, f in chosen]
        expected = np.stack(rows, axis=0 if name == "wo_FD" else 1)
        np.testing.assert_array_equal(made[name], expected, err_msg=name)
    assert ("gate_DF" in made) == gated


def test_matrices_of_low_rank_add_up_to_one_of_full_rank():
    kernels = experts()
    made = merge("low_rank", kernels, None, F)["wi_DF"]
    expected = np.zeros((D, F))
    for wi_DF in kernels["wi_EDF"].astype(np.float64):
        # The best matrix of rank D / E = 1: its rows projected on their first principal direction.
        _, directions = np.linalg.eigh(wi_DF.T @ wi_DF)
        expected += wi_DF @ np.outer(directions[:, -1], directions[:, -1])
    np.testing.assert_allclose(made, expected, atol=1e-4)

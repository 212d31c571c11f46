"""What the end of a run says about its experts is what the picture beside it shows."""

import matplotlib.colors
import matplotlib.figure
import numpy as np

from switchx.reports.pictures import DEAD, _draw_load
from switchx.reports.results import _experts
from switchx.training import TrainResult


def test_an_expert_is_counted_dead_where_its_band_is_black():
    """Loads on both sides of the bound; 0.11 of an even share was black, and counted as alive."""
    shares = np.array([0.02, 0.11, 0.13, 3.74])
    load_E = shares / shares.sum()
    figure = matplotlib.figure.Figure()
    image = _draw_load(figure.subplots(), np.array([0.0, 1.0]), load_E[None])
    black = [matplotlib.colors.to_hex(image.to_rgba(share)) == DEAD for share in shares]
    assert black == [True, True, False, False]
    result = TrainResult(1, None, {}, load_E[None])
    assert _experts(result)[0].endswith(f"; {sum(black)} dead")

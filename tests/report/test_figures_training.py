"""A long training curve is thinned to means, which no step is lost from."""

import numpy as np

from innerloop.report.figures_training import POINTS, _thin


def test_long_training_curves_are_means_of_neighbours() -> None:
    values = np.random.default_rng(0).normal(size=1001)
    thin, width = _thin(values.tolist()), -(-1001 // POINTS)
    assert len(thin) <= POINTS
    assert np.allclose(thin, [values[i : i + width].mean() for i in range(0, 1001, width)])
    assert np.array_equal(_thin([1.0, None, 3.0]), [1, np.nan, 3], equal_nan=True)
    assert np.isnan(_thin(None, 4)).all()

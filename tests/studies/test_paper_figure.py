import numpy as np
import pytest
from pydantic import ValidationError

import tsjax as ts
from tsjax.studies.paper_figure import PaperFigureArguments


def test_defaults_are_the_papers():
    arguments = PaperFigureArguments().model_dump()
    assert (arguments["n"], arguments["d"], arguments["m"]) == (1000, 50, 50)
    assert (arguments["noisy_steps"], arguments["vanilla_steps"]) == (1000, 2000)
    for change in ({"settings": "papr"}, {"m": 51}, {"points": 1}, {"noise_std": -1.0}):
        with pytest.raises(ValidationError):
            PaperFigureArguments.model_validate(change)


@pytest.mark.slow
def test_the_path_counts_steps_through_both_phases():
    result = ts.sweep(
        ts.studies.paper_figure, seeds=2, settings="tuned", n=64, d=4, m=2, noisy_steps=40, vanilla_steps=60, points=4
    )
    (curve,) = result.curves()
    assert curve.x.tolist() == [0, 10, 20, 30, 40, 55, 70, 85, 100]
    risk, loss = curve.values["risk"], curve.values["train_loss"]
    assert risk.shape == loss.shape == (9, 2) and np.isfinite(risk).all() and (loss > 0).all()
    assert (loss[-1] < loss[0]).all() and curve.failed == 0

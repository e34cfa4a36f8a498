"""tsjax for users of scikit-learn: its estimators as regressors, and learning curves of any estimator with their rates.

`RateDisplay` shows how the error of any scikit-learn estimator falls with the number of samples.

The regressors work in pipelines, grid searches and cross-validation. Each wraps an estimator in `tsjax.Standardized` behind
`fit(X, y)` and `predict(X)`, so that data may have any scale and origin:

- `standardize=True` centres and scales inputs, so that E|z|^2 is about 1 (`tsjax.estimators.standardized`). Switch it off if
  the pipeline scales inputs in another way; they should have a norm of about 1.
- `normalize_y=True` centres y, which gives an intercept, and divides it by its standard deviation.

Both use the training data only. `sample_weight` weights squared errors, means, standard deviations and the criteria that choose
the ridge. An integer weight acts like repeated rows, and a row of weight 0 does not count. y may have several columns, (n, k),
which share the ridge; students have one output.

`random_state` has its meaning in scikit-learn. Students train in the type of X, float32 or float64, on a response that is
centred and scaled in float64 (with `normalize_y=False` they train in float64). Everything else is computed in float64, even if
JAX's 64-bit types are switched off. Fitted regressors can be pickled.

A fit that fails raises ValueError if no finite solution was found. It gives a ConvergenceWarning if the step limit came before
convergence.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "sklearn":
        raise
    raise ImportError(
        "tsjax.sklearn needs scikit-learn, which is not installed: pip install 'tsjax[sklearn]', or pip install scikit-learn."
    ) from error

from .rate_display import RateDisplay
from .regressors import KernelRidgeRegressor, NTKRegressor, RandomFeaturesRegressor, StudentRegressor

__all__ = ["KernelRidgeRegressor", "NTKRegressor", "RandomFeaturesRegressor", "RateDisplay", "StudentRegressor"]

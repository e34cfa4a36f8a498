"""tsjax for users of scikit-learn: its estimators as regressors, and learning curves of any estimator with their rates.

`RateDisplay` shows how the error of any scikit-learn estimator falls with the number of samples.

The regressors go into pipelines, grid searches and cross-validation. Each is a `tsjax.Standardized` estimator behind
`fit(X, y)` and `predict(X)`, so that data may have any scale and origin:

- `standardize=True` centres and scales inputs, so that E|z|^2 is about 1 (`tsjax.estimators.standardized`). Switch it off where
  a pipeline has done it in another way, and inputs have a norm of about 1.
- `normalize_y=True` centres y, which is the intercept, and divides it by its standard deviation.

Both look at the training data alone, with `sample_weight`: squared errors are weighted by it, and so are means, standard
deviations and the criteria that choose the ridge. Integer weights are repeated rows, a row of weight 0 is none. y may have
several columns, (n, k), which share the ridge; students have one output.

`random_state` is what it is in scikit-learn. Students train in the type of X, float32 or
float64, on a response centred and scaled in float64 (with `normalize_y=False`, in float64). Everything else is float64,
also where JAX's 64-bit types are off. Fitted regressors can be pickled.

A fit that went wrong is an error or a warning here: ValueError where no finite answer was found, ConvergenceWarning where
the step limit came first.
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

"""The four regressors; `tsjax.sklearn` documents what they have in common."""

import dataclasses
import warnings
from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..activations import relu
from ..estimators.base import AbstractEstimator
from ..estimators.features import RandomFeatures
from ..estimators.phases import NoisyPhase, VanillaPhase
from ..estimators.repeats import count_distinct
from ..estimators.ridge import KernelRidge
from ..estimators.standardized import Standardized, StandardizedFit
from ..estimators.two_phase import TwoPhaseStudent
from ..hints import nearest
from ..kernels import RBF, ntk
from ..status import Status
from ..task import Dataset, check_numbers

_ADVICE = {
    Status.SINGULAR: "its linear system is singular to the precision of the kernel: give a larger ridge, or another kernel",
    Status.DIVERGED: "training diverged: give a smaller step size (noisy=NoisyPhase(step_size=...), vanilla=...)",
}


class _Regressor(RegressorMixin, BaseEstimator):
    """The base class of the regressors. A subclass defines its estimator in `_estimator`, and has the parameters listed here.

    Fitted: `fit_` (`tsjax.estimators.standardized.StandardizedFit`, with `stats` and `status`), `n_features_in_`, and
    `feature_names_in_` where the columns of X have names.
    """

    fit_: StandardizedFit
    standardize: bool
    normalize_y: bool
    random_state: Any

    @abstractmethod
    def _estimator(self, x: np.ndarray, weight: np.ndarray | None) -> AbstractEstimator:
        """The wrapped estimator for these inputs, made from the parameters, which it checks."""

    def _bias(self) -> float:
        """The `bias` of `tsjax.Standardized`."""
        return 0.0

    def fit(self, X, y, sample_weight=None):
        """Fits X (n, d) and y (n,) with weights (n,) >= 0 of the rows, which are 1 by default. Returns itself.

        **Raises:** ValueError for data that are not numbers, not finite or of the wrong shape, for weights that are negative
        or all 0, for parameters out of range, and if no finite solution is found.

        **Warns:** ConvergenceWarning if the step limit came before convergence.
        """
        return self._fit(X, y, sample_weight)

    def _fit(self, X, y, sample_weight=None, multi_output: bool = False):
        for name, values in (("X", X), ("y", y)):
            # scikit-learn ignores masks, and raises an unclear error for pandas.NA.
            objects = (
                np.asarray(values).ravel() if isinstance(values, np.ndarray | pd.Series) and values.dtype == "O" else ()
            )
            if isinstance(values, np.ma.MaskedArray) or any(value is pd.NA for value in objects):
                check_numbers(name, values)
        checks: dict[str, Any] = {"y_numeric": True, "multi_output": multi_output, "ensure_min_samples": 2}
        x, y = validate_data(self, X, y, dtype=[np.float64, np.float32], **checks)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, x, dtype=np.float64)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        estimator = Standardized(
            self._estimator(np.asarray(x), weight), self.standardize, self.normalize_y, self._bias()
        )
        with jax.enable_x64(True):
            arrays = (jnp.asarray(x), jnp.asarray(y, jnp.float64), None if weight is None else jnp.asarray(weight))
            fit = estimator.fit(jax.random.key(seed), Dataset(*arrays))
        status = Status(int(fit.status))
        if status in _ADVICE:
            raise ValueError(f"{type(self).__name__}: {_ADVICE[status]}.")
        if status == Status.STEP_LIMIT:
            message = "the step limit came before the loss was flat; raise it by vanilla=VanillaPhase(max_steps=...)."
            warnings.warn(f"{type(self).__name__}: {message}", ConvergenceWarning, stacklevel=2)
        # NumPy arrays, because JAX would read float64 back from a pickle as float32 if its 64-bit types are off.
        self.fit_ = jax.device_get(fit)
        return self

    def predict(self, X) -> np.ndarray:
        """Predictions at the t rows of X in float64, (t,), or (t, k) for k outputs.

        **Raises:** NotFittedError before `fit`, and ValueError for an invalid X."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        with jax.enable_x64(True):
            return np.asarray(self.fit_.predict(jnp.asarray(x)))


class _RidgeRegressor(_Regressor):
    """The base class of regressors that choose a ridge; y may have several columns."""

    def fit(self, X, y, sample_weight=None):
        """Fits X (n, d) and y, (n,) or (n, k), with weights (n,) >= 0 of the rows, which are 1 by default. Returns itself.

        **Raises:** ValueError for data that are not numbers, not finite or of the wrong shape, for weights that are negative
        or all 0, for parameters out of range, and if no finite solution is found.
        """
        return self._fit(X, y, sample_weight, multi_output=True)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @property
    def ridge_(self) -> float:
        """The ridge of the fit, in units of the standardised response."""
        check_is_fitted(self)
        return float(self.fit_.stats["ridge"])


class KernelRidgeRegressor(_RidgeRegressor):
    """Kernel ridge regression with any kernel of tsjax: `tsjax.KernelRidge`.

    **Parameters:**

    - `kernel`: a kernel of `tsjax.kernels`; None is `RBF(1.0)`, which suits standardised inputs. Its fields are parameters too:
      `set_params(kernel__length_scale=2.0)`, and `{"kernel__length_scale": [0.5, 1.0, 2.0]}` in a grid search.
    - `ridge`: a number >= 0 (not times n), or the criterion that chooses it from a whole path of candidates, without
      cross-validation: `"gcv"`, `"loo"`, `"holdout"` or `"marginal_likelihood"`.
    - `standardize`, `normalize_y`, `random_state`: see `tsjax.sklearn`. Only `"holdout"` draws random numbers.

    Attributes after `fit`: `ridge_`, the ridge in units of standardised y; `fit_`, the fit of `tsjax.Standardized`;
    `n_features_in_`; and `feature_names_in_` if the columns of X have names.
    """

    def __init__(
        self,
        kernel: Any = None,
        *,
        ridge: Any = "gcv",
        standardize: Any = True,
        normalize_y: Any = True,
        random_state: Any = None,
    ):
        self.kernel = kernel
        self.ridge = ridge
        self.standardize = standardize
        self.normalize_y = normalize_y
        self.random_state = random_state

    @property
    def _kernel(self) -> Any:
        return RBF(1.0) if self.kernel is None else self.kernel

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; with `deep`, those of the kernel as `kernel__NAME`."""
        found = super().get_params(deep)
        if deep and dataclasses.is_dataclass(self._kernel):
            names = [field.name for field in dataclasses.fields(self._kernel) if field.init]
            found |= {f"kernel__{name}": getattr(self._kernel, name) for name in names}
        return found

    def set_params(self, **params: Any) -> "KernelRidgeRegressor":
        """Sets parameters. `kernel__NAME=value` replaces the kernel by one with another value of its field NAME. Returns
        itself. **Raises:** ValueError for unknown names."""
        inner = {name: params.pop(name) for name in list(params) if name.startswith("kernel__")}
        super().set_params(**params)
        known = list(self.get_params())
        for name in inner:
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}.{nearest(name, known)}")
        if inner:
            changes = {name.removeprefix("kernel__"): value for name, value in inner.items()}
            self.kernel = dataclasses.replace(self._kernel, **changes)
        return self

    def _estimator(self, x: np.ndarray, weight: np.ndarray | None) -> KernelRidge:
        return KernelRidge(self._kernel, ridge=_without_oracle(self.ridge))


class NTKRegressor(_RidgeRegressor):
    """Kernel ridge regression with the neural tangent kernel of a ReLU network: `tsjax.kernels.ntk`.

    **Parameters:**

    - `depth`: number of hidden layers.
    - `bias_std`: standard deviation of the biases, for inputs of mean square norm 1. Without biases the functions are
      homogeneous, f(c x) = c f(x) for c > 0, which seldom suits data that do not lie on a sphere.
    - `ridge`, `standardize`, `normalize_y`, `random_state`: as for `KernelRidgeRegressor`.

    Attributes after `fit`: those of `KernelRidgeRegressor`.
    """

    def __init__(
        self,
        depth: Any = 1,
        *,
        bias_std: Any = 1.0,
        ridge: Any = "gcv",
        standardize: Any = True,
        normalize_y: Any = True,
        random_state: Any = None,
    ):
        self.depth = depth
        self.bias_std = bias_std
        self.ridge = ridge
        self.standardize = standardize
        self.normalize_y = normalize_y
        self.random_state = random_state

    def _estimator(self, x: np.ndarray, weight: np.ndarray | None) -> KernelRidge:
        return KernelRidge(ntk(self.depth, self.bias_std), ridge=_without_oracle(self.ridge))


class RandomFeaturesRegressor(_RidgeRegressor):
    """Ridge regression on random ReLU or Fourier features: `tsjax.RandomFeatures`.

    **Parameters:**

    - `count`: number of features; None is four times the number of distinct rows of weight > 0.
    - `ridge`: as for `KernelRidgeRegressor`.
    - `features`: `"relu"` or `"fourier"`; `length_scale` is that of Fourier features.
    - `bias`: a constant input, in standard deviations of an input, which gives ReLU features their biases; with 0 there is
      none.
    - `standardize`, `normalize_y`, `random_state`: see `tsjax.sklearn`.

    Attributes after `fit`: those of `KernelRidgeRegressor`.
    """

    def __init__(
        self,
        count: Any = None,
        *,
        ridge: Any = "gcv",
        features: Any = "relu",
        length_scale: Any = 1.0,
        bias: Any = 1.0,
        standardize: Any = True,
        normalize_y: Any = True,
        random_state: Any = None,
    ):
        self.count = count
        self.ridge = ridge
        self.features = features
        self.length_scale = length_scale
        self.bias = bias
        self.standardize = standardize
        self.normalize_y = normalize_y
        self.random_state = random_state

    def _estimator(self, x: np.ndarray, weight: np.ndarray | None) -> RandomFeatures:
        count = self.count
        if count is None:
            count = 4 * count_distinct(x if weight is None else x[weight > 0])
        return RandomFeatures(count, _without_oracle(self.ridge), self.features, self.length_scale)

    def _bias(self) -> float:
        return self.bias


class StudentRegressor(_Regressor):
    """A two-layer network trained by noisy, then by vanilla gradient descent: `tsjax.TwoPhaseStudent`.

    **Parameters:**

    - `width`: number of neurons. `"auto"` chooses it by Schwarz's criterion on the training data, which avoids overfitting of
      small and noisy data. It is at most `noisy.width`, or by default twice the number of inputs (the constant one included).
    - `restarts`: the largest number of independent runs; the one with the smallest training loss (for `"auto"`, the smallest
      criterion) is the fit.
    - `activation`: one of `tsjax.activations`; None is relu.
    - `bias`: a constant input, in standard deviations of an input, which gives every neuron its bias; with 0 there is none.
    - `noisy`, `vanilla`: `tsjax.NoisyPhase` and `tsjax.VanillaPhase`, the two phases; None uses their defaults.
    - `standardize`, `normalize_y`, `random_state`: see `tsjax.sklearn`.

    Attributes after `fit`: `width_`, the number of neurons; `fit_`, the fit of `tsjax.Standardized`; `n_features_in_`; and
    `feature_names_in_` if the columns of X have names. Every new shape of the data is compiled once, which takes seconds; fits
    on data of one shape, as in cross-validation, share the program.
    """

    def __init__(
        self,
        width: Any = "auto",
        *,
        restarts: Any = 8,
        activation: Any = None,
        bias: Any = 1.0,
        noisy: Any = None,
        vanilla: Any = None,
        standardize: Any = True,
        normalize_y: Any = True,
        random_state: Any = None,
    ):
        self.width = width
        self.restarts = restarts
        self.activation = activation
        self.bias = bias
        self.noisy = noisy
        self.vanilla = vanilla
        self.standardize = standardize
        self.normalize_y = normalize_y
        self.random_state = random_state

    def _estimator(self, x: np.ndarray, weight: np.ndarray | None) -> TwoPhaseStudent:
        return TwoPhaseStudent(
            self.width,
            self.restarts,
            noisy=NoisyPhase() if self.noisy is None else self.noisy,
            vanilla=VanillaPhase() if self.vanilla is None else self.vanilla,
            activation=relu if self.activation is None else self.activation,
        )

    def _bias(self) -> float:
        return self.bias

    @property
    def width_(self) -> int:
        """The number of neurons."""
        check_is_fitted(self)
        return int(self.fit_.stats["width"])


def _without_oracle(ridge: Any) -> Any:
    if isinstance(ridge, str) and ridge == "oracle":
        raise ValueError(
            "ridge='oracle' looks at the true function, which data do not contain: "
            "choose 'gcv', 'loo', 'holdout' or 'marginal_likelihood', or give a number."
        )
    return ridge

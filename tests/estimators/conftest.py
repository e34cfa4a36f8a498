import jax.random as jr
import pytest


@pytest.fixture
def teacher(problem, key):
    """One of the `problem` of the module."""
    return problem.sample_teacher(jr.fold_in(key, 1))


@pytest.fixture
def data(problem, teacher, key, request):
    """As many samples of it as the N of the module."""
    return problem.sample(jr.fold_in(key, 2), teacher, request.module.N)

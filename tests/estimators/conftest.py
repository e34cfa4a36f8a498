import jax.random as jr
import pytest


@pytest.fixture
def teacher(problem, key):
    """A teacher of the module's `problem`."""
    return problem.sample_teacher(jr.fold_in(key, 1))


@pytest.fixture
def data(problem, teacher, key, request):
    """A sample of the module's `problem` with N rows, N of the module."""
    return problem.sample(jr.fold_in(key, 2), teacher, request.module.N)

"""docs/published.md: every row of its table is computed, and says what is computed."""

import pytest
from published import formulas, simulations
from published.comparison import Comparison, rows_of_the_page, says

COMPARISONS: tuple[Comparison, ...] = formulas.COMPARISONS + simulations.COMPARISONS


PARAMS = [
    pytest.param(each, id=f"{each.source}: {each.quantity}", marks=pytest.mark.slow if each.slow else [])
    for each in COMPARISONS
]


@pytest.mark.parametrize("comparison", PARAMS)
def test_a_published_result_is_found_and_the_page_says_so(comparison):
    found = comparison.run()
    assert found.agree, f"published {found.published}, tsjax {found.ours} ± {found.error}"
    published, ours = rows_of_the_page()[comparison.source, comparison.quantity]
    assert says(published, found.published, 0.0)
    assert says(ours, found.ours, found.error)


def test_the_page_has_no_other_rows():
    assert len(COMPARISONS) >= 15
    assert set(rows_of_the_page()) == {(each.source, each.quantity) for each in COMPARISONS}


def test_a_number_that_drifts_is_found():
    assert says("0.8362", 0.83621, 0.0) and not says("0.8362", 0.8364, 0.0)
    assert says("1.02 ± 0.01", 1.03, 0.011) and not says("1.02 ± 0.01", 1.12, 0.011)
    with pytest.raises(AssertionError, match="standard error"):
        says("1.02", 1.02, 0.01)

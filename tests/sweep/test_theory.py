"""What theory says of curves, as a store keeps it."""

import json

import numpy as np

import tsjax as ts
from tsjax.sweep.theory import TheoryTable


def test_where_theory_says_nothing_the_file_has_null():
    """Else no reader but Python's could read it: JSON has no NaN."""
    table, curve = TheoryTable(), {"d": 2}
    table.add(curve, [0.0, 1.0], ts.Theory(np.array([np.nan, 3.0]), None, "a line"))
    written = json.dumps(table.entries(), allow_nan=False)
    again = TheoryTable(json.loads(written))(curve, np.array([1.0, 0.0]))
    np.testing.assert_array_equal(again.predicted, [3.0, np.nan])
    # All unknown is no prediction.
    table.add({"d": 3}, [1.0], ts.Theory(np.array([np.nan])))
    assert table({"d": 3}, np.array([1.0])).predicted is None

"""What tests share."""

import os

# One seed for every statistical test, printed in the header of a run; TSJAX_TEST_SEED=7 asks for another.
SEED = int(os.environ.get("TSJAX_TEST_SEED", "0"))

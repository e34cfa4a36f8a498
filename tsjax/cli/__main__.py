"""`python -m tsjax.cli`."""

from . import main

main()

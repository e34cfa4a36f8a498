from . import engines as engines

"""tsjax: the fastest, most trustworthy way to measure how fast learners learn. The public names are in `__init__.pyi`."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

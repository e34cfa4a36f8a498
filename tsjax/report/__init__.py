"""Output of a sweep: progress while it runs, tables, figures and one page. Modules load on use, so that commands start
quickly."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

"""What a sweep shows: progress while it runs, tables, figures, one page. Loaded on use: the command line is quick."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

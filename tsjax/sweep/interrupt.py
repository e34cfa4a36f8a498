"""Requests to stop: SIGINT (control-C) and SIGTERM (pre-emption by a scheduler) end a sweep between chunks, not within one."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

# The time that chunks in flight have after a signal: schedulers commonly kill 30 seconds after SIGTERM.
_GRACE_SECONDS = 20.0


class Interrupted(KeyboardInterrupt):
    """A signal has stopped a sweep. Everything that was finished is committed. `exit_code` is 128 + the number of the
    signal."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Stop:
    """Whether a sweep should stop (`now`), and whether the time for the chunks in flight is over (`overdue`)."""

    def __init__(self):
        self.signum: int | None = None
        self._since = 0.0

    @property
    def now(self) -> bool:
        return self.signum is not None

    @property
    def overdue(self) -> bool:
        return self.now and time.monotonic() - self._since > _GRACE_SECONDS

    def request(self, signum: int) -> None:
        """The first request lets the chunks in flight finish; a second one drops them."""
        self._since = time.monotonic() - (2 * _GRACE_SECONDS if self.now else 0.0)
        self.signum = signum


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """Turns SIGINT and SIGTERM into requests within the context. It does so only in the main thread, where signals arrive.

    **Raises:** Interrupted at the end of the context, if there was a signal.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {}
    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            # A signal that was ignored when the process began (nohup, background jobs) stays ignored.
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, lambda number, frame: stop.request(number))
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if stop.signum is not None:
        raise Interrupted(stop.signum)

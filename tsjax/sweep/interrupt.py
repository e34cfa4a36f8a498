"""Requests to stop: SIGINT (control-C) and SIGTERM (a scheduler's pre-emption) end a sweep between chunks, not within one."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

# Schedulers send SIGTERM 30 seconds before they kill.
_GRACE_SECONDS = 20.0


class Interrupted(KeyboardInterrupt):
    """A sweep stopped on a signal, all that was finished committed; `exit_code` is 128 + the signal's number."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Stop:
    """Whether a sweep should stop (`now`), and whether the chunks in flight have had their time (`overdue`)."""

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
    """Turns SIGINT and SIGTERM into requests, within the context and in the main thread only, where signals arrive.

    Raises `Interrupted` at its end if there was one.
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

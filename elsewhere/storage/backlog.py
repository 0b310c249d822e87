"""Work that a thread does beside the computation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Backlog:
    """Work that a thread does in order, of at most so many bytes at a time.

    What fails there is raised where the next work is added, or in the end.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._pool = ThreadPoolExecutor(1, "writing")
        self._waiting: deque[tuple[Future[None], int]] = deque()

    def add(self, work: Callable[[], None], n_bytes: int) -> None:
        """Have `work` done, which holds `n_bytes` until then; wait while there are too many."""
        while self._waiting and (self._full(n_bytes) or self._waiting[0][0].done()):
            self._waiting.popleft()[0].result()
        self._waiting.append((self._pool.submit(work), n_bytes))

    def _full(self, n_bytes: int) -> bool:
        return sum(n for _, n in self._waiting) + n_bytes > self._most

    def drain(self) -> None:
        """Wait until all is done."""
        while self._waiting:
            self._waiting.popleft()[0].result()

    def close(self) -> None:
        """Forget what was not begun, and wait for what was."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

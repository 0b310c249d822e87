"""Loggers whose lines any handler can write, whatever the names of the files in them."""

import logging
from typing import Any

from elsewhere.types import plain_text

NOTED = {"noted": True}
"""What a record has as `extra` that repeats a note: commands, which print notes, leave it out."""


class PlainLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that writes out the bytes of names that are not UTF-8 (`plain_text`)."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log ``msg % args`` as plain text, in the name of the caller."""
        if self.isEnabledFor(level):
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            text = str(msg) % args if args else str(msg)
            self.logger.log(level, "%s", plain_text(text), **kwargs)


def get_logger(name: str) -> PlainLogger:
    """Return the package's logger of this name."""
    return PlainLogger(logging.getLogger(name), {})

"""Log lines: for people on a terminal, one JSON object a line otherwise.

Variables in tracebacks are never shown (they hold tokens and keys), and what
other libraries say through `logging` comes out here too, from WARNING up.
"""

import json
import logging
import sys
import traceback
from typing import TYPE_CHECKING, TextIO

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

#: Fields that bound loggers add, in the order they are shown.
_BOUND = ("node", "peer", "packet")


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send log lines of `level` and up to `stream` (stderr).

    `form` is "human", "json", or "auto": human on a terminal, else JSON.
    """
    out = stream or sys.stderr
    human = form == "human" or (form == "auto" and out.isatty())
    logger.remove()
    if human:
        logger.add(out, level=level, format=_human, backtrace=False, diagnose=False)
    else:

        def write(message: "Message") -> None:
            out.write(_json(message.record))
            out.flush()

        logger.add(write, level=level, format="{message}", backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_Intercept()], level=logging.WARNING, force=True)


def _human(record: "Record") -> str:
    where = " ".join(f"{{extra[{key}]}}" for key in _BOUND if key in record["extra"])
    where = f"<cyan>{where}</cyan> " if where else ""
    return f"<dim>{{time:HH:mm:ss.SSS}}</dim> <level>{{level:<7}}</level> {where}{{message}}\n{{exception}}"


def _json(record: "Record") -> str:
    own = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": record["message"],
    }
    if record["exception"] is not None:
        error = record["exception"].value
        own["exception"] = repr(error)
        own["traceback"] = "".join(traceback.format_exception(error))
    # What is bound comes after, and never instead. The standard encoder takes any text and any number,
    # octets of file names that are no UTF-8 included: a line is not lost for what it says.
    bound = {key: value for key, value in record["extra"].items() if key not in own}
    return json.dumps({**own, **bound}, default=str) + "\n"


class _Intercept(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.opt(depth=6, exception=record.exc_info).log(level, "{}", record.getMessage())

"""Log lines: for people on a terminal, one JSON object a line otherwise.

Variables in tracebacks are never shown (they hold tokens and keys), and what
other libraries say through `logging` comes out here too, from WARNING up.
"""

import logging
import sys
from typing import TYPE_CHECKING, TextIO

import msgspec
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
    line: dict[str, object] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": record["message"],
        **record["extra"],
    }
    if record["exception"] is not None:
        line["exception"] = repr(record["exception"].value)
        line["where"] = f"{record['name']}:{record['line']}"
    return msgspec.json.encode(line, enc_hook=str).decode() + "\n"


class _Intercept(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(depth=6, exception=record.exc_info).log(record.levelname, "{}", record.getMessage())

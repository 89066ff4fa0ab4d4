"""`connector packet decode`: what any ILP, BTP or STREAM bytes say."""

import sys
from base64 import b64decode
from binascii import Error as Base64Error
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connector.cli.dissect import Section, dissect
from connector.errors import PaymentError, RemoteProtocolError
from connector.limits import BTP_FRAME_MAX_BYTES
from connector.protocol.stream_crypto import Keys

#: Hexadecimal with a separator after each octet is the longest spelling.
_TEXT_MAX = 4 * BTP_FRAME_MAX_BYTES

app = App(name="packet", help="Take packets apart.")


@app.command
def decode(
    packet: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    secret: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show what ILP, BTP or STREAM bytes say, each field beside its bytes.

    Parameters
    ----------
    packet
        The bytes in hexadecimal or base64; - reads them from standard input.
    secret
        A STREAM connection's shared secret, base64: opens what is encrypted with it.
    json
        Print one JSON object.
    """
    text = sys.stdin.read(_TEXT_MAX + 1) if packet == "-" else packet
    keys = None if secret is None else Keys(_read_secret(secret))
    sections = read(text, keys)
    if json:
        print(msgspec.json.encode({"sections": sections}).decode())
    else:
        show(sections, Console(highlight=False))
    return 0


def _read_secret(text: str) -> bytes:
    from connector.sender.spsp_client import read_secret

    return read_secret(text)


def read(text: str, keys: Keys | None = None) -> list[Section]:
    """The sections of bytes written in hexadecimal or base64.

    Raises RemoteProtocolError, saying for each format why not; PaymentError.
    """
    first: RemoteProtocolError | None = None
    for data in spellings(text):
        try:
            return dissect(data, keys)
        except RemoteProtocolError as error:
            first = first or RemoteProtocolError(f"{len(data)} bytes that are no packet:\n{error}")
    assert first is not None
    raise first


def spellings(text: str) -> list[bytes]:
    """What `text` can stand for, hexadecimal first. Raises PaymentError if nothing."""
    if len(text) > _TEXT_MAX:
        raise PaymentError(f"more than {_TEXT_MAX} characters: no packet is that long")
    compact = "".join(text.split())
    if not compact:
        raise PaymentError("no bytes given")
    found: list[bytes] = []
    try:
        found.append(bytes.fromhex(compact.removeprefix("0x").replace(":", "")))
    except ValueError:
        pass
    unpadded = compact.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        found.append(b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True))
    except (Base64Error, ValueError):
        pass
    if not found:
        raise PaymentError("the bytes are written neither in hexadecimal nor in base64")
    return found


def show(sections: list[Section], console: Console) -> None:
    """The sections as tables, one below the other."""
    for section in sections:
        table = Table(title=Text(f"{section.title}, {section.size} bytes"), title_justify="left", box=None)
        table.add_column("bytes", justify="right", style="cyan", no_wrap=True)
        table.add_column("field", style="bold", no_wrap=True)
        table.add_column("value", overflow="fold")
        for field in section.fields:
            last = field.end - 1
            place = (
                "–" if last < field.start else f"{field.start}" + (f"–{last}" if last > field.start else "")
            )
            table.add_row(place, Text(field.name), Text(field.value))
        console.print(table)

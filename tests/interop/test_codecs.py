"""The codecs agree octet for octet with ilp-packet, btp-packet, ilp-protocol-ildcp and oer-utils from npm.

Every value is written by both and read by both from what the other wrote.
Values are seeded: edges first, then random ones.
"""

import json
import string
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from connector.limits import ILP_DATA_MAX_BYTES, ILP_MESSAGE_MAX_BYTES, U32_MAX, U64_MAX
from connector.protocol import btp, ildcp, ilp, oer
from tests.interop.stock import HERE, node_program

VALUES = 300
#: Around every change in the number of octets of a length prefix, or of an integer.
SIZES = (0, 1, 127, 128, 129, 255, 256, 257, 32_766, ILP_DATA_MAX_BYTES)
INTEGERS = (0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**31, 2**32, 2**53, 2**53 + 1, 2**63, U64_MAX)
#: Not 0: ilp-packet takes that for no date.
MOMENTS_MS = (1, 999, 951_782_399_999, 951_782_400_000, 1_735_689_599_999, ilp.TIMESTAMP_MAX_MS)
CODES = ("F00", "F01", "F02", "F05", "F08", "F99", "T00", "T04", "T05", "T99", "R00", "R01", "R02", "R99")
ADDRESS_CHARACTERS = string.ascii_letters + string.digits + "_~-"
SCHEMES = ("g", "private", "example", "peer", "self", "test", "test1", "test2", "test3", "local")


class Stock:
    """The stock codecs, in one Node.js process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        assert process.stdout
        self._requests = process.stdin
        self._answers = process.stdout

    def __call__(self, operation: str, argument: object) -> Any:
        """The result of one operation of codecs.js."""
        self._requests.write(json.dumps([operation, argument]) + "\n")
        self._requests.flush()
        answer = json.loads(self._answers.readline())
        assert "error" not in answer, (operation, argument, answer["error"])
        return answer["ok"]

    def write(self, operation: str, argument: object) -> bytes:
        """The octets that one operation of codecs.js wrote."""
        return bytes.fromhex(self(operation, argument))


@pytest.fixture(scope="module")
def stock() -> Iterator[Stock]:
    command = [node_program(), str(HERE / "codecs.js")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Stock(process)
        assert process.stdin
        process.stdin.close()
    assert process.returncode == 0


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    return Random(request.node.name)


def integers(random: Random, largest: int) -> Iterator[int]:
    """Edges, then integers of every size, up to `largest`."""
    yield from (value for value in (*INTEGERS, largest) if value <= largest)
    for _ in range(VALUES):
        yield random.getrandbits(random.randint(1, largest.bit_length())) % (largest + 1)


def sizes(random: Random, largest: int) -> Iterator[int]:
    """Edges, then sizes that are mostly small, up to `largest`."""
    yield from (size for size in (*SIZES, largest) if size <= largest)
    for _ in range(VALUES):
        yield min(largest, int(random.expovariate(1 / 200)))


def moment_ms(random: Random) -> int:
    return random.choice((*MOMENTS_MS, random.randrange(ilp.TIMESTAMP_MAX_MS), 1_700_000_000_000))


def address(random: Random) -> str:
    lengths = (random.randint(1, 40) for _ in range(random.randint(1, 8)))
    segments = ("".join(random.choices(ADDRESS_CHARACTERS, k=length)) for length in lengths)
    return ".".join((random.choice(SCHEMES), *segments))


def text(random: Random, octets_max: int) -> str:
    """UTF-8 of one to four octets a character, never cut inside one."""
    alphabet = string.printable + "äöü€ⓩ漢字🪙"
    chosen = "".join(random.choices(alphabet, k=random.randint(0, 40)))
    return chosen if len(chosen.encode()) <= octets_max else ""


def sub_protocols(random: Random) -> tuple[btp.SubProtocol, ...]:
    names = random.sample(["ilp", "auth", "auth_token", "auth_username", "claim", "x" * 127, "y" * 255], k=3)
    return tuple(
        btp.SubProtocol(name, random.randint(0, 2), random.randbytes(random.choice((0, 1, 127, 128, 300))))
        for name in names[: random.randint(0, 3)]
    )


def described(parts: tuple[btp.SubProtocol, ...]) -> list[object]:
    return [[part.name, part.content_type, part.data.hex()] for part in parts]


def test_integers_of_any_size(stock: Stock, random: Random) -> None:
    for value in integers(random, U64_MAX):
        ours = oer.var_uint(value)
        assert ours == stock.write("write var-uint", str(value))
        assert stock("read var-uint", ours.hex()) == str(value)
        assert oer.read_var_uint(ours, 0, "") == (value, len(ours))


def test_octets_of_any_length(stock: Stock, random: Random) -> None:
    for size in (*sizes(random, ILP_DATA_MAX_BYTES), 65_535, 65_536, 100_000):
        value = random.randbytes(size)
        ours = oer.var_octets(value)
        assert ours == stock.write("write var-octets", value.hex())
        assert stock("read var-octets", ours.hex()) == value.hex()
        assert oer.read_var_octets(ours, 0, "") == (value, len(ours))


def test_prepares(stock: Stock, random: Random) -> None:
    amounts = integers(random, U64_MAX)
    for size, amount in zip(sizes(random, ILP_DATA_MAX_BYTES), amounts, strict=False):
        prepare = ilp.Prepare(
            amount,
            moment_ms(random),
            random.randbytes(32),
            address(random),
            random.randbytes(size),
        )
        theirs = {
            "amount": str(prepare.amount),
            "expires_at_ms": prepare.expires_at_ms,
            "condition": prepare.condition.hex(),
            "destination": prepare.destination,
            "data": prepare.data.hex(),
        }
        ours = ilp.encode_prepare(prepare)
        assert ours == stock.write("write prepare", theirs)
        assert stock("read prepare", ours.hex()) == theirs
        assert ilp.decode_prepare(ours) == prepare


def test_a_rewritten_prepare_is_what_stock_software_would_have_written(stock: Stock, random: Random) -> None:
    for amount in integers(random, U64_MAX):
        prepare = ilp.Prepare(
            1, 0, random.randbytes(32), address(random), random.randbytes(random.choice(SIZES))
        )
        expires_at_ms = moment_ms(random)
        ours = ilp.rewrite_prepare(ilp.encode_prepare(prepare), prepare, amount, expires_at_ms)
        theirs = stock.write(
            "write prepare",
            {
                "amount": str(amount),
                "expires_at_ms": expires_at_ms,
                "condition": prepare.condition.hex(),
                "destination": prepare.destination,
                "data": prepare.data.hex(),
            },
        )
        assert ours == theirs


def test_fulfills(stock: Stock, random: Random) -> None:
    for size in sizes(random, ILP_DATA_MAX_BYTES):
        fulfill = ilp.Fulfill(random.randbytes(32), random.randbytes(size))
        theirs = {"fulfillment": fulfill.fulfillment.hex(), "data": fulfill.data.hex()}
        ours = ilp.encode_fulfill(fulfill)
        assert ours == stock.write("write fulfill", theirs)
        assert stock("read fulfill", ours.hex()) == theirs
        assert ilp.decode_fulfill(ours) == fulfill


def test_rejects(stock: Stock, random: Random) -> None:
    for size in sizes(random, ILP_DATA_MAX_BYTES):
        reject = ilp.Reject(
            random.choice(CODES),
            address(random),
            random.choice((text(random, ILP_MESSAGE_MAX_BYTES), "", "m" * ILP_MESSAGE_MAX_BYTES)),
            random.randbytes(size),
        )
        theirs = {
            "code": reject.code,
            "triggered_by": reject.triggered_by,
            "message": reject.message,
            "data": reject.data.hex(),
        }
        ours = ilp.encode_reject(reject)
        assert ours == stock.write("write reject", theirs)
        assert stock("read reject", ours.hex()) == theirs
        assert ilp.decode_reject(ours) == reject


@pytest.mark.parametrize(("kind", "name"), [(btp.Message, "message"), (btp.Response, "response")])
def test_messages_and_responses(
    stock: Stock,
    random: Random,
    kind: type[btp.Message | btp.Response],
    name: str,
) -> None:
    for request_id in integers(random, U32_MAX):
        frame = kind(request_id, sub_protocols(random))
        theirs = {"request_id": request_id, "sub_protocols": described(frame.sub_protocols)}
        ours = btp.encode(frame)
        assert ours == stock.write(f"write {name}", theirs)
        type_ = btp.MESSAGE if kind is btp.Message else btp.RESPONSE
        assert stock("read frame", ours.hex()) == {"type": type_, **theirs}
        assert btp.decode(ours) == frame


def test_frames_that_carry_one_packet(stock: Stock, random: Random) -> None:
    for size in sizes(random, ILP_DATA_MAX_BYTES):
        request_id, packet = random.randrange(U32_MAX + 1), random.randbytes(size)
        theirs = {"request_id": request_id, "sub_protocols": [["ilp", btp.OCTET_STREAM, packet.hex()]]}
        assert btp.ilp_message(request_id, packet) == stock.write("write message", theirs)
        assert btp.ilp_response(request_id, packet) == stock.write("write response", theirs)


def test_transfers(stock: Stock, random: Random) -> None:
    for amount in integers(random, U64_MAX):
        frame = btp.Transfer(random.randrange(U32_MAX + 1), amount, sub_protocols(random))
        theirs = {
            "request_id": frame.request_id,
            "amount": str(amount),
            "sub_protocols": described(frame.sub_protocols),
        }
        ours = btp.encode(frame)
        assert ours == stock.write("write transfer", theirs)
        assert stock("read frame", ours.hex()) == {"type": btp.TRANSFER, **theirs}
        assert btp.decode(ours) == frame


def test_errors(stock: Stock, random: Random) -> None:
    for request_id in integers(random, U32_MAX):
        at_ms = moment_ms(random)
        at = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y%m%d%H%M%S") + f".{at_ms % 1000:03}Z"
        data = text(random, 255)
        frame = btp.Error(
            request_id,
            random.choice(CODES),
            random.choice(("NotAcceptedError", "", "n" * 128)),
            at,
            data.encode(),
            sub_protocols(random),
        )
        theirs = {
            "request_id": request_id,
            "code": frame.code,
            "name": frame.name,
            "triggered_at_ms": at_ms,
            "data": data,
            "sub_protocols": described(frame.sub_protocols),
        }
        ours = btp.encode(frame)
        assert ours == stock.write("write error", theirs)
        assert stock("read frame", ours.hex()) == {"type": btp.ERROR, **theirs}
        assert btp.decode(ours) == frame


def test_ildcp_requests(stock: Stock, random: Random) -> None:
    for _ in range(VALUES):
        at_ms = moment_ms(random)
        assert ilp.encode_prepare(ildcp.request(at_ms)) == stock.write("write ildcp request", at_ms)


def test_ildcp_responses(stock: Stock, random: Random) -> None:
    for scale in range(256):
        config = ildcp.ChildConfig(address(random), scale, random.choice(("USD", "XRP", "EUR", "A" * 130)))
        theirs = {"address": config.address, "asset_scale": scale, "asset_code": config.asset_code}
        ours = ilp.encode_fulfill(ildcp.reply(config))
        assert ours == stock.write("write ildcp response", theirs)
        assert stock("read ildcp response", ours.hex()) == theirs
        assert ildcp.read_reply(ilp.decode_fulfill(ours)) == config

"""The connector's exceptions: one small hierarchy.

Three questions decide the class: who is at fault, can it be tried again, and
who must hear of it. An ILP Reject is not an exception but a value
(`connector.protocol.ilp.Reject`); a broken invariant is an `AssertionError`
and ends the node.
"""

from pathlib import Path


class ConnectorError(Exception):
    """Base of all errors that the connector raises on purpose."""


class RemoteProtocolError(ConnectorError):
    """Bytes from outside break a protocol. The other side is at fault.

    The message names the field and what is wrong with it, never the content of
    secrets.
    """


class LocalProtocolError(ConnectorError):
    """We were asked to write what a protocol cannot carry. Our side is at fault."""


class Unavailable(ConnectorError):
    """Something outside is gone for now: a peer, a server. Try again later."""


class AuthenticationError(Unavailable):
    """The other side refused our credentials, until one of us changes them."""


class PaymentError(ConnectorError):
    """A payment or a query for one could not be carried out; says why and what to try."""


class ConfigProblem:
    """One thing wrong with a configuration.

    `source` names the file, `key` the dotted path in it (empty for the whole
    file), `reason` what is wrong and how to mend it.
    """

    def __init__(self, source: Path | str, key: str, reason: str) -> None:
        self.source = str(source)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        where = f"{self.source}: {self.key}" if self.key else self.source
        return f"{where}: {self.reason}"


class ConfigError(ConnectorError):
    """A configuration cannot be used; `problems` holds every reason found, at least one."""

    def __init__(self, problems: list[ConfigProblem]) -> None:
        assert problems
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))

"""The options with which a command reaches a connector, and the link that they describe."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from connector.errors import PaymentError
from connector.limits import SECRET_FILE_MAX_BYTES
from connector.sender.uplink import Uplink


def first_line(option: str, path: Path) -> str:
    """The secret that stands alone on the first line of the file given as `option`. Raises PaymentError."""
    try:
        with path.open("rb") as file:
            octets = file.read(SECRET_FILE_MAX_BYTES)
        lines = octets.decode("utf-8").splitlines()
    except OSError as error:
        raise PaymentError(f"{option} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PaymentError(f"{option} {path}: UTF-8 expected") from None
    return lines[0].strip() if lines else ""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Via:
    """The connector to go through, and who we are there.

    Parameters
    ----------
    via
        URL of the connector's BTP listener, as ws://host:port or wss://host:port.
    token
        Our BTP token there. Others on this machine can see arguments: prefer --token-file.
    token_file
        File whose first line is the token.
    username
        Our BTP user name there, if it wants one.
    ca_file
        Certificates to trust for wss:// instead of the system's.
    """

    via: str
    token: Annotated[str | None, Parameter(env_var="CONNECTOR_TOKEN")] = None
    token_file: Path | None = None
    username: str = ""
    ca_file: Path | None = None

    def read_token(self) -> str:
        """The token, from wherever it was given; empty when it was not. Raises PaymentError."""
        if self.token_file is None:
            return self.token or ""
        return first_line("--token-file", self.token_file)

    def connect(self) -> AbstractAsyncContextManager[Uplink]:
        """Dial and authenticate. Raises Unavailable, AuthenticationError, PaymentError."""
        from connector.links.client import connect

        ca_file = None if self.ca_file is None else str(self.ca_file)
        return connect(self.via, token=self.read_token(), username=self.username, ca_file=ca_file)

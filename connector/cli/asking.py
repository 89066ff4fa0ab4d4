"""The option that names a running node, and questions to it over its HTTP port."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import msgspec
from cyclopts import Parameter

from connector.config import load_file
from connector.config.check import parse_listen
from connector.errors import ConnectorError, Unavailable
from connector.limits import ADMIN_TIMEOUT_S
from connector.sender.report import printable

if TYPE_CHECKING:
    import httpx

_DEFAULT: Final = "http://127.0.0.1:7801"
_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
_ACCEPTED: Final = 202


class NotDone(ConnectorError):
    """The node refused, or a person did; says why."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AtNode:
    """The running node that is asked.

    Parameters
    ----------
    node
        URL of the node's HTTP port, or its configuration file.
    """

    node: Annotated[str, Parameter(env_var="CONNECTOR_NODE")] = _DEFAULT

    def url(self) -> str:
        """Where the node's HTTP port is. Raises ConfigError, NotDone."""
        if self.node.startswith(("http://", "https://")):
            return self.node.rstrip("/")
        config = load_file(Path(self.node))
        if config.http.listen is None:
            raise NotDone(f"{self.node}: has no http.listen, so nobody can ask this node anything")
        host, port = parse_listen(config.http.listen)
        host = _EVERY_ADDRESS.get(host or "", host or "")
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def get(self, path: str, **query: str | int) -> Any:
        """What the node answers. Raises Unavailable, NotDone."""
        return self._ask("GET", path, {key: value for key, value in query.items() if value != ""})

    def post(self, path: str, body: object) -> Any:
        """The same, for what changes something."""
        return self._ask("POST", path, {}, msgspec.json.encode(body))

    def _ask(self, method: str, path: str, query: Mapping[str, str | int], body: bytes | None = None) -> Any:
        # httpx takes a tenth of a second to import: only who asks over HTTP pays for it.
        import httpx

        url = self.url()
        headers = {"content-type": "application/json", "x-connector-admin": "1"} if body is not None else {}
        try:
            # A proxy of the environment has no business between this machine and itself.
            with httpx.Client(timeout=ADMIN_TIMEOUT_S, trust_env=False) as client:
                response = client.request(method, url + path, params=query, headers=headers, content=body)
                while response.status_code == _ACCEPTED:
                    response = client.get(url + _read(response)["job"])
        except httpx.ConnectError:
            raise Unavailable(
                f"no connector answers at {url}: is it running? Start it with 'connector run CONFIG', "
                "or name another with --node URL or --node CONFIG"
            ) from None
        except httpx.TimeoutException:
            raise Unavailable(f"{url} did not answer within {ADMIN_TIMEOUT_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"{url} cannot be asked: {printable(str(error))}") from None
        return _judged(response, url)


def _judged(response: "httpx.Response", url: str) -> Any:
    answer = _read(response)
    if response.is_success:
        return answer
    reason = answer.get("error") if isinstance(answer, dict) else None
    if reason is None:
        raise NotDone(f"{url} answered {response.status_code}: is it the HTTP port of a connector?")
    error = Unavailable if response.is_server_error else NotDone
    raise error(printable(str(reason), 4 * len(str(reason))))


def _read(response: "httpx.Response") -> Any:
    try:
        return msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def confirm(question: str, *, yes: bool) -> None:
    """Have a person at the terminal say yes, unless --yes did. Raises NotDone."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotDone(f"{question}\nNothing was done: repeat it with --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotDone("nothing was done")


def print_json(answer: object) -> None:
    """One JSON object."""
    print(msgspec.json.encode(answer).decode())

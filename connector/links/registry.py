"""Which peers there are, and the one link each may have.

The rule for a second link of the same peer:
- dialled by the same side as the first: the newer replaces the older, since
  the side that dials keeps one connection at a time and so has lost the first;
- dialled by the other side (both dial, and the two cross): the link dialled by
  the node with the lower ILP address stays. Both sides come to the same answer.
"""

from hashlib import sha256
from hmac import compare_digest

import msgspec
import trio

from connector.links.link import Link


class Credentials(msgspec.Struct, frozen=True):
    """What a peer presents, and what we know it by."""

    peer: str
    token: str
    #: The peer's ILP address: decides which of two crossing links stays.
    address: str

    def __repr__(self) -> str:
        return f"Credentials({self.peer!r})"


class Registry:
    """The peers of a node and their links."""

    def __init__(self, own_address: str) -> None:
        self._own_address = own_address
        self._peers: dict[str, Credentials] = {}
        self._by_token: dict[bytes, Credentials] = {}
        self._links: dict[str, Link] = {}
        self._changed = trio.Event()

    def add(self, credentials: Credentials) -> None:
        """Let a peer in. Names and tokens are unique; the configuration sees to it."""
        digest = _digest(credentials.token)
        assert credentials.peer not in self._peers
        assert digest not in self._by_token
        self._peers[credentials.peer] = credentials
        self._by_token[digest] = credentials

    def authenticate(self, token: str, username: str) -> str | None:
        """The peer that has this token, and this name if one is given; None if there is none.

        Takes the same time however much of a token is right: peers are found by
        the token's hash, and compared in constant time.
        """
        digest = _digest(token)
        found = self._by_token.get(digest)
        known = _digest(found.token) if found is not None else bytes(len(digest))
        if not compare_digest(known, digest) or found is None:
            return None
        if username and username != found.peer:
            return None
        return found.peer

    def link(self, peer: str) -> Link | None:
        """The peer's link, if it has one."""
        return self._links.get(peer)

    def links(self) -> list[Link]:
        """All links that are open."""
        return list(self._links.values())

    def admit(self, link: Link) -> str | None:
        """Make `link` its peer's link, closing an older one; or say why it is refused."""
        older = self._links.get(link.peer)
        if older is not None:
            if older.dialled != link.dialled and self._stays(older):
                return "there is a link between us already, and by the lower address it stays"
            older.close("replaced by a newer link")
        self._links[link.peer] = link
        self._notify()
        return None

    def _stays(self, link: Link) -> bool:
        we_are_lower = self._own_address < self._peers[link.peer].address
        return link.dialled == we_are_lower

    def remove(self, link: Link) -> bool:
        """Forget a link that closed; False if another has taken its place."""
        if self._links.get(link.peer) is not link:
            return False
        del self._links[link.peer]
        self._notify()
        return True

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_down(self, peer: str) -> None:
        """Wait until the peer has no link."""
        while peer in self._links:
            await self._changed.wait()


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()

"""How far each peer's debt may grow, and when we pay ours: a peer's own terms, or its asset's."""

import msgspec

from connector.config.schema import Credit, NodeConfig, Peer
from connector.core.rates import Asset


class CreditTerms(msgspec.Struct, frozen=True):
    """What holds for one peer, in its asset's smallest unit."""

    #: How far the peer's debt to us may grow.
    credit_limit: int
    #: When we owe the peer this much, we pay; None: never.
    settle_threshold: int | None


def terms(config: NodeConfig, peer: Peer) -> CreditTerms:
    """The terms of a peer of a checked configuration.

    An asset's ceiling caps and never refuses: lowering it must work at once, as an emergency brake.
    """
    limit = peer.credit_limit if peer.credit_limit is not None else default_limit(config, peer.asset)
    assert limit is not None, "the configuration was checked"
    threshold = peer.settle_threshold
    asset = _of_asset(config, peer.asset)
    if asset is not None:
        limit = limit if asset.ceiling is None else min(limit, asset.ceiling)
        threshold = asset.settle_threshold if threshold is None else threshold
    return CreditTerms(limit, threshold)


def default_limit(config: NodeConfig, asset: Asset) -> int | None:
    """The credit limit of peers in `asset` that have none of their own, before the ceiling."""
    credit = _of_asset(config, asset)
    return None if credit is None else credit.default_limit


def with_terms(config: NodeConfig) -> NodeConfig:
    """The configuration with each peer's terms written out, as they hold."""
    peers = tuple(
        msgspec.structs.replace(
            peer,
            credit_limit=(own := terms(config, peer)).credit_limit,
            settle_threshold=own.settle_threshold,
        )
        for peer in config.peers
    )
    return msgspec.structs.replace(config, peers=peers)


def _of_asset(config: NodeConfig, asset: Asset) -> Credit | None:
    return next((credit for credit in config.credit if credit.asset == asset), None)

"""The statuses are those of TigerBeetle's client, name for name and number for number."""

from enum import IntEnum

import pytest
from tigerbeetle import bindings

from connector.ledger.status import AccountStatus, TransferStatus


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(AccountStatus, bindings.CreateAccountStatus), (TransferStatus, bindings.CreateTransferStatus)],
)
def test_statuses(ours: type[IntEnum], theirs: type[IntEnum]) -> None:
    assert {each.name: each.value for each in ours} == {each.name: each.value for each in theirs}

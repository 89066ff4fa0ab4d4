"""The token bucket: what is earned is kept to the last thousandth, and nothing is made of nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.limiter import TokenBucket


def taken(bucket: TokenBucket, now_ms: int) -> int:
    """How many packets pass at one moment."""
    count = 0
    while bucket.take(now_ms):
        count += 1
    return count


def test_a_full_bucket_lets_its_burst_through_at_once() -> None:
    bucket = TokenBucket(10, 5)
    assert taken(bucket, 0) == 5
    assert taken(bucket, 99) == 0
    assert taken(bucket, 100) == 1


def test_however_long_it_waits_no_more_than_the_burst() -> None:
    bucket = TokenBucket(10, 5)
    assert taken(bucket, 10**12) == 5


def test_nothing_is_lost_to_rounding() -> None:
    bucket = TokenBucket(3, 1)
    passed = sum(bucket.take(now_ms) for now_ms in range(10_001))
    assert passed == 1 + 30 - 1  # the burst, and 3/s for 10 s, the last of which is due a third of a ms later


def test_a_clock_that_stands_or_steps_back_earns_nothing() -> None:
    bucket = TokenBucket(1_000, 1)
    assert bucket.take(5_000)
    assert not bucket.take(5_000)
    assert not bucket.take(4_000)
    assert not bucket.take(5_000)
    assert bucket.take(5_001)


@given(
    st.integers(1, 100_000),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=60),
)
def test_the_bucket_is_an_exact_account(rate: int, burst: int, steps: list[tuple[int, int]]) -> None:
    bucket = TokenBucket(rate, burst)
    credit, now_ms = burst * 1000, 0
    for wait_ms, wanted in steps:
        now_ms += wait_ms
        credit = min(burst * 1000, credit + wait_ms * rate)
        for _ in range(wanted):
            allowed = credit >= 1000
            assert bucket.take(now_ms) is allowed
            credit -= 1000 if allowed else 0


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0)])
def test_a_bucket_that_lets_nothing_through_is_a_bug(rate: int, burst: int) -> None:
    with pytest.raises(AssertionError):
        TokenBucket(rate, burst)

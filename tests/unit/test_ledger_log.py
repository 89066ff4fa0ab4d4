"""What TigerBeetle's client says is thinned."""

from connector.ledger.tb_log import Thinned
from connector.limits import LEDGER_LOG_INTERVAL_S, LEDGER_LOG_LINES_MAX


def test_an_outage_of_hours_is_a_line_now_and_then() -> None:
    now_s = 0.0
    thinned = Thinned(lambda: now_s)
    written = []
    hours, per_s = 6, 2
    for tick in range(hours * 3600 * per_s):
        now_s = tick / per_s
        line = thinned.line("refused")
        if line is not None:
            written.append(line)
    assert len(written) <= LEDGER_LOG_LINES_MAX + hours * 3600 / LEDGER_LOG_INTERVAL_S
    assert written[LEDGER_LOG_LINES_MAX - 1] == "refused"
    assert written[-1] == f"refused ({int(LEDGER_LOG_INTERVAL_S * per_s) - 1} lines left out before)"


def test_lines_that_are_few_are_all_written() -> None:
    now_s = 0.0
    thinned = Thinned(lambda: now_s)
    for number in range(100):
        now_s = number * LEDGER_LOG_INTERVAL_S
        assert thinned.line(str(number)) == str(number)

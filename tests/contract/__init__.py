"""What every ledger answers: one suite, run against each implementation."""

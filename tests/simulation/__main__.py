"""`python -m tests.simulation SEED [COUNT]`: play seeds and say what happened."""

import sys

from connector.telemetry import logs
from tests.simulation.world import run_seed


def main() -> None:
    """Play the seeds that the arguments name."""
    first = int(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    logs.configure("DEBUG" if count == 1 else "ERROR", "human")
    for seed in range(first, first + count):
        outcomes, disagreements = run_seed(seed)
        print(f"seed {seed}: {dict(outcomes)}")
        for packet in disagreements:
            print(
                f"  {packet.creditor} holds {packet.amount} for owed by {packet.debtor}: "
                f"its fulfill was {packet.reason} (packet {packet.condition[:16].hex()})"
            )


if __name__ == "__main__":
    main()

"""`python -m tests.simulation SEED [COUNT]`: play seeds and say what happened."""

import sys

from connector.telemetry import logs
from tests.simulation.world import run_seed


def main() -> None:
    """Play the seeds that the arguments name."""
    first = int(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    logs.configure("DEBUG" if count == 1 else "CRITICAL", "human")
    for seed in range(first, first + count):
        result = run_seed(seed)
        print(f"seed {seed}: {dict(result.outcomes)} {dict(result.events)}")
        if count == 1:
            print("\n".join(result.story))
        for packet in result.disagreements:
            print(
                f"  {packet.creditor} holds {packet.amount} for owed by {packet.debtor}: "
                f"its fulfill was {packet.reason} (packet {packet.packet_id.hex()})"
            )
        for doubt in result.doubts:
            sides = " and ".join(f"{amount} with {name}" for name, amount in doubt.sides)
            cause = "killed" if doubt.after_crash else "link lost"
            print(f"  {doubt.node} has {sides} in doubt, {cause} (packet {doubt.packet_id.hex()})")


if __name__ == "__main__":
    main()

"""Calls every operation of both servers with what nobody should send: no server error, nothing undocumented, and each works as meant.

python -m soak.api_fuzz [EXAMPLES] [SEED]: random cases of every operation; boundary cases come on top.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = 130
FEWEST_CASES = 10_000


def main(examples: int = EXAMPLES, seed: int = 1) -> int:
    """Print the table; 1 if anything was wrong."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "temp" / "tests"))
    from api_fuzz import Fuzzer, table
    from api_world import worlds

    began = time.monotonic()
    tallies = {}
    with tempfile.TemporaryDirectory() as folder, worlds(Path(folder)) as both:
        for name, world in both.items():
            for label, tally in Fuzzer(world, examples=examples, seed=seed).run().items():
                tallies[f"{name}: {label}"] = tally
                print(*(f"{name}: {label}: {fault}" for fault in tally.faults), sep="\n", end="\n" * bool(tally.faults), flush=True)
    cases = sum(tally.cases for tally in tallies.values())
    print(table(tallies))
    print(f"{cases} cases of {len(tallies)} operations in {time.monotonic() - began:.0f} s, seed {seed}")
    idle = [label for label, tally in tallies.items() if not tally.succeeded]
    print(*(f"never succeeded: {label}" for label in idle), sep="\n")
    wrong = sum(tally.server_errors + tally.undocumented + tally.unanswered for tally in tallies.values())
    return int(bool(wrong or idle or (examples >= EXAMPLES and cases < FEWEST_CASES)))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

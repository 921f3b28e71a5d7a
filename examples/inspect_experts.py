"""Show which experts each direction prefers, from the tables that training writes.

    python examples/inspect_experts.py runs/quickstart

`nmt-plot RUN --what experts` draws the same; this is where to begin with questions of one's own.
"""

import argparse

import numpy as np

from nmt.train.usage import read_usage


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description="Print the favourite experts of every direction.")
    parser.add_argument("run", help="folder of a run, such as runs/quickstart")
    parser.add_argument("--most", type=int, default=3, help="experts to show")
    arguments = parser.parse_args()

    usage = read_usage(arguments.run)  # the newest table; read_usage(run, step) has an older one
    print(f"first choices of tokens in steps {usage.first} to {usage.last}")
    for stack, counts in usage.counts.items():  # [layers, directions, experts]
        share = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
        for layer, table in zip(usage.layers[stack], share, strict=True):
            print(f"\n{stack}, layer {layer}")
            for direction, row in zip(usage.directions, table, strict=True):
                favourites = np.argsort(-row, kind="stable")[: arguments.most]
                print(f"  {direction:8}", "  ".join(f"expert {expert} {row[expert]:.0%}" for expert in favourites))


if __name__ == "__main__":
    main()

"""How well each attribution method orders what exact patching measures, on the demo model.

    python bench/estimates.py [--prompts 32] [--update-readme]

For each task and kind of site: Spearman (Pearson) correlation over cells with the exact sweep,
and the share of the ten strongest cells found. ``--update-readme`` puts the table between its
markers in bench/README.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from report import into_readme, table

import interp

METHODS = ("gradient", "integrated", "atp-qk", "atp*")
NODES = ["L*.resid_pre", "L*.attn_out", "L*.mlp_out"]
SITES = {
    "heads z": "L*.H*.z",
    "queries": "L*.H*.q",
    "keys": "L*.H*.k",
    "stream": NODES,
}
POSITIONS = {"ioi": ["S1", "S2", "END"], "capitals": ["subject", "END"]}


def rows(prompts: int) -> list[list[str]]:
    """One row for each task and kind of site."""
    model = interp.load("demo")
    found_rows = []
    for task in ("ioi", "capitals"):
        pairs = getattr(interp.prompts, task)(model, prompts, 0)
        for name, sites in SITES.items():
            where = POSITIONS[task] if name == "stream" else None
            exact = interp.patch(model, pairs, sites, positions=where)
            row = [task, name, str(exact.values.numel())]
            for method in METHODS:
                found = interp.compare(
                    exact, interp.attribute(model, pairs, sites, positions=where, method=method)
                )
                row.append(
                    f"{float(found.spearman.mean):.2f} ({float(found.pearson.mean):.2f}), "
                    f"{found.overlap(10):.0%}"
                )
            found_rows.append(row)
    return found_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--update-readme", action="store_true")
    given = parser.parse_args()
    text = table(["task", "sites", "cells", *METHODS], rows(given.prompts), left=3)
    sys.stdout.write(text + "\n")
    if given.update_readme:
        command = "python bench/" + shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        into_readme("estimates.py", f"`{command}`\n\n{text}")


if __name__ == "__main__":
    main()

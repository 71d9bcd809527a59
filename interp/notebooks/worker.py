"""A process that executes one notebook: ``python -m interp.notebooks.worker REQUEST``.

The request is JSON: ``source`` (a ``.py`` file), ``parameters``, ``out`` (where the executed notebook goes)
and ``folder`` (where its kernel runs). One line of JSON is written for each cell, and one at the end. What
was executed is written whatever happened, so that an error can be looked at.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from interp.notebooks.source import Source

__all__ = ["execute", "main"]


def execute(source: Source, parameters: dict[str, Any], out: Path, folder: Path) -> str | None:
    """Run all cells; the error of the first that fails, as text."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    notebook = source.notebook(parameters)
    _tell(cells=len(notebook.cells))
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        on_cell_complete=lambda cell, cell_index: _tell(cell=cell_index + 1),
    )  # fmt: skip
    error = None
    try:
        client.execute(env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"})
    except CellExecutionError as raised:
        error = f"{raised.ename}: {raised.evalue}"
    except DeadKernelError as raised:
        error = f"its kernel died: {raised}"
    finally:
        out.write_text(nbformat.writes(notebook), encoding="utf-8")
    return error


def _tell(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(request: str) -> None:
    """Execute what the request asks for."""
    asked = json.loads(request)
    path = Path(asked["source"])
    start = time.perf_counter()
    error = execute(
        Source(path, path.read_text(encoding="utf-8")), asked["parameters"], Path(asked["out"]),
        Path(asked["folder"]),
    )  # fmt: skip
    _tell(seconds=time.perf_counter() - start, error=error)


if __name__ == "__main__":
    main(sys.argv[1])

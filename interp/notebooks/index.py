"""The page that lists the notebooks: questions, claims, nulls and figures, from ``claims.json`` and nothing else.

It stands in the folder's ``README.md`` between two markers; the text around them is the reader's own. A folder
whose ``README.md`` has no markers is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from interp.errors import NotebookError
from interp.notebooks.record import Entry
from interp.notebooks.source import Source

__all__ = ["BEGIN", "END", "rendered", "update"]

BEGIN: Final = "<!-- notebooks: written by 'interp notebooks run' -->"
END: Final = "<!-- /notebooks -->"
_TEMPLATE: Final = "index.md.j2"


def rendered(entries: Mapping[str, Entry], sources: Mapping[str, Source]) -> str:
    """The page in Markdown: a table of all notebooks, then the claims of each with a figure.

    Args:
        entries: what was claimed, by notebook.
        sources: the notebooks' texts: those with a parameter ``MODEL`` are told how to run on another model.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["cell"] = lambda text: " ".join(str(text).replace("|", r"\|").split())
    template = Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8")
    shown = [entries[name] for name in sorted(entries)]
    how = {entry.name: _on_your_own(entry.name, sources) for entry in shown}
    return environment.from_string(template).render(entries=shown, how=how)


def update(path: Path, entries: Mapping[str, Entry], sources: Mapping[str, Source]) -> None:
    """Write the page between the markers of ``path``; nothing where there are none."""
    from interp.results import write_atomically

    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if begun and ended:
        whole = f"{before}{BEGIN}\n\n{rendered(entries, sources).strip()}\n\n{END}{after}"
        write_atomically(path, whole.encode())


def _on_your_own(name: str, sources: Mapping[str, Source]) -> str:
    """How it is run on the reader's own model, where it takes one."""
    if name not in sources or "MODEL" not in _parameters(sources[name]):
        return "; it trains its own models."
    return (
        f"; on your own model: `interp notebooks run {name[:2]} --model gpt2 --out out/{name[:2]}`."
    )


def _parameters(source: Source) -> Mapping[str, object]:
    try:
        return source.parameters()
    except NotebookError:  # it runs as it is written, and nothing of it can be set
        return {}

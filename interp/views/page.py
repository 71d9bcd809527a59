"""One HTML document from fragments, which can load nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["framed", "page", "read", "render"]

_HERE = Path(__file__).parent


def page(title: str, fragments: Sequence[str], *, lead: str = "") -> str:
    """A whole document with a heading and the fragments one under the other.

    Its content security policy lets the browser run what stands in the file and load nothing.

    Args:
        title: heading and name of the document, as text.
        fragments: HTML, taken as it is.
        lead: a sentence under the heading, as text.
    """
    from markupsafe import Markup

    return render("page.html.j2", title=title, lead=lead, fragments=[Markup(f) for f in fragments])


def framed(document: str, *, height: int) -> str:
    """A document inside a frame of its own, for a notebook's output.

    The frame is sandboxed: its scripts and styles touch nothing of the notebook, nor of other
    frames, and run wherever a notebook shows frames.

    Args:
        height: of the frame, in CSS pixels.
    """
    return (
        f'<iframe srcdoc="{html.escape(document, quote=True)}" sandbox="allow-scripts" '
        f'style="width:100%;height:{height}px;border:0"></iframe>'
    )


def render(name: str, **values: Any) -> str:
    """A template of this folder, filled in; text is escaped."""
    return _template(name).render(**values)


def read(name: str) -> str:
    """A file of this folder."""
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _template(name: str) -> Template:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(read(name))

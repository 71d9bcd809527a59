"""A scan as one HTML file that needs nothing beside it: no other file, no network."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from interp.figures.style import written
from interp.overview.family import LEVEL
from interp.views import attention_html

if TYPE_CHECKING:
    from interp.overview.result import ScanResult

__all__ = ["page"]

_TEMPLATE = Path(__file__).parent / "scan.html.j2"


def page(scan: ScanResult) -> str:
    """The page of a scan."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    found = scan.findings(None).to_dict("records")
    return template.render(
        scan=scan,
        call=json.dumps(scan.provenance.call, sort_keys=True),
        own=scan.provenance.call["answer"] is None,
        level=LEVEL,
        draws=scan.families[0].contexts.shape[-1],
        kept=[row for row in found if row["survives"]],
        lost=[row for row in found if not row["survives"]][:20],
        total=len(found),
        figures=[("overview", _image(scan.plot())), ("logit lens", _image(scan.lens.plot()))],
        attention=attention_html(
            scan.attention.tokens, scan.attention.patterns, scan.attention.heads
        ),
    )


def _image(figure: Figure) -> str:
    return base64.b64encode(written(figure)).decode()

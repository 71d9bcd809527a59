"""Interactive views as HTML that needs nothing beside it: no network, no server, no library.

Each view is a fragment (markup, style, data and one script) that can stand several times on one page;
:func:`page` makes a document of fragments, and forbids it to load anything from elsewhere.
"""

from interp.views.attention import attention_html
from interp.views.page import framed, page

__all__ = ["attention_html", "framed", "page"]

"""Graphs: a model as nodes that write to the residual stream and read it, and runs of parts of it.

:mod:`names` reads the names of nodes and edges, and :mod:`graph` is the graph of a model.
:class:`Setting` runs it with edges ablated: :mod:`layout` is how prompts stand in it, :mod:`parts` how
single nodes write and read, :mod:`units` how neurons and features do,
:mod:`contributions` what they wrote in a run, :mod:`ablations` what ablated edges carry;
:mod:`slab` keeps the run that is edited, :mod:`stack` the edits of many variants, :mod:`ablate`
runs them, and :mod:`proof` shows beforehand that the model is the sum the graph says it is.

A setting is imported when it is asked for: names and graphs run no model, and cost no such imports.
"""

from typing import TYPE_CHECKING, Any

from interp.graph.graph import Graph
from interp.graph.names import CHANNELS, Node, node_of, split_edge

if TYPE_CHECKING:
    from interp.graph.setting import Setting as Setting

__all__ = ["CHANNELS", "Graph", "Node", "Setting", "node_of", "split_edge"]


def __getattr__(name: str) -> Any:
    if name != "Setting":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from interp.graph.setting import Setting

    return Setting

"""Graphs: a model as nodes that write to the residual stream and read it, and runs of parts of it.

:mod:`names` reads the names of nodes and edges; :mod:`graph` is the graph of a model.
"""

from interp.graph.graph import Graph
from interp.graph.names import CHANNELS, Node, node_of, split_edge

__all__ = ["CHANNELS", "Graph", "Node", "node_of", "split_edge"]

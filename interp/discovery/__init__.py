"""Discovery: which heads and paths carry a behaviour.

    discover             from prompts to a Circuit, by any of the methods below      (discover)
    acdc                 remove edges from the logits backwards, keep what matters   (acdc)
    top_n, at_least      the strongest edges of a score, connected or not            (selection)
    edge_pruning         a gate on each edge, trained to a number of edges           (masks)
    subnetwork_probing   a gate on each node                                         (masks)
    head_scores          heads by behaviour: previous-token, induction, ...          (heads)

A circuit is a set of edges of a :class:`interp.graph.graph.Graph`; what it is worth is measured on
a :class:`interp.graph.setting.Setting`, the same one for all methods.
"""

"""Activations by the million: ``interp.harvest`` to a store on disk, ``interp.stream`` without one.

A corpus is packed into batches of rows (:mod:`interp.corpora`), :mod:`capture` runs one batch through the
layers that are needed and takes the wanted tokens' activations, and :mod:`shards` says which batches make up
each shard of a store. Whoever runs computes the shards that are missing: after a kill the same call goes on
(:mod:`verb`), under torchrun the ranks share them out (:mod:`ranks`). Before it begins, :mod:`forecast` says
what it will take, and :mod:`proof` whether the model honours several texts in one row. :mod:`stream` gives
the same rows through a bounded shuffle buffer.
"""

"""A store of activations: a fixed list of shards, each one a function of (manifest, corpus).

The corpus is packed into batches in one fixed order, and a shard holds the kept tokens of
``batches_per_shard`` of them. So whoever runs computes the shards that are missing: resuming,
sharing them out over processes, and outliving a full disk or a kill are one thing, and the finished
folder has the same bytes however it came about::

    manifest.json            what is stored: model, sites, data, layout; at the end also every shard
    000000.safetensors ...   the shards: each site's rows, and the token that each row belongs to
    000000.json ...          until the end: a record of each finished shard
    .writer.lock             while somebody writes

:mod:`rows` is what goes in and comes out, :mod:`files` writes a file whole or not at all,
:mod:`manifest` and :mod:`shard` are the two kinds of file, :mod:`writer` fills a store under its
:mod:`lock`, and :mod:`verify` finds what has happened to one since.

:mod:`store` reads it: :mod:`maps` gathers rows from memory maps, :mod:`lookup` finds a document's tokens,
:mod:`batches` goes through all rows in the order of a :mod:`permutation`, :mod:`statistics` sums them up by
:mod:`moments`, :mod:`arrow` and :mod:`arrow_reading` speak SAELens's format; :mod:`asking` reads what callers name.
"""

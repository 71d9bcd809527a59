"""One kind of run: tokens in, logits and named tensors out, with edits on the way.

:mod:`edits` are small frozen callables, :mod:`slices` reads and writes the part
of a tensor that a site addresses, :mod:`cache` holds what was saved,
:mod:`memory` tells what a run will need, :mod:`execute` runs.
"""

"""Corpora: documents in a fixed order, and how they are cut into rows to run.

    read         a corpus from files, texts, token ids, a stream or a data set      (reading)
    demo         the corpus written from data/, for work without a network          (written)
    Corpus       documents in a fixed order, with an identity                       (corpus)
    Packing      how documents become rows: context, rows in a batch, BOS           (packing)
    pack         the batches of a corpus, from the beginning or from a cursor       (packing)
    forecast     about how many tokens that will be                                 (forecast)
    PackedBatch  rows to run, and which token of which document stands where        (packed)
    Cursor       how far a corpus has been packed                                   (packed)

Underneath: ``records``, ``files``, ``tables`` and ``hub`` find the documents in whatever holds
them; ``encoding`` turns them into tokens; ``sentences`` writes the demo corpus.

>>> import interp                                                             # doctest: +SKIP
>>> model = interp.load("demo")                                               # doctest: +SKIP
>>> corpus = interp.corpora.read("texts/")                                    # doctest: +SKIP
>>> for batch in interp.corpora.pack(corpus, model.tokens, Packing()): ...    # doctest: +SKIP
"""

from interp.corpora.corpus import Corpus
from interp.corpora.forecast import Forecast, forecast
from interp.corpora.packed import Cursor, PackedBatch
from interp.corpora.packing import Packing, pack
from interp.corpora.reading import read
from interp.corpora.written import demo

__all__ = [
    "Corpus",
    "Cursor",
    "Forecast",
    "PackedBatch",
    "Packing",
    "demo",
    "forecast",
    "pack",
    "read",
]

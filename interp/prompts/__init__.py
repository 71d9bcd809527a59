"""Prompts: what a model is asked, in pairs that differ only where the answer is decided.

    Prompts      clean and corrupted tokens, answers, foils, named positions   (prompts)
    build        Prompts from text or tokens, checked to fit together          (pairs)
    load, save   Prompts in JSONL and CSV files                                (files)
    capitals languages continents currencies ioi greater_than mcq induction
                 tasks drawn from a seed for one model                         (tasks)

Underneath: ``example`` and ``examples`` write tasks as text, without any model; ``fitting``
keeps the examples that suit a tokenizer; ``alignment``, ``answers`` and ``positions``
check and find the parts of a pair; ``table`` shows them.

>>> import interp                                                    # doctest: +SKIP
>>> model = interp.load("demo")                                      # doctest: +SKIP
>>> print(interp.prompts.capitals(model, n=64, seed=0).show(2))      # doctest: +SKIP
"""

from interp.prompts.files import load, save
from interp.prompts.pairs import build
from interp.prompts.prompts import Prompts
from interp.prompts.tasks import (
    capitals,
    continents,
    currencies,
    greater_than,
    induction,
    ioi,
    languages,
    mcq,
)

__all__ = [
    "Prompts",
    "build",
    "capitals",
    "continents",
    "currencies",
    "greater_than",
    "induction",
    "ioi",
    "languages",
    "load",
    "mcq",
    "save",
]

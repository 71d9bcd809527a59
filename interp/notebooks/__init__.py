"""Notebooks, one per paper: their claims, how they are run, and a form for a new one.

``interp.study`` opens a study in a notebook; ``interp notebooks run`` (:func:`run`) executes notebooks and writes
``claims.json``; ``interp new-notebook`` (:func:`new`) begins another.
"""

from interp.notebooks.claim import Claim, Paper
from interp.notebooks.new import new
from interp.notebooks.plan import CLAIMS, Plan, plan
from interp.notebooks.record import Entry, read
from interp.notebooks.run import Outcome, run
from interp.notebooks.source import Source, find
from interp.notebooks.study import Study, study

__all__ = [
    "CLAIMS", "Claim", "Entry", "Outcome", "Paper", "Plan", "Source", "Study", "find", "new", "plan", "read",
    "run", "study",
]  # fmt: skip

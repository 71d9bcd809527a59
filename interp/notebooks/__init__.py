"""Notebooks, one per paper: their claims, how they are run, and a form for a new one."""

from interp.notebooks.claim import Claim, Paper
from interp.notebooks.study import Study, study

__all__ = ["Claim", "Paper", "Study", "study"]

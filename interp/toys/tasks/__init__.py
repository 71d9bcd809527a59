"""Tasks with a known answer: each draws batches from a generator, and knows its chance or optimal loss.

InContext                exemplars with labels, then one of them again            (Singh et al. 2024)
ModularArithmetic        a + b mod p, with wrong labels                           (Doshi et al. 2023)
BigramBackcopy           bigrams, and triggers that call for a copy               (Guo et al. 2024)
LinearRegression         points of a line, then a query                           (von Oswald et al. 2022)
Superposition            sparse features by a power law                           (Liu et al. 2025)
RepeatedData             any task, with rows that come again and again            (Hernandez et al. 2022)
CopyingText              a chain whose rows repeat themselves
Refusals                 a behaviour planted by topic                             (Dahlke et al. 2025)
"""

from interp.toys.tasks.backcopy import BigramBackcopy
from interp.toys.tasks.behaviour import Refusals
from interp.toys.tasks.chain import Chain
from interp.toys.tasks.in_context import InContext
from interp.toys.tasks.modular import ModularArithmetic
from interp.toys.tasks.regression import LinearRegression
from interp.toys.tasks.repeated import CopyingText, RepeatedData
from interp.toys.tasks.sparse_features import Superposition

__all__ = [
    "BigramBackcopy",
    "Chain",
    "CopyingText",
    "InContext",
    "LinearRegression",
    "ModularArithmetic",
    "Refusals",
    "RepeatedData",
    "Superposition",
]

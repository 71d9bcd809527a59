"""Editing: change what a model knows, in its weights, and measure what else changed.

    model.edited({...})     any weights changed inside a ``with`` block, then put back to the bit
    WeightEdit              such a change as a value: saved, loaded, tied to the model it is for
      RankOne               u vᵀ, added to a weight

Two methods that make a WeightEdit for one fact:

    rome                    a rank-one change of one MLP          numbers: Rome
      covariance            what that MLP usually reads: E[k kᵀ], a Covariance
      sampled_prefixes      beginnings of text that the model makes up
    finetune                one layer's MLP, each weight within ε  numbers: FineTuning

What is asked of an edit, and what it did:

    EditCase                a fact, its paraphrases and its neighbours; capital_cases makes some
    Objective, objective    raise or lower a continuation, perhaps under noise; the five variants of
                            Hase et al. 2023
    evaluate_edit           EditScores: rewrite, paraphrase, neighbours kept, erasure, drift
    norm_matched            the null: a random change of the same kind and norm

The question of that paper, whether tracing tells where to edit:

    localization_study      every fact at every layer → LocalizationStudy, with its regressions

>>> from interp import editing                                              # doctest: +SKIP
>>> keys = editing.covariance(model, texts)                                 # doctest: +SKIP
>>> edit = editing.rome(model, "The capital of France is", "France", " Tokyo",
...                     layer=0, covariance=keys)                           # doctest: +SKIP
>>> with model.edited(edit): model.generate("The capital of France is")     # doctest: +SKIP

Sources: Meng et al. 2022, arXiv:2202.05262 (ROME); Hase et al. 2023, arXiv:2301.04213.
"""

from interp.editing.cases import EditCase, capital_cases
from interp.editing.finetuning import FineTuning, finetune
from interp.editing.objectives import VARIANTS, Objective
from interp.editing.prefixes import sampled_prefixes
from interp.editing.rank_one import rome
from interp.editing.rome_config import Rome
from interp.editing.scores import EditScores, evaluate_edit
from interp.editing.second_moments import Covariance, covariance
from interp.editing.study import localization_study
from interp.editing.study_result import LocalizationStudy
from interp.editing.variants import objective, subject_std
from interp.editing.weight_edit import RankOne, WeightEdit, norm_matched

__all__ = [
    "Covariance",
    "EditCase",
    "EditScores",
    "FineTuning",
    "LocalizationStudy",
    "Objective",
    "RankOne",
    "Rome",
    "VARIANTS",
    "WeightEdit",
    "capital_cases",
    "covariance",
    "evaluate_edit",
    "finetune",
    "localization_study",
    "norm_matched",
    "objective",
    "rome",
    "sampled_prefixes",
    "subject_std",
]

"""Circuits as data: which edges, measured how, and how sure.

:class:`Circuit` is a set of edges of a model's graph with what is known of it, and :func:`shipped`
names those that come with this package.

- Worth: :func:`evaluate` (faithfulness, completeness, minimality, beside random circuits),
  :func:`curve` (MIB's CPR and CMD), :func:`member_curve` (how much of it is needed), :func:`auroc`
  (against a known truth).
- Upkeep: :func:`record` writes down what :func:`verify` measures again; :func:`check_fits` says
  whether a circuit belongs to a model.
- Looks: :func:`draw`, :func:`page`. Other people's files: :func:`mib_scores`, ``Circuit.from_mib``.
"""

from interp.circuits.acquaintance import check_fits, unseen
from interp.circuits.circuit import Circuit
from interp.circuits.curve import curve
from interp.circuits.curve_result import FaithfulnessCurve
from interp.circuits.drawing import CircuitPage, Drawing, draw, page
from interp.circuits.evaluation import evaluate
from interp.circuits.evaluation_result import CircuitEvaluation
from interp.circuits.files import shipped
from interp.circuits.member_curve import member_curve
from interp.circuits.mib import mib_scores
from interp.circuits.truth import auroc
from interp.circuits.verification import Verification
from interp.circuits.verify import record, recorded, verify

__all__ = [
    "Circuit", "CircuitEvaluation", "CircuitPage", "Drawing", "FaithfulnessCurve", "Verification",
    "auroc", "check_fits", "curve", "draw", "evaluate", "member_curve", "mib_scores", "page", "record",
    "recorded", "shipped", "unseen", "verify",
]  # fmt: skip

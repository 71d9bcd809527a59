"""Circuits as data: which edges, measured how, and how sure.

:class:`Circuit` is a set of edges of a model's graph with what is known of it, and :func:`shipped`
names those that come with this package.

- Worth: :func:`evaluate` (faithfulness, completeness, minimality, beside random circuits),
  :func:`curve` (MIB's CPR and CMD), :func:`auroc` (against a known truth).
- Upkeep: :func:`record` writes down what :func:`verify` measures again; :func:`check_fits` says
  whether a circuit belongs to a model.
- Looks: :func:`draw`, :func:`page`. Other people's files: :func:`mib_scores`, ``Circuit.from_mib``.
"""

from interp.circuits.circuit import Circuit
from interp.circuits.curve import curve
from interp.circuits.curve_result import FaithfulnessCurve
from interp.circuits.drawing import CircuitPage, Drawing, draw, page
from interp.circuits.evaluation import evaluate
from interp.circuits.evaluation_result import CircuitEvaluation
from interp.circuits.files import shipped
from interp.circuits.fit import check_fits
from interp.circuits.mib import mib_scores
from interp.circuits.truth import auroc
from interp.circuits.verification import Verification
from interp.circuits.verify import record, verify

__all__ = [
    "Circuit", "CircuitEvaluation", "CircuitPage", "Drawing", "FaithfulnessCurve", "Verification",
    "auroc", "check_fits", "curve", "draw", "evaluate", "mib_scores", "page", "record", "shipped",
    "verify",
]  # fmt: skip

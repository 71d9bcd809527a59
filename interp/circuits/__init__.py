"""Circuits as data: which edges, measured how, and how sure.

:class:`Circuit` is a set of edges of a model's graph with what is known of it; :func:`shipped` names
those that come with this package; :func:`check_fits` says whether one belongs to a model, and
:mod:`mib` reads and writes the files of EAP-IG and MIB.
"""

from interp.circuits.circuit import Circuit
from interp.circuits.files import shipped
from interp.circuits.fit import check_fits
from interp.circuits.mib import mib_scores

__all__ = ["Circuit", "check_fits", "mib_scores", "shipped"]

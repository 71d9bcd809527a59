"""What a dictionary is worth: reconstruction, sparsity, the loss it keeps, probes; beside null controls."""

from interp.evaluation.probing import sparse_probing
from interp.evaluation.probing_result import SparseProbing
from interp.evaluation.result import Evaluation
from interp.evaluation.verb import evaluate

__all__ = ["Evaluation", "SparseProbing", "evaluate", "sparse_probing"]

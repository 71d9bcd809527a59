"""Weight lenses: what weights say on their own, in tokens.

No prompt is run: everything here is linear algebra on a model's weights. So it shows what a part
*can* do on the direct path between tokens, not when it does it; each number that could be read as
a finding has a control beside it (random directions, random heads, Gaussian factors). The
untrained twin, ``model.random_twin()``, is one call away.

=====================================  =======================================================
``decode(model, "L3.mlp_post.N77")``   tokens that a neuron, a head's singular vectors, or any
                                       vector raises and lowers (or, through the embedding,
                                       resembles): :class:`DecodeResult`
``decode_neurons(model)``              the top token of every neuron, with its sharpness beside
                                       that of random directions: :class:`NeuronMap`
``ov_circuit(model, 1, 5)``            attended token → change of each logit: :class:`Circuit`
``qk_circuit(model, 0, 4, offset=1)``  query token → score of each key token: :class:`Circuit`
``qk_positions(model, 0, 4)``          the same between learned positions
``qk_offsets(model, 0, 4)``            under rotary positions, the mean score at each distance:
                                       :class:`OffsetScores`
``copying_scores(model)``              each head's OV eigenvalues, beside random heads':
                                       :class:`CopyingScores`
``composition(model, "k")``            how much later heads read of earlier ones:
                                       :class:`CompositionResult`
``svd(model, 2, 1, "ov")``             singular values and decoded vectors: :class:`Spectrum`
=====================================  =======================================================

:class:`Factored` is the matrix that full circuits are kept in: [vocab, vocab] through d_head.

**Conventions.** Rows times matrices. ``folded=True`` folds what the forward pass does linearly: γ
of the norm in front (and LayerNorm's centring), γ of a norm behind a branch (Gemma-2), of norms
on q and k, residual and logit multipliers. A norm's division is by a positive number that
depends on the position: it is left out (frozen at 1), but for tokens' own rows, which are divided
by their own scale. Soft-caps and ALiBi are left out. Under rotary positions a QK quantity is
that of one relative ``offset``, which its title states: 0, content alone, unless given;
1 is the previous-token reading. Grouped-query heads count query heads.

Sources: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Dar et al. 2022,
arXiv:2209.02535; Millidge & Black 2022; "Decoding specialised feature neurons in LLMs with the
final projection layer".
"""

from interp.weight_lenses.circuit import Circuit
from interp.weight_lenses.circuits import ov_circuit, qk_circuit, qk_positions
from interp.weight_lenses.composition import composition
from interp.weight_lenses.composition_result import CompositionResult
from interp.weight_lenses.copying import CopyingScores, copying_scores
from interp.weight_lenses.decode import DecodeResult, decode
from interp.weight_lenses.factored import Factored, copying_score
from interp.weight_lenses.neurons import NeuronMap, decode_neurons
from interp.weight_lenses.offsets import OffsetScores, qk_offsets
from interp.weight_lenses.spectra import svd
from interp.weight_lenses.spectrum import Spectrum

__all__ = [
    "decode", "decode_neurons",
    "ov_circuit", "qk_circuit", "qk_positions", "qk_offsets",
    "copying_score", "copying_scores", "composition",
    "svd",
    "CompositionResult", "CopyingScores", "Circuit", "DecodeResult", "Factored", "NeuronMap",
    "OffsetScores", "Spectrum",
]  # fmt: skip

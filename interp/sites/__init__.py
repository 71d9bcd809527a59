"""Sites: the one address type, and the only room that reads or writes site names.

A transformer run is a stream of named tensors. A :class:`Site` names one of
them, or a family of them, or a slice of one:

==========================  ====================================================
``L5.resid_pre``            the residual stream that enters block 5
``blocks.5.hook_resid_pre`` the same, in TransformerLens's words
``L*.resid_pre``            in every block
``L4-8.H*.z``               each head's output (before W_O) in blocks 4 to 8, inclusive
``L5.H3.z@-1``              head 3 of block 5, at the last position
``L5.H1,3.pattern``         two heads
``L-1.resid_post``          the last block (negative layers count from the end)
``L3.mlp_post.N77``         neuron 77
``L2.mlp.F1204``            feature 1204 of the transcoder that stands for block 2's MLP
``L2.mlp``                  all of its features (a pair of sites where activations are stored)
``L3.resid_post.F1204``     feature 1204 of the SAE at this site
``L3.resid_post.features``  all of its features
``L3.resid_post.error``     what the SAE leaves out; ``L2.mlp.error`` of a transcoder
``L9.resid_pre@subject_last``  at a position which the prompts define by name
``embed``, ``ln_final.scale``  tensors which belong to no block
``L1.H0.z -> L2.H1.k``      an :class:`Edge`
==========================  ====================================================

Points carry TransformerLens's names and meaning; ``attn.input`` and
``mlp.input`` (after the norm's γ and β: what the sublayer reads) are added.
Features and errors are there inside ``with model.replaced(...)``.
Names that survive ``str(Site.parse(text))`` are canonical: parsing and
printing are inverse.
"""

from interp.sites.edge import Edge
from interp.sites.index import ALL, Index
from interp.sites.points import HOSTS, POINTS, Point
from interp.sites.site import Site

__all__ = ["ALL", "HOSTS", "POINTS", "Edge", "Index", "Point", "Site"]

"""The fast arithmetic of dictionaries: select few features of many, and compute with those alone.

select_topk, select_batchtopk   from activations to :class:`Codes`, never holding [batch, d_sae]
decode, backward                reconstructions and gradients, by active entries alone
split_by_group                  Matryoshka's nested groups
exact_topk                      the k largest of each row, several times as fast as torch.topk
"""

from interp.dictionaries.kernels.batch import select_batchtopk
from interp.dictionaries.kernels.codes import Codes
from interp.dictionaries.kernels.prefixes import split_by_group
from interp.dictionaries.kernels.select import select_topk
from interp.dictionaries.kernels.sparse import backward, decode
from interp.dictionaries.kernels.topk import exact_topk

__all__ = [
    "Codes",
    "backward",
    "decode",
    "exact_topk",
    "select_batchtopk",
    "select_topk",
    "split_by_group",
]

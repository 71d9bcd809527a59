"""Geometry: the shape of a set of representations, as pure functions of arrays.

Rows are examples (prompts, tokens, countries), columns are the activation's dimensions. Nothing
here knows about models; ``interp.similarity`` and ``interp.probe`` run them.

    pca                       directions of most variance, and the rows seen along them   (spectrum)
    effective_rank            how many dimensions are in use, by entropy (RankMe)         (spectrum)
    participation_ratio       how many dimensions are in use, by variance                 (spectrum)
    anisotropy                mean cosine: do all rows point one way?                     (spectrum)
    cka                       are two representations of the same rows alike?             (similarity)
    rsa, dissimilarity        do two representations order the same pairs alike?          (similarity)
    class_geometry            neural collapse: tight, equal, spread classes               (classes)
    pearson, spearman, ranks  correlations with one value for each cell                   (correlation)
    overlap, welch_bound      directions that share too few dimensions               (interference)
    fourier_power             functions of an id modulo p, by frequency                   (waves)
    inverse_participation_ratio  how few frequencies they use: 1 is one wave              (waves)
    importance, sink_rate     attention parked on one position                            (sinks)
    attention_entropy, relative_entropy, collapsed_share, max_attention_logit
                              how sharply heads attend, and the scores behind it (attention_statistics)
    kurtosis, channel_kurtosis, max_median_ratio, outlier_channels
                              do a few channels or tokens hold the large numbers?      (outliers)

========================  =================  ======  ============  ==========
quantity                  bounds             shift   rotation      scale
========================  =================  ======  ============  ==========
``effective_rank``        1 to min(n, d)     no      invariant     invariant
``participation_ratio``   1 to min(n-1, d)   inv.    invariant     invariant
``anisotropy``            -1/(n-1) to 1      no      invariant     invariant
``cka``                   0 to 1 (debiased   inv.    invariant     invariant
                          about 0 to 1)
``rsa`` (correlation)     -1 to 1            no      no            invariant
``rsa`` (cosine)          -1 to 1            no      invariant     invariant
``class_geometry.cdnv``   0 upwards          inv.    invariant     invariant
========================  =================  ======  ============  ==========

>>> import torch
>>> x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
>>> round(float(cka(x, 3 * x.flip(1) + 1)), 6)
1.0
"""

from interp.geometry.attention_statistics import (
    attention_entropy,
    collapsed_share,
    max_attention_logit,
    relative_entropy,
)
from interp.geometry.classes import ClassGeometry, class_geometry
from interp.geometry.correlation import pearson, ranks, spearman
from interp.geometry.interference import Overlap, overlap, welch_bound
from interp.geometry.outliers import (
    channel_kurtosis,
    kurtosis,
    max_median_ratio,
    outlier_channels,
)
from interp.geometry.similarity import cka, dissimilarity, rsa
from interp.geometry.sinks import importance, sink_rate
from interp.geometry.spectrum import (
    PCA,
    anisotropy,
    effective_rank,
    participation_ratio,
    pca,
)
from interp.geometry.waves import fourier_power, inverse_participation_ratio

__all__ = [
    "ClassGeometry",
    "Overlap",
    "PCA",
    "anisotropy",
    "attention_entropy",
    "channel_kurtosis",
    "cka",
    "class_geometry",
    "collapsed_share",
    "dissimilarity",
    "effective_rank",
    "fourier_power",
    "importance",
    "inverse_participation_ratio",
    "kurtosis",
    "max_attention_logit",
    "max_median_ratio",
    "outlier_channels",
    "overlap",
    "participation_ratio",
    "pca",
    "pearson",
    "ranks",
    "relative_entropy",
    "rsa",
    "sink_rate",
    "spearman",
    "welch_bound",
]

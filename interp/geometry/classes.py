"""Neural collapse: are classes tight, equally far out, evenly spread, and met by the classifier?

Source: Papyan, Han & Donoho 2020, arXiv:2008.08186 (NC1 to NC3); in language models, where each
token is a class, Wu & Papyan 2024, "Linguistic collapse", arXiv:2405.17767; the class-distance
normalised variance is of Galanti, György & Hutter 2021, arXiv:2112.15121.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.rows import array, as_rows

__all__ = ["ClassGeometry", "class_geometry"]


@dataclass(frozen=True, eq=False, repr=False)
class ClassGeometry:
    """How far a labelled set of rows is from collapsed classes.

    Attributes:
        classes: the labels, in ascending order.
        cdnv: (σ²_a + σ²_b) / (2 ‖μ_a - μ_b‖²) for each pair of classes, where σ² is the mean
            squared distance from a class's mean; 0 = collapsed, NaN on the diagonal.
        equinorm: coefficient of variation of ‖μ_c - μ‖ over classes; 0 = all means equally far
            from the mean of the class means.
        cosines: between centred class means; in a collapsed set of C classes all off the
            diagonal are -1/(C - 1).
        self_duality: cosine of each centred class mean with its centred classifier row; 1 =
            the classifier points where the class lies. None without a classifier.
        means: the class means.
    """

    classes: tuple[int, ...]
    cdnv: Float[Tensor, "c c"]
    equinorm: Float[Tensor, ""]
    cosines: Float[Tensor, "c c"]
    self_duality: Float[Tensor, " c"] | None
    means: Float[Tensor, "c d"]

    @property
    def mean_cdnv(self) -> Float[Tensor, ""]:
        """Mean over pairs of different classes."""
        return self.cdnv.nanmean()

    def __repr__(self) -> str:
        dual = "" if self.self_duality is None else f", self-duality {self.self_duality.mean():.3g}"
        return (
            f"ClassGeometry({len(self.classes)} classes; CDNV {self.mean_cdnv:.3g}, equinorm "
            f"{self.equinorm:.3g}{dual})"
        )


def class_geometry(
    x: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    classifier: Float[Tensor, "c d"] | None = None,
) -> ClassGeometry:
    """Tightness, norms and angles of classes.

    All but ``means`` is invariant to shift, rotation and scale of the rows (self-duality: with
    the classifier rotated alike).

    Args:
        labels: the class of each row.
        classifier: a weight row for each class in ascending order of the labels, such as rows of
            the unembedding.

    Raises:
        MetricError: fewer than two classes, labels or a classifier of the wrong size, or two
            classes with the same mean.
    """
    rows, labels = as_rows(x, "class_geometry()"), array(labels, "class_geometry()")
    if rows.ndim != 2 or labels.shape != rows.shape[:1]:
        raise MetricError(
            f"class_geometry() got rows {list(rows.shape)} and labels {list(labels.shape)}; expected "
            "[n, d] and [n]."
        )
    classes, index = labels.to(rows.device).unique(return_inverse=True)
    if len(classes) < 2:
        raise MetricError("class_geometry() got rows of one class; expected at least two.")
    member = torch.nn.functional.one_hot(index, len(classes)).to(rows)
    count = member.sum(0)
    means = member.T @ rows / count[:, None]
    spread = member.T @ (rows - means[index]).square().sum(1) / count
    apart = (means[:, None] - means[None]).square().sum(-1)
    off = ~torch.eye(len(classes), dtype=torch.bool, device=rows.device)
    if (apart[off] == 0).any():
        raise MetricError("class_geometry(): two classes have the same mean; merge them.")
    cdnv = (spread[:, None] + spread[None]) / (2 * apart.masked_fill(~off, torch.nan))
    centred = means - means.mean(0)
    norms = centred.norm(dim=1)
    unit = centred / norms[:, None]
    return ClassGeometry(
        classes=tuple(classes.tolist()),
        cdnv=cdnv,
        equinorm=norms.std(unbiased=False) / norms.mean(),
        cosines=unit @ unit.T,
        self_duality=None if classifier is None else _duality(unit, classifier),
        means=means,
    )


def _duality(unit: Tensor, classifier: Float[Tensor, "c d"]) -> Float[Tensor, " c"]:
    classifier = array(classifier, "class_geometry()")
    if classifier.shape != unit.shape:
        raise MetricError(
            f"the classifier has shape {list(classifier.shape)}; expected {list(unit.shape)}, a row "
            "for each class in ascending order."
        )
    rows = as_rows(classifier, "class_geometry()").to(unit.device)
    return torch.nn.functional.cosine_similarity(unit, rows - rows.mean(0), dim=1)

"""What a dictionary is: kind, sites, widths, activation. JSON values throughout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from interp.errors import DictionaryError, nearest
from interp.sites import POINTS, Site

__all__ = ["ACTIVATIONS", "KINDS", "DictionarySpec", "Kind"]

Kind = Literal["sae", "transcoder", "skip_transcoder", "cross_layer_transcoder"]
KINDS: tuple[str, ...] = get_args(Kind)
ACTIVATIONS = ("relu", "gated", "jumprelu", "topk", "batchtopk")
_NORMALISE = ("none", "layer_norm", "constant_norm_rescale")


@dataclass(frozen=True)
class DictionarySpec:
    """What a dictionary is, beside its weights.

    Attributes:
        kind: ``"sae"`` (reads and writes one site), ``"transcoder"`` (``mlp.input → mlp_out``),
            ``"skip_transcoder"`` (with a linear path from input to output, Paulo et al. 2025), or
            ``"cross_layer_transcoder"`` (features of layer l write to all layers from l on,
            Lindsey et al. 2025).
        reads: the site whose activations are encoded; one for each layer of a cross-layer transcoder.
            For transcoders the name states the convention: ``mlp.input`` is what the MLP reads (after
            the norm's γ and β), ``ln2.normalized`` is before them.
        writes: the site that is reconstructed; one for each layer of a cross-layer transcoder.
        d_in: width of what is read.
        d_out: width of what is written.
        d_sae: features (of each layer, in a cross-layer transcoder).
        activation: ``relu``, ``gated``, ``jumprelu``, ``topk`` or ``batchtopk``.
        options: of the activation, such as ``{"k": 32}``.
        centre: whether ``b_dec`` is subtracted from the input (SAEs; Bricken et al. 2023).
        normalise: what is done to each input vector, and undone to the output: ``"none"``,
            ``"layer_norm"`` or ``"constant_norm_rescale"`` (‖x‖ = √d_in), as in SAELens. Dictionaries
            trained here have their scale folded into the weights, so it is ``"none"``.
        model: name of the model that it was trained on; None if nobody knows.
        weights_hash: of that model.
        metadata: how it was trained, and what a format carries beside; JSON values.

    Raises:
        DictionaryError: values that do not fit together.
    """

    kind: Kind
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    d_in: int
    d_out: int
    d_sae: int
    activation: str
    options: Mapping[str, Any] = field(default_factory=dict)
    centre: bool = False
    normalise: str = "none"
    model: str | None = None
    weights_hash: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, given, known in (
            ("kind", self.kind, KINDS),
            ("activation", self.activation, ACTIVATIONS),
            ("normalise", self.normalise, _NORMALISE),
        ):
            if given not in known:
                raise DictionaryError(
                    f"{what}={given!r}; expected one of {', '.join(known)}; "
                    f"nearest: {nearest(str(given), known)}."
                )
        for name in ("d_in", "d_out", "d_sae"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise DictionaryError(f"{name}={value!r}; expected a whole number from 1 up.")
        self._check_options()
        for name in ("reads", "writes"):
            if isinstance(getattr(self, name), str):
                raise DictionaryError(
                    f"{name}={getattr(self, name)!r}; expected a tuple of sites: "
                    f"({getattr(self, name)!r},)."
                )
        object.__setattr__(self, "reads", tuple(str(Site.parse(site)) for site in self.reads))
        object.__setattr__(self, "writes", tuple(str(Site.parse(site)) for site in self.writes))
        self._check_sites()

    def _check_options(self) -> None:
        expected = ["k"] if self.activation in ("topk", "batchtopk") else []
        if sorted(self.options) != expected:
            raise DictionaryError(
                f"options={dict(self.options)!r} for {self.activation}; expected "
                + ("{'k': 32}, active features of each input." if expected else "none.")
            )

    def _check_sites(self) -> None:
        crossing = self.kind == "cross_layer_transcoder"
        n = len(self.reads)
        if n == 0 or len(self.writes) != n or (n > 1 and not crossing):
            raise DictionaryError(
                f"a {self.kind} that reads {list(self.reads)} and writes {list(self.writes)}; expected "
                + (
                    "a site to read and one to write for each layer."
                    if crossing
                    else "one of each."
                )
            )
        if self.kind == "sae" and (self.reads != self.writes or self.d_in != self.d_out):
            raise DictionaryError(
                f"an SAE reconstructs what it reads: given {self.reads[0]} ({self.d_in}) and "
                f"{self.writes[0]} ({self.d_out}). For two sites ask for kind='transcoder'."
            )
        if self.kind != "sae" and (self.centre or self.normalise != "none"):
            raise DictionaryError(
                f"a {self.kind} neither subtracts b_dec from its input nor normalises at run time: both "
                "are undone on the output, which is another site. Fold them into the weights."
            )

    def check_order(self) -> None:
        """What is written comes after what it is computed from.

        Raises:
            DictionaryError: a run computes what is written before what is read.
        """
        for number, write in enumerate(self.writes):
            read = max(self.reads[: number + 1], key=_place)
            if _place(read) > _place(write):
                raise DictionaryError(
                    f"this {self.kind} reads {read!r} and writes {write!r}, which a run computes earlier."
                )

    @property
    def crossing(self) -> bool:
        """Whether features write to several layers."""
        return self.kind == "cross_layer_transcoder"

    @property
    def features(self) -> tuple[str, ...]:
        """The sites whose values are this dictionary's feature activations, one for each part.

        ``L2.mlp`` where a block's MLP is replaced, else the site's own, ``L3.resid_post.features``.
        """
        return tuple(
            str(_features(Site.parse(read), Site.parse(write)))
            for read, write in zip(self.reads, self.writes, strict=True)
        )

    @property
    def name(self) -> str:
        """A short name that fits a file: ``transcoder-L0.mlp``."""
        first, last = self.features[0], self.features[-1]
        where = first if first == last else f"{first.split('.')[0]}-{last.split('.')[0][1:]}.mlp"
        return f"{self.kind}-{where.removesuffix('.features')}"

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "reads": list(self.reads), "writes": list(self.writes)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DictionarySpec:
        """What :meth:`to_json` gave."""
        return cls(**{**values, "reads": tuple(values["reads"]), "writes": tuple(values["writes"])})


def _features(read: Site, write: Site) -> Site:
    if read != write and write.point == "mlp_out":
        return replace(write, point="mlp")
    return replace(read, point=f"{read.point}.features")


def _place(name: str) -> tuple[int, int]:
    """When a run comes by."""
    site = Site.parse(name)
    layer = 0 if site.layer is None else int(site.layer.text)
    return layer, list(POINTS).index(site.point)

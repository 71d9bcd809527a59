"""What a training run is asked for: one frozen, validated configuration for each dictionary.

Losses and coefficients are in normalised units: what is read and what is written are scaled so that
their mean squared norm around the mean is their width (each number has variance 1 on average), as
Anthropic's April 2024 update does with the norm. So one setting serves sites of any scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal

from interp.dictionaries.spec import KINDS, Kind
from interp.errors import TrainingError, nearest

__all__ = ["ACTIVATIONS", "SHARED", "TrainConfig"]

#: How dictionaries may be trained. A matryoshka dictionary is a BatchTopK one with nested losses.
ACTIVATIONS = ("relu", "gated", "jumprelu", "topk", "batchtopk", "matryoshka")
_PICKING = ("topk", "batchtopk", "matryoshka")
#: Options that dictionaries trained in one pass have in common.
SHARED = ("batch", "tokens", "seed", "log_every")
#: Default sparsity coefficients, for squared errors in normalised units; gated has two of those.
_SPARSITY = {"relu": 1.0, "gated": 2.0, "jumprelu": 0.3}
#: Options whose defaults follow from others.
_DERIVED = (
    "k", "sparsity", "sparsity_warmup", "groups", "auxk", "lr_warmup", "dead_after",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """How one dictionary is trained.

    Attributes:
        site: what it reads and writes: ``"L3.resid_post"`` (an SAE), ``"L2.mlp"`` (a transcoder, or an
            SAE's two ends as an edge ``"L2.mlp.input -> L2.mlp_out"``), ``"L*.mlp"`` (cross-layer).
        kind: sae, transcoder, skip_transcoder or cross_layer_transcoder.
        d_sae: features (of each layer, in a cross-layer transcoder).
        activation: ``relu`` (with L1), ``gated``, ``jumprelu`` (with L0), ``topk``, ``batchtopk`` or
            ``matryoshka``.
        k: active features per token, for the last three.
        sparsity: coefficient of the penalty, for the first three; None takes a default (with
            ``loss="mse"``).
        sparsity_warmup: steps over which the coefficient rises from 0; None: a twentieth of all.
        groups: how many of the features each nested loss of a matryoshka dictionary has, growing to
            ``d_sae``; None: a sixteenth, an eighth, a quarter, a half, all.
        loss: ``"mse"``, the squared error of a token summed over numbers; ``"target_norm"``, that
            divided by the target's norm and averaged over numbers (Dunefsky et al. 2024).
        bandwidth: ε of jumprelu's straight-through gradients.
        tokens: rows to train on.
        batch: rows of a step.
        lr: learning rate of Adam; None: 2e-4·√(16384 / d_sae) (Gao et al. 2024, fig. 3), in runs of fewer
            than 20,000 steps times √(20,000 / steps), at most 4 (theirs is for billions of tokens).
        lr_warmup: steps over which it rises from 0; None: a twentieth of all, at most 1000.
        lr_decay: share of the steps, at the end, over which it falls to 0.
        betas: of Adam.
        clip: largest norm of the whole gradient; None: not clipped.
        unit_decoder: keep each decoder row at norm 1 and its gradient orthogonal to it.
        init: what ``b_dec`` starts at: ``"geometric_median"``, ``"mean"`` or ``"zero"`` of what is
            written.
        normalise: scale what is read and written to unit variance (folded into the weights at the end).
        auxk: coefficient of the loss that revives dead features (Gao et al. 2024, A.2), where the main
            loss is 1 for the mean; 0: none.
        auxk_k: how many dead features it uses for each token; None: half of what is read is wide.
        dead_after: a feature is dead when it has not been active for so many tokens; None: a tenth of
            all tokens, at most ten million.
        resample_every: steps after which dead features are drawn anew (Bricken et al. 2023); None: never.
        firing_decay: of the moving average of firing frequencies, for each step.
        threshold_decay: of the moving average of batchtopk's threshold, for each step.
        kernel: ``"sparse"`` touches active features only; ``"dense"`` is the reference by autograd;
            ``"auto"`` takes the first where there is one.
        screen: let bfloat16 propose the features of each token, and decide in float32 (sparse kernel).
        null: ``"permuted"`` trains a transcoder against targets of other tokens: what it reaches is
            chance.
        seed: of the weights' start, the order of the rows, and all else that is random.
        log_every: steps between lines of the log.

    Raises:
        TrainingError: a value that is out of range, or that this kind or activation has no use for.
    """

    site: str
    kind: Kind = "sae"
    d_sae: int = 4096
    activation: str = "topk"
    k: int | None = None
    sparsity: float | None = None
    sparsity_warmup: int | None = None
    groups: tuple[int, ...] | None = None
    loss: Literal["mse", "target_norm"] = "mse"
    bandwidth: float = 0.1
    tokens: int = 4_000_000
    batch: int = 4096
    lr: float | None = None
    lr_warmup: int | None = None
    lr_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = 1.0
    unit_decoder: bool = True
    init: Literal["geometric_median", "mean", "zero"] = "geometric_median"
    normalise: bool = True
    auxk: float | None = None
    auxk_k: int | None = None
    dead_after: int | None = None
    resample_every: int | None = None
    firing_decay: float = 0.99
    threshold_decay: float = 0.95
    kernel: Literal["auto", "sparse", "dense"] = "auto"
    screen: bool = False
    null: Literal["permuted"] | None = None
    seed: int = 0
    log_every: int = 50

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_numbers()
        self._settle()

    # -- what follows from it ----------------------------------------------------------

    @property
    def steps(self) -> int:
        return self.tokens // self.batch

    @property
    def picks(self) -> bool:
        """Whether active features are picked by rank, and not by a penalty."""
        return self.activation in _PICKING

    @property
    def sparse(self) -> bool:
        """Whether the sparse kernel runs."""
        return self.kernel != "dense" and self.picks

    @property
    def rate(self) -> float:
        """The learning rate at its height."""
        if self.lr is not None:
            return self.lr
        short = min(4.0, max(1.0, (20_000 / self.steps) ** 0.5))
        return 2e-4 * (16384 / self.d_sae) ** 0.5 * short

    @property
    def name(self) -> str:
        """What tells it from others of the same pass."""
        much = f"k{self.k}" if self.picks else f"s{self.sparsity:g}"
        null = "-permuted" if self.null else ""
        site = self.site.replace(" ", "").replace("->", "-to-").replace("*", "all")
        return f"{site}-{self.kind}-{self.activation}-{self.d_sae}-{much}{null}"

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(self).items()}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> TrainConfig:
        """A configuration from names and values.

        Raises:
            TrainingError: a name that is no option (with the nearest that is).
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise TrainingError(
                    f"no option is called {name!r}; nearest: {nearest(name, known)}."
                )
        if "site" not in options:
            raise TrainingError("no site was given: say site='L2.mlp' or 'L3.resid_post'.")
        given: Any = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
        return cls(**given)

    def with_options(self, **options: Any) -> TrainConfig:
        """With some options changed; defaults that follow from those follow them."""
        return replace(self, **{**dict.fromkeys(self.defaults), **options})

    @property
    def defaults(self) -> list[str]:
        """The options that have the value which follows from the others."""
        names = [n for n in _DERIVED if n != "sparsity" or self.loss == "mse"]
        unsaid: dict[str, Any] = dict.fromkeys(names)
        plain = replace(self, **unsaid)
        return [n for n in names if getattr(self, n) == getattr(plain, n)]

    # -- checks ------------------------------------------------------------------------

    def _check_choices(self) -> None:
        for name, known in (
            ("kind", KINDS),
            ("activation", ACTIVATIONS),
            ("loss", ("mse", "target_norm")),
            ("init", ("geometric_median", "mean", "zero")),
            ("kernel", ("auto", "sparse", "dense")),
            ("null", (None, "permuted")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise TrainingError(
                    f"{name}={value!r}; expected one of {', '.join(map(str, known))}."
                )
        for name in ("unit_decoder", "normalise", "screen"):
            if not isinstance(getattr(self, name), bool):
                raise TrainingError(f"{name}={getattr(self, name)!r}; expected True or False.")
        if not isinstance(self.site, str):
            raise TrainingError(f"site={self.site!r}; expected a name, such as 'L2.mlp'.")
        if self.null and self.kind == "sae":
            raise TrainingError(
                "null='permuted' would do nothing for an SAE, which reconstructs what it reads; compare "
                "it with one of model.random_twin() instead."
            )
        if self.kernel == "sparse" and not self.picks:
            raise TrainingError(
                f"kernel='sparse' with activation={self.activation!r}: it is for "
                f"{', '.join(_PICKING)}; the others have as many active features as they like."
            )
        if self.screen and not self.sparse:
            raise TrainingError("screen=True proposes what is picked: it is for the sparse kernel.")

    def _check_numbers(self) -> None:
        whole = ("d_sae", "batch", "tokens", "log_every")
        maybe = ("k", "auxk_k", "dead_after", "resample_every")
        for name in (*whole, *maybe):
            value = getattr(self, name)
            if (value is None and name in maybe) or (_is_whole(value) and value >= 1):
                continue
            raise TrainingError(f"{name}={value!r}; expected a whole number from 1 up.")
        for name in ("sparsity_warmup", "lr_warmup", "seed"):
            value = getattr(self, name)
            if value is not None and not (_is_whole(value) and 0 <= value < 2**63):
                raise TrainingError(f"{name}={value!r}; expected a whole number from 0 up.")
        for name, low, high in (
            ("lr", 0.0, 1.0), ("lr_decay", 0.0, 1.0), ("firing_decay", 0.0, 1.0), ("auxk", 0.0, 1e6),
            ("threshold_decay", 0.0, 1.0), ("sparsity", 0.0, 1e9), ("bandwidth", 1e-9, 1e9),
            ("clip", 1e-12, 1e12),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and low <= value <= high):
                raise TrainingError(
                    f"{name}={value!r}; expected a number from {low:g} to {high:g}."
                )
        betas = self.betas if isinstance(self.betas, tuple | list) else ()
        if not (len(betas) == 2 and all(_is_number(b) and 0 <= b < 1 for b in betas)):
            raise TrainingError(f"betas={self.betas!r}; expected two numbers from 0 to below 1.")
        if self.steps < 1:
            raise TrainingError(
                f"{self.tokens} tokens make no batch of {self.batch}: give more tokens, or a smaller batch."
            )
        if self.null and self.batch < 2:
            raise TrainingError("null='permuted' with batch=1 has no other token: give more rows.")

    def _settle(self) -> None:
        """Defaults that depend on other values; options that nothing would read."""
        if self.picks:
            self._default("k", min(32, self.d_sae))
            self._refuse(
                "sparsity", "sparsity_warmup", why=f"{self.activation} has no penalty: say k="
            )
            if self.k is not None and self.k > self.d_sae:
                raise TrainingError(f"k={self.k} of d_sae={self.d_sae} features; expected fewer.")
        else:
            self._refuse("k", why=f"{self.activation} is made sparse by a penalty: say sparsity=")
            if self.sparsity is None and self.loss != "mse":
                raise TrainingError(
                    f"loss={self.loss!r} with {self.activation} has no default penalty, as its size "
                    "depends on the width: say sparsity= (about 1 / width^1.5)."
                )
            self._default("sparsity", _SPARSITY[self.activation])
            self._default("sparsity_warmup", self.steps // 20)
        if self.activation == "matryoshka":
            self._set("groups", self._groups())
        else:
            self._refuse("groups", why="nested losses are for activation='matryoshka'")
        self._default("auxk", 1 / 32 if self.picks else 0.0)
        self._default("lr_warmup", min(1000, self.steps // 20))
        self._default("dead_after", min(10_000_000, max(self.batch, self.tokens // 10)))
        self._set("betas", tuple(self.betas))

    def _groups(self) -> tuple[int, ...]:
        if self.groups is None:
            return tuple(sorted({max(1, self.d_sae // n) for n in (16, 8, 4, 2, 1)}))
        given = tuple(self.groups) if isinstance(self.groups, tuple | list) else ()
        rising = all(a < b for a, b in pairwise(given))
        if not (given and all(map(_is_whole, given)) and rising and given[-1] == self.d_sae
                and given[0] >= 1):  # fmt: skip
            raise TrainingError(
                f"groups={self.groups!r}; expected growing numbers of features up to d_sae={self.d_sae}."
            )
        return given

    def _refuse(self, *names: str, why: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise TrainingError(f"{name}={getattr(self, name)!r} would do nothing: {why}.")

    def _default(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value

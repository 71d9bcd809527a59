"""The tuned lens: a translator for each site, from its basis into the output's.

A translator is affine, ``h ↦ h + W h + b``, followed by the model's own final norm and unembedding.
With ``W = 0, b = 0`` it is the logit lens. It is trained to predict what the model itself will say
(:func:`interp.lenses.tune.tune_lens`), so a reading tells what the vector says about the
output to an affine map, not that the model uses it.

Source: Belrose et al. 2023, arXiv:2303.08112, section 3, in the form of its package ``tuned-lens``,
which adds ``h`` so that weight decay pulls towards the logit lens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, ResultError, SiteError, nearest
from interp.intervals import bootstrap
from interp.lenses.reading import FINAL, short_names
from interp.models.model import Model
from interp.results import Provenance, read_file, write_file
from interp.runs.plan import resolve
from interp.sites import Site

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["LENSES", "TunedLens"]

#: What is measured on held-out rows, in the order of ``TunedLens.held_out``.
LENSES = ("logit", "bias_only", "tuned")


@dataclass(frozen=True, eq=False, repr=False)
class TunedLens:
    """Trained translators and how well they do on text they were not trained on.

    Attributes:
        sites: what each translator reads: ``"L0.resid_pre"``, ``"L2.H1.result"``, ...
        weight, bias: ``W`` and ``b`` of each.
        bias_only: ``b`` of translators trained with ``W = 0``; None if they were not trained.
        held_out: KL(model's output ‖ lens) in nats, the mean over a held-out row's tokens, of
            the logit lens, the bias-only one (NaN if it was not trained) and the tuned one.
        curve: the same KL of the tuned lens on each step's batch, before the step.
        provenance: model, weights, hash of the training rows, seed, versions and the call.
    """

    sites: tuple[str, ...]
    weight: Float[Tensor, "site d_model d_model"]
    bias: Float[Tensor, "site d_model"]
    bias_only: Float[Tensor, "site d_model"] | None
    held_out: Float[Tensor, "3 site row"]
    curve: Float[Tensor, "step site"]
    provenance: Provenance

    def __repr__(self) -> str:
        some = ", ".join(self.sites[:3]) + (", ..." if len(self.sites) > 3 else "")
        return (
            f"TunedLens({len(self.sites)} translators: {some}; trained {len(self.curve)} steps on "
            f"{self.provenance.model!r})"
        )

    # -- use ---------------------------------------------------------------------------

    def translate(self, site: str, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:  # fmt: skip
        """``x + W x + b`` of this site, in float32; the end of the stream stays as it is."""
        if site not in self.sites:
            return x
        i, x = self.sites.index(site), x.float()
        return x + torch.nn.functional.linear(x, self.weight[i].to(x), self.bias[i].to(x))

    def fitted(self, model: Model, sites: Sequence[Site] = ()) -> TunedLens:
        """This lens on the model's device, once it is shown to belong to it.

        Raises:
            ModelError: it was trained on other weights.
            SiteError: one of ``sites`` has no translator (the end of the stream needs none).
        """
        if self.provenance.weights_hash != model.weights_hash:
            raise ModelError(
                f"this tuned lens was trained on {self.provenance.model!r} (weights "
                f"{self.provenance.weights_hash[:8]}), not on {model.name!r} (weights "
                f"{model.weights_hash[:8]}): use that model, or train one with "
                "interp.tune_lens(model, texts)."
            )
        final = resolve(model.anatomy, FINAL)
        missing = [str(s) for s in sites if str(s) not in self.sites and s not in final]
        if missing:
            raise SiteError(
                f"this tuned lens has no translator for {missing[0]!r}; nearest: "
                f"{nearest(missing[0], self.sites)}. Train one: "
                f"interp.tune_lens(model, texts, sites=[{missing[0]!r}])."
            )
        if self.weight.device == model.device:
            return self
        return replace(
            self, weight=self.weight.to(model.device), bias=self.bias.to(model.device)
        )  # fmt: skip

    # -- how good it is ----------------------------------------------------------------

    def report(self, *, seed: int = 0) -> DataFrame:
        """Held-out KL to the model's output in nats, a row for each site.

        Columns: ``site``; ``logit``, ``bias_only``, ``tuned``, means over held-out rows of each
        row's mean over tokens; ``gain``, how much lower ``tuned`` is than ``logit``, with the ends
        of its 95% bootstrap interval over rows. A gain whose interval holds 0 is none.

        Raises:
            ResultError: nothing was held out.
        """
        import pandas as pd

        self._check_held_out()
        logit, _, tuned = self.held_out
        gain = bootstrap(logit - tuned, seed=seed)
        means = dict(zip(LENSES, self.held_out.mean(-1).tolist(), strict=True))
        ends = {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
        return pd.DataFrame({
            "site": self.sites, **means, **{name: end.tolist() for name, end in ends.items()},
        })  # fmt: skip

    def plot(self, *, title: str = "held-out loss of each lens", seed: int = 0) -> Figure:
        """Held-out KL of the logit lens, the bias-only and the tuned one at each site."""
        from interp.figures.trajectories import trajectories

        self._check_held_out()
        names, _ = short_names(self.sites)
        curves = [
            (kind.replace("_", " "), range(len(names)), {"kl": bootstrap(values, seed=seed)})
            for kind, values in zip(LENSES, self.held_out, strict=True)
            if not bool(values.isnan().any())
        ]
        return trajectories(names, curves, title=title)

    def _check_held_out(self) -> None:
        if not self.held_out.shape[-1]:
            raise ResultError(
                "this lens was trained (or imported) without held-out rows: nothing says how good "
                "it is. Train with holdout=0.1."
            )

    # -- files -------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the lens to one safetensors file, whole or not at all."""
        tensors = {n: v for n, v in vars(self).items() if isinstance(v, Tensor)}
        meta = {"sites": self.sites, "provenance": self.provenance}
        return write_file(path, "TunedLens", tensors, meta)

    @classmethod
    def load(cls, path: str | Path, model: Model | None = None) -> TunedLens:
        """Read a saved lens; with ``model``, shown to belong to it and on its device.

        Raises:
            ResultError: no such file, a damaged one, or a result of another kind.
            ModelError: it was trained on other weights than ``model``'s.
        """
        tensors, meta = read_file(path, "TunedLens")
        lens = cls(
            sites=tuple(meta["sites"]), provenance=Provenance(**meta["provenance"]),
            bias_only=tensors.pop("bias_only", None), **tensors,
        )  # fmt: skip
        return lens if model is None else lens.fitted(model)

    # -- the package tuned-lens ---------------------------------------------------------

    def state_dict(self) -> dict[str, Float[Tensor, "..."]]:
        """The translators as the package ``tuned-lens`` names them: ``"0.weight"``, ``"0.bias"``.

        For ``params.pt`` of its folder: ``torch.save(tuned.state_dict(), ...)``.

        Raises:
            SiteError: these are not translators of ``resid_pre`` in every layer from 0.
        """
        expected = tuple(f"L{i}.resid_pre" for i in range(len(self.sites)))
        if self.sites != expected:
            raise SiteError(
                f"these translators read {', '.join(self.sites[:3])}, ...; the package tuned-lens "
                "knows only the residual stream before each block, 'L*.resid_pre'."
            )
        pairs = enumerate(zip(self.weight, self.bias, strict=True))
        return {
            f"{i}.{name}": tensor.cpu().clone()
            for i, pair in pairs
            for name, tensor in zip(("weight", "bias"), pair, strict=True)
        }

    @classmethod
    def from_state_dict(
        cls, model: Model, state: Mapping[str, Any], config: Mapping[str, Any] | None = None
    ) -> TunedLens:
        """Translators of the package ``tuned-lens``, for the model they were trained on.

        Its folder holds a pickle, which this package does not open; torch reads one of bare
        tensors safely (``load`` of torch, with ``weights_only=True``)::

            state = load("lens/params.pt", map_location="cpu", weights_only=True)
            config = json.loads(Path("lens/config.json").read_text())
            tuned = TunedLens.from_state_dict(model, state, config)

        ``config`` lets the unembedding be compared, coarsely, as the package does. Its files hold
        no hash of the whole model: that the rest of the weights fits is the caller's word.

        Raises:
            ModelError: not one weight (and bias) of the model's width for each of its layers, or
                ``config`` was written for another unembedding.
        """
        expected = (config or {}).get("unembed_hash")
        if expected and expected != _unembed_hash(model):
            raise ModelError(
                f"these translators were trained for another unembedding than that of "
                f"{model.name!r}: load the model that their config names, "
                f"{(config or {}).get('base_model_name_or_path')!r}."
            )
        d, n = model.d_model, model.n_layers
        weights = [state.get(f"{i}.weight") for i in range(n)]
        biases = [state.get(f"{i}.bias", torch.zeros(d)) for i in range(n)]
        shapes = [list(w.shape) if isinstance(w, Tensor) else None for w in weights]
        extra = {key for key in state if key.partition(".")[0].isdigit()} - {
            f"{i}.{name}" for i in range(n) for name in ("weight", "bias")
        }
        if shapes != [[d, d]] * n or extra or any(b.shape != (d,) for b in biases):
            raise ModelError(
                f"these translators have weights of shapes {shapes[:3]}{' and more' * bool(extra)}; "
                f"{model.name!r} needs {n} of [{d}, {d}], named '0.weight' to '{n - 1}.weight'."
            )
        return cls(
            sites=tuple(f"L{i}.resid_pre" for i in range(n)),
            weight=torch.stack(weights).float(),  # type: ignore[arg-type]
            bias=torch.stack(biases).float(),
            bias_only=None,
            held_out=torch.zeros(3, n, 0),
            curve=torch.zeros(0, n),
            provenance=Provenance.of(model, verb="TunedLens.from_state_dict"),
        )


def _unembed_hash(model: Model) -> str:
    """The package ``tuned-lens``'s hash of an unembedding: of its corners, printed to a digit."""
    import numpy as np

    head: Any = model.hf.get_output_embeddings()
    matrix = head.weight.detach().float().cpu().numpy()
    return hashlib.sha256(np.array_str(matrix, precision=1).encode()).hexdigest()

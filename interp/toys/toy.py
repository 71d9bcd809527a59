"""A toy transformer: its Hugging Face module, and one forward pass with sites read and edited.

A step of training is one such pass, so what it needs is worked out once: sites by name, the mask, and the
anatomy. What is left for each pass is putting hooks on and taking them off again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import CheckpointError, RunError, ToyError
from interp.models.hooked import HookedForCausalLM
from interp.models.load import load
from interp.models.model import Model
from interp.runs.edits import Edit
from interp.runs.plan import chain, edited, key_of, resolve
from interp.runs.slices import read
from interp.sites import Site
from interp.taps.anatomy import Anatomy, dissect
from interp.taps.points import Key, tapped

__all__ = ["Toy", "ToyPass"]


@dataclass(frozen=True, eq=False)
class ToyPass:
    """What one pass of a toy left.

    Attributes:
        saved: tensors by the names they were asked for by (``"L*.z"`` gives one for each layer).
    """

    saved: Mapping[str, Tensor]
    _logits: Tensor | None

    @property
    def logits(self) -> Float[Tensor, "batch pos d_out"]:
        """What the toy answers at each position.

        Raises:
            RunError: the pass was asked for none.
        """
        if self._logits is None:
            raise RunError("this pass has no logits: it ended before them (logits='none').")
        return self._logits


class Toy:
    """A small transformer to train. Made by :func:`interp.toys.transformer`.

    Attributes:
        hf: the Hugging Face model whose parameters are trained.
        anatomy: its parts and sizes.
    """

    def __init__(self, hf: HookedForCausalLM, name: str = "toy") -> None:
        self.hf, self.name = hf, name
        self.anatomy: Anatomy = dissect(hf)
        self._sites: dict[str, tuple[Site, ...]] = {}
        self._masks: dict[tuple[int, torch.device], dict[str, Tensor]] = {}

    def __repr__(self) -> str:
        config = self.hf.config
        reads = (
            f"vectors of {config.vector_size}"
            if self.reads_vectors
            else f"{config.vocab_size} tokens"
        )
        count = sum(p.numel() for p in self.hf.parameters() if p.requires_grad)
        return (
            f"Toy({reads} → {config.output_vocab_size}, {self.anatomy.n_layers} layers × "
            f"{self.anatomy.n_heads} heads, d_model {self.anatomy.d_model}, "
            f"{self.anatomy.weighting} attention, {count:,} parameters)"
        )

    def __deepcopy__(self, memo: Any) -> Toy:
        return Toy(copy.deepcopy(self.hf, memo), self.name)

    @property
    def reads_vectors(self) -> bool:
        """Whether it reads vectors in the place of tokens."""
        return self.hf.config.vector_size is not None

    @property
    def device(self) -> torch.device:
        return next(self.hf.parameters()).device

    @cached_property
    def _model(self) -> Model:
        return Model.wrap(self.hf, None, name=self.name)

    @property
    def model(self) -> Model:
        """The toy as a model of this library, its sites proven: for all verbs.

        It shares the weights. The proof is made once, on the weights as they stand then.

        Raises:
            ToyError: it reads vectors.
        """
        if self.reads_vectors:
            raise ToyError(
                "this toy reads vectors, and the verbs of a Model read tokens. toy.run(inputs, save=..., "
                "edit=...) reads and edits its sites."
            )
        self.hf.eval()
        return self._model

    # -- running -----------------------------------------------------------------------

    def run(
        self,
        inputs: Tensor,
        *,
        save: str | Iterable[str] = (),
        edit: Mapping[str, Edit] | None = None,
        grad: bool = False,
        logits: str = "all",
    ) -> ToyPass:
        """One forward pass.

        Args:
            inputs: token ids ``[batch, pos]``, or vectors ``[batch, pos, d_in]``.
            save: sites to keep, ``"L1.attn_scores"``; slices keep the slice. With ``grad`` they lie on
                the path to the logits if they are whole.
            edit: site → tensor -> tensor, or one of the edits (``interp.Replace``, ...).
            grad: keep the graph.
            logits: ``"all"``, or ``"none"`` where what is saved is enough.

        Raises:
            SiteError: a site that the toy does not have.
            RunError: an edit of another shape, or inputs that the toy cannot read.
        """
        self._check(inputs)
        saved: dict[str, Tensor] = {}
        functions = self._functions(inputs, [save] if isinstance(save, str) else save, edit, saved)
        with torch.set_grad_enabled(grad), tapped(self.anatomy, functions):
            arguments = {"attention_mask": self._mask(inputs.shape[1]), "use_cache": False}
            if logits == "none":
                self.hf.model(inputs, **arguments)
                return ToyPass(saved, None)
            return ToyPass(saved, self.hf(inputs, **arguments).logits)

    def _functions(
        self,
        inputs: Tensor,
        save: Iterable[str],
        edit: Mapping[str, Edit] | None,
        saved: dict[str, Tensor],
    ) -> dict[Key, Edit]:
        steps: dict[Key, list[Edit]] = {}
        columns = partial(_columns, inputs)
        for name, fn in (edit or {}).items():
            for site in self._resolved(name):
                steps.setdefault(key_of(site), []).append(edited(site, fn, columns(site)))
        for name in save:
            sites = self._resolved(name)
            for site in sites:
                label = name if len(sites) == 1 else str(site)
                keep = _keeper(label, site, columns(site), saved)
                steps.setdefault(key_of(site), []).append(keep)
        return {key: fns[0] if len(fns) == 1 else chain(fns) for key, fns in steps.items()}

    def _resolved(self, name: str) -> tuple[Site, ...]:
        if name not in self._sites:
            self._sites[name] = resolve(self.anatomy, name)
        return self._sites[name]

    def _mask(self, width: int) -> dict[str, Tensor]:
        """What hides later positions, in the form that written-out attention adds."""
        key = (width, self.device)
        if key not in self._masks:
            dtype = next(self.hf.parameters()).dtype
            hidden = torch.full((width, width), torch.finfo(dtype).min, dtype=dtype)
            mask = hidden.triu(1) if self.anatomy.causal else torch.zeros_like(hidden)
            self._masks[key] = {"full_attention": mask[None, None].to(self.device)}
        return self._masks[key]

    def _check(self, inputs: Tensor) -> None:
        axes = 3 if self.reads_vectors else 2
        n_ctx = self.anatomy.n_ctx
        if inputs.dim() != axes or inputs.is_floating_point() != self.reads_vectors:
            expected = "vectors [batch, pos, d_in]" if self.reads_vectors else "ids [batch, pos]"
            raise RunError(f"this toy reads {expected}; given {inputs.dtype} {list(inputs.shape)}.")
        config = self.hf.config
        if self.reads_vectors and inputs.shape[2] != config.vector_size:
            raise RunError(
                f"this toy reads vectors of {config.vector_size}; given {list(inputs.shape)}."
            )
        if not self.reads_vectors and inputs.numel():
            least, most = map(int, inputs.aminmax())
            if least < 0 or most >= config.vocab_size:
                raise RunError(
                    f"this toy has tokens 0 to {config.vocab_size - 1}; given {least} to {most}. Make it with "
                    "the task's d_vocab."
                )
        if n_ctx is not None and inputs.shape[1] > n_ctx:
            raise RunError(f"{inputs.shape[1]} positions are more than this toy's n_ctx={n_ctx}.")

    # -- files -------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Its shape, as JSON values."""
        return {"config": self.hf.config.to_diff_dict()}

    def save(self, folder: str | Path) -> Path:
        """Write a Hugging Face checkpoint folder; ``interp.load(folder)`` reads it too.

        Raises:
            ToyError: the folder cannot be written.
        """
        folder = Path(folder)
        weights = {n: x.detach().cpu().contiguous() for n, x in self.hf.state_dict().items()}
        config = copy.deepcopy(self.hf.config)
        config.architectures = [type(self.hf).__name__]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
            config.save_pretrained(folder)
        except OSError as error:
            raise ToyError(
                f"{str(folder)!r} cannot be written ({error}): give a folder that can be."
            ) from error
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Toy:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: no such folder, it holds no toy, or not all of one.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"there is no toy in {str(folder)!r}; expected what Toy.save wrote."
            )
        hf = load(folder, device="cpu", check=False).hf
        if not isinstance(hf, HookedForCausalLM):
            raise CheckpointError(
                f"{str(folder)!r} holds a {hf.config.model_type} model and no toy: use interp.load."
            )
        hf.set_attn_implementation("eager")
        return cls(hf, folder.name)


def _columns(inputs: Tensor, site: Site) -> Tensor | None:
    """The column of a site's position in each row; toys have no padding."""
    if site.position is None:
        return None
    width = inputs.shape[1]
    if not isinstance(site.position, int) or not -width <= site.position < width:
        raise RunError(
            f"{str(site)!r}: expected a position from {-width} to {width - 1}; names are of prompts."
        )
    return torch.full((inputs.shape[0],), site.position % width, device=inputs.device)


def _keeper(
    name: str, site: Site, columns: Tensor | None, saved: dict[str, Tensor]
) -> Callable[[Tensor], Tensor]:
    def keep(x: Tensor) -> Tensor:
        saved[name] = read(x, site, columns)
        return x

    return keep

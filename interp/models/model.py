"""The model: a Hugging Face model, unmodified, that can be read and edited at every site."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError, nearest
from interp.models.check import Report, check
from interp.models.edited import Edited
from interp.models.identity import identity
from interp.models.replaced import Dictionaries, Replaced, own_name
from interp.models.weights import Weights
from interp.prompts.pairs import build
from interp.prompts.positions import resolve_columns
from interp.prompts.prompts import Prompts
from interp.runs.edits import Edit
from interp.runs.execute import Logits, Run, execute
from interp.runs.generate import generating
from interp.runs.memory import Estimate, estimate
from interp.runs.plan import Save, points_of, resolve
from interp.sites import Site
from interp.taps.anatomy import Anatomy, dissect
from interp.taps.offload import device_of
from interp.token_batch import TokenBatch
from interp.tokens import Tokenization

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Model"]

Inputs = str | Sequence[Any] | Int[Tensor, "*batch pos"] | TokenBatch | Prompts


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A causal language model with named sites. Made by :func:`interp.load`.

    The Hugging Face module stays as it is: hooks live for the length of one run.

    Attributes:
        hf: the Hugging Face model.
        tokens: its tokenizer with one policy for BOS, padding and length.
        name: what it was loaded from.
        anatomy: its parts and sizes, and which points are refused.
    """

    hf: PreTrainedModel
    tokens: Tokenization
    name: str
    anatomy: Anatomy
    _report: Report | None = field(default=None)
    _hashed: dict[str, Any] = field(default_factory=dict)  # until a weight is written
    _standing: tuple[Replaced, ...] = ()  # blocks of dictionaries, the outermost first

    @classmethod
    def wrap(
        cls,
        hf: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        name: str,
        level: Literal["quick", "full"] | bool = "quick",
    ) -> Model:
        """Wrap a Hugging Face model object after checking it."""
        anatomy, report = dissect(hf), None
        if level is not False:
            anatomy, report = check(anatomy, "quick" if level is True else level)
        embedding: Any = hf.get_input_embeddings()
        out = anatomy.d_vocab_out
        tokens = Tokenization(
            tokenizer,
            n_vocab=embedding.num_embeddings,
            n_ctx=anatomy.n_ctx,
            n_out=None if out == anatomy.hf.config.get_text_config().vocab_size else out,
        )
        return cls(hf, tokens, name, anatomy, report)

    # -- what it is --------------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        return self.anatomy.n_layers

    @property
    def n_heads(self) -> int:
        return self.anatomy.n_heads

    @property
    def n_kv_heads(self) -> int:
        return self.anatomy.n_kv_heads

    @property
    def d_model(self) -> int:
        return self.anatomy.d_model

    @property
    def d_head(self) -> int:
        return self.anatomy.d_head

    @property
    def d_vocab(self) -> int:
        return self.tokens.n_vocab

    @property
    def d_vocab_out(self) -> int:
        """Width of the logits: ``d_vocab``, but in models that answer in a vocabulary of their own."""
        return self.anatomy.d_vocab_out

    @property
    def n_ctx(self) -> int | None:
        return self.anatomy.n_ctx

    @property
    def device(self) -> torch.device:
        return device_of(self.hf)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.hf.parameters()).dtype

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        return self.tokens.tokenizer

    @cached_property
    def n_params(self) -> int:
        """Number of parameters, tied ones counted once."""
        return sum(p.numel() for p in self.hf.parameters())

    @property
    def weights_hash(self) -> str:
        """sha256 over names, shapes and values of the weights: the model's identity.

        Values are hashed as float32, so a checkpoint has one hash in whatever dtype it is loaded
        (float64 and lossy casts aside). Inside :meth:`replaced` the dictionaries count too.
        """
        return identity(self.hf, self._hashed, self.anatomy.splices)

    def __repr__(self) -> str:
        return (
            f"Model({self.name!r}, {self.anatomy.name}, {self.n_layers} layers × {self.n_heads} "
            f"heads, d_model {self.d_model}, {str(self.dtype).removeprefix('torch.')} on "
            f"{self.device})"
        )

    def report(self) -> Report:
        """What the self-check found at load.

        Raises:
            ModelError: the model was loaded with ``check=False``.
        """
        if self._report is None:
            raise ModelError("this model was loaded with check=False: nothing is proven about it.")
        return self._report

    def sites(self, pattern: str | Site | None = None) -> tuple[str, ...]:
        """Names of the sites this model has, or of those that a pattern means.

        >>> model.sites("L*.resid_pre")                           # doctest: +SKIP
        ('L0.resid_pre', 'L1.resid_pre', ...)
        """
        if pattern is not None:
            return tuple(str(site) for site in resolve(self.anatomy, pattern))
        return tuple(str(site) for site in resolve(self.anatomy, points_of(self.anatomy)))

    # -- tokens ------------------------------------------------------------------------

    def to_tokens(
        self, text: str | Sequence[str], *, bos: bool | None = None
    ) -> Int[Tensor, "batch pos"]:
        """Ids of texts of one length, on the model's device (see :class:`Tokenization`)."""
        return self.tokens.to_tokens(text, bos=bos).to(self.device)

    def to_str_tokens(self, text: str | Int[Tensor, " pos"] | Sequence[int]) -> list[str]:
        """Each token as text of its own."""
        return self.tokens.to_str_tokens(text)

    def to_string(self, ids: Int[Tensor, " pos"] | Sequence[int]) -> str:
        """The text of some token ids."""
        return self.tokens.to_string(ids)

    def to_single_token(self, text: str) -> int:
        """The id of a text that is one token; PromptError if it is not."""
        return self.tokens.to_single_token(text)

    def prompts(self, clean: Any, corrupted: Any = None, **options: Any) -> Prompts:
        """Aligned clean and corrupted prompts with answers: see :func:`interp.prompts.build`."""
        return build(self.tokens, clean, corrupted, **options)

    def batch(
        self, inputs: Inputs, *, bos: bool | None = None, pad: Literal["right", "left"] = "right"
    ) -> TokenBatch:
        """Whatever :meth:`run` takes, as token ids with a mask, on the model's device."""
        if isinstance(inputs, Prompts):
            inputs = inputs.clean
        return self.tokens.take(inputs, bos=bos, pad=pad).to(self.device)

    # -- running -----------------------------------------------------------------------

    def run(
        self,
        inputs: Inputs,
        *,
        save: Save = (),
        edit: Mapping[str, Edit] | None = None,
        grad: bool = False,
        stop_at: int | None = None,
        logits: Logits = "all",
        batch: int | Literal["auto"] = "auto",
        bos: bool | None = None,
        pad: Literal["right", "left"] = "right",
    ) -> Run:
        """Run the model once, saving and editing named tensors on the way.

        Args:
            inputs: text, texts, token ids (taken as they are), a TokenBatch, or Prompts
                (their clean side). Texts of unequal length are padded and masked.
            save: sites to keep, ``"L*.resid_pre"`` or a list; ``"all"`` for every site
                but ``result``. Slices (``"L5.H3.z@-1"``) keep only the slice.
            edit: site → function ``tensor -> tensor``, or Replace, Add, Scale, Zero, Noise.
                A function sees what the cache would hold under that name. Under batches
                it sees a part of the rows; pass ``batch=len(inputs)`` if that matters.
                The cache holds tensors after their edits.
            grad: keep the graph, so that ``torch.autograd.grad(score, run.cache[site])`` works.
            stop_at: stop before this block; nothing behind it is computed.
            logits: ``"all"`` positions, the ``"last"`` real one of each prompt
                ([batch, 1, d_vocab]), or ``"none"``: the run ends once everything to be saved
                has been seen and the unembedding is skipped.
            batch: prompts at a time, or ``"auto"``: as many as fit (see :meth:`estimate`),
                halved if the device runs out of memory.
            bos, pad: how text is tokenised (see :class:`Tokenization`).

        Raises:
            SiteError: a site does not exist, is refused, or was never reached.
            RunError: an edit returned a wrong shape, or ``stop_at`` is out of range.
            BudgetError: what must be kept does not fit in memory.
            PromptError: input that cannot be tokenised, or longer than the context.
        """
        tokens = self.batch(inputs, bos=bos, pad=pad)
        return execute(
            self.anatomy,
            tokens,
            save=save,
            edit=edit,
            grad=grad,
            stop_at=stop_at,
            logits=logits,
            rows_at_once=batch,
            columns=self._columns(inputs, tokens),
        )

    def generate(
        self,
        inputs: Inputs,
        *,
        edit: Mapping[str, Edit] | None = None,
        bos: bool | None = None,
        **options: Any,
    ) -> Int[Tensor, "batch longer"]:
        """Hugging Face's ``generate`` under edits; texts are padded on the left.

        An edit of a whole site acts on the prompt and on each new token; an edit at a
        position acts on the prompt only. ``options`` go to ``generate`` as they are.
        """
        given = self.batch(inputs, bos=bos, pad="left")
        tokens = given.left_padded()
        options.setdefault("pad_token_id", self._pad_id())
        where, moved = self._columns(inputs, given), tokens.first - given.first

        def columns(position: int | str) -> Int[Tensor, " batch"]:
            return where(position) + moved

        with generating(self.anatomy, tokens, edit or {}, columns):
            return self.hf.generate(
                input_ids=tokens.ids, attention_mask=tokens.mask.long(), **options
            )

    def estimate(
        self,
        inputs: Inputs,
        *,
        save: Save = (),
        logits: Logits = "all",
        grad: bool = False,
    ) -> Estimate:
        """Memory that :meth:`run` would take with these arguments, and the batch that fits."""
        tokens = self.batch(inputs)
        width = tokens.ids.shape[1]
        return estimate(
            self.anatomy,
            rows=len(tokens),
            width=width,
            save=resolve(self.anatomy, save),
            logit_positions={"all": width, "last": 1, "none": 0}[logits],
            d_vocab=self.d_vocab_out,
            grad=grad,
        )

    def _columns(self, inputs: Inputs, tokens: TokenBatch) -> Any:
        named = inputs.positions if isinstance(inputs, Prompts) else {}
        return lambda position: resolve_columns(position, tokens, named).to(self.device)

    def _pad_id(self) -> int:
        for holder in (self.tokenizer, self.hf.config):
            for name in ("pad_token_id", "eos_token_id"):
                value = getattr(holder, name, None)
                if isinstance(value, int):
                    return value
        return 0

    # -- weights and twins -------------------------------------------------------------

    @property
    def weights(self) -> Weights:
        """Weights as read-only views in TransformerLens layouts; ``.folded()`` for copies."""
        return Weights(self.anatomy)

    def edited(self, edits: Any) -> Edited:
        """Weights changed inside a ``with`` block, then put back: see :mod:`.edited`."""
        return Edited(self, edits)

    def replaced(self, dictionaries: Dictionaries, *, error: bool = False) -> Replaced:
        """Dictionaries in every run of this model inside a ``with`` block: see :mod:`.replaced`."""
        return Replaced(self, dictionaries, error=error)

    def __getattr__(self, name: str) -> Float[Tensor, "..."]:
        if name.startswith(("W_", "b_")):
            return getattr(self.weights, name)
        raise AttributeError(
            f"Model has no attribute {name!r}; nearest: {nearest(name, dir(type(self)))}."
        )

    def random_twin(
        self, seed: int = 0, *, check: Literal["quick", "full"] | bool = "quick"
    ) -> Model:
        """A model of the same shape with untrained weights: the null control.

        Weights come from the family's own initialisation under ``seed``; the global random
        state is left as it was. Inside :meth:`replaced` no dictionary stands in the twin.
        """
        from transformers import AutoModelForCausalLM

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            twin = AutoModelForCausalLM.from_config(
                copy.deepcopy(self.hf.config), dtype=torch.float32
            )
        twin = twin.to(device=self.device, dtype=self.dtype).eval()
        return Model.wrap(
            twin,
            self.tokenizer,
            name=f"{own_name(self)} (random, seed {seed})",
            level=check,
        )

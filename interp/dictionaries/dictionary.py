"""``Dictionary``: activations as sums of few features, one object for SAEs and all transcoders.

    features = encode(x)      x̂ = decode(features)

>>> tc = interp.load_dictionary("out/L2.mlp")                              # doctest: +SKIP
>>> features = tc.encode(store.rows(range(4096))["L2.mlp.input"])          # doctest: +SKIP
>>> output = tc.decode(features)                                           # doctest: +SKIP

Weights are in the units of the model's activations: what normalised them in training is folded in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.dictionaries.activations import activation
from interp.dictionaries.part import Part
from interp.dictionaries.spec import DictionarySpec
from interp.errors import DictionaryError

__all__ = ["Dictionary"]

_EPS = 1e-5  # of layer_norm, as in SAELens


class Dictionary(nn.Module):
    """A sparse autoencoder or a transcoder. Made by ``interp.train`` and ``interp.load_dictionary``.

    Attributes:
        spec: what it is.
        parts: its encoders and decoders: one, or one for each layer of a cross-layer transcoder.
        b_dec: what is written where no feature is active; of all written sites, one after another.
        W_skip: the linear path of a skip transcoder, [d_out, d_in]; None otherwise.
        training_record: what :func:`interp.train` wrote down. None for one that was loaded: the
            record stands beside it, ``TrainingRecord.load(folder / "record.safetensors")``.
    """

    parts: Sequence[Part]  # a ModuleList, whose members are known
    W_skip: nn.Parameter | None

    def __init__(self, spec: DictionarySpec) -> None:
        super().__init__()
        n = len(spec.reads)
        self.parts = nn.ModuleList(  # type: ignore[assignment]
            Part(spec.d_in, spec.d_sae, (n - i) * spec.d_out,
                 activation(spec.activation, spec.d_sae, **spec.options))
            for i in range(n)
        )  # fmt: skip
        self.b_dec = nn.Parameter(torch.zeros(n * spec.d_out))
        skip = spec.kind == "skip_transcoder"
        self.W_skip = nn.Parameter(torch.zeros(spec.d_out, spec.d_in)) if skip else None
        self.spec = spec
        self.training_record: Any = None

    # -- what it is --------------------------------------------------------------------

    @property
    def kind(self) -> str:
        return self.spec.kind

    @property
    def d_in(self) -> int:
        return self.spec.d_in

    @property
    def d_out(self) -> int:
        return self.spec.d_out

    @property
    def d_sae(self) -> int:
        return self.spec.d_sae

    @property
    def device(self) -> torch.device:
        return self.b_dec.device

    @property
    def dtype(self) -> torch.dtype:
        return self.b_dec.dtype

    @property
    def W_enc(self) -> Float[Tensor, "*layer d_in d_sae"]:  # noqa: N802 (the field's name)
        """Directions that are read, a column for each feature (SAELens's layout)."""
        return self._per_part([part.enc.T for part in self.parts])

    @property
    def b_enc(self) -> Float[Tensor, "*layer d_sae"]:
        """Encoder biases."""
        return self._per_part([part.b_enc for part in self.parts])

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_out"]:  # noqa: N802
        """Directions that are written, a row for each feature; of a cross-layer transcoder see
        :meth:`decoder`."""
        if self.spec.crossing:
            raise DictionaryError(
                "a cross-layer transcoder has a decoder for each pair of layers: dictionary.decoder("
                "read, write)."
            )
        return self.parts[0].dec

    def decoder(self, read: int, write: int) -> Float[Tensor, "d_sae d_out"]:
        """What features of the ``read``-th part write to the ``write``-th site.

        Raises:
            DictionaryError: they do not write there.
        """
        n = len(self.parts)
        if not 0 <= read <= write < n:
            raise DictionaryError(
                f"part {read} does not write to site {write}: a part writes to its own layer and those "
                f"behind it, 0 to {n - 1}."
            )
        start = (write - read) * self.d_out
        return self.parts[read].dec[:, start : start + self.d_out]

    @property
    def hash(self) -> str:
        """sha256 over the weights and all of the spec that what it computes depends on."""
        spec = self.spec
        own = (spec.kind, spec.reads, spec.writes, spec.activation, sorted(spec.options.items()),
               spec.centre, spec.normalise)  # fmt: skip
        digest = hashlib.sha256(repr(own).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        spec = self.spec
        reads = spec.reads[0] if len(spec.reads) == 1 else f"{spec.reads[0]} to {spec.reads[-1]}"
        writes = (
            spec.writes[0] if len(spec.reads) == 1 else f"{spec.writes[0]} to {spec.writes[-1]}"
        )
        path = reads if spec.kind == "sae" else f"{reads} → {writes}"
        options = "".join(f", {name} {value}" for name, value in spec.options.items())
        return (
            f"Dictionary({spec.kind}, {path}: {spec.d_in} → {spec.d_sae:,} features → {spec.d_out}, "
            f"{spec.activation}{options})"
        )

    # -- what it does ------------------------------------------------------------------

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_sae"]:
        """Feature activations of what is read at :attr:`spec`'s ``reads``.

        A cross-layer transcoder takes [layer, ..., d_in] and gives [layer, ..., d_sae].

        Raises:
            DictionaryError: a shape that does not fit.
        """
        self._check(x, self.d_in, "encodes")
        if self.spec.crossing:
            return torch.stack([self.encode_part(i, x[i]) for i in range(len(self.parts))])
        return self.encode_part(0, x)

    def decode(
        self, features: Float[Tensor, "*rows d_sae"], x: Float[Tensor, "*rows d_in"] | None = None
    ) -> Float[Tensor, "*rows d_out"]:
        """What these feature activations write.

        Args:
            features: as :meth:`encode` gives them.
            x: the input, for dictionaries whose output depends on it beside (skip transcoders, and
                those that normalise at run time).

        Raises:
            DictionaryError: a shape that does not fit, or ``x`` is needed.
        """
        self._check(features, self.d_sae, "decodes")
        if self.spec.crossing:
            return torch.stack(
                [self.decode_to(i, list(features[: i + 1])) for i in range(len(self.parts))]
            )
        return self.decode_to(0, [features], x)

    def forward(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """``decode(encode(x), x)``."""
        return self.decode(self.encode(x), x)

    def encode_part(
        self, part: int, x: Float[Tensor, "*rows d_in"]
    ) -> Float[Tensor, "*rows d_sae"]:
        """Feature activations of one part."""
        return self.parts[part](self.prepared(x))

    def decode_to(
        self,
        write: int,
        features: Sequence[Float[Tensor, "*rows d_sae"]],
        x: Float[Tensor, "*rows d_in"] | None = None,
    ) -> Float[Tensor, "*rows d_out"]:
        """What is written to one site by the parts up to it (all that write there)."""
        start = write * self.d_out
        out = self.b_dec[start : start + self.d_out]
        for read, acts in enumerate(features):
            out = out + acts.to(self.dtype) @ self.decoder(read, write)
        if self.W_skip is not None:
            out = out + torch.nn.functional.linear(self._given(x), self.W_skip)
        return self._restored(out, x)

    def prepared(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_in"]:
        """What the encoder is multiplied with: the input normalised and centred as the spec says."""
        return self.centred(self._normalised(x.to(self.dtype)))

    def centred(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_in"]:
        """The input less ``b_dec``, where the spec says so."""
        return x - self.b_dec if self.spec.centre else x

    # -- making others of it -----------------------------------------------------------

    @classmethod
    def of(cls, spec: DictionarySpec, tensors: Mapping[str, Tensor]) -> Dictionary:
        """A dictionary with these weights, named as in ``state_dict()``.

        Raises:
            DictionaryError: a weight is missing, is not one of it, or has another shape.
        """
        made = cls(spec)
        own = made.state_dict()
        if own.keys() != tensors.keys():
            raise DictionaryError(
                f"weights {sorted(tensors)}; expected {sorted(own)} for a {spec.kind} with "
                f"{spec.activation}."
            )
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape:
                raise DictionaryError(
                    f"{name} has the shape {list(tensor.shape)}; expected {list(own[name].shape)}."
                )
        dtype = next(iter(tensors.values())).dtype
        made = made.to(dtype)
        made.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()})
        return made.requires_grad_(False)

    def with_spec(self, **changes: Any) -> Dictionary:
        """A copy of it under a spec with some values changed."""
        made = Dictionary.of(replace(self.spec, **changes), self.state_dict()).to(self.device)
        made.training_record = self.training_record
        return made

    def save(self, folder: str | Path, *, format: str = "saelens", **options: Any) -> Path:
        """Write it to a folder; see :func:`interp.dictionaries.formats.save_dictionary`."""
        from interp.dictionaries.formats import save_dictionary

        return save_dictionary(self, folder, format=format, **options)

    # -- inside ------------------------------------------------------------------------

    def _per_part(self, tensors: list[Tensor]) -> Tensor:
        return torch.stack(tensors) if self.spec.crossing else tensors[0]

    def _check(self, x: Tensor, width: int, what: str) -> None:
        layers = (len(self.parts),) if self.spec.crossing else ()
        shape = tuple(x.shape) if isinstance(x, Tensor) else ()
        if shape[-1:] != (width,) or (layers and shape[:1] != layers):
            given = f"tensor of shape {list(shape)}" if isinstance(x, Tensor) else type(x).__name__
            expected = [*layers, "...", width]
            raise DictionaryError(
                f"given a {given}; this dictionary {what} tensors of shape "
                f"[{', '.join(map(str, expected))}]."
            )

    def _given(self, x: Tensor | None) -> Tensor:
        if x is None:
            raise DictionaryError(
                "what this dictionary writes depends on its input beside the features: give "
                "decode(features, x)."
            )
        self._check(x, self.d_in, "encodes")
        return x.to(self.dtype)

    def _normalised(self, x: Tensor) -> Tensor:
        if self.spec.normalise == "layer_norm":
            x = x - x.mean(-1, keepdim=True)
            return x / (x.std(-1, keepdim=True) + _EPS)
        if self.spec.normalise == "constant_norm_rescale":
            return x * (self.d_in**0.5 / x.norm(dim=-1, keepdim=True))
        return x

    def _restored(self, out: Tensor, x: Tensor | None) -> Tensor:
        if self.spec.normalise == "layer_norm":
            x = self._given(x)
            return out * (x - x.mean(-1, keepdim=True)).std(-1, keepdim=True) + x.mean(
                -1, keepdim=True
            )
        if self.spec.normalise == "constant_norm_rescale":
            return out * (self._given(x).norm(dim=-1, keepdim=True) / self.d_in**0.5)
        return out

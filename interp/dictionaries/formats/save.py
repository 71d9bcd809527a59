"""``save_dictionary``: a dictionary as a folder of another library's format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.folding import reading
from interp.dictionaries.formats import circuit_tracer, saelens, sparsify
from interp.dictionaries.formats.folder import Content, write_folder
from interp.dictionaries.formats.parts import dtype_named
from interp.errors import DictionaryError, nearest

__all__ = ["FORMATS", "save_dictionary"]

FORMATS = ("saelens", "sparsify", "circuit-tracer")


def save_dictionary(
    dictionary: Dictionary | Sequence[Dictionary],
    folder: str | Path,
    *,
    format: str = "saelens",
    model: Any = None,
    reads: str | None = None,
    overwrite: bool = False,
    dtype: torch.dtype | str | None = None,
) -> Path:
    """Write a dictionary to a folder, whole or not at all.

    Args:
        dictionary: one; or, for circuit-tracer, a transcoder for each layer.
        folder: where to; made if it is not there.
        format: ``"saelens"`` takes every dictionary (:mod:`.saelens` says as what),
            ``"circuit-tracer"`` transcoders with ReLU, JumpReLU or BatchTopK, cross-layer ones too,
            ``"sparsify"`` TopK. :func:`load_dictionary` gives back what was saved, to the bit, from
            each of them.
        model: the model that it was trained on: for its name, and for ``reads``.
        reads: ``"ln2.normalized"`` or ``"mlp.input"``: the convention of the file. The norm's γ and β
            are folded into the transcoder's weights. TransformerLens's ``ln2.hook_normalized`` is the
            former. None keeps what the transcoder reads.
        overwrite: replace the dictionary in a folder which is not empty; other files are kept.
        dtype: of the weights in the file; None keeps the dictionary's.

    Returns:
        The folder.

    Raises:
        DictionaryError: an unknown format or one that lacks this kind of dictionary; a folder that is
            not empty; a place that cannot be written; ``reads`` without a model.
    """
    if format not in FORMATS:
        raise DictionaryError(
            f"format={format!r}; expected one of {', '.join(FORMATS)}; nearest: "
            f"{nearest(format, FORMATS)}."
        )
    if reads is not None and model is None:
        raise DictionaryError(
            f"reads={reads!r} folds the γ and β of a model's norms: give that model, "
            "save_dictionary(..., model=model)."
        )
    many = [dictionary] if isinstance(dictionary, Dictionary) else list(dictionary)
    if format != "circuit-tracer" and len(many) != 1:
        raise DictionaryError(
            f"given {len(many)} dictionaries; format={format!r} has one in each folder. Save them one "
            "by one, or as a transcoder set with format='circuit-tracer'."
        )
    own = [_prepared(one, model, reads, dtype_named(dtype)) for one in many]
    write: Callable[[], dict[str, Content]] = {
        "saelens": lambda: saelens.files(own[0]),
        "sparsify": lambda: sparsify.files(own[0]),
        "circuit-tracer": lambda: circuit_tracer.files(own),
    }[format]
    config = circuit_tracer.CONFIG if format == "circuit-tracer" else saelens.CONFIG
    return write_folder(folder, write(), config=config, overwrite=overwrite)


def _prepared(
    dictionary: Dictionary, model: Any, reads: str | None, dtype: torch.dtype | None
) -> Dictionary:
    if reads is not None:
        dictionary = reading(dictionary, model, reads)
    spec = dictionary.spec
    if model is not None and spec.model is None:
        spec = replace(spec, model=model.name, weights_hash=model.weights_hash)
    wanted = dtype or dictionary.dtype
    if spec is dictionary.spec and wanted == dictionary.dtype:
        return dictionary
    state = {name: tensor.to(wanted) for name, tensor in dictionary.state_dict().items()}
    return Dictionary.of(spec, state)

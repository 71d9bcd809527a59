"""``interp.load``: from a name, a folder or a model object to a checked :class:`Model`.

Nothing is downloaded that is on disk, nothing half-loaded is ever returned: a
checkpoint that lacks weights, holds other shapes or cannot be read is refused
by name, where Hugging Face would fill the gap with random numbers and a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from interp.errors import CheckpointError, InterpError, ModelError, nearest
from interp.models.hooked.source import adopt, is_hooked
from interp.models.model import Model
from interp.paths import data_dir

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["load"]

Check = Literal["quick", "full"] | bool
_SMALL = 2**29  # bytes below which a checkpoint loads at once


def load(
    source: str | Path | PreTrainedModel | Any,
    *,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    check: Check = "quick",
) -> Model:
    """Load a causal language model and prove its sites.

    Args:
        source: ``"demo"`` (the model that ships with this package), a checkpoint folder, a
            name on the Hugging Face hub (``"gpt2"``), a Hugging Face model object, which
            is used as it is and never changed, or a TransformerLens model: a
            ``TransformerBridge``, whose weights are shared (copied if they were processed and
            its class cannot hold them), or a ``HookedTransformer``, whose weights are
            copied. What was made of it must give the same logits.
        tokenizer: a tokenizer object, folder or name; by default the checkpoint's (or the
            TransformerLens model's) own. A
            folder without one loads; text input then raises.
        revision: a hub revision, or one of the demo model's early checkpoints
            (``"step-1000"``).
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"`` to spread a large
            model over the cards. None: CUDA where there is a card, else the CPU; a model
            object stays where it is.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, ``"float64"``. None: the
            checkpoint's own, but float32 for float16 checkpoints on the CPU.
        check: ``"quick"``, ``"full"`` or False: see :mod:`interp.models.check`.

    Raises:
        CheckpointError: the folder is missing, incomplete or corrupted.
        ModelError: no such model, no network, no such device or dtype, a family or a
            TransformerLens config that is refused, or weights that fail the check.
    """
    if check not in ("quick", "full", True, False):
        raise ModelError(f"check={check!r}; expected 'quick', 'full' or False.")
    where = _device(device)
    precision = _dtype(dtype)
    if isinstance(source, str | Path):
        folder = _folder(str(source), revision)
        if revision is not None and folder is not None and source != "demo":
            raise ModelError(
                f"revision={revision!r} was given with the folder {str(source)!r}: revisions are of "
                "hub names and of 'demo'. Give the folder of the revision itself."
            )
        hub_revision = revision if folder is None else None
        hf = _read(str(folder or source), hub_revision, where, precision)
        tokenizer = _tokenizer(tokenizer, str(folder or source), hub_revision)
        name = str(source) if folder is None or source == "demo" else folder.resolve().name
        name += f"@{revision}" if revision else ""
        return Model.wrap(hf, tokenizer, name=name, level=check)
    hooked = is_hooked(source)
    if not hooked:
        _expect_model(source)
    if where is not None or precision is not None or revision is not None:
        raise ModelError(
            "device=, dtype= or revision= were given with a model object, which is used as it is: "
            "move it yourself with hf_model.to(...) before interp.load."
        )
    if isinstance(tokenizer, str | Path):
        tokenizer = _tokenizer(tokenizer, str(tokenizer), None)
    if hooked:
        hf, own, name = adopt(source)
        return Model.wrap(hf, own if tokenizer is None else tokenizer, name=name, level=check)
    name = getattr(source.config, "name_or_path", "") or type(source).__name__
    return Model.wrap(source, tokenizer, name=name, level=check)


# -- where ---------------------------------------------------------------------------------


def _folder(source: str, revision: str | None) -> Path | None:
    """The local folder meant; None if the source is a name on the hub."""
    if source == "demo":
        folder = data_dir() / "models" / "demo"
        if revision is None:
            return _complete(folder)
        checkpoints = folder / "checkpoints"
        if not (checkpoints / revision).is_dir():
            names = sorted(p.name for p in checkpoints.glob("*/"))
            raise CheckpointError(
                f"the demo model has no checkpoint {revision!r}; nearest: "
                f"{nearest(revision, names) if names else 'none is shipped'}."
            )
        return _complete(checkpoints / revision)
    path = Path(source).expanduser()
    if path.exists():
        return _complete(path)
    looks_local = source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source
    if looks_local:
        raise CheckpointError(
            f"there is no folder {source!r}; expected a Hugging Face checkpoint folder "
            "(config.json, model.safetensors), a hub name such as 'gpt2', or 'demo'."
        )
    return None


def _complete(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError(f"{str(folder)!r} is not a folder; expected a checkpoint folder.")
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{str(folder)!r} holds no config.json; expected a Hugging Face checkpoint folder. "
            "Save one with hf_model.save_pretrained(folder)."
        )
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{str(folder)!r} holds no *.safetensors weights. Pickled checkpoints are not read: "
            "convert them with hf_model.save_pretrained(folder)."
        )
    return folder


def _device(device: str | torch.device | None) -> torch.device | str | None:
    if device is None or device == "auto":
        return device
    try:
        given = torch.device(device)
    except RuntimeError:
        raise ModelError(
            f"device {device!r} does not exist; expected 'cpu', 'cuda', 'cuda:0', 'mps' or 'auto'."
        ) from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (given.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(given.type, False):
        found = [name for name, there in present.items() if there]
        raise ModelError(
            f"device {str(device)!r} is not available here; available: {', '.join(found)}."
        )
    return given


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return dtype
    dtype = str(dtype).removeprefix("torch.")
    names = ("float32", "bfloat16", "float16", "float64")
    if dtype not in names:
        raise ModelError(f"dtype {dtype!r} does not exist; nearest: {nearest(dtype, names)}.")
    return getattr(torch, dtype)


# -- reading -------------------------------------------------------------------------------


def _read(
    source: str, revision: str | None, device: torch.device | str | None, dtype: torch.dtype | None
) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    with _Reading(source):
        config = AutoConfig.from_pretrained(source, **options)
    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if dtype is None:
        dtype = getattr(config.get_text_config(), "dtype", None) or torch.float32
        if dtype is torch.float16 and str(target) == "cpu":
            dtype = torch.float32
    if device == "auto":
        options["device_map"] = "auto"
    with _Reading(source):
        hf, info = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(
            f"the checkpoint {source!r} lacks {len(missing)} tensors, the first being "
            f"{missing[0]!r}: it is incomplete, or belongs to another architecture."
        )
    return hf.eval() if device == "auto" else hf.to(target).eval()


class _Reading:
    """Turns whatever reading a checkpoint raises into one clear error."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._local = Path(source).exists()
        self._bars = False

    def __enter__(self) -> None:
        from transformers.utils import logging

        small = self._local and sum(f.stat().st_size for f in Path(self._source).glob("*")) < _SMALL
        self._bars = small and logging.is_progress_bar_enabled()
        if self._bars:  # a bar for what takes no time would only be noise
            logging.disable_progress_bar()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from transformers.utils import logging

        if self._bars:
            logging.enable_progress_bar()
        if not isinstance(error, Exception) or isinstance(error, InterpError):
            return
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if self._local:
            raise CheckpointError(
                f"the checkpoint {self._source!r} cannot be read ({type(error).__name__}: {first}). "
                "A file is truncated, damaged or not what its name says: fetch it again."
            ) from error
        raise ModelError(
            f"the model {self._source!r} cannot be had ({type(error).__name__}: {first}). "
            "It is not a folder here, and the hub did not give it: check the name and the "
            "network, or use 'demo', which needs none."
        ) from error


def _tokenizer(
    given: PreTrainedTokenizerBase | str | Path | None, source: str, revision: str | None
) -> PreTrainedTokenizerBase | None:
    from transformers import AutoTokenizer

    if given is not None and not isinstance(given, str | Path):
        return given
    place = str(given) if given is not None else source
    files = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
    if Path(place).is_dir() and not any((Path(place) / name).is_file() for name in files):
        if given is not None:
            raise CheckpointError(f"{place!r} holds no tokenizer (none of {', '.join(files)}).")
        return None
    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    with _Reading(place):
        return AutoTokenizer.from_pretrained(place, **options)


def _expect_model(source: object) -> None:
    from transformers import PreTrainedModel

    if not isinstance(source, PreTrainedModel):
        raise ModelError(
            f"interp.load was given a {type(source).__name__}; expected a name, a folder, a "
            "Hugging Face model object or a TransformerLens model."
        )

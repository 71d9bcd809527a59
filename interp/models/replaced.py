"""SAEs and transcoders in a model's runs for the length of a ``with`` block.

>>> with model.replaced({"L2.mlp": transcoder, "L3.resid_post": sae}) as replaced:  # doctest: +SKIP
...     replaced.run("The capital of France is", save=["L2.mlp", "L3.resid_post.F1204"])
...     interp.patch(replaced, pairs, "L2.mlp.F3,17@-1")

A transcoder reads its site (``mlp.input``, ``ln2.normalized``, ...) and its output takes the place of
the block's ``mlp_out``; an SAE's reconstruction takes the place of what it read. Every run goes
through them: lenses, patches, traces, generation, attribution. Features are sites: ``L2.mlp`` and
``L2.mlp.F1204`` of a transcoder, ``L3.resid_post.features`` and ``L3.resid_post.F1204`` of an SAE.

**Without error nodes** the run is the replacement model's: what the dictionary does not explain is
gone. **With them** (``error=True``) what it leaves out is added back, and stands at ``L2.mlp.error``,
``L3.resid_post.error``. A run in which no feature is edited then equals the model's own to the bit, and
an edit of features moves the output by the decoder's difference (Marks et al. 2024,
arXiv:2403.19647, §2). The error is computed anew in each run, from what the model computes there. To
gradients it is a constant: they reach earlier sites only through the features, so an attribution of a
site before a dictionary with an error node is one with that error held, which a patch does not do.
To hold errors in a run, edit them: ``edit={"L2.mlp.error": interp.Replace(value)}``.

The Hugging Face model is not touched, and runs of it outside this package are as before. Inside the
block the model's ``weights_hash`` and ``name`` are others, since results are of another computation.
The exact engine leaves such runs to the plain path.

Blocks nest: an inner dictionary joins those that stand, and takes the place of one at its own site.
They end in reverse order; a block that ends before one made inside it takes that with it, and says so.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from interp.dictionaries.splice import Dictionaries, added, splices_of
from interp.errors import DictionaryError

if TYPE_CHECKING:
    from interp.models.model import Model

__all__ = ["Dictionaries", "Replaced", "own_name"]


class Replaced:
    """A model with dictionaries in its runs, between ``__enter__`` and ``__exit__``.

    Args:
        model: the model, which is yielded itself.
        dictionaries: one, several, or a mapping from site to dictionary: ``"L2.mlp"`` for a
            transcoder, ``"L3.resid_post"`` for an SAE, ``"L*.mlp"`` for a cross-layer transcoder. Each
            stands where its spec says; a key that says otherwise is refused.
        error: whether to add what a dictionary leaves out, as a node of its own.

    Raises:
        DictionaryError: a dictionary that does not fit this model or its key, two at one site, or
            this block stands already.
        SiteError: this model does not have a site.
    """

    def __init__(self, model: Model, dictionaries: Dictionaries, *, error: bool = False) -> None:
        if not isinstance(error, bool):
            raise DictionaryError(f"error={error!r}; expected True (add error nodes) or False.")
        self._model = model
        self._splices = splices_of(model.anatomy, dictionaries, error=error)
        self._before: dict[str, Any] = {}

    def __enter__(self) -> Model:
        model = self._model
        if self in model._standing:
            raise DictionaryError(
                "these dictionaries stand already: make a new block with model.replaced(...)."
            )
        try:
            self._before = {
                "anatomy": model.anatomy, "name": model.name, "_standing": model._standing,
            }  # fmt: skip
            splices = added(model.anatomy.splices, self._splices)
            now = {
                "anatomy": replace(model.anatomy, splices=splices),
                "name": f"{own_name(model)} with {', '.join(one.name for one in splices)}",
                "_standing": (*model._standing, self),
            }
            vars(model).update(now)  # at once: nothing can come between
            return model
        except BaseException:
            self.undo()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        interrupted: KeyboardInterrupt | None = None
        while interrupted is None or self in self._model._standing:
            try:
                self.undo()
                break
            except KeyboardInterrupt as stop:  # undoing twice does no harm
                interrupted = stop
        if interrupted is not None:
            raise interrupted

    def undo(self) -> None:
        """Take the dictionaries out again. Without effect if that is done already.

        Raises:
            DictionaryError: blocks made inside this one still stood; they ended with it.
        """
        standing = self._model._standing
        if self not in standing:
            return
        inside = len(standing) - standing.index(self) - 1
        vars(self._model).update(self._before)
        if inside:
            raise DictionaryError(
                f"dictionaries were taken out while {inside} block(s) made inside still stood: "
                "those ended too, and the model is as before this block. End blocks in reverse order."
            )


def own_name(model: Model) -> str:
    """The model's name without the dictionaries that stand in it."""
    return str(model._standing[0]._before["name"]) if model._standing else model.name

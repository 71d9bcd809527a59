"""In-context classification: two exemplars with labels, then one of them again: e l e l q.

Each sequence draws two classes and gives each of them a label *anew*, so the labels of other sequences say
nothing: the model must look up, in this sequence, the label behind the exemplar that matches the query. An
induction head does that, in two steps: a head of the first layer copies each exemplar onto the label behind it,
a head of the second attends from the query to the label that carries a matching exemplar, and copies the
label out.

Exemplars are fixed random vectors behind a trained map, where the paper has ResNet-18 features of Omniglot
images (one image of each class in training); there are no pictures here, so exemplars of one class are equal.

Source:
    Singh et al. 2024, arXiv:2404.07129, section 2 (data), and their code's ``fs_relabel``; the task is Chan et
    al. 2022's (arXiv:2205.05055) at its smallest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ToyError
from interp.toys.batch import Batch

__all__ = ["InContext"]

_EXEMPLARS: Final = 1_000_033  # apart from the seeds of weights and batches


@dataclass(frozen=True)
class InContext:
    """Sequences e l e l q of token ids; the answer is the label behind the exemplar that equals q.

    Tokens are classes ``0 … classes - 1``, then held-out classes, then labels. Facts of a batch:
    ``correct`` and ``incorrect``, the positions of the right and the other label (1 or 3), ``labels``, the label
    ids ``[batch, 2]`` at positions 1 and 3, as classes of the output.

    Attributes:
        classes: exemplars that training sequences draw from.
        labels: labels that a sequence draws its two from.
        held_out: exemplars that only :meth:`novel` draws from.
        d_in: entries of an exemplar's fixed vector.
        exemplar_size, label_size: what the fixed vectors of exemplars and labels are multiplied by. The
            smaller exemplars are beside labels, the longer a model names labels before it looks them up.
        shuffled: the target is one of the sequence's two labels at random, whatever the query: nothing is
            there to be learned beyond the labels' names, and no model gets below ln 2. The null.
        seed: of the exemplars' vectors.
    """

    classes: int = 50
    labels: int = 5
    held_out: int = 100
    d_in: int = 64
    exemplar_size: float = 1.0
    label_size: float = 0.16
    shuffled: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes < 2 or self.labels < 2:
            raise ToyError(
                f"InContext(classes={self.classes}, labels={self.labels}): a sequence has two classes and "
                "two labels, so there must be at least two of each."
            )
        if min(self.exemplar_size, self.label_size) <= 0:
            raise ToyError(
                f"InContext(exemplar_size={self.exemplar_size}, label_size={self.label_size}): expected "
                "positive sizes; at 0 all exemplars, or all labels, are the same vector."
            )

    @property
    def n_ctx(self) -> int:
        """Tokens of a sequence."""
        return 5

    @property
    def d_vocab(self) -> int:
        """Tokens: classes, held-out classes and labels."""
        return self.classes + self.held_out + self.labels

    @property
    def d_out(self) -> int:
        """Classes of the output: the labels."""
        return self.labels

    @property
    def features(self) -> Float[Tensor, "d_vocab d_features"]:
        """A fixed vector for each token: normal entries for exemplars; for labels a block of its own, where each
        has one entry, so that the trained map behind holds a vector of its own for each label.

        Under initial weights of standard deviation 1/√d_in and the sizes as they are, exemplars enter the stream
        with entries of about 1 and labels of about .02, as in the paper's code.
        """
        generator = torch.Generator().manual_seed(_EXEMPLARS + self.seed)
        count = self.classes + self.held_out
        out = torch.zeros(self.d_vocab, self.d_in + self.labels)
        exemplars = torch.randn(count, self.d_in, generator=generator)
        out[:count, : self.d_in] = self.exemplar_size * exemplars
        out[count:, self.d_in :] = self.label_size * torch.eye(self.labels)
        return out

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """``n`` sequences of training classes."""
        return self._draw(n, generator, first=0, count=self.classes)

    def novel(self, n: int, generator: torch.Generator) -> Batch:
        """``n`` sequences of classes that training never shows.

        Raises:
            ToyError: fewer than two classes are held out.
        """
        if self.held_out < 2:
            raise ToyError(f"held_out={self.held_out}: a sequence has two classes.")
        return self._draw(n, generator, first=self.classes, count=self.held_out)

    def _draw(self, n: int, generator: torch.Generator, *, first: int, count: int) -> Batch:
        def integers(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator)

        one, other = _two_of(count, n, integers)
        label, wrong = _two_of(self.labels, n, integers)
        labels = torch.stack([label, wrong], 1)
        side = integers(2, n)  # which of the two is asked about
        asked = torch.where(side == 0, one, other)
        told = integers(2, n) if self.shuffled else side
        names = self.classes + self.held_out
        inputs = torch.stack(
            [one + first, label + names, other + first, wrong + names, asked + first], 1
        )
        facts = {"correct": 2 * side + 1, "incorrect": 3 - 2 * side, "labels": labels}
        return Batch(inputs, labels.gather(1, told[:, None])[:, 0], facts=facts)


def _two_of(count: int, n: int, integers: object) -> tuple[Tensor, Tensor]:
    """Two different numbers below ``count`` for each of ``n`` rows."""
    assert callable(integers)
    first = integers(count, n)
    return first, (first + 1 + integers(count - 1, n)) % count

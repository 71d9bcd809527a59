"""Rows to survey: synthetic ones with ties, and a source that cuts them as asked."""

from dataclasses import dataclass

import torch

from interp.store.rows import Rows


def synthetic(n=700, *, units=7, seed=0, levels=None):
    """Documents of 1 to 30 tokens; ``levels`` rounds values, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 31, (n,), generator=generator)
    document = torch.repeat_interleave(torch.arange(n), lengths)[:n]
    first = torch.cat([torch.tensor([True]), document[1:] != document[:-1]])
    place = torch.arange(n)
    position = place - place.masked_fill(~first, 0).cummax(0).values
    scale = torch.logspace(-1, 2, units)
    x = torch.randn(n, units, generator=generator) * scale
    if levels is not None:
        x = (x / scale * levels).round() / levels * scale
    return Rows(
        {
            "L0.mlp_post": x.relu(),
            "L1.mlp_post": x + 0.3 * torch.randn(n, units, generator=generator),
            "L0.z": torch.randn(n, 3, 4, generator=generator),
        },
        torch.randint(0, 50, (n,), generator=generator),
        document,
        position,
    )


@dataclass
class Cut:
    """A source whose chunks have the lengths given, over and over."""

    rows: Rows
    lengths: tuple[int, ...] = (4096,)
    stop_after: int | None = None

    @property
    def sites(self):
        return self.rows.sites

    def batches(self, size, *, shuffle=None):
        start = chunk = 0
        while start < len(self.rows):
            if chunk == self.stop_after:
                raise KeyboardInterrupt
            n = self.lengths[chunk % len(self.lengths)]
            yield self.rows.take(slice(start, start + n))
            start, chunk = start + n, chunk + 1


#: The same rows whole, one by one, and in uneven pieces.
CUTS = ((4096,), (1,), (5, 1, 64, 200), (33,))

"""Surveys: what a corpus says about units, in one pass and without keeping activations.

A survey reads a *source* of activations once, token by token, and keeps what the question needs: a
mean, the best ten examples, counts in bins. A source is an activation store (``interp.harvest``), a
live stream (``interp.stream``), or any iterable of Rows. Results do not depend on how the source is cut into
batches, memory does not grow with it, and Ctrl-C gives what has been read so far.

===================================  =========================================================
``means(source, "L*.mlp_out")``      mean and spread of sites, whole or position by position, for
                                     mean ablation: :class:`Means`
``top_examples(source, site)``       the tokens at which each neuron, head, direction or feature is
                                     strongest, with their text: :class:`TopExamples`
``histograms(source, sites)``        distributions of sites or units, how often features fire:
                                     :class:`Histograms`
``correlation(source, a, b)``        Pearson's r between units of two sites, beside what chance
                                     gives: :class:`Correlation`
``survey(source, [Mean(...), ...])``  several of these in one pass, from their plans
                                     :class:`Mean`, :class:`Top`, :class:`Histogram`,
                                     :class:`Correlate`
===================================  =========================================================

A *unit* is one number for each token: a neuron, a coordinate, a head's norm, or what a ``transform``
from rows to units makes, such as a dictionary's ``encode``.
"""

from interp.surveys.correlation import Correlate, correlation
from interp.surveys.correlation_result import Correlation
from interp.surveys.histogram_result import Histograms
from interp.surveys.histograms import Histogram, histograms
from interp.surveys.means import Mean, Means, means
from interp.surveys.source import Source
from interp.surveys.survey import Plan, survey
from interp.surveys.top import Top, top_examples
from interp.surveys.top_result import TopExamples

__all__ = [
    "correlation", "histograms", "means", "survey", "top_examples",
    "Correlate", "Histogram", "Mean", "Top",
    "Correlation", "Histograms", "Means", "TopExamples",
    "Plan", "Source",
]  # fmt: skip

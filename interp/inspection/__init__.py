"""Looking at features: where they are active, what they read and write, as tables and as a page.

    features    the verb: two passes over a corpus, and the weights         (verb)
    Features    what was found, of many features                           (result)
    Feature     one of them, to look at                                    (feature)

What feeds a transcoder's feature, and along which paths, is :mod:`interp.inspection.feature_circuits`:
``de_embed``, ``connections``, ``contributions``, ``feature_paths``, ``de_embed_path``,
``without_paths`` and their results.

Underneath: ``chosen`` computes the activations of some features alone, ``firing`` and ``look`` are the
two passes, ``ends`` reads weights in the vocabulary, ``neighbours`` compares features, ``control`` says what
chance gives, ``dashboard`` and ``figure`` draw.

>>> found = interp.features(dictionary, model, "demo", which="live")          # doctest: +SKIP
>>> found.feature("F12"); found.plot("F12"); found.dashboard("out/features.html")  # doctest: +SKIP
"""

from interp.inspection.feature import Feature
from interp.inspection.feature_circuits import (
    Connections,
    Contributions,
    DeEmbedding,
    FeaturePaths,
    PathsEffect,
    connections,
    contributions,
    de_embed,
    de_embed_path,
    feature_paths,
    without_paths,
)
from interp.inspection.result import Features
from interp.inspection.verb import features

__all__ = [
    "Connections", "Contributions", "DeEmbedding", "Feature", "FeaturePaths", "Features", "PathsEffect",
    "connections", "contributions", "de_embed", "de_embed_path", "feature_paths", "features", "without_paths",
]  # fmt: skip

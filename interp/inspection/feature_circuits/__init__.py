"""Circuits of features: what a transcoder's feature reads, and which features and heads wrote it.

Transcoders turn an MLP into a wide, sparse one whose parts have meanings, and what is between two features of
them is linear but for norms, attention patterns and which features are active (Dunefsky, Chlenski & Nanda 2024,
"Transcoders Find Interpretable LLM Feature Circuits", arXiv:2406.11944).

    de_embed        the tokens that features read, straight or through a head; weights alone
    connections     every feature of one layer to every feature of a later one: input-invariant, × input-dependent
    contributions   the terms that one feature's pre-activation at one token is the sum of, errors included
    feature_paths   the strongest paths to a feature, by greedy search, and the graph they make
    without_paths   what is left of a feature when the features on its paths are zero, nothing held
    de_embed_path   what each token of the vocabulary would contribute at the end of a path

:mod:`frozen` says what is held while this is computed, :mod:`node` what terms are called.
"""

from interp.inspection.feature_circuits.connections import connections
from interp.inspection.feature_circuits.connections_result import Connections
from interp.inspection.feature_circuits.contributions import contributions
from interp.inspection.feature_circuits.contributions_result import Contributions
from interp.inspection.feature_circuits.de_embedding import de_embed, de_embed_path
from interp.inspection.feature_circuits.de_embedding_result import DeEmbedding
from interp.inspection.feature_circuits.effect import PathsEffect, without_paths
from interp.inspection.feature_circuits.node import Node
from interp.inspection.feature_circuits.paths import feature_paths
from interp.inspection.feature_circuits.paths_result import FeaturePaths

__all__ = [
    "Connections", "Contributions", "DeEmbedding", "FeaturePaths", "Node", "PathsEffect", "connections",
    "contributions", "de_embed", "de_embed_path", "feature_paths", "without_paths",
]  # fmt: skip

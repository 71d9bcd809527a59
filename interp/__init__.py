"""interp: find out how a transformer computes something.

A run of a transformer is a stream of named tensors. Everything here names a site,
reads it, replaces it, and scores what comes out::

    import interp

    model = interp.load("demo")                    # or "gpt2", a folder, a Hugging Face model
    pairs = interp.prompts.capitals(model, n=64, seed=0)
    run = model.run(pairs, save="L*.resid_pre")    # run.logits, run.cache["L2.resid_pre"]
    where = interp.patch(model, pairs, "L*.resid_pre")
    fact = interp.trace(model, pairs)              # noise on the subject, one state put back
    guess = interp.attribute(model, pairs, "L*.resid_pre")    # every cell from one gradient
    heads = interp.head_scores(model)
    lens = interp.lens(model, pairs)
    tc = interp.train(model, corpus="demo", kind="transcoder", site="L0.mlp")

Names are imported when first used, so ``import interp`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name → module that defines it.
_PUBLIC = {
    # verbs
    "load": "interp.models.load",
    "scan": "interp.overview.verb",
    "patch": "interp.patching.verb",
    "trace": "interp.tracing.verb",
    "attribute": "interp.attribution.verb",
    "compare": "interp.attribution.comparison",
    "lens": "interp.lenses.logit_lens",
    "attention": "interp.lenses.attention",
    "head_scores": "interp.discovery.heads",
    "logit_attribution": "interp.direct.verb",
    "decompose": "interp.direct.decompose",
    "tune_lens": "interp.lenses.tune",
    "ablate": "interp.steering.ablation",
    "random_ablation": "interp.steering.random_sets",
    "steering_vector": "interp.steering.contrast",
    "steer": "interp.steering.steer",
    "probe": "interp.probing.verb",
    "probe_features": "interp.probing.verb",
    "similarity": "interp.probing.similarity",
    "harvest": "interp.harvesting.verb",
    "stream": "interp.harvesting.stream",
    "train": "interp.training.verb",
    "load_dictionary": "interp.dictionaries.formats",
    "evaluate": "interp.evaluation.verb",
    "features": "interp.inspection.verb",
    "discover": "interp.discovery.discover",
    "stability": "interp.discovery.stability",
    "study": "interp.notebooks.study",
    # nouns
    "Model": "interp.models.model",
    "Site": "interp.sites",
    "Edge": "interp.sites",
    "Prompts": "interp.prompts.prompts",
    "TokenBatch": "interp.token_batch",
    "Run": "interp.runs.execute",
    "Cache": "interp.runs.cache",
    "PatchResult": "interp.patching.result",
    "TraceResult": "interp.tracing.result",
    "AttributionResult": "interp.attribution.result",
    "Comparison": "interp.attribution.comparison",
    "LensResult": "interp.lenses.result",
    "AttentionResult": "interp.lenses.attention",
    "HeadScores": "interp.discovery.heads",
    "ScanResult": "interp.overview.result",
    "LogitAttribution": "interp.direct.result",
    "Decomposition": "interp.runs.cache",
    "TunedLens": "interp.lenses.tuned_lens",
    "SteeringVector": "interp.steering.vector",
    "SteeringResult": "interp.steering.result",
    "ProbeResult": "interp.probing.result",
    "Similarity": "interp.probing.similarity",
    "ActivationStore": "interp.store.store",
    "ActivationStream": "interp.harvesting.stream",
    "Rows": "interp.store.rows",
    "Dictionary": "interp.dictionaries.dictionary",
    "DictionarySpec": "interp.dictionaries.spec",
    "TrainConfig": "interp.training.config",
    "TrainingRecord": "interp.training.record",
    "Evaluation": "interp.evaluation.result",
    "Features": "interp.inspection.result",
    "Graph": "interp.graph",
    "Setting": "interp.graph",
    "EdgeScores": "interp.attribution.edges",
    "Circuit": "interp.circuits",
    "CircuitEvaluation": "interp.circuits",
    "FaithfulnessCurve": "interp.circuits",
    "StabilityResult": "interp.discovery.stability_result",
    "Study": "interp.notebooks.study",
    "Claim": "interp.notebooks.claim",
    # edits
    "Replace": "interp.runs.edits",
    "Add": "interp.runs.edits",
    "Scale": "interp.runs.edits",
    "Zero": "interp.runs.edits",
    "Noise": "interp.runs.edits",
    "ProjectOut": "interp.steering.edits",
    "AddFrom": "interp.steering.edits",
}
#: Public modules.
_MODULES = (
    "prompts", "metrics", "errors", "figures", "weight_lenses", "editing", "geometry", "views",
    "corpora", "surveys", "circuits", "pipelines", "toys", "notebooks",
)  # fmt: skip

__all__ = [*_PUBLIC, *_MODULES, "__version__"]

if TYPE_CHECKING:
    from interp import circuits as circuits
    from interp import corpora as corpora
    from interp import editing as editing
    from interp import errors as errors
    from interp import figures as figures
    from interp import geometry as geometry
    from interp import metrics as metrics
    from interp import notebooks as notebooks
    from interp import pipelines as pipelines
    from interp import prompts as prompts
    from interp import surveys as surveys
    from interp import toys as toys
    from interp import views as views
    from interp import weight_lenses as weight_lenses
    from interp.attribution.comparison import Comparison as Comparison
    from interp.attribution.comparison import compare as compare
    from interp.attribution.edges import EdgeScores as EdgeScores
    from interp.attribution.result import AttributionResult as AttributionResult
    from interp.attribution.verb import attribute as attribute
    from interp.circuits import Circuit as Circuit
    from interp.circuits import CircuitEvaluation as CircuitEvaluation
    from interp.circuits import FaithfulnessCurve as FaithfulnessCurve
    from interp.dictionaries.dictionary import Dictionary as Dictionary
    from interp.dictionaries.formats import load_dictionary as load_dictionary
    from interp.dictionaries.spec import DictionarySpec as DictionarySpec
    from interp.direct.decompose import decompose as decompose
    from interp.direct.result import LogitAttribution as LogitAttribution
    from interp.direct.verb import logit_attribution as logit_attribution
    from interp.discovery.discover import discover as discover
    from interp.discovery.heads import HeadScores as HeadScores
    from interp.discovery.heads import head_scores as head_scores
    from interp.discovery.stability import stability as stability
    from interp.discovery.stability_result import StabilityResult as StabilityResult
    from interp.evaluation.result import Evaluation as Evaluation
    from interp.evaluation.verb import evaluate as evaluate
    from interp.graph import Graph as Graph
    from interp.graph import Setting as Setting
    from interp.harvesting.stream import ActivationStream as ActivationStream
    from interp.harvesting.stream import stream as stream
    from interp.harvesting.verb import harvest as harvest
    from interp.inspection.result import Features as Features
    from interp.inspection.verb import features as features
    from interp.lenses.attention import AttentionResult as AttentionResult
    from interp.lenses.attention import attention as attention
    from interp.lenses.logit_lens import LensResult as LensResult
    from interp.lenses.logit_lens import lens as lens
    from interp.lenses.tune import tune_lens as tune_lens
    from interp.lenses.tuned_lens import TunedLens as TunedLens
    from interp.models.load import load as load
    from interp.models.model import Model as Model
    from interp.notebooks.claim import Claim as Claim
    from interp.notebooks.study import Study as Study
    from interp.notebooks.study import study as study
    from interp.overview.result import ScanResult as ScanResult
    from interp.overview.verb import scan as scan
    from interp.patching.result import PatchResult as PatchResult
    from interp.patching.verb import patch as patch
    from interp.probing.result import ProbeResult as ProbeResult
    from interp.probing.similarity import Similarity as Similarity
    from interp.probing.similarity import similarity as similarity
    from interp.probing.verb import probe as probe
    from interp.probing.verb import probe_features as probe_features
    from interp.prompts.prompts import Prompts as Prompts
    from interp.runs.cache import Cache as Cache
    from interp.runs.cache import Decomposition as Decomposition
    from interp.runs.edits import Add as Add
    from interp.runs.edits import Noise as Noise
    from interp.runs.edits import Replace as Replace
    from interp.runs.edits import Scale as Scale
    from interp.runs.edits import Zero as Zero
    from interp.runs.execute import Run as Run
    from interp.sites import Edge as Edge
    from interp.sites import Site as Site
    from interp.steering.ablation import ablate as ablate
    from interp.steering.contrast import steering_vector as steering_vector
    from interp.steering.edits import AddFrom as AddFrom
    from interp.steering.edits import ProjectOut as ProjectOut
    from interp.steering.random_sets import random_ablation as random_ablation
    from interp.steering.result import SteeringResult as SteeringResult
    from interp.steering.steer import steer as steer
    from interp.steering.vector import SteeringVector as SteeringVector
    from interp.store.rows import Rows as Rows
    from interp.store.store import ActivationStore as ActivationStore
    from interp.token_batch import TokenBatch as TokenBatch
    from interp.tracing.result import TraceResult as TraceResult
    from interp.tracing.verb import trace as trace
    from interp.training.config import TrainConfig as TrainConfig
    from interp.training.record import TrainingRecord as TrainingRecord
    from interp.training.verb import train as train


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"interp.{name}")
    if name not in _PUBLIC:
        from interp.errors import nearest

        raise AttributeError(f"interp has no {name!r}; nearest: {nearest(name, __all__)}.")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

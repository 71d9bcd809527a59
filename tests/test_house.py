"""The house keeps its floors, its public names and its cheap front door."""

from __future__ import annotations

import ast
import builtins
import dis
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest

import interp

ROOT = Path(interp.__file__).parent

#: Imports between rooms point to a lower floor only.
FLOORS = {
    "errors": 0,
    "paths": 1, "progress": 1, "intervals": 1, "scores": 1, "sites": 1, "token_batch": 1,
    "metrics": 2, "figures": 2, "views": 2, "geometry": 2, "tokens": 2, "results": 2, "taps": 2,
    "prompts": 3, "notebooks": 3,
    "runs": 4, "corpora": 4,
    "engine": 5, "store": 5, "dictionaries": 5,
    "models": 6,
    "patching": 7, "lenses": 7, "direct": 7, "weight_lenses": 7, "probing": 7, "harvesting": 7,
    "graph": 8, "toys": 8,
    "attribution": 9, "tracing": 9, "steering": 9, "surveys": 9, "training": 9,
    "circuits": 10, "overview": 10, "editing": 10, "evaluation": 10, "inspection": 10,
    "discovery": 11,
    "pipelines": 12, "demo": 12,
    "cli": 13, "__main__": 14,
}  # fmt: skip

PUBLIC = {
    # verbs
    "load", "scan", "patch", "trace", "attribute", "compare", "ablate", "random_ablation",
    "logit_attribution", "decompose", "lens", "tune_lens", "attention", "head_scores",
    "steering_vector", "steer", "probe", "probe_features", "similarity",
    "harvest", "stream", "train", "load_dictionary", "evaluate", "features",
    "discover", "stability",
    # nouns
    "Model", "Site", "Edge", "Prompts", "TokenBatch", "Run", "Cache", "Decomposition",
    "PatchResult", "TraceResult", "AttributionResult", "Comparison", "LogitAttribution",
    "LensResult", "TunedLens", "AttentionResult", "HeadScores", "ScanResult", "SteeringVector",
    "SteeringResult", "ProbeResult", "Similarity",
    "ActivationStore", "ActivationStream", "Rows",
    "Dictionary", "DictionarySpec", "TrainConfig", "TrainingRecord", "Evaluation", "Features",
    "Graph", "Setting", "EdgeScores", "Circuit", "CircuitEvaluation", "FaithfulnessCurve",
    "StabilityResult",
    "study", "Study", "Claim",
    # edits
    "Replace", "Add", "AddFrom", "Scale", "Zero", "Noise", "ProjectOut",
    # modules
    "prompts", "metrics", "errors", "figures", "weight_lenses", "editing", "geometry", "views",
    "corpora", "surveys", "circuits", "pipelines", "toys", "notebooks", "__version__",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, type checking included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("interp"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= set(names if node.module == "interp" else [node.module])
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("interp.")}
    return found


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    if own == "__init__":
        return
    for module in imports(path):
        if module == "interp" or room(module) == own:
            continue
        assert FLOORS[room(module)] < FLOORS[own], f"{path.name} imports {module} from above"


def test_every_room_has_a_floor():
    rooms = {p.relative_to(ROOT).with_suffix("").parts[0] for p in ROOT.rglob("*.py")} - {
        "__init__"
    }
    assert rooms == set(FLOORS)


def test_public_names_are_a_decision():
    assert set(interp.__all__) == PUBLIC
    for name in interp.__all__:
        assert getattr(interp, name) is not None
    with pytest.raises(AttributeError, match="nearest: 'patch'"):
        _ = interp.pathc


def test_import_is_cheap():
    code = (
        "import sys, time; t = time.perf_counter(); import interp; t = time.perf_counter() - t; "
        "heavy = [m for m in ('torch', 'transformers', 'transformer_lens', 'nnsight', 'sae_lens', "
        "'numpy', 'pandas', 'matplotlib') if m in sys.modules]; print(t < 0.5, heavy)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "True []"


def test_loading_and_running_imports_no_other_interpretability_library():
    code = (
        "import sys, interp, interp.patching.verb, interp.models.load, interp.discovery.heads; "
        "print([m for m in ('transformer_lens', 'nnsight', 'sae_lens') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_nothing_is_pickled_or_printed():
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*import pickle|torch\.load\(|^\s*print\(", text, re.M), path


def names_used(code: CodeType) -> set[str]:
    """Global names that a code object, or one inside it, reads."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return own.union(*(names_used(const) for const in inner))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_name_is_defined(path):
    """Linters cannot tell: they take jaxtyping's shapes for names, and are told to let those be."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    local = {name for const in classes(code) for name in (*const.co_names, *const.co_varnames)}
    known = vars(module).keys() | vars(builtins).keys() | local
    assert names_used(code) - known == set()


def classes(code: CodeType) -> list[CodeType]:
    """Code objects of class bodies, whose names are their own."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    found = [const for const in inner if "__qualname__" in const.co_names]
    return found + [one for const in inner for one in classes(const)]


def test_files_are_short():
    long = {str(p.relative_to(ROOT)): n for p in ROOT.rglob("*.py")
            if (n := len(p.read_text().splitlines())) > 370}  # fmt: skip
    assert not long


def test_no_template_or_head_of_the_shipped_model_stands_in_the_library():
    """Templates are data and findings are measured: no string of the code holds either."""
    tables = [json.loads(p.read_text()) for p in (ROOT.parent / "data/prompts").glob("*.json")]
    templates = {text for text in texts(tables) if "{" in text and " " in text}
    assert len(templates) > 30
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in templates, f"{path}: {node.value!r}"
                assert not re.fullmatch(r"L\d+\.H\d+(\.\w+)?", node.value), (
                    f"{path}: {node.value!r}"
                )


def texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)

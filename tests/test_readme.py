"""The README's tour runs as it stands, and its links lead somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tour, toys = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict = {}
    exec(compile(tour, "README.md", "exec"), names)
    assert names["run"].cache["L2.H1.z@-1"].shape == (32, names["model"].d_head)
    assert (tmp_path / "heads.png").stat().st_size > 10_000
    assert names["interp"].head_scores(names["model"].random_twin()).found("induction") == []
    exec(compile(toys, "README.md", "exec"), names)
    loss = names["run"].column("smoothed")
    assert loss[-1] < 0.8 * loss[0]


def test_links_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_ci_runs_the_readmes_test_command():
    assert "\nmake test" in README
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")

"""A browser without a network: what a document's scripts have made of it, and what it looks like."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)

needs_browser = pytest.mark.skipif(
    CHROMIUM is None,
    reason=f"no browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)",
)


def dom(path: Path, profile: Path, *options: str) -> str:
    """The document's HTML after its scripts have run; names of hosts lead nowhere."""
    return _run(path, profile, "--dump-dom", *options).decode("utf-8")


def screenshot(path: Path, profile: Path, *, width: int = 1000, height: int = 700) -> Path:
    out = profile / f"{path.stem}.png"
    _run(path, profile, f"--screenshot={out}", f"--window-size={width},{height}")
    return out


def _run(path: Path, profile: Path, *options: str) -> bytes:
    assert CHROMIUM is not None
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--force-device-scale-factor=1", "--host-resolver-rules=MAP * ~NOTFOUND",
         f"--user-data-dir={profile / 'browser'}", "--virtual-time-budget=4000", *options,
         path.as_uri()],
        check=True, capture_output=True, timeout=90,
    ).stdout  # fmt: skip

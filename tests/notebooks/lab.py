"""JupyterLab in a headless Chromium, driven over the DevTools protocol: no network, no other machine."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websocket

from tests.views.browser import CHROMIUM

TOKEN = "token-of-a-test"


class Page:
    """One page of the browser."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        self._numbers = itertools.count(1)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, script: str) -> Any:
        """The value of a script, awaited if it is a promise."""
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, *, seconds: float = 120, what: str = "") -> Any:
        """Wait until a script's value is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.evaluate(script):
                return value
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds} s: {what or script}")

    def screenshot(self, path: Path) -> None:
        import base64

        shot = self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """A server for a folder; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ServerApp.port=0",
         f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
         "--expose-app-in-browser", "--LabApp.news_url=", "--ServerApp.terminals_enabled=False"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"), "OMP_NUM_THREADS": "1",
             "JUPYTER_CONFIG_DIR": str(folder / ".config"), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".lab"),
             "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces")},
    )  # fmt: skip
    try:
        end = time.monotonic() + 90
        while not (found := list((folder / ".runtime").glob("jpserver-*.json"))):
            assert time.monotonic() < end, "JupyterLab did not start"
            assert process.poll() is None, "JupyterLab ended"
            time.sleep(0.2)
        yield json.loads(found[0].read_text())["url"]
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with one empty page; it reaches this machine alone."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
         "--window-size=1200,1400", f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = profile / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not port.exists() or not port.read_text():
            assert time.monotonic() < end, "the browser did not start"
            time.sleep(0.1)
        number = port.read_text().splitlines()[0]
        with urlopen(f"http://127.0.0.1:{number}/json", timeout=30) as answer:
            (target,) = [one for one in json.load(answer) if one["type"] == "page"]
        page = Page(target["webSocketDebuggerUrl"])
        try:
            yield page
        finally:
            page.close()
    finally:
        process.terminate()
        process.wait(timeout=60)


def run_all(page: Page, server: str, name: str, *, seconds: float = 300) -> None:
    """Open a notebook and run all its cells, as the menu does."""
    page.send("Emulation.setFocusEmulationEnabled", enabled=True)  # headless pages have no focus
    page.send("Page.navigate", url=f"{server}lab?token={TOKEN}&reset")
    page.until("!!(window.jupyterapp && document.querySelector('.jp-Launcher'))", what="JupyterLab")
    page.evaluate(
        f"window.jupyterapp.commands.execute('docmanager:open', {{path: '{name}'}})"
        ".then(async widget => { await widget.context.ready; window.opened = widget;"
        " window.jupyterapp.shell.activateById(widget.id); })"
    )
    kernel = "window.opened.sessionContext.session && window.opened.sessionContext.session.kernel"
    page.until(f"{kernel} && {kernel}.status === 'idle'", what="a kernel")
    page.until(
        "window.jupyterapp.shell.currentWidget === window.opened", what="the notebook in front"
    )
    page.evaluate(
        "window.done = null; window.jupyterapp.commands.execute('notebook:run-all-cells')"
        ".then(() => { window.done = 'yes'; }, error => { window.done = String(error); }); 1"
    )
    assert page.until("window.done", seconds=seconds, what=f"all cells of {name}") == "yes"


def outputs(page: Page) -> dict[str, Any]:
    """What the open notebook holds: cells run, errors, pictures, and those that are drawn in the page."""
    return page.evaluate(
        """(() => {
          const model = window.opened.content.model.toJSON();
          const code = model.cells.filter(cell => cell.cell_type === 'code');
          const all = code.flatMap(cell => cell.outputs);
          return {
            cells: code.length,
            run: code.filter(cell => cell.execution_count).length,
            errors: all.filter(out => out.output_type === 'error').map(out => out.evalue),
            pictures: all.filter(out => out.data && out.data['image/png']).length,
          };
        })()"""
    )


def drawn(page: Page) -> int:
    """Pictures that the browser shows once it has scrolled through the notebook; each has a size."""
    return page.evaluate(
        """(async () => {
          const notebook = window.opened.content;
          const seen = new Set();
          for (let index = 0; index < notebook.widgets.length; index++) {
            await notebook.scrollToItem(index, 'center');
            await new Promise(done => setTimeout(done, 100));
            const images = notebook.widgets[index].node.querySelectorAll('.jp-OutputArea img');
            for (const image of images)
              if (image.naturalWidth > 100 && image.naturalHeight > 100) seen.add(index);
          }
          return seen.size;
        })()"""
    )

"""Models of TensorFlow.js in a real browser: a page that loads them over HTTP in headless Chromium, and sends back what they compute."""
from __future__ import annotations

import functools
import json
import os
import platform
import queue
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import environments
import numpy as np
import pytest

# For each folder the outputs in the order of the model. A GraphModel takes its inputs by name, a LayersModel in their order.
PAGE = """<!doctype html><body><script src="tf.min.js"></script><script>
(async () => {
  const results = [];
  for (const {folder, feeds} of await (await fetch('given.json')).json()) {
    const url = folder + '/model.json';
    const layers = (await (await fetch(url)).json()).format === 'layers-model';
    const tensors = {};
    for (const [name, {data, shape, dtype}] of Object.entries(feeds)) tensors[name] = tf.tensor(data, shape, dtype);
    const model = layers ? await tf.loadLayersModel(url) : await tf.loadGraphModel(url);
    const found = layers ? model.predict(Object.values(tensors)) : await model.executeAsync(tensors);
    for (const each of Array.isArray(found) ? found : [found]) results.push({shape: each.shape, data: Array.from(await each.data())});
  }
  return JSON.stringify(results);
})().catch((error) => 'error: ' + error).then((body) => fetch('result', {method: 'POST', body}));
</script>"""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--remote-debugging-port=0")
NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 150


def results(folder: Path, models: dict[str, dict[str, np.ndarray]]) -> list[np.ndarray]:
    """The outputs of the models in these folders under `folder`, one behind the other."""
    shutil.copy(environments.node("tfjs") / "node_modules" / "@tensorflow" / "tfjs" / "dist" / "tf.min.js", folder)
    given = [{"folder": name, "feeds": {key: _told(array) for key, array in feeds.items()}} for name, feeds in models.items()]
    (folder / "given.json").write_text(json.dumps(given))
    (folder / "index.html").write_text(PAGE)
    text = _browsed(folder)
    assert not text.startswith("error"), text
    return [np.asarray(each["data"], np.float32).reshape(each["shape"]) for each in json.loads(text)]


def _told(array: np.ndarray) -> dict[str, Any]:
    return {"data": array.ravel().tolist(), "shape": list(array.shape), "dtype": array.dtype.name}


@functools.cache
def chromium() -> tuple[str, dict[str, str]]:
    """The browser that is installed, else one out of an npm package that is kept with the other runtimes, with the libraries that a bare machine lacks."""
    installed = next((found for name in NAMES if (found := shutil.which(name))), None)
    if installed is not None:
        return installed, {}
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("no Chromium is installed, and the packaged one is for Linux on x86-64: install chromium")
    folder = environments.node("chromium")
    place = folder / "browser"
    if not (place / environments.environments.READY).exists():
        place.mkdir(exist_ok=True)
        # It unpacks itself into the folder for temporary files, and its libraries only where it believes to run in a function of Amazon.
        command = ["node", "--input-type=module", "-e", "await (await import('@sparticuz/chromium')).default.executablePath()"]
        variables = os.environ | {"TMPDIR": str(place), "AWS_LAMBDA_JS_RUNTIME": "nodejs22.x"}
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        (place / environments.environments.READY).touch()
    return str(place / "chromium"), {"LD_LIBRARY_PATH": str(place / "al2023" / "lib")}


def _browsed(folder: Path) -> str:
    """What the page in a folder sends back: it is served on a port of this machine, and Chromium opens it."""
    said: queue.Queue[str] = queue.Queue()

    class Server(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            said.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program, variables = chromium()
    command = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"http://127.0.0.1:{server.server_port}/index.html"]
    process = subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return said.get(timeout=SECONDS)
    finally:
        process.terminate()
        process.wait(timeout=30)
        server.shutdown()
        server.server_close()

"""A page in a real browser: its scripts run, then one of the test, and what that found."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DARK = "--blink-settings=preferredColorScheme=0"
_FOUND = re.compile(r'<pre id="found-by-test">(.*?)</pre>', re.DOTALL)


def executable():
    """The browser on PATH; None without one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


needed = pytest.mark.skipif(executable() is None, reason="no Chromium is on PATH to open a page in")


def run(page, script, folder, width=1280, dark=False):
    """Opens a page of HTML without a network, runs a script in it, and returns its value.

    Args:
      script: the body of a function; what it returns goes through JSON. An error anywhere in the
        page is raised here.
    """
    errors = "const errors = []; addEventListener('error', (e) => errors.push(e.message));"
    after = f"""
        let value = null;
        try {{ value = (() => {{ {script} }})(); }} catch (error) {{ errors.push(String(error)); }}
        const found = document.createElement('pre');
        found.id = 'found-by-test';
        found.textContent = JSON.stringify([errors, value]);
        document.body.append(found);"""
    opened = folder / "opened.html"
    page = page.replace("<head>", f"<head><script>{errors}</script>", 1)
    opened.write_text(page.replace("</body>", f"<script>{after}</script></body>"))
    command = [
        executable(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'browser'}",
        f"--window-size={width},900",
        *([DARK] if dark else []),
        "--dump-dom",
        opened.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    match = _FOUND.search(done.stdout)
    assert match, done.stderr[-2000:]
    errors, value = json.loads(unescape(match[1]))
    assert errors == []
    return value

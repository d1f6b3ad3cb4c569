"""Pages in a real browser: Debian's chromium without a window, driven over its DevTools protocol."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import aiohttp
import pytest

from cosearch.front import Front, Member, Objective
from cosearch.plots import front_page
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.track import Tracker, locate, ui_command

pytestmark = pytest.mark.slow
OBJECTIVES = (Objective("accuracy", "max"), Objective("latency_s", "min", "s"), Objective("energy_j", "min", "J"))


def member(index: int, accuracy: float, latency_s: float, energy_j: float) -> Member:
    block = BlockSpec(heads=2, mlp_hidden=64 + index, weight_bits=8, activation_bits=8)
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    model = ModelSpec(task=task, patch=4, dim=32, blocks=(block, block), edge_bits=8)
    chip = AcceleratorSpec.of("systolic", {"rows": 16, "cols": 8 * (index + 1), "dataflow": "ws"})
    metrics = {"accuracy": accuracy, "latency_s": latency_s, "energy_j": energy_j, "utilisation": 0.5}
    return Member(Candidate(model=model, accelerator=chip), metrics)


FRONT = Front.of(
    OBJECTIVES,
    [member(i, 0.7 + i / 50, 1e-5 * 1.6**i, 2e-7 * 1.5 ** (9 - i if i % 3 else i)) for i in range(10)],
)
BASELINE = Front.of(OBJECTIVES, [member(i, 0.65 + i / 60, 2e-5 * 1.6**i, 3e-7) for i in range(4)])


class Browser:
    """One tab. Commands wait for their answer; what the page says meanwhile collects in ``events``."""

    def __init__(self, program: str, profile: Path) -> None:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        self.profile = profile
        self.process = subprocess.Popen(
            [program, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.runner, self.events, self.count = asyncio.Runner(), [], 0
        self.runner.run(self._connect())
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")
        # frames in a process of their own (MLflow's sandbox) answer in sessions of their own
        self.command("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)

    async def _connect(self) -> None:
        ready = self.profile / "DevToolsActivePort"
        for _ in range(1800):
            if ready.is_file() and ready.read_text().count("\n"):
                break
            assert self.process.poll() is None, "chromium ended at once"
            await asyncio.sleep(0.1)
        port = ready.read_text().split()[0]
        self.session = aiohttp.ClientSession()
        async with self.session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            tab = next(target for target in await answer.json() if target["type"] == "page")
        self.socket = await self.session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0)

    def close(self) -> None:
        async def end() -> None:
            await self.socket.close()
            await self.session.close()

        self.runner.run(end())
        self.runner.close()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def command(self, method: str, session: str | None = None, **parameters):
        self.count += 1
        within = {"sessionId": session} if session else {}

        async def call():
            await self.socket.send_json({"id": self.count, "method": method, "params": parameters, **within})
            while True:
                message = json.loads((await self.socket.receive(timeout=60)).data)
                if message.get("id") == self.count:
                    assert "error" not in message, message["error"]
                    return message["result"]
                self.events.append(message)

        return self.runner.run(call())

    def evaluate(self, expression: str, session: str | None = None):
        answer = self.command(
            "Runtime.evaluate",
            session=session,
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, session: str | None = None):
        """Returns the value of a JavaScript expression as soon as it is true."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if value := self.evaluate(expression, session):
                return value
            time.sleep(0.1)
        text = self.evaluate("document.body.innerText")
        raise AssertionError(f"{expression} did not come true; the page reads: {text}")

    def frame(self) -> str:
        """Returns the session of the frame that the page opens in a sandbox, as soon as it is there."""
        for _ in range(1800):
            self.evaluate("1")
            for event in self.events:
                if event["method"] == "Target.attachedToTarget" and event["params"]["targetInfo"]["type"] == "iframe":
                    return event["params"]["sessionId"]
            time.sleep(0.1)
        raise AssertionError("no frame was opened")

    def open(self, address: str) -> None:
        self.events.clear()
        self.command("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def point_at(self, x: float, y: float) -> None:
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    @property
    def complaints(self) -> list:
        """Errors and warnings on the console, uncaught exceptions, and what the browser logged."""
        found = []
        for event in self.events:
            kind, content = event["method"], event["params"]
            if kind == "Runtime.exceptionThrown" or (
                kind == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning", "assert")
            ):
                found.append(content)
            elif kind == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
                found.append(content["entry"])
        return found

    @property
    def requests(self) -> list[str]:
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("install Debian's chromium: apt-get install chromium")
    tab = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "front.html"
    page = front_page(
        FRONT,
        run="quickstart",
        seed=1,
        baseline=BASELINE,
        cloud=[{"accuracy": 0.6, "latency_s": 1e-3, "energy_j": 1e-6}],
        history=[(1, 0.1), (5, 0.4)],
        baseline_history=[(1, 0.1), (5, 0.2)],
    )
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    browser.command("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.command("Emulation.setFocusEmulationEnabled", enabled=True)
    browser.open(address)
    browser.wait_for("document.querySelectorAll('.figure .main-svg .scatterlayer').length >= 3")
    return browser


def drawn(page: Browser, role: str) -> list[int]:
    """Counts the dots that the browser drew for a role, in each panel."""
    return page.evaluate(f"""
        Array.from(document.querySelectorAll('.figure')).slice(0, 2).map(function (chart) {{
          var dots = 0;
          chart.querySelectorAll('.scatterlayer .trace').forEach(function (element) {{
            var trace = element.__data__[0].trace;
            if (trace.meta.role === '{role}') dots += element.querySelectorAll('.points path.point').length;
          }});
          return dots;
        }})""")


def ring(page: Browser) -> list[list[float]]:
    return page.evaluate("""
        Array.from(document.querySelectorAll('.figure')).slice(0, 2).map(function (chart) {
          var ring = chart.data.find(function (trace) { return trace.meta.role === 'ring'; });
          return [].concat(ring.x, ring.y);
        })""")


def column(page: Browser, index: int) -> list[str]:
    return page.evaluate(
        f"Array.from(document.querySelectorAll('tbody tr'), function (row) {{ return row.cells[{index}].innerText; }})"
    )


def test_every_member_is_drawn_in_every_panel_and_has_a_row(page):
    assert drawn(page, "front") == [len(FRONT)] * 2
    assert drawn(page, "baseline") == [len(BASELINE)] * 2
    assert drawn(page, "cloud") == [1, 1]
    assert len(column(page, 0)) == len(FRONT)


def test_the_browser_has_nothing_to_complain_of_and_asks_nobody(page, address):
    assert page.complaints == []
    assert page.requests == [address]


def test_a_click_on_a_heading_sorts_by_number(page):
    for first, expected in ((True, sorted), (False, lambda v: sorted(v, reverse=True))):
        page.evaluate("document.querySelectorAll('th button')[2].click()")
        latencies = [float(text.split()[0]) * {"us": 1e-6, "ms": 1e-3}[text.split()[1]] for text in column(page, 2)]
        assert latencies == expected(latencies)
        state = page.evaluate("document.querySelectorAll('th')[2].getAttribute('aria-sort')")
        assert state == ("ascending" if first else "descending")


def test_the_export_command_reaches_the_clipboard(page):
    page.command("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.evaluate("document.querySelector('tbody button[data-copy]').click()")
    page.wait_for("document.querySelector('tbody button[data-copy]').textContent === 'copied'")
    ident = FRONT.members[0].candidate.id[:8]
    assert page.evaluate("navigator.clipboard.readText()") == (
        f"cosearch export quickstart --pick {ident} --out quickstart-{ident}"
    )
    page.wait_for("document.querySelector('tbody button[data-copy]').textContent === 'copy command'")


def test_a_page_that_may_not_use_the_clipboard_copies_by_hand(page):
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.evaluate("document.execCommand = function () { window.byHand = document.activeElement.value; return true; }")
    page.evaluate("document.querySelector('tbody button[data-copy]').click()")
    assert page.evaluate("window.byHand").startswith("cosearch export quickstart --pick ")
    assert page.evaluate("document.querySelectorAll('textarea').length") == 0


def test_pointing_at_a_row_rings_its_member_in_every_panel(page):
    page.evaluate("document.querySelectorAll('tbody tr')[3].scrollIntoView({block: 'center'})")
    box = page.evaluate("JSON.parse(JSON.stringify(document.querySelectorAll('tbody tr')[3].getBoundingClientRect()))")
    page.point_at(box["x"] + 300, box["y"] + box["height"] / 2)
    page.wait_for("document.querySelectorAll('tbody tr')[3].classList.contains('hover')")
    metrics = FRONT.members[3].metrics
    assert ring(page) == [[metrics["latency_s"], metrics["accuracy"]], [metrics["energy_j"], metrics["accuracy"]]]


def test_pointing_at_a_dot_marks_its_row_and_says_what_it_is(page):
    spot = page.evaluate("""(function () {
        var chart = document.querySelector('.figure');
        chart.scrollIntoView({block: 'center'});
        var traces = Array.from(chart.querySelectorAll('.scatterlayer .trace')).filter(function (element) {
          var trace = element.__data__[0].trace;
          return trace.meta.role === 'front' && trace.meta.part === 'members' && element.querySelector('path.point');
        });
        var dot = traces.pop(), box = dot.querySelector('path.point').getBoundingClientRect();
        return {x: box.x + box.width / 2, y: box.y + box.height / 2, id: dot.__data__[0].trace.customdata[0]};
    })()""")
    page.point_at(spot["x"] - 3, spot["y"] - 3)
    page.point_at(spot["x"], spot["y"])
    page.wait_for(f"(document.querySelector('tr.hover') || {{dataset: {{}}}}).dataset.id === '{spot['id']}'")
    text = page.wait_for("(document.querySelector('.hoverlayer .hovertext') || {}).textContent")
    found = next(m for m in FRONT.members if m.candidate.id == spot["id"])
    assert spot["id"] in text
    assert "2 heads" in text
    assert f"{found.metrics['accuracy']:.3f}" in text


def test_further_metrics_wait_behind_a_switch(page):
    hidden = "getComputedStyle(document.querySelector('td.more')).display"
    assert page.evaluate(hidden) == "none"
    page.evaluate("document.getElementById('all').click()")
    assert page.evaluate(hidden) == "table-cell"


def test_dark_mode_repaints_page_and_figures(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    marker = "document.querySelector('.figure').data.find(t => t.meta.role === 'front').marker.color"
    assert page.evaluate(f"[{paper}, {marker}]") == ["rgb(255, 255, 255)", "#0072b2"]
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.wait_for(f"{paper} === 'rgb(20, 23, 27)'")
    page.wait_for(f"{marker} === '#56b4e9'")
    assert drawn(page, "front") == [len(FRONT)] * 2


def test_a_phone_scrolls_down_only(page):
    page.command("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    page.command("Page.reload")
    page.wait_for("document.querySelectorAll('.figure .main-svg .scatterlayer').length >= 3")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    widths = page.evaluate(
        "Array.from(document.querySelectorAll('.figure .main-svg')).map(function (s) { return s.clientWidth; })"
    )
    assert max(widths) <= 360


# --- MLflow's own pages -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """MLflow's server, as ``cosearch ui`` starts it, on a store with one search; its address, the tracker."""
    runs = tmp_path_factory.mktemp("runs")
    page = runs / "front.html"
    page.write_text(front_page(FRONT, run="quickstart"), encoding="utf-8")
    tracker = Tracker.open(
        locate(runs, environment={}), experiment="digits", name="quickstart", parameters={"sampler": "NSGA-II"}
    )
    tracker.progress(5, {"hypervolume": 0.4321})
    assert tracker.finish(FRONT, files=[page]) is None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    process = subprocess.Popen(
        ui_command(runs, port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=runs,
        start_new_session=True,
    )
    try:
        for _ in range(1800):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended at once"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", tracker
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_mlflow_shows_the_search_and_its_page(browser, server):
    address, tracker = server
    browser.command("Emulation.setDeviceMetricsOverride", width=1400, height=1000, deviceScaleFactor=1, mobile=False)
    run = f"{address}/#/experiments/1/runs/{tracker.run_id}"
    browser.open(run)
    for text in ("quickstart", "hypervolume", "NSGA-II"):
        browser.wait_for(f"document.body.innerText.includes('{text}')")
    browser.open("about:blank")
    browser.open(f"{run}/artifacts/front.html")
    frame = browser.frame()
    browser.wait_for("document.querySelectorAll('.figure .main-svg .scatterlayer').length >= 2", frame)
    assert browser.evaluate("document.querySelectorAll('.figure .points path.point').length", frame) == 2 * len(FRONT)
    assert browser.evaluate("document.querySelectorAll('tbody tr').length", frame) == len(FRONT)

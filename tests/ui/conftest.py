"""A browser, and what people look at with it: a Prefect server with its deployments, and the local AWS's console."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, expect, sync_playwright

NO_BROWSER = "There is no browser for the tests of the pages: install Chromium (apt-get install chromium)"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing here is to be quick: a loaded machine draws a page of the Prefect UI in half a minute.
PATIENCE_MS = 120_000

Json = dict[str, Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """No longer than a module: Playwright's event loop runs in this thread, where others want to start theirs."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.fail(NO_BROWSER, pytrace=False)
    # Without a graphics card, the graph of a run keeps a processor busy with drawing; containers have little /dev/shm.
    arguments = ["--disable-3d-apis", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:  # Chromium refuses to be root's in its sandbox
        arguments.append("--no-sandbox")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page in a browser that has visited nothing yet."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """Keep a picture of the page on which a test failed, and say where it is."""
    report = yield
    arguments = cast("Json", getattr(item, "funcargs", {}))
    if report.when == "call" and report.failed and {"page", "tmp_path"} <= set(arguments):
        picture = Path(arguments["tmp_path"]) / "failed.png"
        try:
            arguments["page"].screenshot(path=picture)
        except Error as error:
            report.sections.append(("no screenshot", str(error)))
        else:
            report.sections.append(("screenshot", f"{picture}, of {arguments['page'].url}"))
    return report


@pytest.fixture
def complaints(page: Page) -> list[str]:
    """What the browser's console says is wrong with the pages: errors of scripts, refusals of the security policy."""
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            said.append(f"{page.url}: {message.text} ({message.location['url']})")

    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
    return said


# --- Prefect --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def prefect_server(new_prefect_server: Any) -> Iterator[dict[str, str]]:
    """A Prefect server of this session; its clients' environment."""
    with new_prefect_server() as environment:
        yield environment


@pytest.fixture(scope="session")
def worker_environment(local_aws: Any, prefect_server: dict[str, str]) -> dict[str, str]:
    """Of whoever runs the flows: this server, and the local AWS with the worker's rights."""
    environment = {**os.environ, **local_aws.worker_environment, **prefect_server}
    return {**environment, "PREFECT_RUNNER_POLL_FREQUENCY": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


class Prefect:
    """A Prefect server whose deployments are served."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.url = environment["PREFECT_API_URL"].removesuffix("/api")
        self.api = httpx.Client(base_url=environment["PREFECT_API_URL"], timeout=60)
        self._log = log

    def until(self, ask: Callable[[], Any], seconds: float) -> Any:
        """Ask until the answer is true, and return it."""
        deadline = time.monotonic() + seconds
        while not (answer := ask()):
            assert time.monotonic() < deadline, self._log.read_text()[-4000:]
            time.sleep(0.5)
        return answer

    def ask(self, method: str, path: str, body: Json | None = None) -> Any:
        """Ask the server, again when it is too busy with its database."""

        def answered() -> httpx.Response | None:
            answer = self.api.request(method, path, json=body)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        answer = self.until(answered, 120).raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> Json:
        return cast("Json", self.ask("GET", f"/deployments/name/{name}/{name}"))

    def pause(self, name: str) -> None:
        self.ask("PATCH", f"/deployments/{self.deployment(name)['id']}", {"paused": True})

    def all_are_served(self) -> bool:
        deployments = self.ask("POST", "/deployments/filter", {})
        return bool(deployments) and all(one["status"] == "READY" for one in deployments)

    def runs_of(self, name: str) -> int:
        asked = {"deployments": {"id": {"any_": [self.deployment(name)["id"]]}}}
        return int(self.ask("POST", "/flow_runs/count", asked))

    def artifacts(self) -> list[Json]:
        return cast("list[Json]", self.ask("POST", "/artifacts/filter", {}))


@pytest.fixture(scope="session")
def prefect(worker_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """The Prefect server, with `python -m deployments.serve` running what the UI asks for."""
    folder = tmp_path_factory.mktemp("serving")
    served = Prefect(worker_environment, folder / "serve.log")
    with (folder / "serve.log").open("w") as log:
        command = [sys.executable, "-m", "deployments.serve"]
        serving = subprocess.Popen(command, cwd=folder, env=worker_environment, stdout=log, stderr=log)
    try:
        served.until(served.all_are_served, 300)
        served.pause("reap-orphans")  # by its schedule it would look at what other tests have left
        yield served
    finally:
        serving.terminate()
        try:
            serving.wait(120)
        finally:
            serving.kill()
            serving.wait()
            served.api.close()


class Form:
    """The form in which a custom run of a deployment is asked for; fields are named as in the code."""

    def __init__(self, page: Page, prefect: Prefect, name: str) -> None:
        deployment = prefect.deployment(name)
        self._page, self._schema = page, deployment["parameter_openapi_schema"]
        page.goto(f"{prefect.url}/deployments/deployment/{deployment['id']}/run")

    def field(self, *path: str) -> Locator:
        """Return the field of a parameter, or of a part of one, by the label that a person reads."""
        place, schema = self._page.locator("body"), self._schema
        for name in path:
            schema = self._parts_of(schema)[name]
            label = re.escape(schema.get("title") or name.replace("_", " ").title())
            heading = self._page.locator(":scope > .p-label__header .schema-form-property__label")
            own = heading.filter(has_text=re.compile(rf"^\s*{label}( \(Optional\))?\s*$"))
            place = place.locator(".schema-form-property").filter(has=own)
        return place

    def write(self, value: float | str, *path: str) -> None:
        """Write into a field, a number or a text."""
        place = self.field(*path)
        place.get_by_role("spinbutton").or_(place.get_by_role("textbox")).fill(str(value))

    def turn_off(self, *path: str) -> None:
        switch = self.field(*path).get_by_role("switch")
        if switch.is_checked():
            switch.click()

    def submit(self) -> Json:
        """Ask for the run, again when the server is too busy with its database, and return what it answered."""
        for _ in range(10):
            with self._page.expect_response(lambda answer: answer.url.endswith("/create_flow_run")) as answered:
                self._page.get_by_role("button", name="Submit").click()
            if answered.value.status != httpx.codes.SERVICE_UNAVAILABLE:
                break
        return cast("Json", answered.value.json())

    def _parts_of(self, schema: Json) -> Json:
        for one in (schema, *schema.get("anyOf", ()), *schema.get("allOf", ())):
            if "$ref" in one:
                one = self._schema["definitions"][one["$ref"].rpartition("/")[2]]  # noqa: PLW2901 - what it refers to
            if "properties" in one:
                return cast("Json", one["properties"])
        msg = f"{schema} has no parts"
        raise AssertionError(msg)


@pytest.fixture
def open_form(page: Page, prefect: Prefect) -> Callable[[str], Form]:
    """Open the form of a deployment."""
    return lambda name: Form(page, prefect, name)

"""The documentation: what it links to is there, what it shows is painted, and what it says to type works."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MARKDOWN = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "lambda" / "README.md", *DOCS.rglob("*.md")})
# In the order in which a person would read them: what one command finds out, the next ones take.
PAGES = (
    "README.md",
    "docs/tutorial/first-run.md",
    "docs/how-to/steps.md",
    "docs/how-to/spot.md",
    "docs/how-to/own-dataset.md",
    "docs/how-to/own-model.md",
    "docs/how-to/go-live.md",
    "docs/how-to/schedules.md",
    "docs/how-to/budget.md",
    "docs/how-to/approvals.md",
    "docs/how-to/react-to-events.md",
    "docs/how-to/stop-and-retry.md",
    "docs/explanation/job-life-cycle.md",
    "docs/explanation/local-aws.md",
    "docs/explanation/security-model.md",
    "docs/how-to/real-aws.md",
    "docs/how-to/keep-results.md",
    "docs/README.md",
)
# The page that begins with an empty account; all others are for the worker of the local AWS.
EMPTY_ACCOUNT = "docs/how-to/real-aws.md"

JOURNEY = "tests/flows/test_journey.py runs operationalize with all its steps"
DEPLOYMENTS = "tests/deployments/test_prefect_deployments.py"
FOREGROUND = "stays in the foreground; "
UNFIT = "for the administrator, who nobody is any more at the page's end"
FARGATE = f"takes an account; {DEPLOYMENTS} holds its template"
# What is not run here, and why, or who runs it.
NOT_RUN = {
    "make demo": JOURNEY,
    "make test": "it is what runs this",
    "make install": "whoever runs tests has done it; .ci/run does it in a fresh clone",
    "git clone REPOSITORY sagemaker-flows": "there is a clone already; .ci/run begins in a fresh one",
    "cd sagemaker-flows": "the session is in it",
    "make local-aws": FOREGROUND + "the session has started what it runs",
    "make ui": FOREGROUND + "the session has started what it runs, on another port",
    "make serve": FOREGROUND + DEPLOYMENTS,
    ".venv/bin/prefect worker start --pool sagemaker-flows": FOREGROUND + DEPLOYMENTS,
    ".venv/bin/prefect event stream": FOREGROUND + "tests/deployments/test_reactions.py reacts to events",
    ".venv/bin/python -m deployments.local_aws --no-capacity spot:m5.xlarge": FOREGROUND + "tests/flows/test_ec2.py",
    # Somebody, or another run, has to do something meanwhile.
    ".venv/bin/python -m flows.operationalize --gate.least-accuracy 0.999 --gate.when-missed ask": (
        "a person answers; tests/flows/test_approval.py does"
    ),
    ".venv/bin/prefect flow-run cancel RUN": "takes a run that runs; tests/flows/test_cancelled.py",
    ".venv/bin/prefect flow-run retry RUN": "takes a run that failed; tests/flows/test_cancelled.py",
    ".venv/bin/prefect flow-run retry RUN --entrypoint flows/operationalize.py:operationalize": (
        "takes a run that failed; tests/flows/test_results.py"
    ),
    ".venv/bin/python -m training.train --data FOLDER --epochs 3 --processes-per-instance 2": (
        "takes a folder; tests/training/test_several_instances.py"
    ),
    # Minutes that others spend already.
    '.venv/bin/python -m flows.train_on_ec2 "$MANIFEST" --hyperparameters.epochs 3': JOURNEY,
    (
        '.venv/bin/python -m flows.train_on_ec2 "$MANIFEST" --hyperparameters.epochs 3 --compute.spot '
        "--compute.fallbacks m5.2xlarge c5.2xlarge"
    ): "tests/flows/test_ec2.py",
    (
        'FOUND=$(.venv/bin/python -m flows.tune_hyperparameters "$MANIFEST" --tuning.trials 2 --tuning.epochs 1)'
    ): JOURNEY,
    (
        '.venv/bin/python -m flows.train_multi_instance "$MANIFEST" --hyperparameters.epochs 3 '
        "--compute.instance-count 2"
    ): JOURNEY,
    (
        ".venv/bin/python -m flows.operationalize --no-tune --hyperparameters.epochs 3 --several.instance-count 2 "
        "--gate.least-accuracy 0.999 --gate.most-hourly-usd 0.2"
    ): f"{JOURNEY}; tests/flows/test_approval.py goes through the gate",
    '.venv/bin/python -m flows.train_single_instance "$MANIFEST" --hyperparameters.epochs 3 $FOUND': JOURNEY,
    '.venv/bin/python -m flows.compare_training "$MANIFEST" --several.instance-count 2': JOURNEY,
    ".venv/bin/python -m flows.operationalize --budget-usd 10": JOURNEY,
    (
        '.venv/bin/python -m flows.recommend_scaling flows-live "$MANIFEST" --traffic.requests-per-second 5 '
        "--traffic.peak-requests-per-second 40"
    ): "tests/flows/test_recommendations.py",
    # What the local AWS has not, or what would end it for the pages that follow.
    ".venv/bin/aws service-quotas list-service-quotas --service-code sagemaker": "the local AWS has no quotas",
    (
        ".venv/bin/aws service-quotas request-service-quota-increase --service-code sagemaker --quota-code CODE "
        "--desired-value 4"
    ): "the local AWS has no quotas",
    '.venv/bin/aws s3 rm --recursive "s3://$BUCKET"': UNFIT,
    ".venv/bin/aws cloudformation delete-stack --stack-name sagemaker-flows": UNFIT,
    '.venv/bin/aws s3 rb "s3://$BUCKET"': UNFIT,
    ".venv/bin/prefect work-pool create --type ecs sagemaker-flows-ecs": FARGATE,
    (
        "export SAGEMAKER_FLOWS_IMAGE=… SAGEMAKER_FLOWS_CLUSTER=… SAGEMAKER_FLOWS_TASK_ROLE_ARN=… "
        "SAGEMAKER_FLOWS_EXECUTION_ROLE_ARN=… SAGEMAKER_FLOWS_REPOSITORY=…"
    ): FARGATE,
    ".venv/bin/prefect worker start --pool sagemaker-flows-ecs": FARGATE,
}
# What is to be refused, in the words that the page shows.
REFUSED = {
    ".venv/bin/python -m flows.operationalize --budget-usd 1",
    '.venv/bin/python -m flows.tune_hyperparameters "$MANIFEST" --tuning.max-usd 0.1',
}
# An indented block is a text, a tree or JSON, unless a line of it begins like a command.
LIKE_A_COMMAND = re.compile(r"^(\$ |make |export |eval |python|aws |prefect |\.venv/bin/|[A-Z_]+=\$\()")


@dataclass(frozen=True)
class Command:
    """A command that a page says to type, and what it shows of the answer."""

    page: str
    line: int
    text: str
    shown: str = ""


# --- links ----------------------------------------------------------------------------------------------------------


@cache
def tokens(page: Path) -> tuple[Token, ...]:
    return tuple(MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")))


def targets(page: Path) -> Iterator[str]:
    """Yield what a page links to, and the pictures that it shows."""
    for token in tokens(page):
        for child in token.children or ():
            if child.type in {"link_open", "image"}:
                yield str(child.attrs["href" if child.type == "link_open" else "src"])


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    made = set()
    for opening, inline in pairwise(tokens(page)):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            made.add(f"{slug}-{found[slug]}" if found[slug] else slug)
            found[slug] += 1
    return made


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_links_to_is_there(page: Path) -> None:
    missing = []
    for target in targets(page):
        if re.match(r"[a-z]+:", target):  # another site's; nothing here asks the network
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    assert missing == []


def test_every_picture_is_shown_somewhere() -> None:
    shown = {(page.parent / target).resolve() for page in MARKDOWN for target in targets(page)}
    assert [path.name for path in (DOCS / "pictures").iterdir() if path not in shown] == []


def test_every_page_is_in_the_index() -> None:
    index = {(DOCS / target).resolve() for target in targets(DOCS / "README.md")}
    decisions = DOCS / "decisions"
    pages = [page for page in DOCS.rglob("*.md") if decisions not in page.parents and page != DOCS / "README.md"]
    assert [page.name for page in pages if page not in index] == []


def test_the_reference_is_that_of_the_flows_as_they_are() -> None:
    from deployments.reference import PAGE, render

    assert PAGE.read_text(encoding="utf-8") == render(), "it is out of date: make reference"


# --- commands -------------------------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[Command]:
    """Yield what a page says to type: the lines of its shell blocks, of a console's what stands behind a `$`."""
    name = page.relative_to(ROOT).as_posix()
    for token in tokens(page):
        first = token.map[0] + 1 if token.map else 0
        lines = re.sub(r"\\\n\s*", "", token.content).splitlines()  # one that goes on in the next line is one
        if token.type == "fence" and token.info in {"sh", "console"}:
            first += 1
        elif token.type != "code_block" or not any(LIKE_A_COMMAND.match(line) for line in lines):
            continue
        for number, line in enumerate(lines, first):
            if token.info == "console" and not line.startswith("$ "):
                continue
            text = re.sub(r"\s+# .*$", "", line.removeprefix("$ ")).strip()
            if text and not text.startswith("#"):
                answer = takewhile(lambda other: not other.startswith("$ "), lines[number - first + 1 :])
                yield Command(name, number, text, "\n".join(answer) if token.info == "console" else "")


def test_a_block_says_what_it_is() -> None:
    """A fence that is not marked would not be run."""
    fences = [(page.name, token.info) for page in MARKDOWN for token in tokens(page) if token.type == "fence"]
    assert [fence for fence in fences if fence[1] not in {"sh", "console", "python", "yaml"}] == []


def test_every_page_with_commands_has_its_place_in_the_session() -> None:
    decisions = DOCS / "decisions"
    reference = DOCS / "reference" / "flows.md"  # how each flow is called, without its arguments
    pages = [page for page in MARKDOWN if page != reference and decisions not in page.parents and any(commands(page))]
    in_session = {*PAGES, "CONTRIBUTING.md"}  # whose commands are make check and make test
    assert {page.relative_to(ROOT).as_posix() for page in pages} <= in_session


def test_what_is_not_run_is_still_said_somewhere() -> None:
    said = {command.text for page in PAGES for command in commands(ROOT / page)}
    assert sorted({*NOT_RUN, *REFUSED} - said) == []
    assert all(NOT_RUN.values())


# A local AWS with nothing in it, until its standard input ends.
NEW_ACCOUNT = """
import shlex, sys
from pathlib import Path
from deployments.local_aws.server import running

with running(Path("account").resolve()) as aws:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in aws.environment.items()]
    Path("account.tmp").write_text(chr(10).join(exports))
    Path("account.tmp").rename("account.sh")
    sys.stdin.read()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a fresh clone after `make install`; what commands write stays in it."""
    folder = tmp_path / "sagemaker-flows"
    folder.mkdir()
    for name in ("flows", "tasks", "training", "lambda", "deployments", "docs", "Makefile", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "constraints.txt").symlink_to(ROOT / "constraints.txt")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture
def other_terminals(checkout: Path) -> Iterator[dict[str, str]]:
    """What pages start in terminals of their own: the local AWS, and a Prefect server; gives the server's variables."""
    from deployments.prefect_server import running

    with ExitStack() as ending:
        log = ending.enter_context((checkout / "local_aws.log").open("wb"))

        def start(*command: str) -> None:
            told = [".venv/bin/python", *command]
            process = subprocess.Popen(
                told, cwd=checkout, env=new_terminal(), stdin=subprocess.PIPE, stdout=log, stderr=log
            )
            ending.callback(process.wait)
            ending.callback(process.terminate)

        start("-m", "deployments.local_aws")
        start("-c", NEW_ACCOUNT)
        prefect = ending.enter_context(running(checkout / ".prefect"))
        deadline = time.monotonic() + 120
        while not all((checkout / exports).exists() for exports in (".local_aws/environment.sh", "account.sh")):
            assert time.monotonic() < deadline, (checkout / "local_aws.log").read_text()
            time.sleep(0.1)
        yield {name: value for name, value in prefect.items() if name != "PREFECT_API_URL"}


def new_terminal() -> dict[str, str]:
    """Return the environment without what conftest.py points clients at, and away from: none of it is the pages'."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT_"))}
    # Looking AWS's own images up takes every process 3 s; tests/flows/test_journey.py does.
    return {**kept, "SAGEMAKER_FLOWS_TRAINING_IMAGE": "training:1", "SAGEMAKER_FLOWS_SERVING_IMAGE": "serving:1"}


def script(port: str) -> str:
    """Return the session as one script, in which each command is announced, so that the last one is the culprit."""
    # `make` must not install anew because of a link's date.
    lines = ["set -euo pipefail", 'make() { command make --assume-old=.venv/.installed "$@"; }']
    for page in PAGES:
        lines.append(f'eval "$(cat {"account.sh" if page == EMPTY_ACCOUNT else ".local_aws/environment.sh"})"')
        for command in commands(ROOT / page):
            if command.text in NOT_RUN:
                continue
            text = command.text.replace("127.0.0.1:4200", f"127.0.0.1:{port}")
            where = shlex.quote(f"{command.page}:{command.line} {command.text}")
            lines += [f'echo "@@ after $SECONDS s:" {where}', *_typed(command, text)]
    return "\n".join([*lines, "echo '@@ all done'"])


def _typed(command: Command, text: str) -> list[str]:
    if command.text not in REFUSED:
        return [text]
    return [
        f"if said=$({text} 2>&1); then echo 'this was to be refused'; exit 1; fi",
        f'grep --fixed-strings --quiet -- {shlex.quote(command.shown)} <<<"$said" || {{ echo "$said"; exit 1; }}',
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_pages_works(checkout: Path, other_terminals: dict[str, str]) -> None:
    """In one shell, page after page, as somebody who reads them all would type them."""
    (checkout / "session.sh").write_text(script(other_terminals["PREFECT_SERVER_API_PORT"]), encoding="utf-8")
    output = checkout / "session.log"
    with output.open("wb") as said:
        shell = subprocess.run(
            ["bash", "session.sh"],
            cwd=checkout,
            env={**new_terminal(), **other_terminals},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            check=False,
        )
    told = output.read_text(encoding="utf-8", errors="replace")
    last = told[told.rfind("@@ ") :]
    assert shell.returncode == 0, f"{last[:300]}\n…\n{last[-4000:]}"
    assert last.startswith("@@ all done")

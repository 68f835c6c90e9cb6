"""What the documents say, held against the code: facts that stand in both stand in one only."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest
from flowtally import budgets
from flowtally import settings
from flowtally.addon import Flowtally
from flowtally.cli import main
from flowtally.pytest_plugin import OPTIONS
from flowtally.report.tables import TIMES
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import ERRORS
from flowtally.vocabulary import KNOWN
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import read_catalogue
from lab import cli
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.tls import HOST
from lab.tls import Authority

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "addon" / "flowtally"
README = REPOSITORY / "README.md"
VOCABULARY = KNOWN / "README.md"
MAP = REPOSITORY / "addon" / "README.md"
SKILL = PACKAGE / "SKILL.md"
DOCUMENTS = (
    README,
    SKILL,
    MAP,
    VOCABULARY,
    REPOSITORY / "scripts" / "README.md",
    REPOSITORY / "CHANGELOG.md",
)

MAX_LINES = 150
MAX_WORDS = 2000

Tool = Callable[..., Path]


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def blocks(language: str, document: Path = README) -> list[str]:
    """The code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(document), re.MULTILINE | re.DOTALL)


def block_with(words: str, document: Path = README) -> str:
    """The one shell block of a document that has these words."""
    (found,) = (block for block in blocks("sh", document) if words in block)
    return found


def code_of(document: Path) -> list[str]:
    """The lines of shell blocks, continued ones joined and without comments, and what stands in
    backticks."""
    text = text_of(document)
    lines = [
        re.split(r"\s#\s", line)[0]
        for block in blocks("sh", document)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    without_blocks = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return lines + re.findall(r"`([^`\n]+)`", without_blocks)


def rows(*cells: tuple[object, ...]) -> str:
    """A Markdown table, the first row its head."""
    head, *body = cells
    lines = [f"| {' | '.join(map(str, head))} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(map(str, row))} |".replace("|  |", "| |") for row in body]
    return "\n".join(lines)


def table_after(head: str, document: Path) -> str:
    """The table that begins with this line, as it stands in the document."""
    found = re.search(rf"^{re.escape(head)}\n(?:\|.*\n)+", text_of(document), re.MULTILINE)
    assert found, f"{document.name} has no table with the head {head}"
    return found.group().rstrip("\n")


def check_table(expected: str, document: Path) -> None:
    """Compare a table with what the code says."""
    found = table_after(expected.partition("\n")[0], document)
    where = document.relative_to(REPOSITORY)
    assert found == expected, f"out of date; paste this into {where}:\n\n{expected}\n"


# --- size and links ---


def test_the_readme_is_short() -> None:
    text = text_of(README)
    lines, words = len(text.splitlines()), len(text.split())
    assert lines <= MAX_LINES, f"README.md has {lines} lines, and {MAX_LINES} are allowed"
    assert words <= MAX_WORDS, f"README.md has {words} words, and {MAX_WORDS} are allowed"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(document))
    dead = [
        link
        for link in links
        if "://" not in link and not (document.parent / link.partition("#")[0]).exists()
    ]
    assert not dead, f"{document.name} links to what is not there: {', '.join(dead)}"


# --- tables ---


def default(option: settings.Option) -> str:
    return str(option.default).lower() if option.type is bool else str(option.default)


def meaning(option: settings.Option) -> str:
    if not option.choices:
        return option.help
    return f"{option.help} One of {', '.join(f'`{choice}`' for choice in option.choices)}."


def test_the_table_of_options() -> None:
    said = [(option.name, default(option), meaning(option)) for option in settings.OPTIONS]
    check_table(rows(("option", "default", "meaning"), *said), README)


def test_the_table_of_causes() -> None:
    said = [
        (cause.name, cause.error.code if cause.error else "none", cause.side, cause.advice)
        for cause in CAUSES.values()
    ]
    check_table(rows(("cause", "code", "side", "what to do"), *said), VOCABULARY)


def test_the_table_of_error_codes() -> None:
    said = [(error.code, error.name, error.meaning) for error in ERRORS.values()]
    check_table(rows(("code", "name", "meaning"), *said), VOCABULARY)


def test_the_table_of_slips_says_what_flowtally_says() -> None:
    table = table_after("| code | the table says | flowtally says |", VOCABULARY)
    for line in table.splitlines()[2:]:
        code, _, said = (cell.strip() for cell in line.strip("|").split("|"))
        assert STATUS_TAGS[int(code)]["description"] == said, line


def test_the_table_of_record_types() -> None:
    schema = json.loads(text_of(KNOWN / "record.schema.json"))
    table = table_after("| type | what it holds |", VOCABULARY)
    named = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert named == schema["properties"]["type"]["enum"]


def test_the_map_has_every_module_and_no_other() -> None:
    table = table_after("| in `addon/flowtally` | |", MAP)
    named = re.findall(r"`([^`]+\.py)`", table)
    modules = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert len(named) == len(set(named)), "the map names a module twice"
    assert not modules - set(named), f"not in the map: {sorted(modules - set(named))}"
    assert not set(named) - modules, f"only in the map: {sorted(set(named) - modules)}"


# --- commands and options ---


def commands_in(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Each command line of `flowtally` that a document shows, with its words."""
    for code in code_of(document):
        for match in re.finditer(r"(?:^|[ /(])flowtally( (?!=)[^;&|)#]*)", code):
            yield code, shlex.split(match.group(1).strip().strip('"'))


def test_the_readme_shows_every_command() -> None:
    assert {words[0] for _, words in commands_in(README) if words} == set(main.commands)


@pytest.mark.parametrize("document", [README, SKILL], ids=lambda path: path.name)
def test_every_command_and_its_options_exist(document: Path) -> None:
    shown = list(commands_in(document))
    assert shown
    for code, words in shown:
        command = main.commands[words[0]]
        known = {name for p in command.params for name in p.opts if isinstance(p, click.Option)}
        own = words[1 : words.index("--") if "--" in words else None]
        options = {word for word in own if word.startswith("--")}
        assert options <= known, f"{code}: there is no {', '.join(options - known)}"


def test_options_beside_a_command_exist() -> None:
    table = table_after("| | |", README)
    for line in table.splitlines()[2:]:
        name = re.match(r"\| `flowtally (\w+)", line)
        assert name is not None
        known = {option for p in main.commands[name[1]].params for option in p.opts}
        options = set(re.findall(r"`(--[\w-]+)", line))
        assert options <= known, f"flowtally {name[1]}: there is no {', '.join(options - known)}"


def test_budgets_in_the_readme_are_budgets() -> None:
    (words,) = (words for _, words in commands_in(README) if "--max" in words)
    pairs = list(pairwise(words))
    budgets.parse(
        [value for option, value in pairs if option == "--max"],
        [value for option, value in pairs if option == "--min"],
        codes=(),
    )
    line = next(line for line in text_of(README).splitlines() if line.startswith("A budget"))
    named = re.findall(r"`([a-z0-9_]+)`", line)
    assert set(named) <= {*budgets.TOTALS, *TIMES}


def test_console_commands_exist() -> None:
    named = set(re.findall(r"`(flowtally\.(?!test)\w+)", text_of(README)))
    there = {getattr(getattr(Flowtally, name), "command_name", None) for name in dir(Flowtally)}
    assert named == there - {None}


def test_every_option_of_flowtally_exists() -> None:
    known = {option.name for option in settings.OPTIONS} | {name for name, *_ in OPTIONS}
    for document in DOCUMENTS:
        named = set(re.findall(r"\bflowtally_\w+", text_of(document)))
        assert named <= known, f"{document}: there is no {', '.join(named - known)}"


def test_every_option_of_mitmproxy_exists() -> None:
    known: set[str] = {option.name for option in settings.OPTIONS}
    for program in ("mitmdump", "mitmweb"):
        path = Path(sys.executable).with_name(program)
        listed = subprocess.run([path, "--options"], capture_output=True, text=True, check=True)
        known |= set(re.findall(r"^#?\s?(\w+):", listed.stdout, re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"--set '?(\w+)=(?!value)", text_of(document)))
        named |= set(re.findall(r"`(ssl_\w+|ignore_hosts)`", text_of(document)))
        assert named <= known, f"{document}: there is no {', '.join(named - known)}"


def test_every_column_of_mitmweb_exists() -> None:
    from mitmproxy.tools.web.web_columns import AVAILABLE_WEB_COLUMNS

    named = re.findall(r"web_columns=(\w+)", text_of(README))
    assert "comment" in named
    assert set(named) <= set(AVAILABLE_WEB_COLUMNS)


def test_the_catalogue_in_the_readme_is_one(tmp_path: Path) -> None:
    (line,) = re.findall(r"`(status\..*?)`", text_of(README))
    path = tmp_path / "codes.toml"
    path.write_text(line)
    assert read_catalogue(path)[499]["description"] == "The gateway gave up"


# --- what is to be copied and pasted ---


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_shell_blocks_are_shell(document: Path) -> None:
    for block in blocks("sh", document):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stderr}\n{block}"


def test_jq_examples_work(tmp_path: Path, tool: Tool) -> None:
    tool("jq")
    shown = [cli.start(), cli.answered(), cli.answered(500), cli.failed(), cli.event()]
    (tmp_path / "session.jsonl").write_bytes(cli.lines(*shown, cli.final(*shown)))
    problems, hosts = (
        subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
        for line in block_with("jq ", VOCABULARY).splitlines()
    )
    assert not problems.stderr + hosts.stderr
    assert [line.split("\t")[1:3] for line in problems.stdout.splitlines()] == [
        ["-3", "500"],
        ["-2", "connection_refused"],
        ["-2", "client_tls_rejected"],
    ]
    assert hosts.stdout.splitlines() == ['["shop.example",3,1]', '["pinned.example",0,0]']


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (500, 1)])
def test_the_gate_catches_an_https_error(
    tmp_path: Path, tool: Tool, status: int, exit_status: int
) -> None:
    tool("curl")
    folder = tmp_path / "with a space"
    tests = folder / "tests" / "e2e"
    tests.mkdir(parents=True)
    answer = Answer(f"HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n".encode())
    tls = Authority.create(tmp_path).self_signed()
    gate = block_with("flowtally run --max").replace(" -- ", " --insecure-upstream -- ")
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "NO_PROXY": "localhost,127.0.0.1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with AnsweringServer(answer, tls=tls, name=HOST) as server:
        # A test that does not notice what it gets.
        (tests / "test_shop.py").write_text(
            f"import requests\n\ndef test_shop():\n    requests.get({server.url!r})\n"
        )
        done = subprocess.run(
            ["bash", "-e"],
            input=gate,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
        )
    said = done.stdout + done.stderr
    assert "1 passed" in said
    assert done.returncode == exit_status, said

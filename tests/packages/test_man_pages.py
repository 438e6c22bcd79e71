"""The man pages as the packages have them: go-md2man leaves nothing of their text out, and adds
nothing to it."""

import re
from pathlib import Path

import pytest

from tests.packages.built import tool

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {page.name.removesuffix(".md"): page for page in (ROOT / "docs/man").glob("*.md")}
ROFF = re.compile(r"\\f(?:\(..|.)|\\&|\\(.)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By the script that both kinds of package are built with."""
    top = tmp_path_factory.mktemp("installed")
    tool("env", "-C", ROOT, "sh", "packaging/install-system-files", top)
    return {page.name: page.read_text() for page in (top / "usr/share/man").glob("man?/*")}


def rendered(page: str) -> list[str]:
    """The words that a reader sees."""
    _, _, text = page.partition("\n.SH ")
    lines = []
    for line in f".SH {text}".splitlines():
        if not line.startswith((".", "'")):
            lines.append(line)
        elif line.startswith((".SH ", ".SS ")):
            lines.append(line[4:])
    return ROFF.sub(lambda found: found[1] or "", "\n".join(lines)).split()


def written(source: str) -> list[str]:
    """The words of the Markdown, without its markup. What is shown as it is has none."""
    words = []
    for block in source.split("\n\n")[1:]:
        if block.startswith("    "):
            words += block.split()
        else:
            plain = re.sub(r"^(?:#+|:) +", "", block, flags=re.M)
            words += re.sub(r"\\(.)|\*+", lambda found: found[1] or "", plain).split()
    return words


def test_each_page_is_made(pages: dict[str, str]) -> None:
    assert pages.keys() == SOURCES.keys()


@pytest.mark.parametrize("name", SOURCES)
def test_a_page_says_what_was_written(name: str, pages: dict[str, str]) -> None:
    """A star that was taken for markup is missing here; two paragraphs made one have glued the
    last word of the one to the first of the other."""
    assert rendered(pages[name]) == written(SOURCES[name].read_text())


@pytest.mark.parametrize("name", SOURCES)
def test_no_sentence_is_glued_to_the_next(name: str, pages: dict[str, str]) -> None:
    """Neither by go-md2man nor in what it was given."""
    words = (word for word in rendered(pages[name]) if "org." not in word)
    assert [word for word in words if re.search(r"[a-z)][.;:][A-Z]", word)] == []

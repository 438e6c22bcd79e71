"""What the documents point to is there, and all of them can be found."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
README = TOP / "README.md"
PAGES = sorted([README, *(TOP / "docs").rglob("*.md")])
UNITS = sorted((TOP / "units").iterdir())
MANUALS = {page.name.removesuffix(".md") for page in (TOP / "docs/man").glob("*.md")}
OURS = re.compile(r"\b((?:org\.vastsky|vastsky)[\w.-]*?)(?:\\\*|\*)*\((\d)\)")


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", page.read_text())


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\s-]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_our_manual_pages_are_called_as_they_are(page: Path) -> None:
    found = {f"{name}.{section}" for name, section in OURS.findall(page.read_text())}
    assert found <= MANUALS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_our_units_are_called_as_they_are(page: Path) -> None:
    text = re.sub(r"[\\*]", "", page.read_text())
    found = re.findall(r"(?<![\w./])(vastsky(?:d|-[a-z-]+@?))[\w%$.-]*?\.service\b", text)
    assert {f"{name}.service" for name in found} <= {unit.name for unit in UNITS}


def test_each_document_is_named_where_one_begins_to_read() -> None:
    named = {(README.parent / link.partition("#")[0]).resolve() for link in links(README)}
    assert set((TOP / "docs").glob("*.md")) <= named


def test_each_manual_page_names_the_others() -> None:
    for name in MANUALS:
        text = (TOP / f"docs/man/{name}.md").read_text()
        see_also = text.partition("\n# SEE ALSO\n")[2].replace("*", "")
        for other in MANUALS - {name}:
            page, _, section = other.rpartition(".")
            assert f"{page}({section})" in see_also, name

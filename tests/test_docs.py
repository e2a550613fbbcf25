"""Every link inside the documentation leads somewhere, and every page is in its contents."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from endedge.lab.cli.main import build_parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(there), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    """The headings of a page as MkDocs and GitHub name them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_verb_and_shipped_configuration_is_listed() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    parser = build_parser()
    verbs = next(a.choices for a in parser._actions if a.dest == "verb")
    assert verbs is not None
    for verb in verbs:
        assert f"endedge {verb}" in page, f"docs/cli.md does not mention {verb}"
    for config in (ROOT / "configs").glob("*.yaml"):
        assert f"`{config.stem}`" in page, f"docs/cli.md does not mention {config.stem}"


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(pages), "the nav of mkdocs.yml lists other pages than docs has"


def test_the_site_builds(tmp_path: Path) -> None:
    if shutil.which("mkdocs", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("mkdocs is not installed: endedge[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "tutorial" / "index.html").read_text()
    assert not re.search(r'(?:src|href)="https?://(?!squidfunk)', page.split("<article")[0])


def test_configuration_keys_in_the_documentation_exist() -> None:
    from endedge.distill.loss import LOSSES
    from endedge.lab.config import Config, all_keys

    known = set(all_keys())
    losses = {f"distillation.{key}" for loss in LOSSES.values() for key in loss.model_fields}
    known |= losses | {"distillation.loss"}  # whichever is chosen has its own settings
    for page in PAGES:
        for key in re.findall(r"`([a-z_]+\.[a-z_]+)(?:=[^`]*)?`", page.read_text()):
            section = key.split(".")[0]
            if section in Config.model_fields and not key.endswith(
                (".py", ".md", ".csv", ".json", ".svg", ".yaml")
            ):
                assert key in known, f"{page.name}: no such key {key}"

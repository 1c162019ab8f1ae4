"""Pages lead where they say."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *ROOT.glob("*.md"),
    *(path for path in (ROOT / "docs").rglob("*.md")),
    *(path for path in (ROOT / "examples").rglob("*.md") if ".runwright" not in path.parts),
]


def links(page: Path) -> list[str]:
    """The targets within the repository, without anchors."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.split("#")[0] for target in found if "://" not in target and not target.startswith("#")]


def test_every_link_within_the_repository_leads_somewhere() -> None:
    found = [(page, target) for page in PAGES for target in links(page)]
    assert len(found) > 20
    broken = [
        f"{page.relative_to(ROOT)}: {target}" for page, target in found if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_guides_are_linked_from_the_readme() -> None:
    linked = {Path(target).name for target in links(ROOT / "README.md")}
    assert {path.name for path in (ROOT / "docs" / "guides").iterdir()} <= linked

"""Documents: links lead somewhere, and nothing in the repository names a private place."""

from __future__ import annotations

import re
from pathlib import Path

FENCE = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1\s*$", re.M | re.S)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(
    r"(?<!\\)\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)", re.M
)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.M)
REMOTE = re.compile(r"[a-z][a-z0-9+.-]*:")
# Put together so that this file does not find itself.
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def test_links_and_anchors_lead_somewhere(root: Path, files: list[Path]) -> None:
    documents = [path for path in files if path.suffix == ".md"]
    assert documents

    broken = [
        f"{document.relative_to(root)}: {target}"
        for document in documents
        for target in broken_links(document)
    ]

    assert not broken, "\n".join(broken)


def test_every_finding_is_listed(root: Path, files: list[Path]) -> None:
    findings = root / "docs/findings"
    index = (findings / "README.md").read_text()
    pages = [path for path in files if path.parent == findings and path.name != "README.md"]
    assert pages

    assert not [page.name for page in pages if f"]({page.name})" not in index]


def test_documents_are_finished(root: Path, files: list[Path]) -> None:
    unfinished = [
        f"{path.relative_to(root)}: {found.group()}"
        for path in files
        if path.suffix in (".md", ".py", ".toml", ".sh", ".txt")
        if (found := UNFINISHED.search(path.read_text()))
    ]

    assert not unfinished, "\n".join(unfinished)


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One `thing`, two\n## Again\n## Again\n")
    document = tmp_path / "document.md"
    document.write_text(
        "# Here\n[a](other.md) [b](other.md#one-thing-two) [c](#here) [d](https://example.org/x)\n"
        "[e](other.md#again-1) [f](gone.md) [g](other.md#gone) [h](#gone)\n"
        "`[i](code.md)`\n```\n[j](fenced.md)\n```\n[k]: lost.md\n"
    )

    assert broken_links(document) == ["gone.md", "other.md#gone", "#gone", "lost.md"]


def broken_links(document: Path) -> list[str]:
    """Return the relative links of *document* whose file or heading does not exist."""
    text = CODE.sub("", FENCE.sub("", document.read_text()))
    targets = [inline or reference for inline, reference in LINK.findall(text)]
    return [t for t in targets if not REMOTE.match(t) and not _exists(document, t)]


def _exists(document: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    file = document.parent / name if name else document
    if not file.exists():
        return False
    return not anchor or file.suffix != ".md" or anchor in _anchors(file)


def _anchors(document: Path) -> set[str]:
    """Return the anchors that forges give to the headings of *document*."""
    anchors: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", document.read_text())):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        again = 0
        while (anchor := f"{slug}-{again}" if again else slug) in anchors:
            again += 1
        anchors.add(anchor)
    return anchors

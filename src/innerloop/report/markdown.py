"""A report as GitHub Markdown: the same sentences and tables as the page, and the figures by name.

markdown   title and sections -> text; names and reasons of users can't become markup
"""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from innerloop.report.page import Asked, Block, Figure, Heading, Listing, PageSection, Prose, Span, Table, TableCell

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "@": "&#64;"}


def markdown(title: str, sections: Sequence[PageSection]) -> str:
    lines = [f"# {_escape(title)}", ""]
    for section in sections:
        lines += [f"## {_escape(section.title)}", ""]
        for block, following in zip_longest(section.blocks, section.blocks[1:]):
            lines += [*_block(block), *([] if _is_item(block) and _is_item(following) else [""])]
    return "\n".join(lines).rstrip() + "\n"


def _is_item(block: Block | None) -> bool:
    return isinstance(block, Prose) and block.style == "item"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Prose():
            yield ("- " if block.style == "item" else "") + "".join(_span(span) for span in block.spans)
        case Heading():
            yield f"### {_escape(block.title)}"
        case Table():
            yield from _table(block)
        case Figure():
            yield f"![{_escape(block.alt)}](figures/{block.name}.png)"
            yield ""
            yield f"*{_escape(block.title)}.* {_escape(block.caption)}"
        case Asked():
            yield from _asked(block)
        case Listing():
            yield from _listing(block)


def _table(table: Table) -> Iterator[str]:
    yield f"**{_escape(table.caption)}**"
    yield ""
    yield f"| {' | '.join(_escape(column) for column in table.columns)} |"
    yield f"| --- |{' ---: |' * (len(table.columns) - 1)}"
    for row in table.rows:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"


def _listing(listing: Listing) -> Iterator[str]:
    yield f"<details><summary>{_escape(listing.title)}</summary>"
    for text, language in ((listing.command, "bash"), (listing.text, "yaml")):
        if text:
            runs = re.findall(r"`+", text)
            fence = "`" * max(3, 1 + max(map(len, runs), default=0))  # longer than any in the text
            yield from ("", fence + language, text.rstrip("\n"), fence)
    yield from ("", "</details>")


def _asked(asked: Asked) -> Iterator[str]:
    yield f"**{_escape(asked.task)}**: {_escape(asked.prompt)}"
    yield ""
    yield f"- right: {_escape(asked.right)}"
    for reply in asked.replies:
        yield f"- {_escape(reply.who)}, **{'right' if reply.is_right else 'wrong'}**: {_escape(reply.text)}"


def _cell(cell: TableCell) -> str:
    text = _escape(cell.text)
    text = f"*{text}*" if cell.mark == "predicted" and text else text
    details = " ".join(_escape(line) for line in cell.detail)
    tag = f"**{_escape(cell.tag)}**" if cell.tag else ""
    return " ".join(part for part in (text, details, tag) if part)


def _span(span: Span) -> str:
    """Marked words are bold, the predicted ones italic."""
    text = _escape(span.text)
    if not span.mark or not text.strip():
        return text
    return f"*{text}*" if span.mark == "predicted" else f"**{text}**"


def _escape(text: str) -> str:
    """On one line, and every character that Markdown or HTML reads as its own made plain."""
    line = re.sub(r"\s*[\r\n]+\s*", " ", str(text))
    line = re.sub(r"[\\`*_{}\[\]#|~!]", r"\\\g<0>", line)
    return re.sub(r"[&<>$@]", lambda found: _ENTITIES[found[0]], line)

"""A page of HTML that needs no network; a comparison's, with its figures as PNG and SVG and its tables as Markdown.

write_report   Results -> report.html, report.md and figures/, in a folder
Masthead       what stands above a page's parts
page           a head and parts -> HTML
write_page     texts -> files of a folder
inline         a figure's SVG as a part of the page: its own ids, the page's colours, a title
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from innerloop.errors import Fault, UserError
from innerloop.files import write_text
from innerloop.report.markdown import markdown
from innerloop.report.page import Figure, PageSection, counted, glued
from innerloop.report.sections import sections
from innerloop.report.words import printable
from innerloop.results.schema import Results

if TYPE_CHECKING:
    from markupsafe import Markup

NEEDED = ("matplotlib", "jinja2")


class Masthead(NamedTuple):
    """kind: of what the page is; arms: whose keys stand on it."""

    name: str
    kind: str
    facts: list[str]
    arms: list[str]


def write_report(folder: Path, results: Results) -> list[Path]:
    """Everything that a comparison says, from `results` alone; the files written, the page first.

    The same results give the same bytes. Raises UserError for a folder that can't be written to, or when matplotlib or
    jinja2 is missing.
    """
    require_report()
    from innerloop.report.figures import draw

    read = printable(results)
    figures = draw(read)
    parts = sections(read, figures)
    texts = {"report.html": page(head_of(read), parts), "report.md": markdown(read.name, parts)}
    return write_page(folder, texts, figures)


def require_report() -> None:
    """Raises UserError when matplotlib or jinja2 is missing."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        problem = f"a report needs {' and '.join(missing)}"
        raise UserError(Fault(problem, expected='pip install "innerloop[report]"'))


def write_page(folder: Path, texts: Mapping[str, str], figures: Sequence[Figure] = ()) -> list[Path]:
    """The files written, texts first. Raises UserError where they can't be."""
    contents = {f"figures/{figure.name}.png": figure.png for figure in figures}
    written = {**texts, **{f"figures/{figure.name}.svg": figure.svg for figure in figures}}
    try:
        for name, text in written.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(folder / name, text)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(Fault(f"can't write the report: {error}", str(folder))) from error
    return [folder / name for name in (*written, *contents)]


def head_of(results: Results) -> Masthead:
    arms = {row.arm for row in results.rows} | {score.arm for score in results.scores}
    return Masthead(results.name, "comparison", _facts(results), sorted(arms))


def page(head: Masthead, parts: list[PageSection]) -> str:
    """The HTML page. Its policy allows no connection and no script but its own."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from innerloop.report.figure_style import looks, marker_path

    loader = PackageLoader("innerloop.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True, lstrip_blocks=True
    )
    script, css = (Path(__file__).with_name("templates") / name for name in ("report.js", "report.css"))
    code = script.read_text("utf-8")
    return environment.get_template("report.html.j2").render(
        head=head,
        sections=[(part, [(kind, list(blocks)) for kind, blocks in groupby(part.blocks, _layout)]) for part in parts],
        inline=inline,
        keys={arm: (look, marker_path(look)) for arm, look in looks(head.arms).items()},
        style=Markup(css.read_text("utf-8")),
        glued=glued,
        script=Markup(code),
        script_hash=base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
    )


def inline(figure: Figure) -> "Markup":
    """An <svg> of its own in a page of many: ids don't clash, and ink and paper are the page's, light or dark."""
    from markupsafe import Markup

    from innerloop.report.figure_style import THEMED

    root = ElementTree.fromstring(figure.svg.partition("<svg")[1] + figure.svg.partition("<svg")[2])
    for parent in root.iter():
        for child in [*parent]:
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            key.rpartition("}")[2]: _own(value, key, figure.name) for key, value in element.attrib.items()
        }
        if "style" in element.attrib:
            element.attrib["style"] = re.sub(
                r"#[0-9a-f]{6}\b",
                lambda color: f"var({THEMED[color[0]]})" if color[0] in THEMED else color[0],
                element.attrib["style"],
            )
    title, description = ElementTree.Element("title"), ElementTree.Element("desc")
    title.text, description.text = figure.title, figure.alt
    title.attrib["id"], description.attrib["id"] = f"{figure.name}-title", f"{figure.name}-desc"
    root[:0] = [title, description]
    view = root.attrib["viewBox"]
    root.attrib = {"viewBox": view, "role": "img", "aria-labelledby": f"{figure.name}-title {figure.name}-desc"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _facts(results: Results) -> list[str]:
    """What stands under the title."""
    facts = [f"Started {results.started}"] if results.started else []
    facts.append("Finished" if results.status == "done" else "Not finished")
    counts = ((results.protocol.seeds, "seed"), (results.protocol.held_out, "held-out task"))
    return facts + [counted(len(found), noun) for found, noun in counts if found]


def _own(value: str, key: str, name: str) -> str:
    """References and ids with the figure's name before them."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return re.sub(r"^#", f"#{name}-", value)
    return re.sub(r"url\(#", f"url(#{name}-", value)


def _layout(block: Any) -> str:
    """Neighbours of one kind are laid out together: items as a list, figures and narrow tables side by side."""
    if block.kind == "prose":
        return "items" if block.style == "item" else "prose"
    return "wide" if block.kind == "table" and block.wide else block.kind

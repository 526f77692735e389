"""House styles of lists of items and of short records, such as an order's lines.

LISTS, RECORDS    the kinds
"""

import re

from innerloop.data.suites.styles import CASES, Items, Kind, Style, cased, framed, locales
from innerloop.data.suites.words import words_of

HOME = words_of(
    """lamp desk chair table shelf clock mirror carpet pillow towel kettle mug plate bowl spoon fork knife pan candle
    vase basket sofa stool bench curtain blanket mattress cabinet teapot tray"""
)
TOOLS = words_of(
    """brush bucket broom ladder hammer drill saw rope tape glue nail screw wrench shovel rake hose axe pump chain hook
    bolt crate pipe wire lock key torch battery funnel spade"""
)
OFFICE = words_of(
    """pen pencil ruler paper folder stapler printer cable phone camera tablet radio envelope stamp notebook scanner
    monitor keyboard mouse eraser marker binder label calendar ink toner badge whiteboard charger router"""
)
QUOTES = ("'{}'", '"{}"', "[{}]", "<{}>", "the {}")
MARKS = (
    "{n}. {item}",
    "{n}) {item}",
    "({n}) {item}",
    "#{n} {item}",
    "{n}:{item}",
    "{letter}) {item}",
    "({letter}) {item}",
)
BULLETS = ("- {item}", "* {item}", "+ {item}", "> {item}", "• {item}")


def _shown_list(*things: str) -> str:
    return ", ".join(things)


def _written_list(items: Items, style: Style) -> str:
    ordered = {"as given": items, "reversed": items[::-1], "sorted": sorted(items)}[style["order"]]
    things: list[str] = []
    for number, item in enumerate(ordered, 1):
        thing = style["quote"].format(item)
        if style["case"] == "capitals" or (style["case"] == "sentence" and number == 1):
            thing = re.sub("[a-z]", lambda letter: letter[0].upper(), thing, count=1)
        things.append(style["mark"].format(n=number, letter="abc"[number - 1], item=thing))
    between, last = style["joined"]
    if style["mark"] in BULLETS:
        between = last = " "
    text = between.join(things[:-1]) + last + things[-1]
    return framed(text.upper() if style["case"] == "upper" else text, style["around"])


def _ends(locale: str) -> list[str]:
    """What CLDR writes before the last item of a list, where it takes a word or a sign."""
    ends = [end.removeprefix("{0}").removesuffix("{1}") for end in locales()[locale]["ends"]]
    return [end for end in ends if end.strip(", ")]


_ENGLISH = list(dict.fromkeys([*_ends("en_US"), *_ends("en_GB"), " plus ", " & ", " + "]))
_OTHERS = list(dict.fromkeys(_ends(name)[0] for name in ("de", "fr", "es", "it", "nl", "sv", "da", "fi")))


LISTS = Kind(
    columns=(HOME, TOOLS, OFFICE),
    shown=_shown_list,
    aspects={
        "joined": (
            [(", ", ", ")],
            [(text, text) for text in ("; ", " / ", " | ", " - ", " + ", " · ", " > ", " & ")],
            [(", ", last) for last in _ENGLISH],
            [(", ", last) for last in _OTHERS],
            [("; ", last) for last in _ENGLISH],
        ),
        "order": (("as given",), ("reversed", "sorted")),
        "mark": (("{item}",), MARKS, BULLETS),
        "quote": (("{}",), QUOTES),
        "case": (("as is",), ("upper", "capitals", "sentence")),
        "around": (
            ("{}",),
            ("{}.", "({})", "[{}]", "<{}>", "= {}"),
            ("3 items: {}", "Order: {}", "To buy: {}", "incl. {}", "We need {}.", "{} (3)", "List: {}"),
        ),
    },
    written=_written_list,
)

COLOURS = ("red", "blue", "green", "black", "white", "grey", "brown", "yellow")
PRICES = tuple(f"{whole}.{cents}" for whole in (2, 4, 5, 7, 9, 12, 15, 18, 24, 30, 45) for cents in ("00", "50", "95"))
FULL, SHORT, CODES = (
    {"item": "item", "colour": "colour", "count": "quantity", "price": "price"},
    {"item": "art", "colour": "col", "count": "qty", "price": "amt"},
    {"item": "i", "colour": "c", "count": "n", "price": "p"},
)


def _shown_record(thing: str, colour: str, count: int, price: str) -> str:
    return f"{thing}, {colour}, {count}, {price}"


def _written_record(items: Items, style: Style) -> str:
    thing, colour, count, price = items
    price = price.replace(".", "," if style["price"] in (",", "{} EUR") else ".")
    values = {
        "item": thing,
        "colour": style["colour"].format(colour, colour[:3], colour[0].upper()),
        "count": style["count"].format(count),
        "price": price if style["price"] == "," else style["price"].format(price),
    }
    label, names = style["label"]
    written = [label.format(names[field], cased(values[field], style["case"])) for field in style["fields"].split()]
    return framed(style["between"].join(written), style["around"])


RECORDS = Kind(
    columns=(HOME + TOOLS + OFFICE, COLOURS, range(1, 25), PRICES),
    shown=_shown_record,
    aspects={
        "fields": (
            ("item colour count price",),
            ("count item colour price", "count colour item price", "colour item count price", "count item price"),
            ("price item colour count", "price count colour item", "item count price", "colour item price"),
            ("item colour count", "count colour item", "item price", "item colour", "colour item", "count item"),
        ),
        "between": ((", ",), (" | ", "; ", " - ", " / ", " ", ",", "/", " : ", "|", ";")),
        "label": (
            (("{1}", FULL),),
            *(
                [(text, names) for text in ("{0}={1}", "{0}: {1}", "{0} {1}", "{0}:{1}")]
                for names in (FULL, SHORT, CODES)
            ),
            [(text, FULL) for text in ('"{1}"', "'{1}'", "*{1}")],
        ),
        "count": (("{}",), ("{}x", "x{}", "{} pcs", "{:02}", "{} pc.", "no. {}", "{} x")),
        "price": (("{}",), ("${}", "£{}", "{} EUR", ",", "@{}", "{} each")),
        "colour": (("{0}",), ("({0})", "{1}.", "{2}", "{1}")),
        "case": CASES,
        "around": (("{}",), ("[{}]", "{{}}", "<{}>", "{};", "({})"), ("Order: {}", "- {}", "> {}", "Line: {}")),
    },
    written=_written_record,
)

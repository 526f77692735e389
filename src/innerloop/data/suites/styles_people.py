"""House styles of names and phone numbers, composed from the habits of letters, directories and logins.

NAMES, PHONES    the kinds
"""

from innerloop.data.suites.styles import CASES, Items, Kind, Style, cased, framed
from innerloop.data.suites.words import words_of

TITLES = {"Mr": "Mister", "Ms": "Miss", "Dr": "Doctor", "Prof": "Professor"}
WOMEN = words_of("Anna Carla Emma Grace Irene Karen Maria Nina Rosa Tina Alice Clara Eva Helen Julia Laura Nora Vera")
MEN = words_of("Ben David Felix Hugo Jack Leo Oscar Paul Sam Victor Bruno Daniel Frank Ivan Kevin Martin Peter Simon")
PEOPLE = tuple(
    (title, given)
    for title, names in (("Ms", WOMEN), ("Mr", MEN), ("Dr", WOMEN + MEN), ("Prof", WOMEN + MEN))
    for given in names
)
MIDDLE = words_of(
    "Avery Blake Casey Drew Ellis Finley Gray Hayden Jordan Kit Lee Morgan Noel Quinn Reese Sage Taylor Val"
)
FAMILY = words_of(
    """Adams Baker Clark Davis Evans Fisher Green Hill Jones King Lewis Moore Nelson Owens Parker Reed Scott Turner
    Walker Young Allen Bell Cooper Dixon Ellis Foster Graham Hughes Irwin James Kelly Lopez Mason Novak Olsen Price
    Quinn Rossi Stone Taylor Weber Wolf Costa Duval Ferrari Gomez Hansen Keller Larsen Meyer"""
)


def _shown_name(person: tuple[str, str], middle: str, family: str) -> str:
    title, given = person
    return f"{title} {given} {middle} {family}"


def _written_name(items: Items, style: Style) -> str:
    (title, given), middle, family = items
    parts = {
        "title": {"as is": title, "dot": f"{title}.", "word": TITLES[title]}[style["title"]],
        "given": style["given"].format(given, given[0]),
        "middle": style["middle"].format(middle, middle[0]),
        "family": cased(family, style["family"]),
    }
    if " " not in style["order"]:  # a login
        parts = {name: part.lower().rstrip(".") for name, part in parts.items()}
    text = " ".join(style["order"].format(**parts).split()).replace(" ,", ",")
    return framed(cased(text, style["case"]), style["around"])


NAMES = Kind(
    columns=(PEOPLE, MIDDLE, FAMILY),
    shown=_shown_name,
    aspects={
        "order": (
            ("{title} {given} {middle} {family}", "{given} {middle} {family}", "{title} {family}", "{given} {family}"),
            (
                "{family}, {given} {middle}",
                "{family}, {title} {given} {middle}",
                "{family}, {given}",
                "{family}, {title}",
            ),
            ("{family} {given} {middle}", "{family} {given}", "{family} {title} {given}", "{family} ({given})"),
            (
                "{given} {middle} {family}, {title}",
                "{family}, {given} ({title})",
                "{family} / {given}",
                "{family}; {given}",
            ),
            (
                "{given}.{family}",
                "{given}_{family}",
                "{family}-{given}",
                "{given}{family}",
                "{family}{given}",
            ),
        ),
        "given": (("{0}",), ("{1}.", "{1}")),
        "middle": (("{0}",), ("{1}.", "{1}"), ("",)),
        "title": (("as is",), ("dot",), ("word",)),
        "family": (("as is",), ("upper",)),
        "case": CASES,
        "around": (
            ("{}",),
            ("Attn: {}", "FAO {}", "c/o {}", "Dear {},", "To: {}", "Hello {}"),
            ("<{}>", "({})", "[{}]", "{}:", "* {}", '"{}"'),
        ),
    },
    written=_written_name,
)

# Places whose numbers have seven digits: country code, what stands before the area within the country, area code
PLACES = tuple(
    (country, trunk, area)
    for country, trunk, areas in (
        ("1", "", "212 312 415 503 617 702"),
        ("31", "0", "10 20 30 70"),
        ("49", "0", "40 69 221"),
        ("32", "0", "2"),
        ("41", "0", "31 44"),
        ("43", "0", "1"),
        ("353", "0", "1"),
        ("64", "0", "9"),
        ("46", "0", "8"),
        ("34", "", "91 93"),
        ("48", "", "12 22"),
    )
    for area in areas.split()
)


def _shown_phone(place: tuple[str, str, str], number: int) -> str:
    country, _, area = place
    return f"+{country} {area} {number}"


def _written_phone(items: Items, style: Style) -> str:
    (country, trunk, area), number = items
    digits, groups = str(number), []
    for size in style["groups"]:
        groups.append(digits[:size])
        digits = digits[size:]
    if style["prefix"] == "national":
        start, area = "", trunk + area
    else:
        start = style["prefix"].format(country)
    text = f"{start}{style['area'].format(area)}{style['between'].join(groups)}"
    return framed(text, style["around"])


PHONES = Kind(
    columns=(PLACES, range(2_000_000, 10_000_000)),
    shown=_shown_phone,
    aspects={
        "groups": (((7,),), ((3, 4), (3, 2, 2), (4, 3)), ((1, 2, 2, 2), (2, 2, 3), (1, 3, 3))),
        "prefix": (
            ("+{} ",),
            ("+{}-", "+{}.", "(+{}) ", "(+{})"),
            ("00{} ", "00{}-", "(00{}) ", "{} ", "{}-"),
            ("national",),
        ),
        "area": (("{} ",), ("({}) ", "({})", "({})-"), ("{}-", "{}/", "{}.", "{} / ", "{} - ")),
        "between": ((" ",), ("-", ".", "")),
        "around": (
            ("{}",),
            ("Tel. {}", "Tel: {}", "T {}", "Phone: {}", "ph. {}", "Call {}", "tel:{}"),
            ("({})", "[{}]", "{};", "<{}>"),
        ),
    },
    written=_written_phone,
)

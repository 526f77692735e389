"""Plain words for the hidden-rule tasks, each one token (with its leading space) in common vocabularies.

WORD_KINDS    kind -> its 40 words; no word is of two kinds
KIND_OF       word -> its kind
WORDS         all of them
LABELS        words that stand for classes; none of them is in WORDS
LETTERS, DIGITS, COLOURS, DIRECTIONS, DAYS, MONTHS, MEASURES    small alphabets
words_of      a text, taken apart at white space
"""

from string import ascii_lowercase, digits


def words_of(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORD_KINDS: dict[str, tuple[str, ...]] = {
    kind: words_of(words)
    for kind, words in {
        "animal": """
            cat dog horse cow pig sheep goat bird fish lion tiger bear wolf fox deer rabbit
            mouse frog snake duck goose eagle owl whale shark monkey elephant zebra turtle
            lizard bee ant spider butterfly camel donkey squirrel dolphin penguin beetle""",
        "food": """
            apple banana lemon grape peach pear cherry plum mango strawberry tomato potato
            carrot onion garlic pepper bean corn rice bread cheese butter milk egg meat soup
            salad cake pie cookie pizza sandwich honey sugar salt pasta cream chocolate coffee
            mushroom""",
        "body": """
            head hand foot arm leg eye ear nose mouth tooth tongue lip neck shoulder elbow knee
            ankle wrist finger thumb toe chest stomach heart lung brain liver kidney bone skin
            hair blood muscle skull spine rib chin cheek throat forehead""",
        "vehicle": """
            car bus truck train plane ship boat bicycle bike motorcycle van taxi tram subway
            helicopter rocket tractor wagon canoe ferry jet ambulance sled submarine trailer
            tank raft airplane cart carriage shuttle cab vessel aircraft drone locomotive
            automobile vehicle destroyer balloon""",
        "place": """
            house school church park farm forest river lake ocean beach mountain hill valley
            desert island city town village street road bridge castle temple garden market store
            shop hotel hospital library museum station airport office factory kitchen bedroom
            canyon harbor jungle""",
        "job": """
            teacher doctor nurse farmer driver pilot sailor soldier lawyer judge actor singer
            dancer writer painter baker butcher carpenter engineer scientist artist chef clerk
            guard king queen priest monk tailor miner hunter shepherd mayor president senator
            poet author editor coach captain""",
    }.items()
}
KIND_OF = {word: kind for kind, words in WORD_KINDS.items() for word in words}
WORDS = tuple(KIND_OF)
LABELS = words_of(
    "silver gold stone wind rain snow fire moon star gate leaf wave "
    "iron paper glass wood cloud storm dust smoke shadow light sand ice"
)

LETTERS = tuple(ascii_lowercase)
DIGITS = tuple(digits)
COLOURS = words_of("red blue green yellow black white brown pink")
DIRECTIONS = words_of("north south east west up down left right")
DAYS = words_of("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words_of("January February March April May June July August September October November December")
MEASURES = words_of("cups boxes miles hours pounds feet coins bags")

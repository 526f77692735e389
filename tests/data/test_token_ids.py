"""What is scored of an example's token ids."""

from innerloop.data.token_ids import Encoded


def test_all_behind_the_prompt_is_scored() -> None:
    encoded = Encoded("id", (5, 6, 7, 8, 9), prompt=2, prefix=1, end=1)
    assert encoded.scored == (7, 8, 9)
    answer = encoded.tokens[encoded.prompt + encoded.prefix : len(encoded.tokens) - encoded.end]
    assert answer == (8,)

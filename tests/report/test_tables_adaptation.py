"""Tables of adaptation, of targets reached and of forgetting; where there is nothing, there is no table."""

from innerloop.report import tables_adaptation
from report.conftest import column, given
from results_example import example, read

RESULTS = read(example())


def test_adaptation_targets_and_forgetting() -> None:
    table = tables_adaptation.adaptation(RESULTS, "tokens")
    assert table
    assert len(table.rows) == len(given("adaptation", budget="tokens"))
    table = tables_adaptation.targets(RESULTS, "tokens")
    assert table
    reached = column(table, "examples to nats ≤ 1.000")
    assert (reached["meta-lora"].value, reached["joint-lora"].text) == (8, "not reached")
    assert reached["joint-lora"].value is None, "sorts behind every number"
    table = tables_adaptation.forgetting(RESULTS, "seconds")
    assert table
    assert [row[0].text for row in table.rows] == ["joint-lora", "meta-lora"]
    assert column(table, "k = 8, own")["meta-lora"].text == "0.100"
    empty = read(example() | {"adaptation": [], "targets": [], "forgetting": []})
    builders = (tables_adaptation.adaptation, tables_adaptation.targets, tables_adaptation.forgetting)
    assert [build(empty, "tokens") for build in builders] == [None] * 3

"""How many tokens texts have: an estimate that learns, and a bound that holds for every service."""

from syncline.embeddings.metered import TokenRule


def test_no_text_has_more_tokens_than_bytes_but_for_its_marks() -> None:
    rule = TokenRule()
    assert rule.bound(["abc"]) == 7
    assert rule.bound(["é", ""]) == 10
    assert rule.bound(["\ud800"]) == 7


def test_the_estimate_becomes_what_the_service_counts() -> None:
    rule = TokenRule()
    assert rule.estimate(["x" * 400]) == 100
    rule.learn(["x" * 100], 50)
    assert rule.estimate(["x" * 400]) == 200
    for _ in range(50):
        rule.learn(["x" * 100], 30)
    assert 119 <= rule.estimate(["x" * 400]) <= 121
    # An empty text is a request too.
    assert rule.estimate([""]) == 1


def test_a_service_that_counts_more_than_bytes_is_bounded_by_what_it_counted() -> None:
    rule = TokenRule()
    rule.learn(["x" * 96], 500)
    assert rule.bound(["x" * 96]) == 500
    rule.learn(["x" * 96], 10)
    assert rule.bound(["x" * 96]) == 500

"""What a run's file may say of the score that ranks its members."""

from typing import Annotated, Any

from shoal.search.config.sections_of import OneOf, Sections
from shoal.trainables.scores import ByLoss, Choice, ExactMatch, group_shares

RANKINGS: dict[str, Any] = {"loss": ByLoss, "exact_match": ExactMatch, "choice": Choice}
RANKING = Sections(lambda: RANKINGS)
BY_LOSS = RANKING["loss"](kind="loss")
IN_WORDS = {"loss": "validation loss", "exact_match": "exact match", "choice": "right choices"}

AnyRanking = Annotated[Any, OneOf(RANKING)]


def score_in_words(score: Any) -> str:
    """Return what ranks members, such as `exact match of sums`."""
    named = IN_WORDS[score.kind]
    if score.groups is None:
        return named
    shares = group_shares(score.groups, [])
    if len(shares) == 1:
        return f"{named} of {next(iter(shares))}"
    return f"{named} of {', '.join(f'{share:.0%} {group}' for group, share in shares.items())}"

"""Score the rows of a corpus, choose among them by a policy, and write the chosen ones as a corpus."""

"""`python -m search` is the command `shoal` where it is not installed, as in a job's working directory."""

from search.program import main

main()

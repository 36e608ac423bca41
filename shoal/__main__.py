"""`python -m shoal` is the command `shoal` where it is not installed, as in a job's working directory."""

from shoal.search.program import main

main()

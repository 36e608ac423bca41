"""The command `shoal`; signals and output are handled before the command line is imported."""

from shoal.search.signals import well_ended


def main() -> None:
    with well_ended():
        from shoal.search.cli import run_command_line as command

        command()

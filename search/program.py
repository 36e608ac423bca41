"""The command `shoal` from its first moment on: signals and output are taken care of before it is imported."""

from shoal.search.signals import well_ended


def main() -> None:
    with well_ended():
        from shoal.search.cli import run_command_line as command

        command()

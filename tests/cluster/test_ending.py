"""Signals: whatever the main thread does, the process ends with one line and the signal's exit code."""

import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ended(program: str, *signals: signal.Signals, **options) -> tuple[int, str, str]:
    """Run a program, send it signals when it has printed a line, and return exit code and what it printed."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            **options,
        )
        first = process.stdout.readline()
        for number in signals:
            process.send_signal(number)
        said = first + process.stdout.read()  # `communicate` would lose what came with the first line
        process.wait(timeout=240)
        errors.seek(0)
        return process.returncode, said, errors.read()


WAITS = """
    import time
    from shoal.search.signals import well_ended
    with well_ended():
        print("here", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_one_line_and_its_own_exit_code(number, code: int) -> None:
    assert ended(WAITS, number) == (code, "here\n", "interrupted.\n")


def test_what_breaks_after_a_signal_is_no_trace() -> None:
    program = """
        import time
        from shoal.cluster import ending
        from shoal.search.signals import well_ended
        with well_ended():
            ending.set_last_line("interrupted: go on with this.")
            print("here", flush=True)
            try:
                time.sleep(60)
            finally:
                print("Ray would say at length what it misses")
                raise OSError("the head is gone")
    """
    assert ended(program, signal.SIGTERM) == (143, "here\n", "interrupted: go on with this.\n")


def test_who_cannot_be_interrupted_says_the_last_words_and_is_ended() -> None:
    program = """
        import contextlib, time
        from shoal.cluster import ending
        from shoal.search.signals import well_ended

        def fail():
            raise OSError("no space left")

        ending.PATIENCE = 0.5
        with well_ended(), ending.last_words(lambda: open("/dev/stdout", "w").write("recorded")):
            with ending.last_words(fail):
                with contextlib.suppress(KeyboardInterrupt):
                    print("here", flush=True)
                    time.sleep(60)
                time.sleep(60)
    """
    assert ended(program, signal.SIGTERM) == (143, "here\nrecorded", "interrupted.\n")


def test_a_second_signal_does_not_wait_for_the_closing_that_the_first_began() -> None:
    program = """
        import os, signal, threading, time
        from shoal.cluster import ending
        from shoal.search.signals import well_ended
        ending.TOGETHER = 0.1
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        with well_ended():
            try:
                print("here", flush=True)
                time.sleep(60)
            finally:
                time.sleep(60)
    """
    assert ended(program, signal.SIGINT) == (130, "here\n", "interrupted.\n")


def test_an_interrupt_that_python_only_prints_is_raised_again() -> None:
    program = """
        import time
        from shoal.search.signals import well_ended

        class Closes:
            def __del__(self):
                print("here", flush=True)
                time.sleep(60)

        with well_ended():
            closes = Closes()
            del closes
            time.sleep(60)
    """
    assert ended(program, signal.SIGINT) == (130, "here\n", "interrupted.\n")


def test_nohup_keeps_a_command_from_a_terminal_that_closes() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` leaves it to its command
    try:
        program = WAITS.replace("60", "0.5")
        assert ended(program, signal.SIGHUP, restore_signals=False) == (0, "here\n", "")
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("module", ["shoal.cluster.storage", "pyarrow.lib", "shoal.search.runs.kinds"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str, tmp_path) -> None:
    program = f"""
        import os, signal, sys
        from shoal.search.program import main

        class Interrupts:
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Interrupts())
        sys.argv = ["shoal", "status", {str(tmp_path)!r}]
        print("here", flush=True)
        main()
    """
    assert ended(program) == (130, "here\n", "interrupted.\n")


def test_handlers_are_as_they_were_afterwards() -> None:
    from shoal.cluster import ending

    before = [signal.getsignal(number) for number in ending.CODES]
    with pytest.raises(KeyboardInterrupt), ending.listening() as told:
        signal.raise_signal(signal.SIGTERM)
    assert told.code == 143
    assert [signal.getsignal(number) for number in ending.CODES] == before
    assert not ending.came()


@pytest.mark.ray
def test_ray_is_shut_down_when_an_iterator_has_its_last_block() -> None:
    """Ray ends the whole process when a thread asks it something afterwards: the line at the end never came."""
    program = """
        import threading, time
        import ray
        from shoal.cluster.session import session
        def ask(worker, block):
            time.sleep(2)
            worker.get_objects([block])
        with session():
            print("here", flush=True)
            about = ray._private.worker.global_worker.core_worker, ray.put(1)
            threading.Thread(target=ask, args=about, name="iter_threaded", daemon=True).start()
        time.sleep(3)
        print("whole")
    """
    code, said, errors = ended(program)
    assert (code, said) == (0, "here\nwhole\n"), errors


@pytest.mark.ray
def test_ray_is_started_again_where_its_processes_are_late() -> None:
    program = """
        import warnings
        import ray
        from ray._private import services
        from shoal.cluster import session
        plain, seen = services.get_node, []
        def late(*arguments):
            if not seen:
                seen.append(services.ConsolePopen)
                raise Exception("The current node timed out during startup. This could happen because")
            return plain(*arguments)
        services.get_node = late
        killed = []
        end = session.kill
        def kill(started, *before):
            killed.append([each.pid for each in started])
            end(started, *before)
        session.kill = kill
        with warnings.catch_warnings(record=True) as told, session.session():
            left = [pid for pid in killed[0] if pid in session.parents()]
            print(len(ray.nodes()), len(killed[0]) > 1, left, told[0].message)
    """
    code, said, errors = ended(program)
    assert code == 0, errors
    assert said == "1 True [] Ray's processes were not up in 30 s; it is started again.\n"


def test_no_worker_is_left_where_ray_ends_its_raylet_first() -> None:
    """The worker is then nobody's child any more, and on a busy machine it needs long to notice."""
    program = """
        import subprocess, time, types
        from pathlib import Path
        import ray
        from ray._private import services
        from shoal.cluster import session
        class Ray:
            def init(self, **options):
                start = ["bash", "-c", "setsid sleep 300 & echo $!; wait"]
                self.raylet = services.ConsolePopen(start, stdout=subprocess.PIPE, text=True)
                self.worker = int(self.raylet.stdout.readline())
                return types.SimpleNamespace(dashboard_url="")
            def shutdown(self):
                self.raylet.kill()
                self.raylet.wait()
        stand_in = Ray()
        ray.init, ray.shutdown = stand_in.init, stand_in.shutdown
        def state():
            file = Path(f"/proc/{stand_in.worker}/stat")
            return file.read_text().rpartition(")")[2].split()[0] if file.exists() else "gone"
        with session.session():
            time.sleep(0.5)
            print(state())
        time.sleep(0.5)
        print(state() in ("gone", "Z"))
    """
    assert ended(program) == (0, "S\nTrue\n", "")

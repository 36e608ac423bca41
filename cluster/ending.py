"""How this process ends when a signal says so: Ctrl-C, SIGTERM (`timeout`, Slurm), SIGHUP (a closed terminal).

The first one raises KeyboardInterrupt in the main thread, and what is open is closed. A thread hears of it too,
also while the main thread waits inside of Ray for a head that is gone: where closing takes longer than PATIENCE
seconds, or another signal comes, it says the last words and ends the process.
"""

import _thread
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
PATIENCE = 6.0  # seconds
TOGETHER = 1.0  # seconds; `timeout` signals its child, and then the group that the child is in
LAST_WORDS = 3.0  # seconds that they may take, all together


@dataclass
class Ending:
    """Which signal has come, and what to say and do if the process must end at once."""

    came: int | None = None  # the first signal
    raised: bool = False
    over: bool = False  # nobody listens any more
    last_words: list[Callable[[], None]] = field(default_factory=list)
    line: str = "interrupted."  # the last that is printed
    exits: bool = True  # if False, the process is the user's own, such as a notebook's, and lives on

    @property
    def code(self) -> int:
        return CODES[signal.Signals(self.came or signal.SIGINT)]

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.came = self.came or number
        if not self.raised or not self.exits:
            self.raised = True
            raise KeyboardInterrupt

    def again(self) -> None:
        """Raise once more: what was raised has been lost on its way."""
        if self.came is not None:
            self.raised = False
            _thread.interrupt_main(signal.Signals(self.came))

    def listen(self, heard: int) -> None:
        """Read the signals' numbers out of a pipe, which is written to whatever the main thread does."""
        first = 0.0
        while number := os.read(heard, 1):
            if number[0] not in CODES:
                continue
            self.came = self.came or number[0]
            if not self.exits:
                continue
            if not first:
                first = time.monotonic()
                threading.Thread(target=self.wait, daemon=True).start()
            elif time.monotonic() - first > TOGETHER:
                self.end()
        os.close(heard)

    def wait(self) -> None:
        time.sleep(PATIENCE)
        if not self.over:
            self.end()

    def end(self) -> None:
        """End the process, and wait for nothing but the last words."""
        speaker = threading.Thread(target=self.speak, daemon=True)
        speaker.start()
        speaker.join(LAST_WORDS)
        os._exit(self.code)

    def speak(self) -> None:
        for words in reversed(self.last_words):
            # those that cannot be said, on a full disk for one, must not keep back the others
            with contextlib.suppress(Exception):
                words()
        self.print_line()

    def print_line(self) -> None:
        """Say once that the process was interrupted."""
        line, self.line = self.line, ""
        if line:
            with contextlib.suppress(OSError):
                os.write(2, f"{line}\n".encode(errors="backslashreplace"))


LISTENING: list[Ending] = []  # one at most, since a process has one handler for a signal


@contextlib.contextmanager
def listening(exits: bool = True) -> Iterator[Ending]:
    """Take the signals that end a process meanwhile; within another such block that one goes on.

    Without `exits` a signal only raises, each time that it comes: who has begun the process decides on.
    """
    if LISTENING or threading.current_thread() is not threading.main_thread():
        yield LISTENING[0] if LISTENING else Ending()
        return
    ending = Ending(exits=exits)
    heard, written = os.pipe()
    os.set_blocking(written, False)
    before = {number: signal.getsignal(number) for number in CODES}
    woken = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    threading.Thread(target=ending.listen, args=(heard,), daemon=True).start()
    LISTENING.append(ending)
    try:
        take_signals()
        yield ending
    finally:
        ending.over = True
        LISTENING.clear()
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            if handler is not None:  # None: it was not set by Python
                signal.signal(number, handler)
        os.close(written)


def take_signals() -> None:
    """Let signals end this process as told above, also after a library has taken them for itself."""
    for number in CODES if threading.current_thread() is threading.main_thread() and LISTENING else ():
        # `nohup` ignores SIGHUP for its command
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, LISTENING[0].handle)


@contextlib.contextmanager
def last_words(words: Callable[[], None]) -> Iterator[None]:
    """Do this, too, should the process have to end at once meanwhile."""
    if not LISTENING:
        yield
        return
    spoken = LISTENING[0].last_words
    spoken.append(words)
    try:
        yield
    finally:
        spoken.remove(words)


def set_last_line(line: str) -> None:
    """Let this be the line that an end by a signal prints."""
    for each in LISTENING:
        each.line = line


def came() -> bool:
    """Say whether a signal has told this process to end."""
    return any(each.came is not None for each in LISTENING)

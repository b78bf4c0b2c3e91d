"""The guard process: waits for the driver's end, kills all that carries its run's mark, removes its directory, exits.

Run by file (see `guard.py`). Owns nothing but its pipe. It must import nothing heavy and nothing of this project, and
must never touch a process that does not carry the exact mark in the environment it was executed with.
"""

import os
import select
import shutil
import signal
import sys
import time

FIFO_PRIORITY = 90
"""Above anything the run itself may use: the guard has to get a core while thousands of agents are runnable."""
SWEEP_S_MAX = 3.0
QUIET_SCANS = 2
"""Scans in a row that must find nothing: one alone can miss a process that is just being executed."""
SCAN_PAUSE_S = 0.02


def main() -> int:
    """Arguments: mark ("NAME=value"), pid of the driver, directory to remove or "", prefix its name must have.

    Prints "ready <scheduling>" and closes stdout when on guard. Returns 0 if nothing was left, else 1.
    """
    mark, driver_pid, directory, prefix = sys.argv[1].encode(), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C must not end the guard before the driver
    os.chdir("/")
    _write("/proc/self/comm", "aar-guard")
    _write("/proc/self/oom_score_adj", "-900")
    scheduling = _hurry()
    driver = _open_process(driver_pid)
    if os.getppid() == driver_pid:
        _report(f"ready {scheduling}\n")
        _wait_for_end(driver)
    survivors = sweep(mark, driver_pid)
    removed = not directory or _remove(directory, prefix)
    return 0 if survivors == 0 and removed else 1


def sweep(mark: bytes, driver_pid: int) -> int:
    """Kill what carries the mark, except this process and a living driver, until nothing does.

    Takes at most about SWEEP_S_MAX. Returns: how many the last scan found.
    """
    deadline_s = time.monotonic() + SWEEP_S_MAX
    quiet = found = 0
    while quiet < QUIET_SCANS and (begun_s := time.monotonic()) < deadline_s:
        spared = {os.getpid()}
        if os.getppid() == driver_pid:  # it only closed its pipe
            spared.add(driver_pid)
        found = sum(_kill(pid, mark) for pid in _pids() if pid not in spared and _carries(pid, mark))
        quiet = 0 if found else quiet + 1
        # The dying need the cores too, and a scan at the guard's priority takes one from them.
        time.sleep(max(SCAN_PAUSE_S, 3 * (time.monotonic() - begun_s)))
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _carries(pid: int, mark: bytes) -> bool:
    """Whether the process was executed with the mark in its environment; a zombie has none."""
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY)
    except OSError:
        return False
    environ = b""
    try:
        while part := os.read(fd, 1 << 16):
            environ += part
    except OSError:
        pass  # it ended meanwhile, or it is not ours to read
    finally:
        os.close(fd)
    return mark in environ and mark in environ.split(b"\0")


def _kill(pid: int, mark: bytes) -> bool:
    """SIGKILL the process if it still carries the mark: the pid may have passed to another since it was read."""
    handle = _open_process(pid)
    try:
        if not _carries(pid, mark):
            return False
        if handle is None:
            os.kill(pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it counts as found: the sweep has not succeeded
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _open_process(pid: int) -> int | None:
    """A pidfd; None if there is no such process or no such system call."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None


def _wait_for_end(driver: int | None) -> None:
    """Wait until the driver closes its pipe or ends; a child it forked may hold a copy of the pipe open."""
    watched = [0] if driver is None else [0, driver]
    while True:
        readable = select.select(watched, [], [])[0]
        if driver in readable or not os.read(0, 4096):
            return


def _hurry() -> str:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
        return "SCHED_FIFO"
    except OSError:
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        return "nice -20"
    except OSError:
        return "normal"


def _report(text: str) -> None:
    """Say it, then let go of the driver's streams: whoever reads them must not wait for the guard."""
    os.write(1, text.encode())
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _remove(directory: str, prefix: str) -> bool:
    if not os.path.basename(directory).startswith(prefix):
        return False
    # It does not follow a link in the directory's place.
    shutil.rmtree(directory, ignore_errors=True)
    return not os.path.exists(directory)


def _write(path: str, text: str) -> None:
    """Write to a file under /proc where that is permitted; a guard without the privilege is still a guard."""
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())

"""Runs tasks in some daemon threads while the caller's own thread tells how far it is."""

import queue
import threading
from collections.abc import Callable, Sequence

Task = Callable[[], None]


def run_all(
    tasks: Sequence[Task],
    threads: int,
    stop: threading.Event,
    tick: Task,
    *,
    tick_seconds: float = 1.0,
    join_seconds: float = 60.0,
) -> None:
    """Runs every task; the first failure ends all of them and is raised here.

    An executor's threads would keep a process that is told to end until the last task is done; these do not.

    Args:
        tasks: In the order in which they begin.
        threads: At once.
        stop: Set on a failure; tasks that take long look at it.
        tick: Called at the start and every tick_seconds, in the caller's thread.
        tick_seconds: Between two ticks.
        join_seconds: How long after a failure each thread may take to see it.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    workers = [
        threading.Thread(target=_work, args=(waiting, ended, stop), name=f"parallel-{number}", daemon=True)
        for number in range(min(threads, len(tasks)))
    ]
    try:
        for worker in workers:
            worker.start()
        tick()
        running = len(workers)
        while running:
            try:
                failure = ended.get(timeout=tick_seconds)
            except queue.Empty:
                tick()
                continue
            if failure is not None:
                raise failure
            running -= 1
    except BaseException:
        stop.set()
        for worker in workers:
            worker.join(join_seconds)
        raise


def _work(
    waiting: "queue.SimpleQueue[Task]", ended: "queue.SimpleQueue[Exception | None]", stop: threading.Event
) -> None:
    try:
        while not stop.is_set():
            waiting.get_nowait()()
    except queue.Empty:
        ended.put(None)
    except Exception as error:  # noqa: BLE001 - the caller's thread raises it
        ended.put(error)
    else:
        ended.put(None)

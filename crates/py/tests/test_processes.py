"""Tests forked processes, spawned processes, and signals."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import unittest

from support import REFERENCE, loader_threads, needs, reference, results_of
from test_loader import hashes, loader_of


def first_of_spawned(loader, results):
    iterator = iter(loader)
    batch = next(iterator)
    results.put((hashes(batch)["global"], batch.step, loader_threads() > 0))


def in_fork(work):
    """Runs ``work`` in a forked process; returns its result as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = work()
        except BaseException as error:  # reported by the parent
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


@needs("numpy")
class Processes(unittest.TestCase):
    def setUp(self):
        self.case = reference()[0]
        self.loader = loader_of(self.case)

    def test_a_fork_starts_anew_and_leaves_the_parent_alone(self):
        iterator = iter(self.loader)
        self.assertEqual(hashes(next(iterator))["global"], self.case["batches"][0]["global"])

        def child():
            batch = next(iter(self.loader))  # after the parent's batch
            return hashes(batch)["global"] + f" {batch.epoch} {batch.step}"

        # An iterator that was left early is followed by the next epoch, in both processes.
        epoch = self.case["steps_per_epoch"]
        expected = self.case["batches"][epoch]
        self.assertEqual(in_fork(child), f"{expected['global']} 1 0")
        self.assertEqual(hashes(next(iterator))["global"], self.case["batches"][1]["global"])

    def test_an_iterator_that_was_forked_says_so(self):
        iterator = iter(self.loader)
        next(iterator)
        said = in_fork(lambda: str(next(iterator).step))
        self.assertIn("RuntimeError: this iterator belongs to process", said)
        self.assertIn("call iter() on the loader", said)

    def test_a_fork_that_drops_everything_ends_at_once(self):
        iterators = [iter(loader_of(self.case)) for _ in range(3)]
        for iterator in iterators:
            next(iterator)

        def child():
            iterators.clear()
            del self.loader
            return "gone"

        self.assertEqual(in_fork(child), "gone")

    def test_a_spawned_process_gets_the_loader_at_its_position(self):
        for batch in self.loader:
            if batch.step == 0:
                break
        state = self.loader.state_dict()
        self.loader.load_state_dict(state)
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        child = context.Process(target=first_of_spawned, args=(self.loader, results))
        child.start()
        expected = (self.case["batches"][1]["global"], 1, True)
        self.assertEqual(results_of([child], results), [expected])

    def test_ctrl_c_ends_the_wait_and_the_threads(self):
        # Shells start background jobs with the signal ignored.
        script = f"""
            import signal, sys
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
            from support import loader_threads
            from simdino.data import MultiCropLoader
            large = {{"global_crops_size": 1024, "local_crops_size": 16, "local_crops_number": 1}}
            loader = MultiCropLoader({str(REFERENCE / "images")!r}, 16, augment=large, workers=1,
                                     max_bad_fraction=1.0)
            try:
                print("waits", flush=True)
                while True:
                    for batch in loader:
                        del batch
            except KeyboardInterrupt:
                state = loader.state_dict()
                loader.close()
                print(loader_threads(), "threads at", state["epoch"] >= 0, flush=True)
        """
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.assertEqual(child.stdout.readline(), "waits\n")
        child.send_signal(signal.SIGINT)
        try:
            said = child.communicate(timeout=120)[0]
        finally:
            child.kill()
        self.assertEqual(said, "0 threads at True\n")
        self.assertEqual(child.returncode, 0)

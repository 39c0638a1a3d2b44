"""Tests that the losses in several processes are the same as in one, unlike the published loss."""

import multiprocessing
import os
import socket
import unittest
import warnings

from support import needs, published, results_of, views

GROUPS = (2, 1)  # one group per process, and one that spans both


def of_process(rank, world, port):
    """Runs one of several processes. For each number of groups, computes the averaged gradient of a
    weight before the features, the loss, and the coefficients of three steps; also computes the
    published loss of this process, with the number of warnings about it."""
    import torch
    import torch.distributed as dist

    from simdino.losses import MCRLoss, SimDINOLoss

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        student, teacher = views(7, 4, 12, 10)
        rows = slice(rank * 12 // world, (rank + 1) * 12 // world)
        results = []
        for groups in GROUPS:
            weight = torch.eye(10, dtype=torch.float64).requires_grad_()
            loss = SimDINOLoss(rate_groups=groups, precision="fp64", coeff_rule="held")
            coeffs = []
            for step in range(3):
                out = loss(student[:, rows] @ weight, teacher[:, rows], progress=step / 10)
                loss.update()
                coeffs.append(out.coeff.item())
            out.loss.backward()
            sums = torch.cat([weight.grad.flatten(), out.loss.detach().reshape(1)])
            dist.all_reduce(sums)
            results.append([*(sums / world).tolist(), *coeffs])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            flat = [x[:, rows].reshape(-1, 10) for x in (student, teacher)]
            own = MCRLoss(4, expa_type=1, eps=0.05)(*flat)[0].item()
        return results, own, sum("MCRLoss" in str(warning.message) for warning in caught)
    finally:
        dist.destroy_process_group()


def process(rank, world, port, results):
    results.put((rank, of_process(rank, world, port)))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@needs("torch")
class Distributed(unittest.TestCase):
    def test_the_loss_is_the_same_in_any_number_of_processes(self):
        alone, _, warned = of_process(0, 1, free_port())
        self.assertEqual(warned, 0)
        context = multiprocessing.get_context("spawn")
        results, port = context.Queue(), free_port()
        children = [
            context.Process(target=process, args=(rank, 2, port, results)) for rank in range(2)
        ]
        for child in children:
            child.start()
        got = dict(results_of(children, results))
        student, teacher = views(7, 4, 12, 10)
        for rank, (numbers, own, warned) in got.items():
            for ours, theirs in zip(alone, numbers):
                for a, b in zip(ours, theirs):
                    self.assertLess(abs(a - b), 1e-9)
            self.assertEqual(warned, 1)
            rows = slice(rank * 6, rank * 6 + 6)
            expected = published(student[:, rows], teacher[:, rows], 2, 1, 0.05, 1.0)[0].item()
            self.assertLess(abs(own - expected), 1e-5)

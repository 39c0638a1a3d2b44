"""Compares the losses with the fixtures of crates/objectives and closed forms, and tests their
guarantees."""

import json
import math
import unittest
from pathlib import Path

from support import ROOT, fixture, needs, published, views

DOUBLE, SINGLE = 1e-10, 1e-5


def relative(got, expected):
    """Returns the largest difference, relative to the largest value."""
    if not expected.numel():
        return 0.0
    scale = max(expected.abs().max().item(), 1e-300)
    return (got.double() - expected).abs().max().item() / scale


@needs("torch")
class Parity(unittest.TestCase):
    def test_coding_rate(self):
        import torch

        from simdino.losses import coding_rate

        tensors, cases = fixture("objectives.safetensors")
        self.assertEqual(len(cases["rates"]), 5)
        kinds = ((torch.float64, "fp64", DOUBLE), (torch.float32, "fp32", SINGLE))
        for case in cases["rates"]:
            for dtype, precision, tolerance in kinds:
                with self.subTest(case["name"], dtype=dtype):
                    z, value, gradient = (
                        tensors[f"rate/{case['name']}/{field}"]
                        for field in ("z", "value", "gradient")
                    )
                    z = z.to(dtype).clone().requires_grad_()
                    rate = coding_rate(z, alpha=case["alpha"], precision=precision)
                    (3 * rate).sum().backward()
                    self.assertEqual(rate.dtype, dtype)
                    self.assertLess(relative(rate.detach(), value), tolerance)
                    self.assertLess(relative(z.grad / 3, gradient), tolerance)

    def test_simdino(self):
        import torch

        from simdino.losses import SimDINOLoss

        tensors, cases = fixture("objectives.safetensors")
        self.assertEqual(len(cases["losses"]), 13)
        kinds = ((torch.float64, {"precision": "fp64"}, DOUBLE), (torch.float32, {}, SINGLE))
        for case in cases["losses"]:
            for dtype, changes, tolerance in kinds:
                with self.subTest(case["name"], dtype=dtype):
                    student, teacher, terms, gradient = (
                        tensors[f"loss/{case['name']}/{field}"]
                        for field in ("student", "teacher", "terms", "gradient")
                    )
                    student = student.to(dtype).clone().requires_grad_()
                    loss = SimDINOLoss(**{**case["config"], **changes})
                    out = loss(student, teacher.to(dtype), case["progress"], case["global_batch"])
                    out.loss.backward()
                    got = torch.stack([out.loss.detach(), out.compression, out.expansion])
                    self.assertEqual(got.dtype, dtype)
                    self.assertLess(relative(got, terms), tolerance)
                    self.assertLess(relative(student.grad, gradient), tolerance)

    def test_simdinov2(self):
        from simdino.losses import SimDINOv2Loss

        tensors, cases = fixture("methods.safetensors")
        cases = [case for case in cases if case["method"] == "simdinov2"]
        self.assertGreaterEqual(len(cases), 4)
        names = {"patch_weight": "ibot_loss_weight", "koleo_weight": "koleo_loss_weight"}
        compared = set()
        for case in cases:
            options = {names.get(key, key): value for key, value in case["options"].items()}
            loss = SimDINOv2Loss(**{**options, "precision": "fp64"})
            for step, _ in enumerate(case["steps"]):
                prefix = f"{case['name']}/{step}/"
                given = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
                with self.subTest(prefix):
                    compared |= self.compare(loss, given, case["global_batch"])
        self.assertEqual(compared, {"cls", "patches", "backbone"})

    def compare(self, loss, given, batch_size):
        """Compares one step; returns the outputs whose gradients were compared."""
        student = {
            name: given[f"student/{name}"].clone().requires_grad_()
            for name in ("cls", "patches", "backbone")
            if f"student/{name}" in given
        }
        out = loss(
            student["cls"],
            given["teacher/cls"],
            student.get("patches"),
            given.get("teacher/patches"),
            given.get("weights"),
            student.get("backbone"),
            batch_size=batch_size,
        )
        out.loss.backward()
        self.assertLess(relative(out.loss.detach(), given["term/total"]), DOUBLE)
        gradients = {name: given.get(f"gradient/student/{name}") for name in student}
        compared = {name for name, value in gradients.items() if value is not None}
        for name in compared:
            self.assertLess(relative(student[name].grad, gradients[name]), DOUBLE)
        return compared

    def test_held_follows_the_program(self):
        import torch

        from simdino.losses import SimDINOLoss
        from simdino.losses._held import Held, path_at
        from simdino.losses._weights import Sizes, weights_at

        trace = json.loads(Path(__file__).with_name("held.json").read_text())
        options = SimDINOLoss(coeff_rule="held", rate_groups=trace["rate_groups"]).options
        batch = trace["batch_size"]
        sizes = Sizes(batch, batch // trace["rate_groups"], trace["width"])
        held, steps = Held(), len(trace["position"])
        for step, position in enumerate(trace["position"]):
            weights = weights_at(options, step / steps, sizes)
            path = path_at(options, step / steps, weights, sizes)
            self.assertAlmostEqual(weights.gamma, trace["gamma"])
            self.assertAlmostEqual(weights.floor * weights.gamma, trace["floor"])
            self.assertAlmostEqual(weights.ceiling * weights.gamma, trace["ceiling"])
            self.assertAlmostEqual(path.position, trace["path"][step])
            coeff = held.coeff(path, torch.zeros(())).item()
            self.assertLess(abs(coeff / trace["coeff"][step] - 1), 1e-5, f"step {step}")
            held.record(torch.tensor(position), path)
            held.update()

    def test_defaults_are_those_of_the_program(self):
        import inspect

        from simdino.losses import SimDINOLoss

        schema = json.loads((ROOT / "docs/config.schema.json").read_text())
        section = schema["properties"]["simdino"]
        if "$ref" in section:
            section = schema["$defs"][section["$ref"].rsplit("/", 1)[-1]]
        keys = section["properties"]
        ours = inspect.signature(SimDINOLoss.__init__).parameters
        compared = [name for name in keys if name in ours and "default" in keys[name]]
        self.assertGreater(len(compared), 10, compared)
        for name in compared:
            self.assertEqual(ours[name].default, keys[name]["default"], name)
        self.assertEqual(set(keys) - set(ours), {"gamma_balance"})


@needs("torch")
class Promises(unittest.TestCase):
    def test_published_numbers_on_one_process(self):
        from simdino.losses import MCRLoss

        for expa_type in (0, 1):
            for seed, shape in enumerate([(4, 8, 16), (3, 24, 6), (2, 12, 12)]):
                student, teacher = views(seed, *shape)
                ours = student.clone().requires_grad_()
                theirs = student.clone().requires_grad_()
                flat = [x.reshape(-1, x.shape[-1]) for x in (ours, teacher)]
                loss = MCRLoss(shape[0], expa_type=expa_type, eps=0.05, coeff=0.7)
                got = loss(*flat)
                expected = published(theirs, teacher, 1, expa_type, 0.05, 0.7)
                got[0].backward()
                expected[0].backward()
                for a, b in zip(got, expected):
                    self.assertLess(abs(a.item() - b.item()), 1e-5)
                self.assertLess(relative(ours.grad, theirs.grad), 1e-5)
        with self.assertRaisesRegex(ValueError, "reduce_cov=1 implies"):
            MCRLoss(2, reduce_cov=1, rate_groups=4)

    def test_groups_stand_for_the_processes_of_the_published_run(self):
        from simdino.losses import MCRLoss

        student, teacher = views(3, 4, 16, 12)
        parts = [
            published(student[:, rows], teacher[:, rows], 4, 1, 0.05, 1.0)[0]
            for rows in (slice(i, i + 4) for i in range(0, 16, 4))
        ]
        flat = [x.reshape(-1, 12) for x in (student, teacher)]
        got = MCRLoss(4, expa_type=1, eps=0.05, rate_groups=4)(*flat)[0]
        self.assertLess(abs(got.item() - sum(parts).item() / 4), 1e-5)
        alone = MCRLoss(4, expa_type=1, eps=0.05)(*flat)[0]
        self.assertGreater(abs(alone.item() - got.item()), 0.1)  # the loss depends on the GPUs

    def test_finite_differences(self):
        import torch

        from simdino.losses import coding_rate

        for n, d, center in ((5, 9, False), (9, 5, True), (6, 6, True)):
            z = torch.randn(2, n, d, dtype=torch.float64, requires_grad=True)

            def rate(z, center=center):
                return coding_rate(z, alpha=0.3, center=center, precision="fp64")

            self.assertTrue(torch.autograd.gradcheck(rate, z))

    def test_a_second_derivative_is_refused(self):
        import torch

        from simdino.losses import SimDINOLoss, coding_rate

        def squared_gradient(loss, z):
            (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
            return gradient.square().sum()

        for shape in ([6, 8], [2, 6, 8]):
            z = torch.randn(shape, requires_grad=True)
            penalty = squared_gradient(coding_rate(z, 0.5).sum(), z)
            with self.assertRaisesRegex(RuntimeError, "no second derivative"):
                penalty.backward()
        student, teacher = torch.randn(2, 8, 16, requires_grad=True), torch.randn(2, 8, 16)
        loss = SimDINOLoss(rate_groups=1)(student, teacher).loss
        with self.assertRaisesRegex(RuntimeError, "no second derivative"):
            squared_gradient(loss, student).backward()

    def test_floor_ceiling_and_position(self):
        import torch

        from simdino.losses import coding_rate, rate_ceiling, rate_floor, rate_position

        for n, d in ((4, 9), (9, 4), (6, 6)):
            equal = torch.eye(1, d, dtype=torch.float64).expand(n, d)
            r = min(n, d)
            even = torch.eye(r, d, dtype=torch.float64) * math.sqrt(n / r)
            low = coding_rate(equal, alpha=2.0, precision="fp64").item()
            high = coding_rate(even, alpha=2.0, precision="fp64").item()
            self.assertAlmostEqual(low, rate_floor(2.0, n))
            self.assertAlmostEqual(high, rate_ceiling(2.0, n, d))
            self.assertAlmostEqual(rate_position(low, 2.0, n, d), 0.0)
            self.assertAlmostEqual(rate_position(high, 2.0, n, d), 1.0)

    def test_autocast_has_no_effect(self):
        import torch

        from simdino.losses import SimDINOLoss

        student, teacher = (x.float() for x in views(1))
        loss = SimDINOLoss(rate_groups=2)
        plain = loss(student, teacher).loss
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = loss(student, teacher).loss
            half = loss(student.bfloat16().requires_grad_(), teacher.bfloat16())
        self.assertEqual(cast.dtype, torch.float32)
        self.assertEqual(cast.item(), plain.item())
        self.assertEqual(half.loss.dtype, torch.float32)
        half.loss.backward()

    def test_with_group_rows_a_batch_is_the_mean_of_its_groups(self):
        import torch

        from simdino.losses import SimDINOLoss

        student, teacher = (torch.cat([views(seed)[i] for seed in (1, 2)], 1) for i in (0, 1))
        rows = student.shape[1] // 2
        loss = SimDINOLoss(group_rows=rows, precision="fp64")
        whole = loss(student, teacher)
        parts = [loss(student[:, at], teacher[:, at]) for at in (slice(0, rows), slice(rows, None))]
        for name in ("loss", "expansion", "position"):
            mean = torch.stack([getattr(part, name) for part in parts]).mean()
            torch.testing.assert_close(getattr(whole, name), mean)
        self.assertEqual((whole.gamma, whole.ceiling), (parts[0].gamma, parts[0].ceiling))

    def test_with_a_relative_eps_the_width_of_wide_features_does_not_matter(self):
        import torch

        from simdino.losses import SimDINOLoss

        student, teacher = (x[:, :4] for x in views(3))  # fewer rows than columns
        for options in ({"group_rows": 2}, {"rate_groups": 2}):
            loss = SimDINOLoss(
                eps=0.025, eps_semantics="relative", gamma=1.0, precision="fp64", **options
            )
            narrow = loss(student, teacher)
            wide = loss(*(torch.nn.functional.pad(x, (0, 100)) for x in (student, teacher)))
            for name in ("loss", "expansion", "floor", "ceiling"):
                torch.testing.assert_close(getattr(wide, name), getattr(narrow, name))
            # 2 directions, each with 1 / eps times the variance of the noise.
            self.assertAlmostEqual(narrow.ceiling, math.log(41))

    def test_what_is_not_finite_is_named(self):
        import torch

        from simdino.losses import FeatureError, SimDINOLoss, coding_rate

        for view, where in ((0, "view 0 of the student"), (3, "view 3 of the student")):
            student, teacher = views(2)
            student[view, 1, 2] = math.nan
            with self.assertRaisesRegex(FeatureError, where):
                SimDINOLoss(rate_groups=2)(student, teacher)
        student, teacher = views(2)
        teacher[1, 0, 0] = math.inf
        with self.assertRaisesRegex(FeatureError, "view 1 of the teacher"):
            SimDINOLoss(rate_groups=2)(student, teacher)
        z = torch.ones(3, 4, 5)
        z[1, 0, 0] = math.nan
        with self.assertRaisesRegex(FeatureError, "group 1"):
            coding_rate(z, 0.5)

    def test_a_factorization_that_fails_is_retried(self):
        import torch

        from simdino.losses._rate import rates_of_groups

        # A matrix of size 200 is factorized in single precision, in which it is indefinite for
        # equal huge rows.
        row = torch.randn(1, 200, 1, generator=torch.Generator().manual_seed(0))
        z = row.expand(1, 200, 300) * 3e3
        rates = rates_of_groups(z, alpha=10.0)
        self.assertGreater(rates.retries, 0)
        self.assertTrue(bool(rates.value.isfinite().all() and rates.gradient.isfinite().all()))

    def test_held_must_be_moved_on_and_is_saved(self):
        from simdino.losses import SimDINOLoss

        student, teacher = views(4)
        loss = SimDINOLoss(coeff_rule="held", rate_groups=2)
        loss(student, teacher, progress=0.0)
        loss(student, teacher, progress=0.0)  # another micro-batch
        with self.assertRaisesRegex(RuntimeError, r"call update\(\)"):
            loss(student, teacher, progress=0.1)
        loss.update()
        second = loss(student, teacher, progress=0.1)
        loss.update()
        copy = SimDINOLoss(coeff_rule="held", rate_groups=2)
        copy.load_state_dict(loss.state_dict())
        a, b = (each(student, teacher, progress=0.2) for each in (loss, copy))
        self.assertEqual(a.coeff.item(), b.coeff.item())
        self.assertNotEqual(a.coeff.item(), second.coeff.item())

    def test_wrong_arguments_are_said_in_a_sentence(self):
        from simdino.losses import SimDINOLoss, SimDINOv2Loss, coding_rate

        student, teacher = views(5)
        two = SimDINOLoss(rate_groups=2)
        koleo = SimDINOv2Loss(ibot_loss_weight=0.0, koleo_loss_weight=0.1, rate_groups=2)
        wrong = {
            "eps must be": lambda: SimDINOLoss(eps=0.0),
            "gamma must be one of": lambda: SimDINOLoss(gamma="balanced"),
            "rate_groups must be": lambda: SimDINOLoss(rate_groups=0),
            "group_rows must be": lambda: SimDINOLoss(group_rows=1),
            "multiple of group_rows = 3": lambda: SimDINOLoss(group_rows=3)(student, teacher),
            "precision must be": lambda: SimDINOLoss(precision="fp16"),
            "position_end must be": lambda: SimDINOLoss(position_end=1.0),
            "divisible by rate_groups = 3": lambda: SimDINOLoss(rate_groups=3)(student, teacher),
            "rate groups of 32 images": lambda: two(student, teacher, batch_size=64),
            "teacher features must be": lambda: two(student, teacher[:1]),
            r"student features must be \[V, B, d\]": lambda: two(student[0], teacher),
            "progress must be": lambda: two(student, teacher, 1.5),
            "needs student_patches": lambda: SimDINOv2Loss(rate_groups=2)(student, teacher),
            "pass backbone": lambda: koleo(student, teacher),
            "either eps or alpha": lambda: coding_rate(student[0]),
            "z must be floating point": lambda: coding_rate(student[0].long(), 0.1),
        }
        for text, call in wrong.items():
            with self.subTest(text), self.assertRaisesRegex(ValueError, text):
                call()

"""Compares the Python package with what it replaces, for `cargo xtask bench python`.

`loader WHO` makes batches of SimDINO's twelve crops as uint8 tensors, from files, with two workers:
threads of `simdino.data.MultiCropLoader` (`simdino`), or processes of a DataLoader over the
pipelines of data.py (`torchvision`, `albumentations`), without the conversion to floats. `resume`
measures the time to the first batch in the middle of an epoch of ten million listed images, with
small crops of small images, so that making the batch takes little of it. `loss` computes the value
and gradient of the coding rate of 64 x 256 features on one thread, with `simdino.losses`, and with
the published formula and autograd through Cholesky.

Prints one JSON object as its last line.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

BATCH, WORKERS = 32, 2
LISTED = 10_000_000


def rate_of(batches, seconds, warm_up):
    """Returns images per second; batches that were made before the start do not count."""
    for _ in range(warm_up):
        next(batches)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        done += next(batches)
    return done / (time.perf_counter() - start)


def simdino_batches(images):
    from simdino.data import MultiCropLoader

    loader = MultiCropLoader(images, BATCH, preset="simdino", workers=WORKERS, output="torch")
    while True:
        for batch in loader:
            yield len(batch)


def data_loader_batches(images, who):
    import data
    import torch
    from torch.utils.data import DataLoader, Dataset, RandomSampler

    paths = sorted(p for p in Path(images).rglob("*") if p.suffix.lower() in data.EXTENSIONS)

    class Crops(Dataset):
        run = None

        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            if Crops.run is None:
                Crops.run, _ = data.PIPELINES[who]()
            return [torch.from_numpy(view.copy()) for view in Crops.run(paths[index].read_bytes())]

    endless = RandomSampler(Crops(), replacement=True, num_samples=10**9)
    loader = DataLoader(Crops(), BATCH, sampler=endless, num_workers=WORKERS, drop_last=True)
    for views in loader:
        yield len(views[0])


def loader(arguments):
    ours = arguments.who == "simdino"
    batches = (
        simdino_batches(arguments.images)
        if ours
        else data_loader_batches(arguments.images, arguments.who)
    )
    return {"who": arguments.who, "img_s": rate_of(batches, arguments.seconds, 6)}


def resume(arguments):
    from simdino.data import MultiCropLoader

    small = {"global_crops_size": 32, "local_crops_number": 0}
    suffixes = {".jpg", ".jpeg", ".png"}
    with tempfile.TemporaryDirectory() as folder:
        found = (p for p in Path(arguments.images).rglob("*") if p.suffix.lower() in suffixes)
        image = min(found, key=lambda path: path.stat().st_size)
        os.symlink(image.resolve(), Path(folder, f"a{image.suffix}"))
        path = Path(folder, "list.txt")
        path.write_text(f"a{image.suffix}\n" * LISTED)
        start = time.perf_counter()
        listed = MultiCropLoader(path, 4, augment=small, workers=WORKERS)
        opened = time.perf_counter() - start
        times, of_cpu = [], []
        for _ in range(arguments.rounds):
            # As after a restart, without any knowledge of the order.
            fresh = MultiCropLoader(path, 4, augment=small, workers=WORKERS)
            state = {**listed.state_dict(), "step": len(listed) // 2}
            start, cpu = time.perf_counter(), time.process_time()
            fresh.load_state_dict(state)
            batch = next(iter(fresh))
            times.append(1e3 * (time.perf_counter() - start))
            of_cpu.append(1e3 * (time.process_time() - cpu))
            assert batch.step == len(listed) // 2
            fresh.close()
    times, of_cpu = statistics.median(times), statistics.median(of_cpu)
    return {"resume_ms": times, "resume_cpu_ms": of_cpu, "open_s": opened, "images": LISTED}


def loss(arguments):
    import torch

    from simdino.losses import coding_rate

    torch.set_num_threads(1)
    n, d, eps = 64, 256, 0.05
    features = torch.nn.functional.normalize(torch.randn(n, d), dim=-1)
    eye = torch.eye(d)

    def published(z):
        covariance = z.T.matmul(z)
        factor = torch.linalg.cholesky_ex(eye + d / (n * eps) * covariance)[0]
        return factor.diagonal().log().sum()

    def once(rate):
        z = features.clone().requires_grad_()
        start = time.thread_time()  # CPU time of this thread, which does all the work
        value = rate(z)
        value.backward()
        return time.thread_time() - start, value.item(), z.grad

    rates = {"simdino": lambda z: coding_rate(z, eps), "published": published}
    times = {}
    for name, rate in rates.items():
        times[name] = [once(rate)[0] for _ in range(arguments.rounds * 60)][10:]
    (_, a, ga), (_, b, gb) = once(rates["simdino"]), once(published)
    assert abs(a / b - 1) < 1e-5 and (ga - gb).abs().max() < 1e-4 * gb.abs().max()
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "loss": medians["published"] / medians["simdino"],
        "simdino_us": 1e6 * medians["simdino"],
        "published_us": 1e6 * medians["published"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["loader", "resume", "loss"])
    parser.add_argument("who", nargs="?", default="simdino")
    parser.add_argument("--images", type=Path, help="folder of images")
    parser.add_argument("--seconds", type=float, default=10.0, help="least time to measure")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    work = {"loader": loader, "resume": resume, "loss": loss}[arguments.what]
    print(json.dumps(work(arguments)))


if __name__ == "__main__":
    main()
